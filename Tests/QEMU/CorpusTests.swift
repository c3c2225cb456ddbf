import Testing

@testable import QEMU

#if canImport(Glibc)
  import Glibc
#endif

/// Command lines of other projects, read from `$MOULT_CORPUS` or `../shared/corpus` beside the package.
@Suite struct CorpusTests {
  struct Figures {
    var files = 0
    var unknown = 0
    var blocked = 0
    var upgradable: [String] = []
  }

  static var corpus: String {
    if let path = getenv("MOULT_CORPUS") { return String(cString: path) }
    let root = #filePath.split(separator: "/").dropLast(3).joined(separator: "/")
    return "/" + root + "/../shared/corpus"
  }

  @Test func everyCommandLineParsesAndPrintsBack() throws {
    let files = Self.commandLineFiles(below: Self.corpus)
    guard !files.isEmpty else {
      print("Skipped: no corpus at \(Self.corpus) (set MOULT_CORPUS)")
      return
    }
    var figures = Figures()
    for path in files {
      let text = try #require(Self.contents(path))
      let line = try CommandLine(reading: text, subject: path)
      #expect(line.argv == CommandLine.shellWords(String(decoding: text, as: UTF8.self)), "\(path)")
      let description = MachineDescription(line)
      figures.files += 1
      if !description.unknown.isEmpty { figures.unknown += 1 }
      if description.isUpgradable { figures.upgradable.append(path) } else { figures.blocked += 1 }
      let twin = TwinArguments(machine: "pc-q35-7.2", control: 5, sharedMemory: true)
      let once = twin.applied(to: line)
      #expect(twin.applied(to: once) == once, "\(path)")
      for option in line.options where option.value != nil && option.info?.impliedKey != nil {
        #expect(!option.parameters.isMalformed, "\(path): \(option.text)")
      }
      if getenv("MOULT_CORPUS_VERBOSE") != nil {
        for option in description.unknown {
          print("\(path.split(separator: "/").suffix(2).joined(separator: "/"))\tunknown\t\(option.prefix(160))")
        }
        for blocker in description.blockers {
          print("\(path.split(separator: "/").suffix(2).joined(separator: "/"))\t\(blocker.reason)\t\(blocker.option.prefix(160))")
        }
      }
    }
    print(
      "corpus: \(figures.files) command lines, \(figures.unknown) with something unknown, "
        + "\(figures.blocked) blocked, \(figures.upgradable.count) upgradable")
  }

  static func commandLineFiles(below directory: String) -> [String] {
    guard let stream = opendir(directory) else { return [] }
    defer { closedir(stream) }
    var found: [String] = []
    while let entry = readdir(stream) {
      let name = withUnsafePointer(to: &entry.pointee.d_name) {
        $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
      }
      if name.hasPrefix(".") { continue }
      let path = directory + "/" + name
      if entry.pointee.d_type == UInt8(DT_DIR) {
        found += commandLineFiles(below: path)
      } else if name.hasSuffix(".args") || name.hasSuffix(".cmd") {
        found.append(path)
      }
    }
    return found.sorted()
  }

  static func contents(_ path: String) -> [UInt8]? {
    guard let file = fopen(path, "r") else { return nil }
    defer { fclose(file) }
    var bytes: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 65536)
    while case let count = fread(&buffer, 1, buffer.count, file), count > 0 {
      bytes += buffer[..<count]
    }
    return bytes
  }
}

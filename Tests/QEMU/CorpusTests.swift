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
      #expect(CommandLine(argv: line.argv) == line, "\(path)")
      if path.hasSuffix(".args") || path.hasSuffix(".cmd") {
        let words = try CommandLine.shellWords(String(decoding: text, as: UTF8.self))
        #expect(line.argv == words, "\(path)")
      }
      let description = MachineDescription(line)
      figures.files += 1
      if !description.unknown.isEmpty { figures.unknown += 1 }
      if description.isUpgradable { figures.upgradable.append(path) } else { figures.blocked += 1 }
      let twin = TwinArguments(machine: "pc-q35-7.2", control: 5, sharedMemory: true)
      let once = twin.applied(to: line)
      #expect(twin.applied(to: once) == once, "\(path)")
      let changed = Self.changes(from: line, to: once)
      #expect(changed == [], "\(path)")
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

  /// Keys that the twin has other values of, and options that it has in other words or not at all.
  private static let rewrittenKeys: Set = ["type", "append", "logappend", "wait", "prealloc", "prealloc-threads", "prealloc-context"]
  private static let rewrittenOptions: Set = [
    "S", "incoming", "daemonize", "loadvm", "mem-prealloc", "serial", "parallel", "monitor", "qmp", "qmp-pretty", "debugcon",
    "watchdog", "realtime", "no-acpi", "no-hpet",
  ]

  /// What the twin changed and should not have.
  static func changes(from line: CommandLine, to twin: CommandLine) -> [String] {
    var rest = twin.options[...]
    return line.options.compactMap { option in
      if rewrittenOptions.contains(option.name) { return nil }
      if rest.first == option {
        rest = rest.dropFirst()
        return nil
      }
      let left = { (option: CommandOption) in
        option.parameters.entries.filter { !rewrittenKeys.contains($0.key) }.map { [$0.key, $0.value] }
      }
      guard let place = rest.firstIndex(where: { $0.name == option.name && left($0) == left(option) }) else { return option.text }
      rest = rest[(place + 1)...]
      return nil
    }
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
      } else if name.hasSuffix(".args") || name.hasSuffix(".cmd") || name.hasSuffix(".cfg") || name.hasPrefix("fragments") {
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

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
      let argv = Self.words(text)
      let line = CommandLine(argv: argv)
      #expect(line.argv == argv, "\(path)")
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

  static func contents(_ path: String) -> String? {
    guard let file = fopen(path, "r") else { return nil }
    defer { fclose(file) }
    var bytes: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 65536)
    while case let count = fread(&buffer, 1, buffer.count, file), count > 0 {
      bytes += buffer[..<count]
    }
    return String(decoding: bytes, as: UTF8.self)
  }

  /// Splits as a POSIX shell would, after dropping comments; leading `NAME=value` words are the
  /// environment.
  static func words(_ text: String) -> [String] {
    // Lines are joined before quotes count, as the collection's README says.
    let lines = text.split(separator: "\n").filter { !$0.hasPrefix("#") }
    let joined = lines.map { $0.hasSuffix("\\") ? String($0.dropLast()) : $0 + "\n" }.joined()
    var words: [String] = []
    var word: String? = nil
    var quote: Character? = nil
    var isEscaped = false
    for character in joined {
      if isEscaped {
        isEscaped = false
        if character == "\n" { continue }
        if quote == "\"", !"\"\\$`".contains(character) { word = (word ?? "") + "\\" }
        word = (word ?? "") + String(character)
      } else if character == "\\", quote != "'" {
        isEscaped = true
      } else if let open = quote {
        if character == open { quote = nil } else { word = (word ?? "") + String(character) }
      } else if character == "'" || character == "\"" {
        quote = character
        word = word ?? ""
      } else if character == " " || character == "\n" || character == "\t" {
        if let done = word { words.append(done) }
        word = nil
      } else {
        word = (word ?? "") + String(character)
      }
    }
    if let done = word { words.append(done) }
    let isEnvironment = { (word: String) in
      guard let equals = word.firstIndex(of: "=") else { return false }
      return !word.hasPrefix("-") && word[..<equals].allSatisfy { $0.isLetter || $0.isNumber || $0 == "_" }
    }
    return Array(words.drop(while: isEnvironment))
  }
}

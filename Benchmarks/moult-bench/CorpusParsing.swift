import Glibc
import Kernel
import QEMU

/// Real command lines, read into memory: `$MOULT_CORPUS`, or `../shared/corpus` beside the package.
struct CorpusParsing {
  private var texts: [(path: String, bytes: [UInt8])] = []
  private(set) var words = 0
  private(set) var bindings = 0
  var files: Int { texts.count }

  static func load() -> CorpusParsing? {
    let package = "/" + #filePath.split(separator: "/").dropLast(3).joined(separator: "/")
    let corpus = getenv("MOULT_CORPUS").map { String(cString: $0) } ?? package + "/../shared/corpus"
    var result = CorpusParsing()
    guard let folders = try? Files.names(in: corpus) else { return nil }
    for folder in folders.sorted() {
      guard let names = try? Files.names(in: corpus + "/" + folder) else { continue }
      for name in names.sorted() where name.hasSuffix(".args") || name.hasSuffix(".cmd") {
        let path = corpus + "/" + folder + "/" + name
        guard let bytes = try? Files.read(path) else { continue }
        result.texts.append((path, bytes))
      }
    }
    for description in result.descriptions() {
      result.words += description.words
      result.bindings += description.bindings
    }
    return result.texts.isEmpty ? nil : result
  }

  private func descriptions() -> [(words: Int, bindings: Int)] {
    texts.compactMap { path, bytes in
      // What is no command line is counted by neither.
      guard let line = try? QEMU.CommandLine(reading: bytes, subject: path) else { return nil }
      return (line.argv.count, MachineDescription(line).bindings.count)
    }
  }

  /// Parses and describes all of them once; milliseconds.
  func parse() -> Double {
    let began = Instant.now()
    let count = descriptions().reduce(0) { $0 + $1.bindings }
    precondition(count == bindings, "the same texts, the same bindings")
    return Instant.now() - began
  }
}

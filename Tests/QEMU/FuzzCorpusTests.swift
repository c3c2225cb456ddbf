import FuzzTargets
import Testing

#if canImport(Glibc)
  import Glibc
#endif

/// The inputs that are kept of the fuzzers' search, and those that once broke something.
@Suite struct FuzzCorpusTests {
  @Test(arguments: FuzzTarget.allCases)
  func `every kept input is read as it should be`(_ target: FuzzTarget) throws {
    let directory = "/" + #filePath.split(separator: "/").dropLast(2).joined(separator: "/") + "/Fuzz/corpus/\(target.rawValue)"
    let names = try Self.names(in: directory)
    #expect(!names.isEmpty, "nothing in \(directory)")
    for name in names {
      let input = try #require(CorpusTests.contents("\(directory)/\(name)"))
      #expect(target.violation(input) == nil, "\(name)")
    }
  }

  static func names(in directory: String) throws -> [String] {
    let stream = try #require(opendir(directory), "cannot read \(directory)")
    defer { closedir(stream) }
    var names: [String] = []
    while let entry = readdir(stream) {
      let name = withUnsafePointer(to: &entry.pointee.d_name) {
        $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
      }
      if !name.hasPrefix(".") { names.append(name) }
    }
    return names.sorted()
  }
}

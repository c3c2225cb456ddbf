import Foundation
import Lab
import Testing

/// `make install` is for hosts that run VMs: it changes nothing there but what it installs.
@Suite struct BuildTests {
  private static let repository = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent().path

  @Test(arguments: ["build", "install", "fuzz"]) func `building installs no package`(_ goal: String) throws {
    let commands = try run(["make", "-n", "-C", Self.repository, goal]).stdout
    #expect(commands.contains("check-tools") && !commands.contains("install-packages"), "\(commands)")
  }

  @Test(arguments: ["demo", "test"]) func `what runs guests installs first, then looks`(_ goal: String) throws {
    let commands = try run(["make", "-n", "-C", Self.repository, goal]).stdout
    let (packages, tools) = (try #require(commands.range(of: "install-packages")), try #require(commands.range(of: "check-tools")))
    #expect(packages.lowerBound < tools.lowerBound)
  }

  static let hosts: [(script: String, words: [String])] = [
    ("", []),
    ("SWIFT=/none/swift", ["/none/swift", "6.2", "swift.org", "SWIFT="]),
    ("SWIFT=$PWD/old", ["it is 5.10"]),
    ("PATH=$PWD:/none", ["pkg-config", "C compiler", "git", "apt-get install"]),
  ]

  @Test(arguments: hosts) func `what building lacks is said`(script: String, words: [String]) throws {
    let scratch = FileManager.default.temporaryDirectory.appending(path: "moult-tools-\(getpid())")
    try FileManager.default.createDirectory(at: scratch, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: scratch) }
    for (name, version) in [("old", "5.10.1"), ("swift", "6.2")] {
      let file = scratch.appending(path: name)
      try Data("#!/bin/sh\necho 'Swift version \(version) (swift-release)'\n".utf8).write(to: file)
      try FileManager.default.setAttributes([.posixPermissions: 0o755], ofItemAtPath: file.path)
    }
    for tool in ["bash", "dirname"] { try FileManager.default.createSymbolicLink(atPath: scratch.path + "/" + tool, withDestinationPath: "/usr/bin/" + tool) }
    let outcome = try run(["bash", "-c", "cd \(scratch.path); \(script.isEmpty ? "" : "export \(script);") exec bash \(Self.repository)/scripts/check-tools"])
    #expect(outcome.code == (words.isEmpty ? 0 : 1), "\(outcome)")
    for word in words { #expect(outcome.stderr.contains(word), "no “\(word)” in \(outcome.stderr)") }
  }
}

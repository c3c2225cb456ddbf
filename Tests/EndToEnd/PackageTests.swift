import Foundation
import Glibc
import Lab
import Testing

extension EndToEnd {
  /// The package manager replaces QEMU under the running VM: always by rename, never in place.
  @Suite struct Packages {
    /// A root tree of this test's own: hard links, which are never written through.
    private static func tree(_ version: QEMUVersion, _ name: String) throws -> String {
      let copy = Lab.paths.cache + "/tree-" + name
      try succeed(["rm", "-rf", "--one-file-system", copy])
      try succeed(["cp", "-al", try #require(version.root), copy])
      return copy
    }

    private static func replace(_ path: String, by other: String) throws {
      try succeed(["cp", "--remove-destination", other, path + ".dpkg-new"])
      guard rename(path + ".dpkg-new", path) == 0 else { throw LabFailure("rename \(path)") }
    }

    @Test
    func `the way back runs the old version when its files are gone`() throws {
      try leavingNothing {
        let tree = try Self.tree(.v10_0, "e2e-packages")
        defer { _ = try? succeed(["rm", "-rf", "--one-file-system", tree]) }
        let vm = try LabVM(
          VMConfiguration("e2e-package") { $0.version = .v10_0; $0.tree = tree; $0.memory = .file() })
        defer { vm.end() }
        try vm.mustUpgrade(to: .v11_1, ["--hold"], outcome: "held")
        // Another version's binary, a library replaced by the same one's copy, one deleted.
        let newer = try #require(QEMUVersion.v11_1.root)
        try Self.replace(tree + "/usr/bin/qemu-system-x86_64", by: newer + "/usr/bin/qemu-system-x86_64")
        let libraries = tree + "/usr/lib/x86_64-linux-gnu"
        let names = Directory.entries(libraries)
        let slirp = try #require(names.first { $0.hasPrefix("libslirp.so.0.") })
        try Self.replace(libraries + "/" + slirp, by: "/bin/true")
        let aio = try #require(names.first { $0.hasPrefix("libfdt") && !$0.hasSuffix(".1") })
        unlink(libraries + "/" + aio)
        try vm.mustRollBack(to: .v10_0)
        // What it runs from now is itself no longer on disk.
        try vm.mustUpgrade(to: .v7_2, ["--hold"], outcome: "held")
        try vm.mustRollBack(to: .v10_0)
        try vm.mustUpgrade(to: .v11_1)
        vm.end()
      }
    }

    @Test
    func `a binary that was replaced before is stale, and the installed one is taken`() throws {
      try leavingNothing {
        let directory = Lab.paths.run + "/e2e-installed"
        let binary = directory + "/qemu-system-x86_64"
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        defer { _ = try? succeed(["rm", "-rf", directory]) }
        try succeed(["cp", "/usr/bin/qemu-system-x86_64", binary])
        let vm = try LabVM(VMConfiguration("e2e-stale") {
            $0.binary = binary
            $0.memory = .file()
            // QEMU looks for its modules and its firmware beside its binary.
            $0.extraArguments = ["-L", "/usr/share/seabios", "-L", "/usr/share/qemu"]
            $0.launcher = ["env", "QEMU_MODULE_DIR=/usr/lib/x86_64-linux-gnu/qemu"]
          })
        defer { vm.end() }
        func listed() throws -> JSON {
          let list = try Answer(run(moult: ["list", "--format", "json"])).json
          return try #require(list.array.first { $0["name"].string == "e2e-stale" })
        }
        #expect(try listed()["stale"].bool == false)
        try Self.replace(binary, by: "/usr/bin/qemu-system-x86_64")
        // The same build: stale, for its file is gone, but no update.
        let entry = try listed()
        #expect(entry["stale"].bool == true && entry["pending"].array.isEmpty)
        #expect(entry["why_stale"].string == "the binary was replaced by the same build")
        #expect(try listed()["installed_version"].string?.hasPrefix("7.2.") ?? false)
        let installed = try FileFacts(binary).inode
        let old = try vm.pid()
        try vm.mustHaveMoved(try vm.upgrade(to: nil), from: old, to: .v7_2, outcome: "committed")
        var running = stat()
        stat("/proc/\(try vm.pid())/exe", &running)
        #expect(running.st_ino == installed)
        #expect(try listed()["stale"].bool == false)
        // Deleted altogether: it can still be left, and come back to.
        unlink(binary)
        try vm.mustUpgrade(to: .v10_0, ["--hold"], outcome: "held")
        try vm.mustRollBack(to: .v7_2)
        try vm.mustUpgrade(to: .v10_0)
        vm.end()
      }
    }
  }
}

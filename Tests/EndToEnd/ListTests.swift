import Foundation
import Glibc
import Lab
import Testing

extension EndToEnd {
  /// What `moult list` says of QEMUs whose files were replaced under them.
  @Suite struct Lists {
    private static func listed(_ name: String, _ options: [String] = []) throws -> JSON {
      let list = try Answer(run(moult: ["list", "--format", "json"] + options))
      return list.json.array.first { $0["name"].string == name } ?? .null
    }

    private static func replace(_ path: String, by other: String) throws {
      try succeed(["cp", other, path + ".dpkg-new"])
      guard rename(path + ".dpkg-new", path) == 0 else { throw LabFailure("rename \(path)") }
    }

    /// A QEMU without a machine, from copies of the binary and of one library, which are this test's own to replace.
    @Test func `binary and libraries that were replaced are named, with what resolves it`() throws {
      try leavingNothing {
        let home = Lab.paths.run + "/e2e-list"
        try FileManager.default.createDirectory(atPath: home, withIntermediateDirectories: true)
        defer { _ = try? succeed(["rm", "-rf", home]) }
        let binary = home + "/qemu-system-x86_64"
        try succeed(["cp", "/usr/bin/qemu-system-x86_64", binary])
        let directory = "/usr/lib/x86_64-linux-gnu/"
        let library = try #require(Directory.entries(directory).first { $0.hasPrefix("libslirp.so.0.") })
        try succeed(["cp", directory + library, home + "/" + library])
        symlink(library, home + "/libslirp.so.0")
        let monitor = home + "/qmp.sock"
        let child = try ChildProcess(
          [
            "env", "LD_LIBRARY_PATH=" + home, "QEMU_MODULE_DIR=/usr/lib/x86_64-linux-gnu/qemu", binary, "-name", "e2e-list", "-machine", "none", "-nodefaults", "-display", "none", "-S",
            "-L", "/usr/share/seabios", "-qmp", "unix:\(monitor),server=on,wait=off",
          ], log: home + "/log")
        defer {
          child.signal(SIGKILL)
          _ = try? child.wait()
        }
        try eventually("the monitor is there") { FileManager.default.fileExists(atPath: monitor) }

        let current = try Self.listed("e2e-list")
        #expect(current["stale"].bool == false && current["version_from"].string == "qmp")
        #expect(!current["pending"].array.contains { $0["resolved_by"].string == "moult upgrade" })

        try Self.replace(home + "/" + library, by: directory + library)
        var entry = try Self.listed("e2e-list")
        #expect(entry["why_stale"].string == "\(library) was replaced by the same build")
        #expect(!entry["pending"].array.contains { $0["resolved_by"].string == "moult upgrade" })

        // Another build under the same name; then the library's next version, to which the soname's link leads.
        try Self.replace(home + "/" + library, by: directory + "libfdt.so.1")
        entry = try Self.listed("e2e-list")
        #expect(entry["why_stale"].string == "\(library) was replaced")
        #expect(entry["pending"].array.contains { $0["what"].string == library && $0["resolved_by"].string == "moult upgrade" })
        rename(home + "/" + library, home + "/libslirp.so.0.99.0")
        unlink(home + "/libslirp.so.0")
        symlink("libslirp.so.0.99.0", home + "/libslirp.so.0")
        entry = try Self.listed("e2e-list")
        #expect(entry["why_stale"].string == "\(library) was replaced")

        try Self.replace(binary, by: try #require(QEMUVersion.v10_0.root) + QEMUVersion.v10_0.binary)
        entry = try Self.listed("e2e-list", ["--stale"])
        #expect(entry["why_stale"].string == "the binary was replaced, \(library) was replaced")
        let update = try #require(entry["pending"].array.first { $0["what"].string == "QEMU" })
        #expect(update["running"].string?.hasPrefix("7.2.") ?? false)
        #expect(update["resolved_by"].string == "moult upgrade")
        #expect(try run(moult: ["list"]).code == 0)
        #expect(try run(moult: ["list", "--exit-code"]).code == 2)
      }
    }

    /// A package's file in a root tree of its own: the tree's database knows it, this host's does not.
    @Test func `a VM in a root tree is compared in there`() throws {
      try leavingNothing {
        let tree = Lab.paths.cache + "/tree-e2e-list"
        try succeed(["rm", "-rf", "--one-file-system", tree])
        try succeed(["cp", "-al", try #require(QEMUVersion.v10_0.root), tree])
        defer { _ = try? succeed(["rm", "-rf", "--one-file-system", tree]) }
        let vm = try LabVM(VMConfiguration("e2e-list-tree") { $0.version = .v10_0; $0.tree = tree; $0.memory = .file() })
        defer { vm.end() }
        #expect(try Self.listed("e2e-list-tree")["stale"].bool == false)
        let libraries = tree + "/usr/lib/x86_64-linux-gnu/"
        let library = try #require(Directory.entries(libraries).first { $0.hasPrefix("libslirp.so.0.") })
        // The lab's trees were unpacked without dpkg: what it would have written of this package.
        let database = tree + "/var/lib/dpkg"
        try FileManager.default.createDirectory(atPath: database + "/info", withIntermediateDirectories: true)
        unlink(database + "/status")
        try Data("Package: libslirp0\nStatus: install ok installed\nArchitecture: amd64\nVersion: 4.8.0-1\n".utf8)
          .write(to: URL(fileURLWithPath: database + "/status"))
        try Data("/.\n/usr/lib/x86_64-linux-gnu/\(library)\n".utf8).write(to: URL(fileURLWithPath: database + "/info/libslirp0:amd64.list"))
        try Self.replace(libraries + library, by: "/usr/lib/x86_64-linux-gnu/libfdt.so.1")
        let entry = try Self.listed("e2e-list-tree")
        #expect(entry["why_stale"].string == "\(library) was replaced" && entry["version"].string?.hasPrefix("10.0.") ?? false, "\(entry)")
        let update = try #require(entry["pending"].array.first { $0["what"].string == library })
        #expect(update["installed"].string == "4.8.0-1")
        #expect(update["package"].string == "libslirp0")
        vm.end()
      }
    }

    /// Neither is waited for, and neither is disturbed.
    @Test func `a monitor that is busy and a QEMU that is stopped do not hold the list up`() throws {
      try leavingNothing {
        let vm = try LabVM(VMConfiguration("e2e-list-busy") { $0.guest = .bootSector; $0.machine = "pc" })
        defer { vm.end() }
        do {
          let client = try QMPConnection(vm.configuration.qmpSocket)
          let entry = try Self.listed("e2e-list-busy")
          #expect(entry["version"].string?.hasPrefix("7.2.") ?? false)
          #expect(entry["version_from"].string == "binary")
          try client.execute("query-status")
        }
        let pid = try vm.pid()
        kill(pid, SIGSTOP)
        defer { kill(pid, SIGCONT) }
        #expect(try Self.listed("e2e-list-busy")["version_from"].string == "binary")
        kill(pid, SIGCONT)
        #expect(try Self.listed("e2e-list-busy")["version_from"].string == "qmp")
        vm.end()
      }
    }
  }
}

import Foundation
import Glibc
import Lab
import Testing

extension EndToEnd {
  /// Directories that another program serves (vhost-user-fs).
  @Suite struct ServedDirectories {
    /// A directory, its first virtiofsd, and a VM in the oldest QEMU that can hand it over.
    private final class Served {
      let directory: String
      let server: ChildProcess
      let vm: LabVM
      private let base: String

      init(_ name: String) throws {
        base = Lab.paths.run + "/\(name)-host"
        let (directory, socket) = (base + "/shared", base + "/socket")
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        try "first".write(toFile: directory + "/word", atomically: true, encoding: .utf8)
        let server = try ChildProcess([Lab.paths.virtiofsd, "--socket-path=\(socket)", "--shared-dir=\(directory)", "--cache=never"], log: base + "/log")
        try eventually("virtiofsd listens") { access(socket, F_OK) == 0 }
        vm = try LabVM(
          VMConfiguration(name) {
            $0.version = .v10_0
            $0.memory = .file()
            $0.words = ["files=host"]
            $0.extraArguments = ["-chardev", "socket,id=fs,path=\(socket)", "-device", "vhost-user-fs-pci,chardev=fs,tag=host"]
          })
        (self.directory, self.server) = (directory, server)
      }

      deinit {
        vm.end()
        server.signal(SIGKILL)
        _ = try? run(["rm", "-r", base])
      }
    }

    @Test
    func `the guest keeps its files open in a directory of virtiofsd's`() throws {
      try leavingNothing {
        let served = try Served("e2e-files")
        defer { withExtendedLifetime(served) {} }
        let (shared, server, vm) = (served.directory, served.server, served.vm)
        func say(_ word: String) throws { try word.write(toFile: shared + "/word", atomically: true, encoding: .utf8) }
        /// The guest writes on, into the file that it has open since its start, and reads what the host writes.
        func mustServe(_ word: String) throws {
          try say(word)
          try eventually("the guest reads \(word)") {
            let lines = try String(contentsOfFile: shared + "/lines", encoding: .utf8).split(separator: "\n")
            return lines.last?.hasSuffix(" \(word)") ?? false
          }
        }
        try mustServe("first")
        let refused = try run(moult: ["plan", "e2e-files"] + QEMUVersion.v7_2.destination)
        #expect(refused.code == 3 && refused.stderr.contains("cannot hand over, or take, a directory"), "\(refused)")
        try vm.mustUpgrade(to: .v11_1, ["--hold"], outcome: "held")
        try eventually("the first one ends with its QEMU") { !server.isRunning }
        try mustServe("second")
        try vm.mustRollBack(to: .v10_0)
        try mustServe("third")
        // Taken back when the state has been moved already.
        let old = try vm.pid()
        let upgrade = try TracedRun(moult: ["upgrade", "e2e-files"] + QEMUVersion.v11_1.destination, of: vm)
        try upgrade.go(to: "exchange.done")
        try upgrade.killAll()
        #expect(try run(moult: ["recover", "e2e-files"]).code == 0)
        #expect(try vm.pid() == old && vm.processes == [old])
        try mustServe("fourth")
        // Nobody has connected to the one for the new QEMU yet.
        let early = try TracedRun(moult: ["upgrade", "e2e-files"] + QEMUVersion.v11_1.destination, of: vm)
        try early.go(to: "record#2")
        try early.killAll()
        try eventually("it is recovered") { try run(moult: ["recover", "e2e-files"]).code == 0 }
        try vm.mustUpgrade(to: .v11_1, ["--memory", "copy"])
        try mustServe("fifth")
        let numbers = try String(contentsOfFile: shared + "/lines", encoding: .utf8).split(separator: "\n").map { Int($0.prefix { $0 != " " }) }
        #expect(numbers == Array(1...numbers.count).map(Optional.some))
        vm.end()
        try eventually("the last one ends with its QEMU") { !Processes.all().contains { $0.arguments.contains("--shared-dir=\(shared)") } }
      }
    }

    /// One that has lost its program may end itself when it is told to migrate; and of one that loses it then nobody else would tell.
    @Test(arguments: [("compare.done", true), ("switch.done", false)])
    func `a virtiofsd that dies is missed, and the guest is not lost`(point: String, isFirst: Bool) throws {
      try leavingNothing {
        let served = try Served("e2e-files-lost")
        defer { withExtendedLifetime(served) {} }
        let (shared, vm) = (served.directory, served.vm)
        try eventually("the guest writes") { access(shared + "/lines", F_OK) == 0 }
        func serving() -> Set<pid_t> { Set(Processes.all().filter { $0.arguments.contains("--shared-dir=\(shared)") }.map(\.pid)) }
        let (first, old) = (serving(), try vm.pid())
        let upgrade = try TracedRun(moult: ["upgrade", "e2e-files-lost"] + QEMUVersion.v11_1.destination, of: vm)
        try upgrade.go(to: point)
        let victims = isFirst ? first : serving().subtracting(first)
        #expect(!victims.isEmpty)
        for pid in victims { Glibc.kill(pid, SIGKILL) }
        try eventually("they have ended") { serving().isDisjoint(with: victims) }
        try upgrade.release()
        let outcome = try upgrade.wait()
        #expect(outcome.code == 5 && outcome.stderr.contains("runs in the \(isFirst ? "old" : "new") QEMU without what other programs do for it"), "\(outcome)")
        #expect(try vm.status() == "running" && (vm.pid() == old) == isFirst && vm.processes == [vm.pid()])
        vm.end()
      }
    }
  }
}

import Foundation
import Glibc
import Lab
import Testing

extension EndToEnd {
  /// The guest extends a register of its TPM again and again; a TPM that was started anew would have zeros there.
  @Suite(.enabled(if: access("/usr/bin/swtpm", X_OK) == 0)) struct TPMs {
    @Test
    func `an emulated TPM goes along, and hears nothing of it`() throws {
      try leavingNothing {
        let name = "e2e-tpm"
        let home = VMConfiguration(name).home + "-peer"
        try FileManager.default.createDirectory(atPath: home, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: home) }
        let emulator = try ChildProcess(
          ["swtpm", "socket", "--tpm2", "--tpmstate", "dir=\(home)", "--ctrl", "type=unixio,path=\(home)/tpm.sock", "--log", "file=\(home)/log,level=20"])
        defer { emulator.signal(SIGKILL) }
        try eventually("swtpm listens") { access(home + "/tpm.sock", F_OK) == 0 }
        let vm = try LabVM(
          VMConfiguration(name) {
            $0.memory = .file()
            $0.words = ["iomem=relaxed", "tpm=/dev/ttyS1"]
            $0.extraArguments = [
              "-chardev", "socket,id=commands,path=\($0.agentSocket),server=on,wait=off", "-serial", "chardev:commands",
              "-chardev", "socket,id=tpm,path=\(home)/tpm.sock", "-tpmdev", "emulator,id=t,chardev=tpm", "-device", "tpm-crb,tpmdev=t",
            ]
          })
        defer { vm.end() }
        let tpm = try SerialReader(path: vm.configuration.agentSocket)
        defer { tpm.stop() }
        try eventually("the console has its client") { tpm.connections == 1 }
        var wanted = 0
        /// Lets the guest go on with so many more.
        func extend(_ count: Int) throws {
          for _ in 0..<count { try tpm.send("extend 16 moult") }
          wanted += count
        }
        func mustHaveExtended() throws {
          try eventually("the TPM answers \(wanted) times", within: 20) { tpm.count >= wanted }
        }
        func kill(at record: String, to version: QEMUVersion, guardian: Bool) throws {
          try extend(3)
          let upgrade = try TracedRun(moult: ["upgrade", name] + CrashRig.destination(version), of: vm)
          try upgrade.go(to: record)
          try upgrade.finishRecord()
          if guardian {
            try upgrade.killAll()
            #expect(try run(moult: ["recover", name]).code == 0)
          } else {
            Glibc.kill(upgrade.pid, SIGKILL)
            _ = try upgrade.wait()
          }
          try eventually("one QEMU runs the guest after \(record)") { try vm.processes == [vm.pid()] && vm.status() == "running" }
          try eventually("nothing stands in") { !Processes.all().contains { $0.arguments.contains("stand-in") && $0.arguments.contains { $0.hasPrefix(name) } } }
          try mustHaveExtended()
        }

        // Commands of the guest are under way at every move.
        try extend(30)
        try vm.mustUpgrade(to: .v10_0, ["--hold"], strategy: "shared", outcome: "held")
        try extend(30)
        try vm.mustRollBack(to: .v7_2)
        try mustHaveExtended()
        // A QEMU asks swtpm at the guest's first command for something that it remembers then (`established_flag_cached` in its
        // tpm_emulator.c); asked of one that is stopped, all of QEMU would wait.
        try extend(1)
        try mustHaveExtended()
        // The answer to a command that is under way when the guest stops would be lost.
        let early = try TracedRun(moult: ["upgrade", name] + CrashRig.destination(.v10_0), of: vm)
        try early.go(to: "migrate.begin")
        emulator.signal(SIGSTOP)
        try extend(1)
        usleep(1_000_000)
        try early.release()
        let refused = try early.wait()
        emulator.signal(SIGCONT)
        #expect(refused.code == 1 && refused.stderr.contains("has a command under way"), "\(refused)")
        try mustHaveExtended()
        // The connections are the new one's, and still the old one's.
        try kill(at: "rewire.done", to: .v11_1, guardian: true)
        #expect(try vm.version().hasPrefix("11.1"))
        try kill(at: "rewire.begin", to: .v5_2, guardian: false)
        #expect(try vm.version().hasPrefix("11.1"))
        try tpm.send("resets")
        try eventually("the TPM tells how often it was started") { tpm.lines.last?.text == "resets 1" }
        // Each extension is made once: the register is what its number of them makes of it.
        let registers = tpm.lines.map(\.text).dropLast().joined(separator: "\n")
        #expect(
          try run(["python3", "-c", Self.chain, registers]).stdout == "\(wanted)\n" && tpm.connections == 1)
        // It is asked for its state, and that is all.
        let log = try String(contentsOfFile: home + "/log", encoding: .utf8)
        #expect(log.components(separatedBy: "Ctrl Cmd: length 8\n 00 00 00 02 ").count == 2, "initialized once")
        // And it is its connection: the new QEMU tells it of the end, if another program ends that. The old one goes on without.
        let last = try TracedRun(moult: ["upgrade", name] + CrashRig.destination(.v10_0), of: vm)
        try last.go(to: "verify.done")
        _ = try? vm.qmp("quit")
        try eventually("swtpm ends") { !emulator.isRunning }
        try last.release()
        let lost = try last.wait()
        #expect(lost.code == 5 && lost.stderr.contains("without what other programs do for it") && lost.stderr.contains("/tpm.sock"), "\(lost)")
        #expect(try vm.version().hasPrefix("11.1") && vm.status() == "running")
        vm.end()
      }
    }

    /// Prints how many registers there are, if each is made of the one before it.
    private static let chain = """
      import hashlib, sys
      register = bytes(32)
      lines = sys.argv[1].splitlines()
      for line in lines:
          register = hashlib.sha256(register + b"moult".ljust(32, bytes(1))).digest()
          assert line == "pcr 16 " + register.hex(), line
      print(len(lines))
      """
  }
}

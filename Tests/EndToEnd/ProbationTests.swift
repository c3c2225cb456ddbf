import Foundation
import Lab
import Testing

extension EndToEnd {
  /// What makes a guest healthy in the new QEMU, and what becomes of one that is not.
  @Suite(.serialized)
  struct Probation {
    @Test func `a healthy guest's probation ends with a commit`() throws {
      try leavingNothing {
        let vm = try LabVM(VMConfiguration("e2e-probation") { $0.memory = .file() })
        defer { vm.end() }
        let answer = try vm.mustUpgrade(to: .v10_0, ["--probation", "2"])
        #expect(answer["total_ms"].double ?? 0 > 2000)
        let again = try vm.commit()
        #expect(again.code == 1, "nothing is held any more")
        vm.end()
      }
    }

    /// A stop that nobody here asked for is what a monitor sees of a guest that is not well.
    @Test func `a guest that stops in probation is taken back`() throws {
      try leavingNothing {
        let vm = try LabVM(VMConfiguration("e2e-unwell") { $0.memory = .file() })
        defer { vm.end() }
        let old = try vm.pid()
        let child = try start(
          moult: ["upgrade", "e2e-unwell"] + QEMUVersion.v10_0.destination + ["--probation", "20", "--format", "json"])
        try eventually("the guest runs in the new QEMU") {
          guard let pid = try? vm.pid(), pid != old else { return false }
          return try Answer(run(moult: ["status", "e2e-unwell", "--format", "json"])).json.array.first?["pause_ms"].double != nil
        }
        // The pause is known as soon as the guest runs; the watch begins once the old QEMU is gone.
        try eventually("the old QEMU is gone") { Processes.hasEnded(old) }
        usleep(500_000)
        try vm.qmp("stop")
        let answer = try Answer(child.wait())
        #expect(answer.code == 4 && answer["outcome"].string == "rolled-back", "\(answer)")
        #expect(try vm.version().hasPrefix("7.2."))
        // What was found is kept, and can be handed on.
        let id = try #require(answer["id"].string)
        let evidence = "/var/lib/moult/history/" + id
        let registers = String(decoding: FileManager.default.contents(atPath: evidence + "/registers") ?? Data(), as: UTF8.self)
        let events = String(decoding: FileManager.default.contents(atPath: evidence + "/events") ?? Data(), as: UTF8.self)
        #expect(registers.contains("RIP=") && events.contains(" STOP "))
        let bundle = vm.configuration.home + "/bundle.tar"
        let packed = try run(moult: ["history", id, "--bundle", bundle])
        #expect(packed.code == 0, "\(packed)")
        let names = try run(["tar", "tf", bundle]).stdout.split(separator: "\n").map(String.init)
        #expect(Set(names).isSuperset(of: ["\(id)/report.json", "\(id)/registers", "\(id)/events", "\(id)/journal"]), "\(names)")
        let remembered = try run(moult: ["history", "e2e-unwell", "--format", "json"]).json().array
        #expect(remembered.count { $0["id"].string == id && $0["outcome"].string == "failed" } == 1)
        #expect(remembered.last?["outcome"].string == "rolled-back")
        vm.end()
      }
    }

    @Test func `a VM that ended while its upgrade was held does not bar the next one of its name`() throws {
      try leavingNothing {
        let configuration = VMConfiguration("e2e-held-over") { $0.memory = .file() }
        let first = try LabVM(configuration)
        _ = try first.mustUpgrade(to: .v10_0, ["--hold"], outcome: "held")
        #expect(try first.upgrade(to: .v11_1).code == 3, "it can still be taken back")
        let ended = try first.pid()
        first.end()
        // By its name, or by the pid that nobody has any more.
        for selector in ["e2e-held-over", "\(ended)"] {
          let back = try run(moult: ["rollback", selector])
          #expect(back.code == 1 && back.stderr.contains("(pid \(ended)) has ended"), "\(back)")
        }
        func mustBeKnownToHaveEnded() throws {
          let status = try Answer(run(moult: ["status", "e2e-held-over", "--format", "json"]))
          #expect(status.json[0]["outcome"].string == "ended" && status.stderr.contains("moult commit"), "\(status)")
        }
        try mustBeKnownToHaveEnded()
        let second = try LabVM(configuration)
        defer { second.end() }
        try mustBeKnownToHaveEnded()
        _ = try second.mustUpgrade(to: .v10_0)

        // One that powers off in its probation has ended as any VM does, and holds nothing either.
        let old = try second.pid()
        let child = try start(
          moult: ["upgrade", "e2e-held-over"] + QEMUVersion.v7_2.destination + ["--probation", "20"])
        try eventually("the old QEMU is gone") { Processes.hasEnded(old) }
        try second.ticks(10)
        try second.serial.send("poweroff")
        let outcome = try child.wait()
        #expect(outcome.code == 5 && outcome.stdout.contains("the VM has ended"), "\(outcome)")
        #expect(outcome.stderr.contains("powered off") && outcome.stderr.contains("start the VM anew"), "\(outcome)")
        #expect(try run(moult: ["status"]).stdout.contains("e2e-held-over") == false)
        second.end()
      }
    }

    /// Debian's own agent, in the guest.
    @Test func `a guest agent that answered before has to answer afterwards`() throws {
      try leavingNothing {
        let vm = try LabVM(VMConfiguration("e2e-agent") { $0.memory = .file(); $0.hasAgent = true })
        defer { vm.end() }
        try eventually("the agent has its port open") { try vm.agentHasItsPort() }
        _ = try vm.mustUpgrade(to: .v10_0, ["--probation", "2"])
        _ = try vm.mustUpgrade(to: .v7_2)

        // It ends between the question before and the one after: taken back, though all else is well.
        let upgrade = try TracedRun(
          moult: ["upgrade", "e2e-agent"] + QEMUVersion.v10_0.destination + ["--probation", "2", "--format", "json"], of: vm)
        try upgrade.go(to: "migrate.begin")
        try vm.serial.send("end agent")
        try eventually("the agent has ended") { vm.serial.lines.contains { $0.text == "agent ended: 0" } }
        try upgrade.release()
        let answer = try Answer(upgrade.wait())
        #expect(answer.code == 4 && answer["outcome"].string == "rolled-back", "\(answer)")
        let id = try #require(answer["id"].string)
        #expect(try run(moult: ["history", id]).stdout.contains("guest agent"))
        #expect(try vm.version().hasPrefix("7.2."))
        // Without an agent nobody misses it.
        _ = try vm.mustUpgrade(to: .v10_0, ["--probation", "1"])
        vm.end()
      }
    }

    @Test func `a guest that panics in probation is taken back, and what it panicked of is kept`() throws {
      try leavingNothing {
        let vm = try LabVM(
          VMConfiguration("e2e-panic") {
            $0.memory = .file()
            $0.extraArguments = ["-device", "pvpanic", "-action", "panic=pause"]
          })
        defer { vm.end() }
        let old = try vm.pid()
        let child = try start(
          moult: ["upgrade", "e2e-panic"] + QEMUVersion.v10_0.destination + ["--probation", "20", "--format", "json"])
        try eventually("the old QEMU is gone") { Processes.hasEnded(old) }
        try vm.ticks(10)
        try vm.serial.send("panic")
        let answer = try Answer(child.wait())
        #expect(answer.code == 4 && answer["outcome"].string == "rolled-back", "\(answer)")
        #expect(try vm.version().hasPrefix("7.2."))
        // It goes on with what it does after a panic: this one starts again.
        #expect(try vm.status() == "running")
        let id = try #require(answer["id"].string)
        #expect(try run(moult: ["history", id]).stdout.contains("GUEST_PANICKED"))
        vm.end()
      }
    }
  }
}

extension LabVM {
  /// Whether the agent in the guest has its port open.
  fileprivate func agentHasItsPort() throws -> Bool {
    try qmp("query-chardev").array.contains { $0["label"].string == "agent0" && $0["frontend-open"].bool == true }
  }
}

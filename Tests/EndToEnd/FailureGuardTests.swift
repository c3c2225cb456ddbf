import Foundation
import Lab
import Testing

extension FailureTests {
  /// moult is killed, and its guardian, or both: the guest runs again by itself, or with the next command.
  @Suite(.serialized)
  struct Guards {
    /// The guardian of a VM's upgrade.
    static func guardian(_ patient: Patient) throws -> pid_t {
      let key = (patient.stateDirectory as NSString).lastPathComponent
      return try eventually("a guardian watches") {
        Processes.all().first { $0.arguments.dropFirst().prefix(3) == ["guard", "--", key] }?.pid
      }
    }

    /// Where moult stands still: after which line of the journal, from the pause on at every one.
    static func lines(_ steps: [String]) throws -> [Int] {
      try steps.flatMap { step in
        let line = try #require(Patient.line(beginning: step))
        return [line - 1, line]
      }
    }

    @Test(arguments: Kills.Memory.allCases)
    func `moult is killed: the guest runs on by itself, in one QEMU or the other`(_ memory: Kills.Memory) throws {
      let patient = try Kills.patient("guard", memory)
      let steps = isFull ? Array(Patient.steps().dropFirst()) : ["launch", "switch", "exchange", "resume", "retire"]
      for line in try Self.lines(steps) {
        let upgrade = try SteppedRun(moult: patient.upgrade(), journal: patient.journal, line: line)
        let moult = try #require(try upgrade.held())
        let guardian = try Self.guardian(patient)
        try Kills.kill(moult)
        try eventually("the guest runs, and nothing is left (line \(line))") {
          try !FileManager.default.fileExists(atPath: patient.stateDirectory) && patient.vm.status() == "running" && Processes.hasEnded(guardian)
        }
        _ = try upgrade.wait()
        _ = try patient.expectWhole()
        patient.expectHealthy()
      }
      #expect(try patient.vm.endAndVerifyDisk() == [])
    }

    @Test func `the guardian is killed: another takes its place before the pause, and the upgrade goes on`() throws {
      let patient = try Kills.patient("unguarded", .shared)
      for (step, isNoted) in [("compare", true), ("switch", false)] {
        let outcome = try Kills.upgrade(patient, at: step) { _ in try Kills.kill(try Self.guardian(patient)) }
        patient.check(outcome, exits: 0, saying: isNoted ? ["guardian was killed"] : [])
        try patient.expectMoved()
      }
      patient.expectHealthy()
    }

    @Test(arguments: ["upgrade", "status", "recover"])
    func `both are killed: the next command brings the guest back first`(_ command: String) throws {
      let patient = try Kills.patient("both-\(command)", .shared)
      let steps = ["status": "resume", "recover": "retire", "upgrade": "switch"]
      for step in ["switch", "resume", "retire"] where isFull || steps[command] == step {
        _ = try Kills.upgrade(patient, at: step) { moult in
          let guardian = try Self.guardian(patient)
          // It must not be the first to see the other's end.
          try Kills.kill(guardian, SIGSTOP)
          try Kills.kill(moult)
          try Kills.kill(guardian)
        }
        if command == "upgrade" {
          // The two QEMUs are one VM, and the guest is in the old one.
          let list = try run(moult: ["list", "--format", "json"])
          let mine = try list.json().array.filter { $0["name"].string == patient.name }
          #expect(mine.count == 2 && mine.allSatisfy { $0["upgrade"]["outcome"].string == "interrupted" }, "\(mine)")
          #expect(mine.filter { $0["upgrade"]["has_guest"].bool == true }.map { $0["pid"].int } == [Int(patient.pid)], "\(mine)")
          let status = try run(moult: ["status"])
          let row = status.stdout.split(separator: "\n").first { $0.hasPrefix(patient.name + " ") }
          #expect(row.map { $0.contains(" interrupted ") && $0.contains(" \(patient.pid) ") } == true, "\(status)")
          for said in [list, status] { #expect(said.stderr.contains("moult recover \(patient.name)"), "\(said)") }
          let outcome = try run(moult: patient.upgrade())
          patient.check(outcome, exits: 0, saying: ["was interrupted"])
          try patient.expectMoved()
        } else {
          let outcome = try run(moult: [command, patient.name])
          patient.check(outcome, exits: 0)
          #expect((outcome.stderr + outcome.stdout).contains("was undone") || (outcome.stderr + outcome.stdout).contains("was finished"))
          _ = try patient.expectWhole()
        }
        patient.expectHealthy()
      }
    }

    /// moult is dead, its guardian does not get to run: then others come.
    @Test func `beside a guardian that is held up: a command waits, and says for whom; another program's cont is heard of`() throws {
      let patient = try Kills.patient("late", .shared)
      func leave() throws -> (guardian: pid_t, twin: pid_t) {
        let upgrade = try TracedRun(moult: patient.upgrade(), of: patient.vm)
        try upgrade.go(to: "verify.done")
        try upgrade.finishRecord()
        let guardian = try Self.guardian(patient), twin = try #require(patient.twin)
        try Kills.kill(guardian, SIGSTOP)
        Foundation.kill(upgrade.pid, SIGKILL)
        _ = try upgrade.wait()
        return (guardian, twin)
      }
      var (guardian, twin) = try leave()
      let beside = try run(moult: patient.upgrade())
      patient.check(beside, exits: 1, saying: ["guardian (pid \(guardian))", "bringing an upgrade to an end"])
      let recovery = try run(moult: ["recover", patient.name])
      patient.check(recovery, exits: 1, saying: ["guardian (pid \(guardian))"])
      #expect(Set(patient.vm.processes) == [patient.pid, twin])
      try Kills.kill(guardian, SIGCONT)
      try eventually("the guardian is done") { Processes.hasEnded(guardian) }
      _ = try patient.expectWhole()

      (guardian, twin) = try leave()
      // The public monitor is the new QEMU's: the guest runs there, writes to its memory, which both have, and to its disk.
      try patient.vm.qmp("cont")
      try eventually("it runs") { try patient.vm.status() == "running" }
      try Kills.kill(twin)
      try Kills.kill(guardian, SIGCONT)
      try eventually("the guardian is done") { Processes.hasEnded(guardian) }
      try eventually("the old QEMU, which knows nothing of that, is ended") { patient.vm.processes.isEmpty }
      let recover = try run(moult: ["recover"])
      #expect(recover.code == 0 && !FileManager.default.fileExists(atPath: patient.stateDirectory), "\(recover)")
      let history = try run(moult: ["history", "--format", "json"]).json().array.filter { $0["vm"].string == patient.name }
      let last = try #require(history.last { $0["outcome"].string?.contains("needs-person") ?? false }, "\(history)")
      #expect(last["steps"].array.contains { $0["name"].string == "verify" && $0["outcome"].string == "done" }, "\(last)")
      #expect(last["arguments"].array.isEmpty, "neither QEMU was left: \(last)")
    }

    @Test func `a rollback that is killed leaves the upgrade held, or is finished`() throws {
      let patient = try Kills.patient("back", .shared)
      for (step, isBack) in [("launch", false), ("exchange", false), ("retire", true)] {
        try patient.moult(patient.upgrade(to: .v10_0, ["--hold"]), exits: 0)
        try patient.remember()
        // The held upgrade's record is written once more before its own.
        let line = try #require(Patient.line(beginning: step)) + 1
        let rollback = try SteppedRun(moult: ["rollback", patient.name], journal: patient.journal, line: line)
        guard let moult = try rollback.held() else { throw LabFailure("\(try rollback.wait())") }
        let guardian = try Self.guardian(patient)
        try Kills.kill(moult)
        try eventually("the guardian is done") { Processes.hasEnded(guardian) }
        _ = try rollback.wait()
        try patient.vm.ticks(10)
        if !isBack { try patient.moult(["rollback", patient.name], exits: 0) }
        try patient.expectMoved()
        patient.expectHealthy()
      }
    }
  }
}

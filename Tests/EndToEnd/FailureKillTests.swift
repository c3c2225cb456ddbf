import Foundation
import Lab
import Testing

extension FailureTests {
  /// Somebody kills one of the three processes, at every step: never two guests, never none that need not be lost.
  @Suite(.serialized)
  struct Kills {
    enum Memory: String, Sendable, CaseIterable {
      case shared, copy
    }

    static func patient(_ name: String, _ memory: Memory) throws -> Patient {
      try Patient(
        VMConfiguration("fail-\(name)-\(memory)") {
          if memory == .shared { $0.memory = .file() }
          $0.disk = "qcow2"
          $0.words = ["fill=24"]
        })
    }

    /// Holds an upgrade at the beginning of `step`, does something, lets it go on.
    static func upgrade(
      _ patient: Patient, at step: String, _ act: (_ moult: pid_t) throws -> Void
    ) throws -> ChildProcess.Outcome {
      let line = try #require(Patient.line(beginning: step))
      let upgrade = try SteppedRun(moult: patient.upgrade(), journal: patient.journal, line: line)
      if let moult = try upgrade.held() {
        try act(moult)
        upgrade.goOn(moult)
      }
      return try upgrade.wait(seconds: 60)
    }

    static func kill(_ pid: pid_t?, _ signal: CInt = SIGKILL) throws {
      guard let pid else { throw LabFailure("there is no such process to kill") }
      Foundation.kill(pid, signal)
      if signal == SIGKILL { try eventually("the end of \(pid)") { Processes.hasEnded(pid) } }
    }

    @Test(arguments: Memory.allCases)
    func `the new QEMU is killed before it ran the guest: the old one runs on`(_ memory: Memory) throws {
      let patient = try Self.patient("new", memory)
      for step in ["compare", "migrate", "pause", "switch", "exchange", "rewire", "verify", "resume"] {
        let outcome = try Self.upgrade(patient, at: step) { _ in try Self.kill(patient.twin) }
        patient.check(outcome, exits: 1, saying: ["new QEMU", "ended", "/fd/2", "moult history 2", "--bundle"])
        #expect(outcome.stdout.contains("runs on"), "\(step): \(outcome.stdout)")
        do { try patient.expectUntouched() } catch {
          Issue.record("\(step): \(error); status \(try patient.vm.status() ?? ""), \(try patient.vm.qmp("query-migrate"))\n\(outcome.stderr)\n\(patient.vm.serial.lines.suffix(5))")
          return
        }
        patient.expectHealthy()
      }
      try patient.moult(patient.upgrade(), exits: 0)
      try patient.expectMoved()
      patient.expectHealthy()
      #expect(try patient.vm.endAndVerifyDisk() == [])
    }

    @Test(arguments: ["retire", "commit"])
    func `the new QEMU is killed once it ran the guest: that is said`(_ step: String) throws {
      let patient = try Self.patient("late", .shared)
      let outcome = try Self.upgrade(patient, at: step) { _ in try Self.kill(patient.twin ?? patient.vm.pid()) }
      patient.check(outcome, exits: 5, saying: ["new QEMU", "ended", "start the VM anew", "moult history 2", "--bundle"])
      try patient.expectGone()
    }

    static let deaths: [(Memory, String)] =
      isFull
      ? Memory.allCases.flatMap { memory in Patient.steps().dropFirst().map { (memory, $0) } }
      : [(.shared, "launch"), (.copy, "pause"), (.shared, "switch"), (.shared, "exchange"), (.shared, "rewire"), (.copy, "verify"), (.shared, "resume"), (.copy, "retire")]

    @Test(arguments: deaths)
    func `the old QEMU is killed: the guest goes on if the new one has it`(_ memory: Memory, _ step: String) throws {
      let patient = try Self.patient("old", memory)
      let outcome = try Self.upgrade(patient, at: step) { _ in try Self.kill(patient.pid) }
      // At the switch it depends: QEMU sends the rest by itself once the guest has stopped.
      let isOver = ["exchange", "rewire", "verify", "resume", "retire", "commit"].contains(step) || step == "switch" && outcome.code == 0
      if isOver {
        patient.check(outcome, exits: 0)
        try patient.expectMoved()
        patient.expectHealthy()
        #expect(try patient.vm.endAndVerifyDisk() == [])
      } else {
        patient.check(outcome, exits: 5, saying: ["no QEMU runs the guest", "see its log"])
        try patient.expectGone()
      }
    }

    @Test(arguments: Memory.allCases)
    func `an interrupted upgrade is undone, or done if it cannot be undone any more`(_ memory: Memory) throws {
      let patient = try Self.patient("signal", memory)
      var steps = Patient.steps().dropFirst().flatMap { step in [SIGINT, SIGTERM].map { (step, $0) } }
      if !isFull { steps = steps.enumerated().filter { $0.offset % 2 == (memory == .shared ? 0 : 1) || $0.element.0 == "switch" }.map(\.element) }
      for (step, signal) in steps {
        let outcome = try Self.upgrade(patient, at: step) { moult in try Self.kill(moult, signal) }
        let name = signal == SIGINT ? "Ctrl-C" : "SIGTERM"
        let text = "\(name) at \(step): exit \(outcome.code)\n\(outcome.stderr)"
        let moved = try patient.expectWhole()
        #expect(outcome.code == (moved ? 0 : 1), "\(text)")
        #expect(moved || outcome.stderr.contains(name), "\(text)")
        // From the exchange on nothing waits any more, so nothing can be cut short.
        #expect(moved == ["exchange", "rewire", "verify", "resume", "retire", "commit"].contains(step), "\(text)")
        patient.expectHealthy()
      }
      #expect(try patient.vm.endAndVerifyDisk() == [])
    }

    @Test(arguments: Memory.allCases)
    func `a new QEMU that stands still for a while delays, and harms nothing`(_ memory: Memory) throws {
      let patient = try Self.patient("stall", memory)
      for step in ["compare", "migrate", "pause", "switch", "resume"] where isFull || (memory == .shared) == ["compare", "switch", "resume"].contains(step) {
        let outcome = try Self.upgrade(patient, at: step) { _ in
          guard let twin = patient.twin else { throw LabFailure("no twin") }
          try Self.kill(twin, SIGSTOP)
          Thread.detachNewThread {
            usleep(1_500_000)
            Foundation.kill(twin, SIGCONT)
          }
        }
        patient.check(outcome, exits: 0)
        try patient.expectMoved()
        patient.expectHealthy()
      }
    }

    @Test(.enabled(if: isFull), arguments: ["compare", "migrate", "pause", "switch"])
    func `a new QEMU that stands still for ever is given up, and the old one runs on`(_ step: String) throws {
      let patient = try Self.patient("stuck", .shared)
      let outcome = try Self.upgrade(patient, at: step) { _ in try Self.kill(patient.twin, SIGSTOP) }
      patient.check(outcome, exits: 1, saying: ["new QEMU"])
      try patient.expectUntouched()
      patient.expectHealthy()
    }

    // In the middle of a copy that lasts. The guest stands still: it is emulated.

    /// Starts an upgrade by copy and waits until RAM is on its way.
    static func copying(_ patient: Patient) throws -> ChildProcess {
      let upgrade = try start(moult: patient.upgrade())
      try eventually("the copy begins") {
        if !upgrade.isRunning { throw LabFailure("\(try upgrade.wait())") }
        let text = String(decoding: FileManager.default.contents(atPath: patient.journal) ?? Data(), as: UTF8.self)
        return text.contains("\"step\":\"pause\",\"phase\":\"begin\"")
      }
      return upgrade
    }

    static func large(_ name: String) -> VMConfiguration {
      VMConfiguration("fail-large-\(name)") {
        $0.mebibytes = 1024
        $0.words = ["fill=640", "churn=8"]
        $0.extraArguments = ["-no-reboot"]
      }
    }

    @Test func `killed or interrupted in the middle of the copy`() throws {
      let patient = try Patient(Self.large("copy"))
      for signal in [SIGKILL, SIGINT, SIGTERM, SIGHUP] {
        let upgrade = try Self.copying(patient)
        usleep(50_000)
        if signal == SIGKILL { try Self.kill(patient.twin) } else { upgrade.signal(signal) }
        let outcome = try upgrade.wait(seconds: 60)
        patient.check(outcome, exits: 1, saying: [signal == SIGKILL ? "migrate" : "interrupted"])
        try patient.expectUntouched()
        patient.expectHealthy()
      }
      let upgrade = try Self.copying(patient)
      try Self.kill(patient.pid)
      patient.check(try upgrade.wait(seconds: 60), exits: 5, saying: ["no QEMU runs the guest", "see its log"])
      try patient.expectGone()
    }

    @Test(.enabled(if: isFull), arguments: ["poweroff", "panic", "reboot"])
    func `a guest that is told to end in the middle of the copy does so in the new QEMU`(_ word: String) throws {
      let patient = try Patient(Self.large(word))
      let upgrade = try Self.copying(patient)
      try patient.vm.serial.send(word)
      patient.check(try upgrade.wait(seconds: 60), exits: 0)
      try eventually("the guest's end", within: 30) { patient.vm.processes.isEmpty }
      try patient.expectGone()
    }
  }
}

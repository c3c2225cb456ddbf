import Foundation
import Lab
import Testing

extension FailureTests {
  /// What is left of an upgrade is damaged, or the host runs short, at the worst moment.
  @Suite(.serialized)
  struct Shortages {
    // The journal.

    /// Kills an upgrade and its guardian right after a record; the guest stands still then.
    /// - Returns: the new QEMU.
    static func interrupt(_ patient: Patient, after record: String = "verify.done") throws -> pid_t {
      let run = try TracedRun(moult: patient.upgrade(), of: patient.vm)
      try run.go(to: record)
      try run.finishRecord()
      let twin = try #require(patient.twin)
      try run.killAll()
      return twin
    }

    static let damages: [(what: String, change: @Sendable (inout Data) -> Void)] = [
      ("half a line at the end", { $0 += Data("1 90 00000000 {\"us\":12,\"st".utf8) }),
      ("zeros at the end", { $0 += Data(count: 4096) }),
      ("the last line is cut", { $0.removeLast(20) }),
      ("a bit has flipped in an entry", { $0[($0.range(of: Data("\"compare\"".utf8))?.lowerBound ?? 0) + 2] ^= 1 }),
      ("a line is garbage", { $0 += Data("\u{1}\u{2}what?\n".utf8) }),
    ]

    @Test func `a damaged journal: what can be read suffices`() throws {
      let patient = try Kills.patient("damaged", .shared)
      for damage in Self.damages {
        _ = try Self.interrupt(patient)
        var journal = try Data(contentsOf: URL(fileURLWithPath: patient.journal))
        damage.change(&journal)
        try journal.write(to: URL(fileURLWithPath: patient.journal))
        let outcome = try run(moult: ["recover", patient.name])
        #expect(outcome.code == 0, "\(damage.what): \(outcome.stdout)\(outcome.stderr)")
        _ = try patient.expectWhole()
        patient.expectHealthy()
      }
    }

    @Test func `a journal of which nothing can be read: nothing is touched, and that is said`() throws {
      let patient = try Kills.patient("unreadable", .shared)
      let twin = try Self.interrupt(patient)
      let journal = URL(fileURLWithPath: patient.journal)
      let whole = try Data(contentsOf: journal)
      for bytes in [Data("no journal\n".utf8), Data((0..<9000).map { UInt8(truncatingIfNeeded: $0 &* 37) })] {
        try bytes.write(to: journal)
        for words in [["recover"], ["recover", patient.name], ["upgrade", patient.name] + QEMUVersion.v10_0.destination] {
          let outcome = try run(moult: words)
          #expect(outcome.code != 0 && outcome.stderr.contains(patient.journal), "\(words): \(outcome.code) \(outcome.stdout)\(outcome.stderr)")
          #expect(Set(patient.vm.processes) == [patient.pid, twin], "\(words)")
        }
      }
      try whole.write(to: journal)
      try patient.moult(["recover", patient.name], exits: 0)
      _ = try patient.expectWhole()
      patient.expectHealthy()
    }

    /// The journal names a pid that is somebody else's by now.
    @Test func `a pid that was used again is not the QEMU that had it`() throws {
      let patient = try Kills.patient("reuse", .shared)
      let twin = try Processes.adoptingOrphans { try Self.interrupt(patient) }
      try Processes.killAdopted(twin)
      let stranger = try ChildProcess.started(as: twin, ["sleep", "600"])
      defer {
        stranger.signal(SIGKILL)
        stranger.reap()
      }
      #expect(stranger.pid == twin)
      let outcome = try run(moult: ["recover", patient.name])
      #expect(outcome.code == 0, "\(outcome.stdout)\(outcome.stderr)")
      #expect(stranger.isRunning, "a stranger was killed")
      try patient.expectUntouched()
      patient.expectHealthy()
    }

    // Space.

    @Test func `no room for the files that are kept`() throws {
      let patient = try Patient(VMConfiguration("fail-keep") { $0.memory = .file() })
      let script = """
        mkdir -p /var/lib/moult; mount -t tmpfs -o size=8m moult-lab-kept /var/lib/moult
        "$@"; code=$?
        find /var/lib/moult/kept -mindepth 1 -printf 'left behind: %p\\n' >&2
        exit $code
        """
      let outcome = try run(
        ["unshare", "--mount", "--propagation", "slave", "sh", "-c", script, "sh", Lab.paths.moult] + patient.upgrade(to: .v10_0, ["--hold"]))
      patient.check(outcome, exits: 1, saying: ["/var/lib/moult", "No space left"])
      #expect(!outcome.stderr.contains("left behind"), "\(outcome.stderr)")
      try patient.expectUntouched()
      patient.expectHealthy()
    }

    // Memory.

    /// The kernel kills somebody when a control group's limit is hit: it must not be the VM's own QEMU.
    @Test(arguments: ["launch.begin", "migrate.begin"])
    func `a memory limit that is hit costs the new QEMU`(_ record: String) throws {
      let group = try MemoryCgroup("fail-limit", bytes: 1 << 30)
      defer { group.remove() }
      let patient = try Patient(
        VMConfiguration("fail-limit") {
          $0.launcher = group.launcher
          $0.words = ["fill=120"]
        })
      defer { patient.vm.end() }
      let upgrade = try TracedRun(moult: patient.upgrade(), of: patient.vm)
      try upgrade.go(to: record)
      // Less than the new QEMU takes, more than the old one may come to need meanwhile.
      try group.limit(bytes: group.usage() + 28 << 20)
      try upgrade.release()
      let outcome = try upgrade.wait()
      try group.limit(bytes: 1 << 30)
      patient.check(outcome, exits: 1, saying: ["new QEMU"])
      try patient.expectUntouched()
      patient.expectHealthy()
    }
  }
}

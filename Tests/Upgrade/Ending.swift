import Kernel

@testable import Upgrade

/// How a run of the executor ended, and whether the report says what is true.
struct Ending {
  let host: ModelHost
  let report: UpgradeReport

  /// What is wrong with it; empty when the report tells the truth and nothing is left that it does not name.
  /// - Parameter faults: how many things went wrong: with one, no name may be lost and nothing be left.
  func faultsFound(single: Bool, recovered: Bool = false) -> [String] {
    var wrong = host.violations
    func expect(_ condition: Bool, _ what: String) { if !condition { wrong.append(what) } }
    let newRuns = host.new?.runs ?? false
    let notes = report.notes.joined(separator: " / ")
    let name = report.outcome.rawValue
    func allNames(_ side: Side) -> Bool { host.publicPaths.allSatisfy { host.names[$0] == side } }

    switch report.outcome {
    case .committed, .held:
      expect(newRuns, "\(name), but the new QEMU does not run")
      expect(allNames(.new), "\(name), but names are not the new one's: \(host.names)")
      expect(!host.old.isAlive, "\(name), but the old QEMU lives")
      expect((report.new != nil || recovered) && report.failure == nil, "\(name) with a failure or without the new QEMU")
      if report.outcome == .committed {
        expect(!host.stateExists && !host.isLocked, "committed, but the state is still there")
        expect(host.keptRuntimes == 0 || notes.contains("kept runtime"), "committed, but the kept runtime is still there")
      } else {
        expect(host.record?.state == .probation && host.record?.hasResumed == true, "held, but the record says \(String(describing: host.record?.state))")
        expect(host.keptRuntimes == 1, "held, but there is no way back")
      }
      expect(host.oomScore == host.plan.observation.oomScoreAdjustment || notes.contains("dear to the kernel"), "\(name), but the kernel kills it first")
      expect(!host.hasStandIns, "\(name), but the stand-ins are still there")
      if let had = host.plan.observation.network.exports, host.old.exports == nil {
        expect(host.new?.exports == nil && notes.contains("\(had.address) was stopped"), "\(name), but the server that its owner stopped is there again")
      } else if let had = host.plan.observation.network.exports {
        expect(host.new?.exports?.sorted() == had.server.exports.map(\.id).sorted() && host.new?.hasListener == true, "\(name), but not all is exported")
      }
      expect(host.isSettled || notes.contains("detach"), "\(name), but the staging mounts are still there")
    case .failed where report.failure?.step == .probation:
      expect(newRuns && allNames(.new), "unhealthy, but the guest does not run in the new QEMU")
      expect(host.record?.state == .probation, "unhealthy, but there is no record to roll back from")
    case .failed:
      expect(!host.hasEndedPredecessors, "failed, but the old QEMU has lost disks")
      expect(host.old.runs, "failed, but the old QEMU is \(host.old.isAlive ? host.old.runState.rawValue : "dead")")
      expect(host.new?.isAlive != true, "failed, but the new QEMU lives")
      expect(!host.isDiverted && !host.isReadyToDivert || notes.contains("connections back"), "failed, but the old QEMU lacks its connections")
      if let had = host.plan.observation.network.exports {
        let ids = had.server.exports.map(\.id)
        expect(
          host.old.exports.map { $0.filter { $0 != "foreign" }.sorted() == ids.sorted() && host.old.hasListener } ?? !host.old.hasListener,
          "failed, but the old QEMU does not export what it did")
        expect(!host.old.keepsListener && !host.old.hasListenerStandIn, "failed, but clients wait in vain")
      }
      expect(allNames(.old), "failed, but names are not the old one's: \(host.names)")
      expect(!host.stateExists && !host.isLocked, "failed, but the state is still there")
      expect(host.keptRuntimes == 0 || notes.contains("kept runtime"), "failed, but the kept runtime is still there")
      let had = host.plan.observation.live
      expect(
        had.migrationCapabilities == host.old.capabilities || notes.contains("restore the migration settings"),
        "failed, but capabilities are \(host.old.capabilities)")
      for parameter in ["max-bandwidth", "downtime-limit"] {
        expect(
          had.migrationParameters[parameter] == host.old.parameters[parameter] || notes.contains("restore the migration settings"),
          "failed, but \(parameter) is not as it was")
      }
    case .needsPerson where (host.old.runs || newRuns) && !host.hasBackEnd:
      expect(notes.contains("runs in the \(newRuns ? "new" : "old") QEMU without what other programs do for it"), "the guest goes on without its disks: \(notes)")
    case .needsPerson where host.old.runs && host.hasEndedPredecessors:
      expect(notes.contains("without what other programs do for it") && host.new?.isAlive != true && allNames(.old), "the old QEMU goes on without its disks: \(notes)")
    case .needsPerson:
      expect(!notes.isEmpty, "somebody has to look, but nothing says at what")
      expect(report.failure != nil || !host.old.runs, "somebody has to look, without a failure")
      // With one thing gone wrong somebody is needed only if no QEMU is left that could run the guest.
      if single { expect(!host.old.runs && !newRuns, "somebody has to look, though the guest runs") }
      if single { expect(notes.contains("no QEMU runs the guest"), "the notes do not say that no QEMU runs the guest: \(notes)") }
      if single { expect(host.killed.count == 1, "somebody has to look, though nothing was killed") }
    case .refused, .rolledBack: wrong.append("the executor reports \(name)")
    }
    for stage in host.stages.sorted() {
      // A live process may hold its names in there; otherwise a stage that is left must be named.
      expect(notes.contains(stage) || notes.contains("still lives") || report.outcome == .needsPerson && !single, "the stage \(stage) is left")
    }
    return wrong
  }
}

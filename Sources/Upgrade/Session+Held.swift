import Glibc
public import Kernel
import QEMU

/// Upgrades that are held in probation: ended by `commit` or `rollback`.
extension Session {
  /// The held upgrade of a VM.
  public func held(_ selector: String) throws(Failure) -> UpgradeRecord {
    try recoverInterrupted(selector, isAlone: true)
    let records = try state.records()
    let record: UpgradeRecord?
    let named = records.filter { $0.vm == selector || $0.key == selector || $0.id == selector }
    // One of a VM that has ended since must not stand before that of a VM of the same name.
    var living: UpgradeRecord?
    for candidate in named where living == nil {
      if try candidate.hasLivingGuest() { living = candidate }
    }
    if let found = living ?? named.first {
      record = found
    } else if let ended = records.first(where: { $0.new.map { "\($0.process.pid)" } == selector }), try !ended.hasLivingGuest() {
      record = ended  // Of a VM that has ended nobody has that pid any more.
    } else {
      let pid = try Locator.find(selector, state: state)
      record = records.first { $0.new?.process.pid == pid || $0.old.pid == pid }
    }
    guard let record else {
      throw Failure(
        step: "find the upgrade of", subject: selector, reason: "none is held: it was committed or rolled back already, or not held",
        hint: "moult status shows the upgrades under way; moult upgrade --hold keeps the way back open")
    }
    if let holder = try state.holder(of: record.key) {
      throw Failure(
        step: "lock the VM", subject: record.vm, reason: "another moult (pid \(holder)) is working on it", hint: "wait for it")
    }
    guard record.isHeld else {
      throw Failure(
        step: "find the upgrade of", subject: selector, reason: "upgrade \(record.id) was interrupted and is not held",
        hint: "moult recover \(record.vm) brings it to an end")
    }
    return record
  }

  /// Gives up the way back.
  public func commit(_ record: UpgradeRecord) throws(Failure) {
    let lock = try state.lock(record.key)
    // Another moult may have been quicker.
    guard let record = try state.record(record.key), record.isHeld else {
      throw Failure(
        step: "commit", subject: record.vm, reason: "upgrade \(record.id) is not held any more: it was committed or rolled back meanwhile",
        hint: "moult status \(record.vm) shows what is")
    }
    var ended = record
    ended.giveUpWayBack()
    try JournalFile(state.journalPath(record.key)).append(Journal.line(ended))
    if let kept = record.kept { try KeptRuntime.remove(kept) }
    try state.remove(record.key)
    History(state).settle(record.id, .committed)
    _ = lock.raw  // Held until here.
  }

  /// The plan that takes a held upgrade back: the same upgrade, to the version that ran before.
  public func rollbackPlan(_ record: UpgradeRecord) throws(Failure) -> (Observed, UpgradePlan) {
    guard let new = record.new else {
      throw Failure(step: "roll back", subject: record.vm, reason: "the record names no new QEMU")
    }
    guard try record.hasLivingGuest() else {
      throw Failure(
        step: "roll back", subject: record.vm, reason: "the new QEMU (pid \(new.process.pid)) has ended, and the guest with it",
        hint: "start the VM anew; moult commit \(record.vm) clears what the upgrade left")
    }
    let observed = try observe(String(new.process.pid))
    var request = UpgradeRequest(binary: record.oldBinary, root: record.oldRoot, kept: record.kept,
      keptDirectories: try record.kept?.changedDirectories() ?? [])
    (request.takesBack, request.version) = (true, record.oldVersion)
    return (observed, try plan(observed, request))
  }

  /// Takes back an upgrade whose guest turned out unhealthy in probation.
  public func rollBackUnhealthy(
    _ report: UpgradeReport, _ plan: UpgradePlan, progress: @escaping (Executor.Progress) -> Void
  ) -> UpgradeReport {
    var result = report
    do throws(Failure) {
      guard let record = try state.record(plan.key) else {
        throw Failure(step: "roll back", subject: plan.vm, reason: "its record is gone")
      }
      let (observed, back) = try rollbackPlan(record)
      let second = try upgrade(observed, back, takingBack: record, progress: progress)
      result.notes += second.notes
      result.totalMilliseconds += second.totalMilliseconds
      if second.outcome == .committed {
        result.outcome = .rolledBack
        result.new = second.new
      } else {
        result.outcome = .needsPerson
        result.notes.append("the guest is not healthy in the new QEMU, and could not be rolled back: \(second.failure.map { "\($0.failure)" } ?? back.blockers.map(\.reason).joined(separator: "; "))")
      }
    } catch {
      result.outcome = .needsPerson
      result.notes.append("the guest is not healthy in the new QEMU, and could not be rolled back: \(error)")
    }
    return result
  }
}

extension UpgradeRecord {
  fileprivate func hasLivingGuest() throws(Failure) -> Bool {
    guard let new else { return false }
    return try ProcessHandle(new.process) != nil
  }
}

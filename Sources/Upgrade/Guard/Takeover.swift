import Glibc
import Kernel

/// Brings an upgrade to an end whose moult is gone.
struct Takeover {
  var state: StateDirectory
  var reactor: Reactor

  /// - Parameters:
  ///   - lock: the VM's, held.
  ///   - monitors: connections that moult had, if they outlived it.
  ///   - isGuarded: whether a guardian goes on if this process is killed. A guardian has none itself: if what it finds
  ///     there ended it, that would end one after the other for ever.
  /// - Returns: nil if there is nothing to end: it was over, or is held.
  func end(
    _ key: String, lock: consuming OwnedFD, monitors: [Side: DescriptorBox] = [:], isGuarded: Bool
  ) throws(Failure) -> (record: UpgradeRecord, report: UpgradeReport)? {
    try state.sign(key, lock.raw, guardian: isGuarded ? nil : getpid())
    let contents = try state.contents(key)
    guard var record = contents.record else {
      // Nothing was done yet, or all was done.
      try state.remove(key)
      return nil
    }
    if record.isHeld { return nil }
    // The record says so only later.
    if contents.entries.contains(where: { $0.step == .resume && $0.phase == .done }) { record.hasResumed = true }
    if record.kept == nil {
      // Copies that were under way: no record names them.
      try Files.removeTree(KeptRuntime.directory(state, id: record.id))
    }
    let host = try LinuxHost(
      recovering: record, superseded: contents.superseded, lock: lock, monitors: monitors, reactor: reactor, state: state)
    var unguarded: Failure?
    if isGuarded {
      do throws(Failure) { _ = try host.ensureGuardian(ready: false) } catch { unguarded = error }
    }
    var report = Executor(recovering: record, begun: Set(StepName.allCases.filter(contents.mayHaveBegun)), host: host).recover()
    if let unguarded { report.notes.append("nobody watched over the recovery: \(unguarded)") }
    report.takesBack = contents.superseded != nil
    // Of the upgrade, not of its recovery.
    report.steps = JournalEntry.steps(contents.entries)
    if let last = contents.entries.last { report.totalMilliseconds = last.milliseconds }
    if let failure = report.failure, let step = report.steps.last { report.failure = (step.name, failure.failure) }
    do throws(Failure) { try History(state).add(HistoryEntry(record, report, arguments: Self.arguments(of: record))) } catch {
      report.notes.append("could not write the history: \(error)")
    }
    return (record, report)
  }

  /// What the VM was started with, for the history; nil if neither QEMU is left to tell. Asked last: the guest may have stood still.
  private static func arguments(of record: UpgradeRecord) -> [String]? {
    for process in [record.old, record.spawned].compactMap(\.self) {
      do throws(Failure) {
        guard try ProcFS.status(process.pid).startTime == process.startTime else { continue }
        return try Observer.commandLine(of: process.pid, startTime: process.startTime).commandLine.argv
      } catch { continue }
    }
    return nil
  }
}

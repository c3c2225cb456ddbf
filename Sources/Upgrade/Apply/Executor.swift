public import Kernel
import QEMU

/// Carries a plan out, step by step, and takes it back when a step fails.
///
/// It only sequences: every effect is a call to the host, every decision was made in the plan. The
/// rules it keeps whatever fails: the new QEMU is resumed only after the old one has reported that
/// the migration is complete or is dead; the old one is continued only after the new one is dead and
/// only if the new one never ran.
public final class Executor {
  public enum Progress: Sendable {
    case began(StepName, why: String)
    case ended(StepName, milliseconds: Double)
    case failed(StepName, Failure)
    case undoing
  }

  /// Nil when an interrupted upgrade is brought to an end: then the record is all there is.
  let plan: UpgradePlan?
  let host: any Host
  let progress: (Progress) -> Void
  let began: Instant

  var record: UpgradeRecord
  var steps: [UpgradeReport.Step] = []
  var notes: [String] = []
  var extraMemory: UInt64?
  /// Somebody let the old QEMU run on after the guest ran in the new one.
  var wasContinuedTwice = false
  /// Nothing of the old QEMU's connections is left diverted by an upgrade that was taken back.
  var hasConnectionsBack = true
  /// The QEMU that the guest runs in exports by NBD what the VM exported.
  var hasExports = true
  /// Exports of the old QEMU may have been ended.
  var hasEndedExports = false
  /// The guest was stopped for a moment, and could not be continued.
  var isLeftStopped = false
  /// A QEMU in which the guest runs has left something unanswered.
  var wasSilent = false
  /// Milliseconds for which the guest stood still before QEMU stopped it.
  var stoodStill = 0.0
  /// In what the new QEMU turned out not to be the old one's twin.
  var differences: [String] = []
  /// CPU features that the new QEMU has over the old one, if the two differ in nothing else.
  var gainedFeatures: [String] = []
  var isLocked = false
  var migrationStarted = false
  /// The new QEMU has the whole guest: from here on it does not matter if the old one dies.
  var newHoldsGuest = false
  /// The place of the old QEMU's last RESUME before the migration, -1 if none was heard: every later one is somebody else's.
  var runsSince: Int?
  /// In a recovery: the steps that the interrupted moult has, or may have, begun.
  var begun: Set<StepName> = []
  /// Seconds that a QEMU may take for its part of the pause.
  var pauseSeconds = Executor.switchSeconds

  public init(plan: UpgradePlan, host: any Host, began: Instant, progress: @escaping (Progress) -> Void) {
    self.plan = plan
    self.host = host
    self.progress = progress
    self.began = began
    record = UpgradeRecord(
      id: plan.id, vm: plan.vm, key: plan.key, state: .underWay, old: plan.observation.process,
      oldVersion: plan.observation.version, oldBinary: plan.observation.binary, oldRoot: plan.observation.root,
      spawned: nil, new: nil, newBinary: plan.request.binary, newRoot: plan.request.root, monitor: plan.observation.monitor,
      memory: plan.memory.strategy, stages: plan.stages, workingDirectory: LaunchPlan.workingDirectory(plan),
      covered: LaunchPlan.covers(plan).map(\.path), staged: [:],
      rewiring: nil, vsock: plan.rewiring.vsock, exports: plan.observation.network.exports,
      fileServers: FileServerUse(programs: plan.observation.network.outgoing.count { $0.fileServer != nil }), settings: MigrationSettings(plan.observation.live), holds: plan.request.hold,
      oomScoreAdjustment: plan.observation.oomScoreAdjustment, notifiedUnit: plan.observation.supervision.notifiedUnit,
      hasResumed: false, kept: nil, pauseMilliseconds: nil)
  }

  /// Takes up an upgrade whose moult was killed. The host holds the VM's lock already.
  /// - Parameter begun: the steps that, by the journal, may have been begun.
  public init(recovering record: UpgradeRecord, begun: Set<StepName>, host: any Host) {
    plan = nil
    self.begun = begun
    self.host = host
    self.record = record
    progress = { _ in }
    began = host.now()
    isLocked = true
    migrationStarted = true
    hasEndedExports = begun.contains(.switch)
  }

  /// Runs all steps. Does not throw: whatever happens is in the report.
  public func run() -> UpgradeReport {
    guard let plan, plan.blockers.isEmpty else { return report(.refused) }
    for step in plan.steps {
      // A step before may have failed and the guest gone forward all the same: what leads there is behind us.
      if record.hasResumed, step.name.leadsToResume { continue }
      do {
        try take(step.name, why: step.why, plan)
      } catch {
        let failure = explained(error)
        progress(.failed(step.name, failure))
        if let ended = fail(at: step.name, failure) { return ended }
      }
    }
    let isWhole = hasBackEnds(.new) && answersStill() && hasExports && !wasContinuedTwice && !isLeftStopped
    do { try mustStillRun() } catch { return down(at: .commit, error) }
    if !isWhole { return report(.needsPerson) }
    if host.isAlive(.old) {
      notes.append("the old QEMU (pid \(record.old.pid)) could not be ended: end it by SIGKILL; it must neither run nor quit")
      return report(.needsPerson)
    }
    return report(plan.request.hold ? .held : .committed)
  }

  private func take(_ step: StepName, why: String, _ plan: UpgradePlan) throws(Failure) {
    let start = host.now() - began
    progress(.began(step, why: why))
    var outcome = "failed"
    defer {
      steps.append(UpgradeReport.Step(name: step, start: start, end: host.now() - began, outcome: outcome))
    }
    try journal(step, .begin)
    try perform(step, plan)
    try journal(step, .done)
    outcome = "done"
    progress(.ended(step, milliseconds: host.now() - began - start))
  }

  /// A new QEMU that is killed says nothing: only its connection ends. It is init's child, so nobody here learns by which
  /// signal. One that has run the guest is another matter: see `mustStillRun`.
  private func explained(_ failure: Failure) -> Failure {
    guard let new = record.new, !record.hasResumed, !host.isAlive(.new) else { return failure }
    var failure = failure
    if failure.errno == .connectionReset || failure.errno == .brokenPipe {
      failure.reason = "the new QEMU (pid \(new.process.pid)) has ended"
    }
    let end = "what it said is in the VM's log: readlink /proc/\(record.old.pid)/fd/2 names it. If it said nothing it was killed: dmesg tells whether for want of memory"
    failure.hint = failure.hint.map { "\($0); \(end)" } ?? end
    return failure
  }

  /// A journal that cannot be written ends the upgrade as long as it can be taken back, and not after that.
  func journal(_ step: StepName, _ phase: JournalEntry.Phase) throws(Failure) {
    guard isLocked else { return }
    do { try host.journal(entry(step, phase)) } catch {
      if !record.hasResumed { throw error }
      notes.append("could not write the journal: \(error)")
    }
  }

  func entry(_ step: StepName, _ phase: JournalEntry.Phase, note: String? = nil) -> JournalEntry {
    JournalEntry(step: step, phase: phase, milliseconds: host.now() - began, note: note)
  }

  func report(_ outcome: UpgradeReport.Outcome, failure: (StepName, Failure)? = nil) -> UpgradeReport {
    var report = UpgradeReport(
      outcome: outcome, pauseMilliseconds: record.pauseMilliseconds, totalMilliseconds: host.now() - began,
      extraMemoryBytes: extraMemory, new: record.new, steps: steps, failure: failure, notes: notes, differences: differences, gainedFeatures: gainedFeatures)
    if outcome == .refused { report.blockers = plan?.blockers ?? [] }
    return report
  }
}

extension Executor {
  /// Runs something whose failure must not stop the rest; the failure becomes a note.
  /// - Returns: whether it was done.
  @discardableResult
  func attempt(_ what: String, _ body: () throws(Failure) -> Void) -> Bool {
    do {
      try body()
      return true
    } catch {
      notes.append("could not \(what): \(error)")
      if record.hasResumed, error.errno == .timedOut { wasSilent = true }
      return false
    }
  }

  /// The same, tried twice: for what would be left behind for good. `body` must be harmless to repeat.
  @discardableResult
  func insist(_ what: String, _ body: () throws(Failure) -> Void) -> Bool {
    do {
      try body()
      return true
    } catch {
      return attempt(what, body)
    }
  }
}

extension StepName {
  /// The steps that are over once the guest runs in the new QEMU.
  var leadsToResume: Bool {
    switch self {
    case .lock, .keep, .stage, .launch, .compare, .migrate, .pause, .switch, .exchange, .rewire, .verify, .resume: true
    case .retire, .probation, .commit: false
    }
  }
}

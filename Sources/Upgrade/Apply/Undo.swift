import Kernel
import QEMU

/// How an upgrade that failed is taken back.
extension Executor {
  func fail(at step: StepName, _ failure: Failure) -> UpgradeReport {
    guard isLocked else { return report(.failed, failure: (step, failure)) }
    attempt("journal the failure") { () throws(Failure) in
      try self.host.journal(self.entry(step, .failed, note: failure.description))
    }
    // The guest has run in the new QEMU: the way back is another migration, and not ours to start.
    if record.hasResumed { return report(.failed, failure: (step, failure)) }
    progress(.undoing)
    host.ignoreInterrupts()
    return undo(after: step, failure)
  }

  func undo(after step: StepName, _ failure: Failure) -> UpgradeReport {
    attempt("journal the undoing") { () throws(Failure) in try self.host.journal(self.entry(step, .undoing)) }
    // A `cont` whose answer was lost may have been carried out: then the guest has run, and the old
    // QEMU must stay where it is. Killing the new one is safe only if it is known to be waiting.
    if step == .resume, let state = resumedState() { return finishAfterLostAnswer(state, step, failure) }

    // The old QEMU died after it had handed the guest over: the new one is all there is, so forward.
    if newHoldsGuest, !host.isAlive(.old), host.isAlive(.new) { return goForward(step, failure) }

    for exchange in record.stages.flatMap(\.exchanges).reversed() {
      attempt("give \(exchange.published) back") { () throws(Failure) in
        if try self.host.isExchanged(exchange) { try self.host.exchange(exchange) }
      }
    }
    do { try host.end(.new) } catch {
      // Never two: an old QEMU is not continued beside a new one that may yet run.
      notes.append("the new QEMU could not be ended (\(error)), so the old one was left paused")
      return report(.needsPerson, failure: (step, failure))
    }
    let guestRuns = continueOld()
    for stage in record.stages {
      attempt("remove the stage \(stage.path)") { () throws(Failure) in try self.host.removeStage(stage) }
    }
    if let kept = record.kept {
      attempt("drop the kept runtime") { () throws(Failure) in try self.host.dropRuntime(kept) }
    }
    attempt("journal the undoing") { () throws(Failure) in try self.host.journal(self.entry(step, .undone)) }
    if guestRuns {
      host.unlock(undone: true)
      isLocked = false
      return report(.failed, failure: (step, failure))
    }
    if !host.isAlive(.old) {
      notes.append("the old QEMU has ended, and with it the VM: see its log")
      host.unlock(undone: true)
      isLocked = false
    }
    return report(.needsPerson, failure: (step, failure))
  }

  /// The run state of the new QEMU after a resume that failed; nil when it is certain that it never ran.
  private func resumedState() -> String? {
    guard host.isAlive(.new) else {
      // It may have run for a moment before it died. Its disks then hold what the old one does not know of.
      return host.eventTime(.new, "RESUME") == nil ? nil : "dead"
    }
    do {
      let state = try host.command(.new, "query-status", nil)["status"]?.string ?? "unknown"
      return state == "paused" || state == "inmigrate" || state == "prelaunch" ? nil : state
    } catch {
      return "unknown"
    }
  }

  private func finishAfterLostAnswer(_ state: String, _ step: StepName, _ failure: Failure) -> UpgradeReport {
    record.hasResumed = true
    notes.append(
      "the new QEMU may have run the guest already (its state: \(state)), so the old one was not continued")
    attempt("note it") { () throws(Failure) in try self.host.save(self.record) }
    return report(.needsPerson, failure: (step, failure))
  }

  func goForward(_ step: StepName, _ failure: Failure) -> UpgradeReport {
    notes.append("the old QEMU ended after it had handed the guest over, so the guest goes on in the new one")
    for exchange in record.stages.flatMap(\.exchanges) {
      attempt("make \(exchange.published) lead to the new QEMU") { () throws(Failure) in
        if try !self.host.isExchanged(exchange) { try self.host.exchange(exchange) }
      }
    }
    do { try resume() } catch {
      notes.append("the guest could not be resumed in the new QEMU: \(error)")
      return report(.needsPerson, failure: (step, failure))
    }
    retire()
    return report(.needsPerson, failure: (step, failure))
  }

  /// Brings the old QEMU back to running from wherever the migration left it.
  /// - Returns: whether the guest runs in it.
  private func continueOld() -> Bool {
    guard host.isAlive(.old) else { return false }
    guard migrationStarted else { return true }
    do {
      try cancelMigration()
      let status = try host.command(.old, "query-status", nil)["status"]?.string
      if status != "running" {
        _ = try host.command(.old, "cont", nil)
        let after = try host.command(.old, "query-status", nil)["status"]?.string ?? "unknown"
        if after != "running" {
          notes.append("the old QEMU was continued but is \(after)")
          return false
        }
      }
    } catch {
      if !host.isAlive(.old) { return false }
      notes.append("could not continue the old QEMU: \(error)")
      return false
    }
    attempt("restore the migration settings") { () throws(Failure) in try self.restoreMigrationSettings(.old) }
    return true
  }

  /// States in which QEMU has nothing under way.
  private static let idle: Set<String> = ["none", "completed", "failed", "cancelled"]

  private func cancelMigration() throws(Failure) {
    let state = try host.command(.old, "query-migrate", nil)["status"]?.string ?? "none"
    if Self.idle.contains(state) { return }
    _ = try host.command(.old, "migrate_cancel", nil)
    _ = try host.awaitMigration(.old, states: Self.idle, seconds: Self.switchSeconds, peerMustLive: false)
  }
}

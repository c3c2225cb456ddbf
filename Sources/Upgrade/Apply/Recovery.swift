import Kernel

/// How an upgrade whose moult was killed is brought to an end.
extension Executor {
  /// Decides by what is, not by what was meant: who runs the guest, who could.
  public func recover() -> UpgradeReport {
    attempt("journal the recovery") { () throws(Failure) in
      try self.host.journal(self.entry(.lock, .undoing, note: "recovery"))
    }
    let interrupted = Failure(step: "upgrade", subject: record.vm, reason: "the moult that did it was killed")
    var mayHaveRun = record.hasResumed || begun.contains(.resume) && record.state != .undoing
    var (state, silence): (String?, Failure?) = (nil, nil)
    do {
      // Stopped by SIGSTOP it could not say.
      try host.thaw(.new)
      state = try self.state(of: .new)
    } catch { silence = error }
    if state == nil, !mayHaveRun, hearWhetherNewRan() {
      // Its monitor is public from the exchange on: another program told it to. Whoever comes after this recovery could not
      // hear that again.
      (mayHaveRun, record.hasResumed) = (true, true)
      attempt("note it") { () throws(Failure) in try self.host.save(self.record) }
    }
    if let silence, host.isAlive(.new) {
      // Never told to run the guest it is not needed.
      if !mayHaveRun { return undo(after: .lock, interrupted) ?? finish(interrupted) }
      notes.append("the new QEMU (pid \(record.spawned?.pid ?? 0)) does not say whether it runs the guest: \(silence)")
      return report(.needsPerson, failure: (.lock, interrupted))
    }
    switch state {
    case nil where mayHaveRun:
      // Its disks, and shared RAM, may hold what the old one does not know of.
      notes.append("no QEMU runs the guest: the new one ended after it had, or may have, taken over; the old one was not continued")
      // It is certain that the guest has ended: what is left of the VM would only bar its next start.
      if record.hasResumed { insist("end the old QEMU") { () throws(Failure) in try self.host.end(.old) } }
      if !host.isAlive(.old) { clearAway() }
      return report(.needsPerson, failure: (.resume, interrupted))
    case "postmigrate":
      notes.append("the new QEMU ran the guest and has been migrated away: the old one was not continued")
      return report(.needsPerson, failure: (.resume, interrupted))
    case nil, "inmigrate", "prelaunch":
      // An old one that has ended may have sent everything before.
      return undo(after: begun.contains(.switch) ? .switch : .lock, interrupted) ?? finish(interrupted)
    case "paused" where !record.hasResumed:
      // It has the whole guest. Told to run it, whether it did cannot be known; given the connections, it has read what
      // clients sent, which the old one would never hear of. Else the old one goes on, unless there is none left.
      newHoldsGuest = true
      if mayHaveRun { return goForward(.resume, interrupted) ?? finish(interrupted) }
      return (hasConnections ? goForward(.lock, interrupted) : undo(after: .lock, interrupted)) ?? finish(interrupted)
    default:
      return finish(interrupted)
    }
  }

  private var hasConnections: Bool {
    guard let moves = record.rewiring, begun.contains(.rewire), record.state != .undoing else { return false }
    // In doubt it goes on: where it cannot it is taken back.
    var isRewired = true
    attempt("find out what the new QEMU has of the VM's connections") { () throws(Failure) in isRewired = try self.host.isRewired(moves) }
    return isRewired
  }

  /// Both QEMUs are dead: nothing of the upgrade is of use to anybody, and it must not bar the VM's next start.
  private func clearAway() {
    for stage in record.stages {
      attempt("remove the stage \(stage.path)") { () throws(Failure) in try self.host.removeStage(stage) }
    }
    if let kept = record.kept {
      attempt("drop the kept runtime") { () throws(Failure) in try self.host.dropRuntime(kept) }
    }
    host.unlock(undone: false)
    isLocked = false
  }

  /// The guest runs in the new QEMU: what is left of the upgrade is done.
  private func finish(_ interrupted: Failure) -> UpgradeReport {
    record.hasResumed = true
    // A stage that may hold the new QEMU's names must stay.
    guard makeNamesPublic() else { return report(.needsPerson, failure: (.resume, interrupted)) }
    insist("give the new QEMU its taps and ports") { () throws(Failure) in try self.rewire() }
    do {
      for step in [StepName.retire] + (record.keepsWayBack ? [] : [.commit]) {
        try journal(step, .begin)
        if step == .retire { try retire() } else { try commit() }
        try journal(step, .done)
      }
    } catch { return down(at: .retire, error) }
    if !hasExports || !hasBackEnds(.new) || !answersStill() || isLeftStopped { return report(.needsPerson) }
    return report(record.keepsWayBack ? .held : .committed)
  }

  /// The run state that a QEMU reports; nil when it is dead or was never reachable.
  private func state(of side: Side) throws(Failure) -> String? {
    guard host.isAlive(side) else { return nil }
    return try host.command(side, "query-status", nil, seconds: Self.switchSeconds)["status"]?.string ?? "unknown"
  }
}

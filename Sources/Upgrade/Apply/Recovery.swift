import Kernel

/// How an upgrade whose moult was killed is brought to an end.
extension Executor {
  /// Decides by what is, not by what was meant: who runs the guest, who could.
  public func recover() -> UpgradeReport {
    attempt("journal the recovery") { () throws(Failure) in
      try self.host.journal(self.entry(.lock, .undoing, note: "recovery"))
    }
    let interrupted = Failure(step: "upgrade", subject: record.vm, reason: "the moult that did it was killed")
    do {
      switch try state(of: .new) {
      case nil where record.hasResumed || resumeBegan && record.state != .undoing:
        // Its disks, and shared RAM, may hold what the old one does not know of.
        notes.append("no QEMU runs the guest: the new one ended after it had, or may have, taken over; the old one was not continued")
        if !host.isAlive(.old) { clearAway() }
        return report(.needsPerson, failure: (.resume, interrupted))
      case "postmigrate":
        notes.append("the new QEMU ran the guest and has been migrated away: the old one was not continued")
        return report(.needsPerson, failure: (.resume, interrupted))
      case nil, "inmigrate", "prelaunch":
        return undo(after: .lock, interrupted) ?? finish(interrupted)
      case "paused" where !record.hasResumed:
        // It has the whole guest but never ran it: the old one goes on, unless there is none left.
        newHoldsGuest = true
        return undo(after: .lock, interrupted) ?? finish(interrupted)
      default:
        return finish(interrupted)
      }
    } catch {
      notes.append("the new QEMU (pid \(record.spawned?.pid ?? 0)) does not say whether it runs the guest: \(error)")
      return report(.needsPerson, failure: (.lock, interrupted))
    }
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
    do {
      try retire()
      if !record.holds { try commit() }
    } catch { return down(at: .retire, error) }
    return report(record.holds ? .held : .committed)
  }

  /// The run state that a QEMU reports; nil when it is dead or was never reachable.
  private func state(of side: Side) throws(Failure) -> String? {
    guard host.isAlive(side) else { return nil }
    return try host.command(side, "query-status", nil)["status"]?.string ?? "unknown"
  }
}

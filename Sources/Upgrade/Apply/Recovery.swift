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
      let new = try state(of: .new)
      switch new {
      case nil, "inmigrate", "prelaunch":
        return undo(after: .lock, interrupted)
      case "paused", "postmigrate":
        // It has the whole guest but never ran it: the old one goes on, unless there is none left.
        newHoldsGuest = new == "paused"
        return undo(after: .lock, interrupted)
      default:
        return finish()
      }
    } catch {
      notes.append("the new QEMU (pid \(record.spawned?.pid ?? 0)) does not say whether it runs the guest: \(error)")
      return report(.needsPerson, failure: (.lock, interrupted))
    }
  }

  /// The guest runs in the new QEMU: what is left of the upgrade is done.
  private func finish() -> UpgradeReport {
    record.hasResumed = true
    for exchange in record.stages.flatMap(\.exchanges) {
      attempt("make \(exchange.published) lead to the new QEMU") { () throws(Failure) in
        if try !self.host.isExchanged(exchange) { try self.host.exchange(exchange) }
      }
    }
    retire()
    if record.holds { return report(.held) }
    attempt("commit") { () throws(Failure) in try self.commit() }
    return report(.committed)
  }

  /// The run state that a QEMU reports; nil when it is dead or was never reachable.
  private func state(of side: Side) throws(Failure) -> String? {
    guard host.isAlive(side) else { return nil }
    return try host.command(side, "query-status", nil)["status"]?.string ?? "unknown"
  }
}

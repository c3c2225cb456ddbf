import Kernel
import QEMU

/// The steps after the resume: there is no way back in them but another migration.
extension Executor {
  /// The guest runs in the new QEMU, and the old one can only do harm: its clients must come over, its
  /// memory is the new one's or stale. Nothing here is a reason to go back: it throws only when there is
  /// nothing to go on with.
  func retire() throws(Failure) {
    host.ignoreInterrupts()
    attempt("note that the guest runs in the new QEMU") { () throws(Failure) in try self.host.save(self.record) }
    serveExports()
    if let adjustment = record.oomScoreAdjustment {
      insist("make the new QEMU as dear to the kernel as the old one was") { () throws(Failure) in try self.host.setOOMScore(adjustment) }
    }
    attempt("hear the old QEMU's last events") { () throws(Failure) in
      guard self.host.isAlive(.old), try self.oldWasContinued() else { return }
      self.wasContinuedTwice = true
      self.notes.append("another program continued the old QEMU after the guest had moved: check the guest's disks")
    }
    attempt("verify the public monitor") { () throws(Failure) in try self.host.verifyPublicMonitor(self.record.monitor) }
    extraMemory = host.extraMemory()
    if record.rewiring?.contains(where: \.isTap) ?? false {
      // Switches learn again where the guest is, should it have become known elsewhere meanwhile.
      attempt("announce the guest on its networks") { () throws(Failure) in
        _ = try self.host.command(.new, "announce-self", ["initial": 50, "max": 550, "rounds": 5, "step": 100])
      }
    }
    // The end of its main process would end the unit, and with it the new QEMU. Stopped, the old one does no harm.
    let mayEnd = handOverUnit()
    if mayEnd { insist("end the old QEMU") { () throws(Failure) in try self.host.end(.old) } }
    attempt("detach the staging mounts") { () throws(Failure) in try self.host.settle(self.record.stages, covered: self.record.covered ?? [], self.record.workingDirectory) }
    host.finishRewiring()
    for stage in record.stages {
      insist("remove the stage \(stage.path)") { () throws(Failure) in try self.host.removeStage(stage) }
    }
    attempt("restore the migration settings") { () throws(Failure) in try self.restoreMigrationSettings(.new) }
    wakeFileServers(.new)
    record.state = .probation
    let isNoted = insist("note the probation") { () throws(Failure) in try self.host.save(self.record) }
    try mustStillRun()
    if !mayEnd {
      throw Failure(
        step: "end the old QEMU of", subject: record.vm,
        reason: "\(record.notifiedUnit ?? "its unit") could not be handed over and would end with it: it stays, stopped for good",
        hint: "the guest runs in the new QEMU; moult recover \(record.vm) tries again")
    }
    if record.holds, !isNoted {
      throw Failure(
        step: "hold the upgrade of", subject: record.vm, reason: "its record could not be written, so it can be neither committed nor rolled back",
        hint: "free space in moult's state directory; the guest runs in the new QEMU")
    }
  }

  /// Now and then QEMU takes its rings from such a program again when it has just given them, and says nothing: three times in some
  /// 300 moves the guest waited for its files. Stopped and continued it gives them once more. Once: the guest may have given the device
  /// up itself.
  func wakeFileServers(_ side: Side) {
    guard let expected = record.fileServers, expected.events > 0 else { return }
    attempt("have the programs that serve directories look at what the guest asks for") { () throws(Failure) in
      if try self.host.wakeFileServers(side, expected: expected.events) { return }
      if try self.host.fileServers(side).programs < expected.programs { return }
      if try self.host.command(side, "query-status", nil, seconds: Self.switchSeconds)["status"]?.string != "running" {
        self.notes.append("the guest is paused: cont over QMP lets it go on, if nobody wants that")
        return
      }
      // Whatever becomes of the stop, the guest is not left so. Neither event tells of an unhealthy guest.
      self.attempt("stop the guest for a moment") { () throws(Failure) in
        _ = try self.host.command(side, "stop", nil, seconds: Self.switchSeconds)
        try self.host.awaitEvent(side, "STOP", seconds: Self.switchSeconds)
      }
      guard self.insist("continue the guest", { () throws(Failure) in _ = try self.host.command(side, "cont", nil, seconds: Self.switchSeconds) }) else {
        self.isLeftStopped = true
        self.notes.append("the guest may stand still: cont over QMP lets it go on")
        return
      }
      try self.host.awaitEvent(side, "RESUME", seconds: Self.switchSeconds)
      self.notes.append("QEMU did not use the program that serves a directory: the guest was stopped and continued once more, for some milliseconds")
      _ = try self.host.wakeFileServers(side, expected: expected.events)
    }
  }

  /// Whether the QEMU in which the guest runs answers, if it was silent before: what it waits for, the guest may wait for, too.
  func answersStill() -> Bool {
    if !wasSilent || !host.isAlive(.new) { return true }
    let answers = insist("hear from the new QEMU") { () throws(Failure) in _ = try self.host.command(.new, "query-status", nil, seconds: Self.switchSeconds) }
    if !answers { notes.append("the guest is in the new QEMU, which does not answer, and may stand still: is a program stopped that serves it (kill -CONT)?") }
    return answers
  }

  /// - Returns: whether the old QEMU may end.
  private func handOverUnit() -> Bool {
    guard let unit = record.notifiedUnit, host.isAlive(.old) else { return true }
    let isHandedOver = insist("hand \(unit) over to the new QEMU") { () throws(Failure) in try self.host.handOver(unit: unit) }
    return isHandedOver || !host.isAlive(.old)
  }

  /// The new QEMU may end after it took the guest over: killed, crashed, or because the guest powered off.
  func mustStillRun() throws(Failure) {
    if host.isAlive(.new) { return }
    throw Failure(
      step: "run the guest in", subject: "the new QEMU", reason: "it has ended, and the guest with it",
      hint: "see the VM's log for whether the guest powered off; then start the VM anew")
  }

  func commit() throws(Failure) {
    try mustStillRun()
    if let kept = record.kept {
      // Half removed, they are no way back any more.
      record.giveUpWayBack()
      insist("note the commit") { () throws(Failure) in try self.host.save(self.record) }
      insist("drop the kept runtime") { () throws(Failure) in try self.host.dropRuntime(kept) }
    }
    host.unlock(undone: false)
    isLocked = false
  }
}

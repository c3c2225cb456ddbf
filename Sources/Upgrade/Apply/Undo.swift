import Kernel
import QEMU

/// How an upgrade that failed is taken back.
extension Executor {
  /// - Returns: the report of an upgrade that ends here; nil if the guest runs in the new QEMU and the
  ///   upgrade goes on from there.
  func fail(at step: StepName, _ failure: Failure) -> UpgradeReport? {
    guard isLocked else { return report(.failed, failure: (step, failure)) }
    attempt("journal the failure") { () throws(Failure) in
      try self.host.journal(self.entry(step, .failed, note: failure.description))
    }
    // The guest has run in the new QEMU: the way back is another migration, and not ours to start.
    if record.hasResumed {
      if host.isAlive(.new), step == .probation { return report(.failed, failure: (step, failure)) }
      return down(at: step, failure)
    }
    progress(.undoing)
    host.ignoreInterrupts()
    return undo(after: step, failure)
  }

  /// The report of an upgrade that cannot be called done though the guest has run in the new QEMU.
  func down(at step: StepName, _ failure: Failure) -> UpgradeReport {
    notes.append(
      host.isAlive(.new)
        ? "the guest runs in the new QEMU" : "no QEMU runs the guest: the new one ended after it had taken over")
    if isLocked, !host.isAlive(.new), !host.isAlive(.old) {
      // Nothing is left to commit or to roll back; the VM that is started next must not be taken for held.
      if let kept = record.kept {
        attempt("drop the kept runtime") { () throws(Failure) in try self.host.dropRuntime(kept) }
      }
      host.unlock(undone: false)
      isLocked = false
    }
    return report(.needsPerson, failure: (step, failure))
  }

  func undo(after step: StepName, _ failure: Failure) -> UpgradeReport? {
    attempt("journal the undoing") { () throws(Failure) in try self.host.journal(self.entry(step, .undoing)) }
    // A `cont` whose answer was lost may have been carried out: then the guest has run, and the old
    // QEMU must stay where it is. Killing the new one is safe only if it is known to be waiting.
    if step == .resume, let state = resumedState() { return afterLostAnswer(state, step, failure) }
    // From the exchange on, clients reach the new QEMU's monitor: one may have told it to run.
    if [.exchange, .rewire, .verify].contains(step), let state = resumedState(), state != "unknown" {
      makeNamesPublic()
      insist("give the new QEMU its taps and ports") { () throws(Failure) in try self.rewire() }
      return afterLostAnswer(state, step, failure)
    }

    // The old QEMU died after it had handed the guest over: the new one is all there is, so forward.
    if onlyNewIsLeft(step) { return goForward(step, failure) }

    // It is certain that the new QEMU never ran. A recovery could not tell once it is dead.
    record.state = .undoing
    attempt("note the undoing") { () throws(Failure) in try self.host.save(self.record) }
    var lost = undoing(.exchange) { giveNamesBack(record.stages.flatMap(\.exchanges).reversed()) }
    let goesForward = undoing(.launch) {
      // It may have died since.
      if onlyNewIsLeft(step) { return true }
      insist("end the new QEMU") { () throws(Failure) in try self.host.end(.new) }
      return false
    }
    if goesForward {
      record.state = .underWay
      return goForward(step, failure)
    }
    if host.isAlive(.new) {
      // Never two: an old QEMU is not continued beside a new one that may yet run.
      notes.append("the new QEMU (pid \(record.spawned?.pid ?? 0)) still lives, so the old one was left as it is; if it is paused: end the new one, then send SIGCONT and QMP cont to the old one")
      return leave(step, failure)
    }
    if hearWhetherNewRan() {
      // Another program told it to, after it had been asked.
      record.state = .underWay
      return afterLostAnswer("dead", step, failure)
    }
    let guestRuns = undoing(.pause) { continueOld() }
    // Once more, with the guest running: a stage that holds the VM's own names must not be removed.
    lost = giveNamesBack(lost)
    for exchange in lost {
      notes.append("\(exchange.published) may still be the new QEMU's, which has ended; the VM's own is then \(exchange.staged)")
    }
    undoing(.stage) {
      for stage in record.stages where !stage.exchanges.contains(where: lost.contains) {
        insist("remove the stage \(stage.path)") { () throws(Failure) in try self.host.removeStage(stage) }
      }
    }
    if let kept = record.kept {
      undoing(.keep) { insist("drop the kept runtime") { () throws(Failure) in try self.host.dropRuntime(kept) } }
    }
    if host.isAlive(.old), !guestRuns || !lost.isEmpty || !hasConnectionsBack || !hasExports { return leave(step, failure) }
    attempt("journal the undoing") { () throws(Failure) in try self.host.journal(self.entry(step, .undone)) }
    // A VM that has ended has nothing to go back to: an upgrade that was held before is over, too.
    host.unlock(undone: host.isAlive(.old))
    isLocked = false
    if guestRuns, host.isAlive(.old) {
      return report(hasBackEnds(.old) && !isLeftStopped ? .failed : .needsPerson, failure: (step, failure))
    }
    notes.append("no QEMU runs the guest: the old one has ended, see its log")
    return report(.needsPerson, failure: (step, failure))
  }

  /// Whether the QEMU in which the guest runs is connected to all its back ends. One that ended in the pause nobody has missed yet.
  func hasBackEnds(_ side: Side) -> Bool {
    var ended: [String] = []
    insist("find out whether the \(side) QEMU has its back ends") { () throws(Failure) in ended = try self.endedBackEnds(side) }
    if ended.isEmpty { return true }
    notes.append("the guest runs in the \(side) QEMU without what other programs do for it, as these have ended: \(ended.joined(separator: ", ")). QEMU does not connect to them again: see that the program runs, then shut the VM down and start it again; or unplug the device")
    return false
  }

  /// In words.
  func endedBackEnds(_ side: Side) throws(Failure) -> [String] {
    var ended: [String] = []
    if let moves = record.rewiring, moves.contains(where: { $0.former != nil }) { ended = try host.endedBackEnds(of: moves, in: side) }
    if let had = record.fileServers?.programs, had > 0, host.isAlive(side) {
      let missing = had - (try host.fileServers(side)).programs
      if missing > 0 { ended.append(missing == 1 ? "the program that serves a directory" : "\(missing) programs that serve directories") }
    }
    return ended
  }

  private func onlyNewIsLeft(_ step: StepName) -> Bool {
    !host.isAlive(.old) && host.isAlive(.new) && newHasGuest(step)
  }

  /// Takes a step back, with an entry in the journal before and after it.
  @discardableResult
  private func undoing<Result>(_ step: StepName, _ body: () -> Result) -> Result {
    attempt("journal the undoing") { () throws(Failure) in try self.host.journal(self.entry(step, .undoing)) }
    let result = body()
    attempt("journal the undoing") { () throws(Failure) in try self.host.journal(self.entry(step, .undone)) }
    return result
  }

  /// Ends in the middle of undoing; the record tells later commands so.
  private func leave(_ step: StepName, _ failure: Failure) -> UpgradeReport {
    record.state = .undoing
    attempt("note it") { () throws(Failure) in try self.host.save(self.record) }
    return report(.needsPerson, failure: (step, failure))
  }

  /// Exchanges back what was exchanged.
  /// - Returns: what could not be given back.
  private func giveNamesBack(_ exchanges: [NameExchange]) -> [NameExchange] {
    exchanges.filter { exchange in
      !attempt("give \(exchange.published) back") { () throws(Failure) in
        if try self.host.isExchanged(exchange) { try self.host.exchange(exchange) }
      }
    }
  }

  /// Whether the new QEMU has the whole guest. When the old one dies at the end of the stream, its death
  /// may be heard before the new one has reported that it has loaded everything.
  private func newHasGuest(_ step: StepName) -> Bool {
    if newHoldsGuest { return true }
    guard step == .switch else { return false }
    do {
      _ = try host.awaitMigration(.new, states: ["completed"], seconds: pauseSeconds, peerMustLive: false)
      newHoldsGuest = true
    } catch {
      notes.append("the new QEMU does not have the whole guest: \(error)")
    }
    return newHoldsGuest
  }

  /// The run state of the new QEMU after a resume that failed; nil when it is certain that it never ran.
  private func resumedState() -> String? {
    // It may have run for a moment before it died. Its disks then hold what the old one does not know of.
    guard host.isAlive(.new) else { return hearWhetherNewRan() ? "dead" : nil }
    do {
      let state = try host.command(.new, "query-status", nil, seconds: Self.switchSeconds)["status"]?.string ?? "unknown"
      if host.lastEvent(.new, "RESUME") != nil { return state }
      return state == "paused" || state == "inmigrate" || state == "prelaunch" ? nil : state
    } catch {
      // One that is just ending does not take the question; what it reported before is still there.
      let hasRun = hearWhetherNewRan()
      if host.isAlive(.new) { return "unknown" }
      return hasRun || hearWhetherNewRan() ? "dead" : nil
    }
  }

  /// Takes in what the new QEMU has reported.
  /// - Returns: whether that the guest ran there, by whoever's word. Final once it is dead.
  func hearWhetherNewRan() -> Bool {
    attempt("hear the new QEMU's last events") { () throws(Failure) in try self.host.hearEvents(.new) }
    return host.lastEvent(.new, "RESUME") != nil
  }

  private func afterLostAnswer(_ state: String, _ step: StepName, _ failure: Failure) -> UpgradeReport? {
    guestRuns()
    if state == "running" {
      notes.append("the guest runs in the new QEMU, though this went wrong: \(failure)")
      return nil
    }
    notes.append(
      "the new QEMU may have run the guest already (its state: \(state)), so the old one was not continued")
    attempt("note it") { () throws(Failure) in try self.host.save(self.record) }
    return report(.needsPerson, failure: (step, failure))
  }

  /// Lets every public name lead to the new QEMU.
  /// - Returns: whether all do.
  @discardableResult
  func makeNamesPublic() -> Bool {
    var arePublic = true
    for exchange in record.stages.flatMap(\.exchanges) {
      let isPublic = insist("make \(exchange.published) lead to the new QEMU") { () throws(Failure) in
        if try !self.host.isExchanged(exchange) { try self.host.exchange(exchange) }
      }
      arePublic = arePublic && isPublic
    }
    return arePublic
  }

  /// - Parameter step: `resume` if the new QEMU may have run the guest: then there is no other way.
  func goForward(_ step: StepName, _ failure: Failure) -> UpgradeReport? {
    notes.append("the old QEMU \(host.isAlive(.old) ? "had" : "ended after it had") handed the guest over, so the guest goes on in the new one (\(failure))")
    let arePublic = makeNamesPublic()
    do throws(Failure) {
      // Nobody else continues it meanwhile.
      do throws(Failure) { try host.freeze(.old) } catch { if host.isAlive(.old) { throw error } }
      try rewire()
      try journal(.resume, .begin)
      try resume()
      try journal(.resume, .done)
    } catch {
      guard let state = resumedState() else {
        if host.isAlive(.old), step != .resume {
          notes.append("that failed, so the upgrade is taken back: \(error)")
          return undo(after: .lock, failure)
        }
        notes.append("the guest could not be resumed in the new QEMU, which holds it: \(error)")
        return leave(step, failure)
      }
      if let ended = afterLostAnswer(state, .resume, error) { return ended }
    }
    // Stages that hold the new QEMU's names must stay.
    return arePublic ? nil : leave(step, failure)
  }

  /// Brings the old QEMU back to running from wherever the migration left it.
  /// - Returns: whether the guest runs in it.
  private func continueOld() -> Bool {
    guard host.isAlive(.old) else { return false }
    guard migrationStarted else { return true }
    // Let go on, another program may continue it.
    let hasCID = giveCIDBack()
    do {
      try host.thaw(.old)
      try cancelMigration()
      var status = try settledStatus()
      if let moves = record.rewiring, moves.contains(where: \.isConnection) {
        // What it says must not overtake what it said.
        if isDiverted, status == "running" {
          _ = try host.command(.old, "stop", nil)
          status = "paused"
        }
        hasConnectionsBack = insist("give the old QEMU its connections back") { () throws(Failure) in try self.host.endDiversion(moves) }
        if !hasConnectionsBack { notes.append("clients of its consoles are not heard until they are: moult recover \(record.vm) tries again") }
      }
      hasConnectionsBack = hasConnectionsBack && hasCID
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
    exportAgain()
    attempt("restore the migration settings") { () throws(Failure) in try self.restoreMigrationSettings(.old) }
    wakeFileServers(.old)
    return true
  }

  private func giveCIDBack() -> Bool {
    guard let vsock = record.vsock else { return true }
    if insist("give the guest's CID back", { () throws(Failure) in try self.host.giveBack(vsock) }) { return true }
    notes.append("the guest is not reached by vsock until it has its CID: moult recover \(record.vm) tries again")
    return false
  }

  /// The old QEMU's run state. A migration reports its end a moment before the run state follows, and
  /// until then QEMU refuses `cont` ("Migration is not finalized yet"); no event tells when it has.
  private func settledStatus() throws(Failure) -> String {
    let deadline = host.now().adding(seconds: Self.patientSeconds)
    while true {
      let status = try host.command(.old, "query-status", nil)["status"]?.string ?? "unknown"
      if status != "finish-migrate" || host.now() > deadline { return status }
    }
  }

  /// States in which QEMU has nothing under way.
  private static let idle: Set<String> = ["none", "completed", "failed", "cancelled"]

  private func cancelMigration() throws(Failure) {
    let state = try host.command(.old, "query-migrate", nil)["status"]?.string ?? "none"
    if Self.idle.contains(state) { return }
    _ = try host.command(.old, "migrate_cancel", nil)
    _ = try host.awaitMigration(.old, states: Self.idle, seconds: Self.patientSeconds, peerMustLive: false)
  }
}

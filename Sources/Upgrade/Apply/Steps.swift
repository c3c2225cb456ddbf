import Kernel
import QEMU

/// What each step does.
extension Executor {
  /// Seconds that a QEMU may be silent while the guest stands still: loading or saving device state takes
  /// milliseconds, and what takes longer is undone.
  static let switchSeconds = 3.0
  /// Seconds where there is nothing better to do than to wait.
  static let patientSeconds = 20.0
  /// Bytes of RAM a second that a copy is sure to manage.
  static let slowestCopy = 50_000_000.0
  /// First limit of the pause that copying RAM may cause, milliseconds, and the last one.
  static let firstDowntimeLimit: Int64 = 20
  static let lastDowntimeLimit: Int64 = 1000
  /// Passes over guest RAM before the limit is raised, and before giving up.
  static let patientPasses = 4
  static let mostPasses = 200

  func perform(_ step: StepName, _ plan: UpgradePlan) throws(Failure) {
    switch step {
    case .lock: try lock(plan)
    case .keep: try keep(plan)
    case .stage: for stage in plan.stages { try host.makeStage(stage) }
    case .launch: try launch(plan)
    case .compare: try compare(plan)
    case .migrate: try migrate(plan)
    case .pause: try awaitPause(plan)
    case .switch: try switchOver(plan)
    case .exchange: try exchangeNames()
    case .rewire: try rewire()
    case .verify: try verifyNames()
    case .resume: try resume()
    case .retire: try retire()
    case .probation: try host.watch(record, seconds: plan.request.probation ?? 0)
    case .commit: try commit()
    }
  }

  private func lock(_ plan: UpgradePlan) throws(Failure) {
    try host.lock(plan)
    isLocked = true
    // Before anything is written that it would have to take back.
    _ = try host.ensureGuardian(ready: false)
    if plan.request.probation != nil, let agent = plan.observation.guestAgent {
      attempt("ask the guest agent") { () throws(Failure) in
        if try self.host.isThere(agent, in: .old) { self.record.agent = agent }
      }
    }
    try host.save(record)
  }

  private func keep(_ plan: UpgradePlan) throws(Failure) {
    record.kept = try host.keepRuntime(plan)
    try host.save(record)
  }

  private func launch(_ plan: UpgradePlan) throws(Failure) {
    try host.spawn(plan) { process throws(Failure) in
      record.spawned = process
      try host.save(record)
    }
    if let adjustment = record.oomScoreAdjustment {
      // Whether it may be done: with the guest in it, it must not be the one that the kernel kills first.
      try host.setOOMScore(adjustment)
      try host.setOOMScore(LaunchPlan.waitingOOMScore)
    }
    let version = try host.greet(plan)
    record.new = record.spawned.map { LaunchedTwin(process: $0, version: version) }
  }

  /// The new QEMU was started from the same words; this makes sure that it made the same machine of them.
  private func compare(_ plan: UpgradePlan) throws(Failure) {
    let old = plan.observation.live
    let comparison = try TwinComparison(with: old, on: host)
    if !comparison.differences.isEmpty {
      (differences, gainedFeatures) = (comparison.differences, comparison.gainedFeatures)
      throw Failure(
        step: "compare the twins of", subject: plan.vm,
        reason: "the new QEMU's machine is not the VM's: " + comparison.differences.joined(separator: "; "), hint: TwinComparison.wayOut)
    }
    if let new = comparison.new { try host.matchThreads(old: old, new: new) }
    for stage in plan.stages { try host.finishStage(stage) }
    record.staged = host.stagedIdentities
    if plan.hasStandIns { record.rewiring = try host.prepareRewiring(plan) }
    try host.save(record)
  }

  /// Capabilities of this migration, by side. A mismatch of `x-ignore-shared` is fatal to the new QEMU;
  /// without `return-path` the old one can miss that the new one failed to load.
  private func capabilities(_ side: Side) -> [String: Bool] {
    var wanted = ["events": true, "return-path": true]
    if record.memory == .shared { wanted["x-ignore-shared"] = true }
    if side == .old {
      wanted["pause-before-switchover"] = plan.map(holdsAtGate) ?? false
      // What somebody else had set for a migration of their own must not apply to this one.
      for (name, isOn) in record.settings.capabilities where isOn && wanted[name] == nil { wanted[name] = false }
    }
    return wanted
  }

  private func migrate(_ plan: UpgradePlan) throws(Failure) {
    // From here on the guest may stand still.
    if try host.ensureGuardian(ready: true) { notes.append("the guardian was killed; another one was started") }
    // What was observed may be seconds old by now; dead after the switch, the old QEMU could not be asked any more.
    try mustHaveObservedStorage(plan)
    try mustRunAsObserved(plan)
    try mustExportAsObserved()
    try mustHaveBackEnds()
    migrationStarted = true
    pauseSeconds = Self.switchSeconds
    pauseSeconds += Double(plan.bytesCopiedStill) / Self.slowestCopy
    for side in [Side.old, .new] {
      _ = try host.command(side, "migrate-set-capabilities", Self.capabilityList(capabilities(side)))
    }
    var parameters: [String: JSONValue] = [
      "max-bandwidth": .integer(100_000_000_000), "downtime-limit": .integer(Self.firstDowntimeLimit),
    ]
    if let credentials = record.settings.parameters["tls-creds"]?.string, !credentials.isEmpty { parameters["tls-creds"] = "" }
    if let mode = record.settings.parameters["mode"]?.string, mode != "normal" { parameters["mode"] = "normal" }
    _ = try host.command(.old, "migrate-set-parameters", .object(parameters))
    runsSince = host.lastEvent(.old, "RESUME")?.order ?? -1
    try prepareDiversion()
    if let exports = record.exports { try host.holdListener(exports) }
    if plan.memory.stopsGuest { stoodStill = try host.stopGuest(draining: plan.observation.network.servedDisks) }
    let atGate = holdsAtGate(plan)
    try host.startMigration { () throws(Failure) in if !atGate { try divert() } }
    // Where RAM is copied first, the guest runs until that is over.
    _ = try host.awaitMigration(
      .old, states: ["active", pauseState(plan)],
      seconds: plan.memory.strategy == .copy && !plan.memory.stopsGuest ? Self.patientSeconds : pauseSeconds, peerMustLive: true)
  }

  /// An old QEMU that has lost one may end itself when it is told to migrate (`vhost_set_log_base failed`), and the guest with it.
  private func mustHaveBackEnds() throws(Failure) {
    let ended = try endedBackEnds(.old)
    if !ended.isEmpty {
      throw Failure(step: "move the guest of", subject: record.vm, reason: "programs that serve it have ended: \(ended.joined(separator: ", "))")
    }
    // As many as the guest has enabled by now.
    if let programs = record.fileServers?.programs, programs > 0 { record.fileServers?.events = try host.fileServers(.old).events }
  }

  static func capabilityList(_ wanted: [String: Bool]) -> JSONValue {
    .object([
      "capabilities": .array(
        wanted.sorted { $0.key < $1.key }.map { ["capability": .string($0.key), "state": .bool($0.value)] })
    ])
  }

  /// Whether QEMU is to hold at its switchover gate. Where it stops the guest by itself it need not: going
  /// through the gate takes 1.5 ms of the pause (measured on 7.2), and undoing works from any point up to
  /// the resume. A guest that was stopped before gives no other sign that its RAM is over. A copy may take long, and
  /// only at the gate it is known when the state will be saved: clients of consoles should not wait longer.
  private func holdsAtGate(_ plan: UpgradePlan) -> Bool {
    plan.memory.stopsGuest || plan.observation.live.status != "running" || plan.observation.commandLine.hasTPMBuffer
      || plan.memory.strategy == .copy && plan.rewiring.hasConnections || plan.observation.network.exports?.server.written.isEmpty == false
  }

  /// A TPM's command that is under way is awaited by QEMU when it saves the device's state. With `tpm-crb` the answer then goes
  /// into memory that has been sent already (hw/tpm/tpm_crb.c, `tpm_crb_pre_save`), and the guest reads its own command as
  /// the answer. The guest stands still: none is begun any more.
  private func mustHaveIdleTPM(_ plan: UpgradePlan) throws(Failure) {
    guard plan.observation.commandLine.hasTPMBuffer else { return }
    let answer = try host.command(.old, "human-monitor-command", ["command-line": .string(TPMStart.question)], seconds: Self.switchSeconds)
    if TPMStart.isUnderWay(answer.string ?? "") {
      throw Failure(
        step: "save the state of", subject: "the TPM", reason: "the guest has a command under way, whose answer would be lost (tpm-crb)",
        hint: "try again in a moment; if it stays so, see whether the emulator behind the TPM answers")
    }
  }

  private func prepareDiversion() throws(Failure) {
    guard let moves = record.rewiring, moves.contains(where: \.isConnection) else { return }
    record.rewiring = try host.prepareDiversion(moves)
    try host.save(record)
  }

  private func divert() throws(Failure) {
    if let moves = record.rewiring, isDiverted { try host.divert(moves) }
    if let exports = record.exports { try host.setListenerAside(exports) }
  }

  /// Or is to be.
  var isDiverted: Bool { record.rewiring?.contains { $0.diversion != nil } ?? false }

  private func pauseState(_ plan: UpgradePlan) -> String { holdsAtGate(plan) ? "pre-switchover" : "stopped" }

  /// Waits until QEMU has stopped the guest: RAM is over, but for what is left to send.
  private func awaitPause(_ plan: UpgradePlan) throws(Failure) {
    var limit = Self.firstDowntimeLimit
    var passes = 0
    while true {
      let state = try host.awaitMigration(
        .old, states: [pauseState(plan), "pass"], seconds: plan.memory.stopsGuest ? pauseSeconds : 600, peerMustLive: true)
      if state == pauseState(plan) { return }
      passes += 1
      if passes > Self.mostPasses {
        throw Failure(
          step: "copy the RAM of", subject: plan.vm,
          reason: "the guest writes faster than it can be copied: \(passes) passes did not suffice",
          hint: "try again when the guest is less busy, or start the VM with memory-backend-file,share=on")
      }
      if passes > Self.patientPasses, limit < Self.lastDowntimeLimit {
        limit = min(limit * 2, Self.lastDowntimeLimit)
        // QEMU's own estimate of the last pass may be off by as much again.
        pauseSeconds = Self.switchSeconds + Double(limit) / 500
        _ = try host.command(.old, "migrate-set-parameters", ["downtime-limit": .integer(limit)])
      }
    }
  }

  /// From here to `resume` the guest stands still: nothing waits but for QEMU's own events. An old QEMU that
  /// dies meanwhile may have sent everything before: that is looked at when this is undone.
  private func switchOver(_ plan: UpgradePlan) throws(Failure) {
    if holdsAtGate(plan) {
      try mustHaveIdleTPM(plan)
      try divert()
      try endWrittenExports()
      _ = try host.command(.old, "migrate-continue", ["state": "pre-switchover"], seconds: Self.switchSeconds)
    }
    do throws(Failure) {
      _ = try host.awaitMigration(.new, states: ["completed"], seconds: pauseSeconds, peerMustLive: true)
    } catch {
      var failure = error
      if failure.hint == nil, host.isAlive(.old) {
        failure.hint = "if it did not load the device state: \(plan.command) names what the two do not share; the guest may use more than is known beforehand"
      }
      throw failure
    }
    newHoldsGuest = true
    // Until the old QEMU reports the end it could still fail and run on by itself. Dead, it cannot.
    do {
      _ = try host.awaitMigration(.old, states: ["completed"], seconds: Self.switchSeconds, peerMustLive: true)
      // The block graph is looked at last of all, when the old QEMU has given its images up and can change it no more.
      try mustHaveObservedStorage(plan)
      try mustExportAsObserved()
      try mustNotBeContinued()
      // From here on nobody else can continue it either; what it was told before is heard before the resume.
      try host.freeze(.old)
    } catch {
      if host.isAlive(.old) { throw error }
    }
  }

  /// Its owner may have stopped the guest, or let it go on, by another monitor since the observation: then it would not be
  /// in the new QEMU what it is now.
  private func mustRunAsObserved(_ plan: UpgradePlan) throws(Failure) {
    let (was, now) = (plan.observation.live.status, try host.command(.old, "query-status", nil)["status"]?.string)
    if now == was { return }
    throw Failure(
      step: "move the guest of", subject: plan.vm, reason: "another program has changed its run state during the upgrade: \(now ?? "unknown"), it was \(was)",
      hint: "leave the VM alone while it is upgraded, and try again")
  }

  /// The VM may have other monitors than the one that is held here. A snapshot taken there since the
  /// observation would be missing from the new QEMU, which writes to the image below it.
  private func mustHaveObservedStorage(_ plan: UpgradePlan) throws(Failure) {
    let changes = try host.storage(.old).differences(from: plan.observation.live.storage)
    if changes.isEmpty { return }
    throw Failure(
      step: "move the disks of", subject: plan.vm, reason: "its disks were changed during the upgrade: " + changes.joined(separator: "; "),
      hint: "a snapshot or another medium, by another monitor: leave the VM alone while it is upgraded")
  }

  /// A `cont` sent to another monitor, by a program that will not have its VM stopped, would let two QEMUs run
  /// the guest. QEMU reports it before a vCPU moves, so once the process is stopped all reports are there.
  private func mustNotBeContinued() throws(Failure) {
    guard host.isAlive(.old), try oldWasContinued() else { return }
    throw Failure(
      step: "switch", subject: record.vm, reason: "another program continued the old QEMU during the upgrade",
      hint: "a program at another monitor sends cont when the guest stops: keep it from doing so during the upgrade")
  }

  func oldWasContinued() throws(Failure) -> Bool {
    try host.hearEvents(.old)
    guard let resumed = host.lastEvent(.old, "RESUME") else { return false }
    // Even if it was stopped again. In a recovery it is not known what was before.
    return resumed.order > (runsSince ?? host.lastEvent(.old, "STOP")?.order ?? .max)
  }

  private func exchangeNames() throws(Failure) {
    for exchange in record.stages.flatMap(\.exchanges) { try host.exchange(exchange) }
  }

  /// There is nothing to take back: what the old QEMU needs to go on it has, if only under other numbers.
  func rewire() throws(Failure) {
    if let vsock = record.vsock { try host.handOver(vsock, hasRun: record.hasResumed) }
    guard let moves = record.rewiring, !moves.isEmpty else { return }
    for what in try host.rewire(moves, hasRun: record.hasResumed) {
      let note = "\(what) has ended: its client has to connect again"
      if !notes.contains(note) { notes.append(note) }
    }
  }

  /// The inodes that answered for the new QEMU in `compare` must be the public ones now.
  private func verifyNames() throws(Failure) {
    for exchange in record.stages.flatMap(\.exchanges) where try !host.isExchanged(exchange) {
      throw Failure(
        step: "verify the name", subject: exchange.published, reason: "it does not lead to the new QEMU",
        hint: "another program changed it during the upgrade")
    }
  }

  func resume() throws(Failure) {
    // A Ctrl-C while the answer is awaited could not take the command back.
    host.ignoreInterrupts()
    try mustNotBeContinued()
    if let moves = record.rewiring, moves.contains(where: { $0.succession != nil }) { try host.endPredecessors(of: moves) }
    do throws(Failure) {
      _ = try host.command(.new, "cont", nil, seconds: Self.switchSeconds)
      try host.awaitEvent(.new, "RESUME", seconds: Self.switchSeconds)
    } catch where error.errno == .timedOut {
      // The command is on its way and cannot be taken back. Whoever stopped the process meant no harm.
      try host.thaw(.new)
      try host.awaitEvent(.new, "RESUME", seconds: Self.patientSeconds)
    }
    guestRuns()
  }

  /// From here on the old QEMU must never run the guest again.
  func guestRuns() {
    record.hasResumed = true
    if let stopped = host.lastEvent(.old, "STOP"), let resumed = host.lastEvent(.new, "RESUME") {
      record.pauseMilliseconds = Self.pause(from: stopped, to: resumed) + stoodStill
    }
  }

  /// Milliseconds between two events: by the times that QEMU gave them, unless the clock was set meanwhile. When they
  /// were heard is a little later, and the clock for that cannot be set.
  static func pause(from stopped: QMPEvent, to resumed: QMPEvent) -> Double {
    let (told, heard) = (Double(resumed.microseconds &- stopped.microseconds) / 1000, resumed.heard - stopped.heard)
    return told < 0 || abs(told - heard) > 500 ? heard : told
  }

  /// Puts what this migration changed back to what the VM had: on the old QEMU when the upgrade is
  /// undone, on the new one when it is done.
  func restoreMigrationSettings(_ side: Side) throws(Failure) {
    var wanted: [String: Bool] = [:]
    for name in Set(capabilities(.old).keys).union(["x-ignore-shared"]) {
      if let had = record.settings.capabilities[name] { wanted[name] = had }
    }
    do { _ = try host.command(side, "migrate-set-capabilities", Self.capabilityList(wanted)) } catch {
      guard host.isAlive(side), error.errno != .timedOut else { throw error }
      // One that the new version does not have any more makes it refuse them all.
      for (name, had) in wanted.sorted(by: { $0.key < $1.key }) {
        attempt("set the migration capability \(name) to \(had)") { () throws(Failure) in
          _ = try self.host.command(side, "migrate-set-capabilities", Self.capabilityList([name: had]))
        }
      }
    }
    var parameters: [String: JSONValue] = [:]
    for name in MigrationSettings.changed.sorted() {
      guard let had = record.settings.parameters[name] else { continue }
      // Set only what was changed or is not a default: not every version knows every parameter.
      if name == "max-bandwidth" || name == "downtime-limit" || (side == .old && had.string != "" && had.string != "normal") {
        parameters[name] = had
      }
    }
    if !parameters.isEmpty { _ = try host.command(side, "migrate-set-parameters", .object(parameters)) }
  }
}

import Glibc
public import Kernel
public import QEMU
import Sandbox

/// The real world: processes, QMP connections, files and namespaces of this machine.
public final class LinuxHost: Host {
  let reactor: Reactor
  let state: StateDirectory
  /// The old QEMU's monitor, held since the observation.
  var oldMonitor: QMPConnection?
  /// Nil only in a recovery, when it has ended before.
  var oldProcess: ProcessHandle?
  var newMonitor: QMPConnection?
  var newProcess: ProcessHandle?
  /// Our end of the migration stream until the old QEMU has it.
  var migrationStream: DescriptorBox?
  /// The upgrade for which a new QEMU, and what that needs, has been started here.
  var launchedUpgrade: String?
  /// What stands in the new QEMU for what the old one still uses.
  var wiring: Wiring?
  /// Until the new QEMU has made the connections that are led elsewhere.
  var tracedStart: TracedStart?
  /// Of diverted connections, by their number in the new QEMU: where the old one's words come out, and where they go.
  var diverted: [CInt: (output: DescriptorBox, client: DescriptorBox)] = [:]
  /// The socket of the VM's NBD server; the old QEMU's number of what is to be in its place there, and that at which it is kept meanwhile.
  var exportListener: DescriptorBox?
  var listenerStandIn: (number: CInt, kept: CInt)?
  /// Of the new QEMU's standard error, if it is a file: where its messages begin.
  var messages: (file: DescriptorBox, offset: Int64)?
  /// Why they cannot be read back, if it is one: a network file system may not let root.
  var whyNoMessages: Failure?
  /// The held upgrade that this one takes back.
  let superseded: UpgradeRecord?
  /// In a recovery, the upgrade that was interrupted, and the connections that its moult had, until they are needed.
  var recovered: UpgradeRecord?
  var former: [Side: DescriptorBox] = [:]
  private var lockFile: DescriptorBox?
  private var journalFile: JournalFile?
  private var key = ""
  /// The upgrade's.
  private var identifier = ""
  private let signals: CInt
  private let nextSignal: () throws(Failure) -> CInt?
  var isInterruptible = true
  var guardian: GuardianLink?
  /// Stages made by this host, and the inodes that the exchange makes public, by staged path.
  var stages: [String: OpenStage] = [:]
  var staged: [String: FileIdentity] = [:]
  /// Events taken from the connections, kept so that their times can be asked for later.
  var seen: [(side: Side, event: QMPEvent)] = []

  /// - Parameters:
  ///   - monitor: the connection that the observation was made over.
  ///   - signals: a signalfd for SIGINT, SIGTERM and SIGHUP; stays the caller's.
  ///   - nextSignal: takes a signal from it.
  public init(
    observation: Observation, monitor: QMPConnection, reactor: Reactor, state: StateDirectory, signals: CInt,
    nextSignal: @escaping () throws(Failure) -> CInt?, superseded: UpgradeRecord? = nil
  ) throws(Failure) {
    self.superseded = superseded
    self.signals = signals
    self.nextSignal = nextSignal
    self.reactor = reactor
    self.state = state
    oldMonitor = monitor
    guard let process = try ProcessHandle(observation.process) else {
      throw Failure(step: "find the VM", subject: "\(observation.process.pid)", reason: "the process has ended")
    }
    oldProcess = process
    reactor.add(signals) { [unowned self] () throws(Failure) in try self.interrupted() }
    watchExit(of: process)
  }

  /// Takes up where an interrupted upgrade was left. Of the two QEMUs none is asked for anything yet: see ``takeOver(_:)``.
  /// - Parameters:
  ///   - lock: the VM's, already held.
  ///   - monitors: connections that the interrupted moult had.
  init(
    recovering record: UpgradeRecord, superseded: UpgradeRecord?, lock: consuming OwnedFD, monitors: [Side: DescriptorBox],
    reactor: Reactor, state: StateDirectory
  ) throws(Failure) {
    self.reactor = reactor
    self.state = state
    // Nothing interrupts a recovery.
    signals = -1
    nextSignal = { () throws(Failure) in nil }
    self.superseded = superseded
    recovered = record
    former = monitors
    key = record.key
    lockFile = DescriptorBox(lock)
    journalFile = try JournalFile(state.journalPath(key))
    oldProcess = try ProcessHandle(record.old)
    newProcess = try record.spawned.flatMap { process throws(Failure) in try ProcessHandle(process) }
    for stage in record.stages {
      // Not made yet when moult was killed, or removed already: then there is nothing to undo there.
      do throws(Failure) { stages[stage.path] = try OpenStage(stage, making: false) } catch where error.errno == .noSuchFileOrDirectory {}
    }
    staged = record.staged
    for process in [oldProcess, newProcess] {
      if let process { watchExit(of: process) }
    }
  }

  func watchExit(of process: ProcessHandle) {
    reactor.add(process.raw) { [unowned self] () throws(Failure) in self.reactor.remove(process.raw) }
  }

  deinit {
    guardian?.dismiss()
    reactor.remove(signals)
    if let oldProcess { reactor.remove(oldProcess.raw) }
    if let newProcess { reactor.remove(newProcess.raw) }
  }

  private func interrupted() throws(Failure) {
    guard let signal = try nextSignal(), isInterruptible else { return }
    let name = [SIGINT: "Ctrl-C (SIGINT)", SIGTERM: "SIGTERM", SIGHUP: "SIGHUP", SIGQUIT: "SIGQUIT"][signal] ?? "signal \(signal)"
    throw Failure(step: "interrupted by", subject: name, errno: .interrupted, reason: "moult goes no further")
  }

  public func ignoreInterrupts() { isInterruptible = false }
  public func now() -> Instant { Instant.now() }

  // MARK: State

  public func lock(_ plan: UpgradePlan) throws(Failure) {
    let file = DescriptorBox(try state.lock(plan.key))
    if let record = try state.record(plan.key) {
      if record.isHeld, record.id != superseded?.id {
        throw Failure(
          step: "lock the VM", subject: plan.vm, reason: "upgrade \(record.id) is held in probation",
          hint: "moult commit \(plan.vm), or moult rollback \(plan.vm), first")
      }
      if !record.isHeld {
        throw Failure(
          step: "lock the VM", subject: plan.vm, reason: "upgrade \(record.id) was interrupted",
          hint: "moult recover \(plan.vm) brings it to an end")
      }
    }
    key = plan.key
    do throws(Failure) {
      journalFile = try JournalFile(state.journalPath(key))
      // An older moult kept it in a file of its own.
      if let superseded { try save(superseded) }
    } catch {
      if superseded == nil { try state.remove(key) }
      throw error
    }
    lockFile = file
  }

  public func unlock(undone: Bool) {
    guard lockFile != nil else { return }
    defer {
      // It holds the lock, too.
      guardian?.dismiss()
      (guardian, lockFile, journalFile) = (nil, nil, nil)
    }
    do {
      if let superseded {
        if undone {
          try save(superseded)
          return
        }
        if let kept = superseded.kept { try dropRuntime(kept) }
        History(state).settle(superseded.id, .rolledBack)
      }
      rememberJournal()
      try state.remove(key)
    } catch { FileDescriptorOutput.error("moult: could not remove the state of \(key): \(error)") }
  }

  /// The journal goes; a copy of it stays in the history. Without room there it is lost, and the upgrade is not.
  private func rememberJournal() {
    do throws(Failure) {
      try History(state).put("journal", try Files.read(state.journalPath(key)), of: identifier)
    } catch { FileDescriptorOutput.error("moult: could not keep the journal of \(identifier): \(error)") }
  }

  public func ensureGuardian(ready: Bool) throws(Failure) -> Bool {
    guard let lockFile else { return false }
    var isNew = false
    // One that was killed meanwhile is replaced once; two in a row are no accident.
    for _ in 0..<2 {
      if guardian?.isGone ?? true {
        guardian = try GuardianLink(
          key: key, lock: lockFile.raw, oldMonitor: oldMonitor?.descriptor, newMonitor: newMonitor?.descriptor, reactor: reactor)
        wiring?.lifelines.forEach { guardian?.give(kept: $0) }
        try state.sign(key, lockFile.raw, guardian: guardian?.pid)
        isNew = true
      }
      if ready { try guardian?.awaitReady() }
      if guardian?.isGone == false { return isNew }
    }
    throw Failure(
      step: "start the guardian of", subject: key, reason: "it ends as soon as it starts",
      hint: "an upgrade is not begun without one: moult guard -- \(key) says why")
  }

  public func journal(_ entry: JournalEntry) throws(Failure) { try journalFile?.append(Journal.line(entry.payload)) }

  public func save(_ record: UpgradeRecord) throws(Failure) {
    identifier = record.id
    try journalFile?.append(Journal.line(record))
  }

  // MARK: QMP

  func monitor(_ side: Side) throws(Failure) -> QMPConnection {
    switch side {
    case .old:
      if oldMonitor == nil { oldMonitor = try takeOver(.old) }
      guard let oldMonitor else { throw Failure(step: "reach", subject: "the old QEMU", reason: "it has no monitor any more") }
      return oldMonitor
    case .new:
      if newMonitor == nil { newMonitor = try takeOver(.new) }
      guard let newMonitor else { throw Failure(step: "reach", subject: "the new QEMU", reason: "it has not been started") }
      return newMonitor
    }
  }

  public func live(_ side: Side, like other: LiveMachine) throws(Failure) -> LiveMachine {
    var live = try LiveMachine.query(monitor(side))
    try live.queryParts(monitor(side), like: other)
    return live
  }

  public func guestView(_ side: Side) throws(Failure) -> GuestView { try GuestView.read(monitor(side)) }
  public func features(_ side: Side) throws(Failure) -> Set<String> { try GuestView.features(monitor(side)) }

  public func storage(_ side: Side) throws(Failure) -> LiveMachine.Storage { try LiveMachine.queryStorage(monitor(side)) }

  public func command(
    _ side: Side, _ name: String, _ arguments: JSONValue?, seconds: Double
  ) throws(Failure) -> JSONValue {
    try monitor(side).execute(name, arguments, seconds: seconds)
  }

  public func awaitEvent(_ side: Side, _ name: String, seconds: Double) throws(Failure) {
    let event = try monitor(side).awaitEvent(step: "await event \(name) of", seconds: seconds) { $0.name == name }
    seen.append((side, event))
  }

  public func hearEvents(_ side: Side) throws(Failure) {
    // In a recovery that has not asked the old one: it stands still, and says nothing more.
    if side == .old, oldMonitor == nil { return }
    if side == .new, newMonitor == nil { return try hearLastEventsOfNew() }
    try monitor(side).receiveWhatIsThere()
  }

  public func lastEvent(_ side: Side, _ name: String) -> QMPEvent? {
    // What is still in the connection came later than what was taken from it.
    let monitor = side == .old ? oldMonitor : newMonitor
    return monitor?.events.last { $0.name == name } ?? seen.last { $0.side == side && $0.event.name == name }?.event
  }

  // MARK: Processes

  public func isAlive(_ side: Side) -> Bool {
    switch side {
    case .old: isAlive(oldProcess, oldMonitor)
    case .new: isAlive(newProcess, newMonitor)
    }
  }

  /// A QEMU that ends closes its monitor first: its process is given a moment to be gone, too. One that is not asked, in a
  /// recovery, is looked at: taken for alive, it would be preferred to the one that has the guest.
  private func isAlive(_ process: ProcessHandle?, _ monitor: QMPConnection?) -> Bool {
    guard let process, !process.hasExited else { return false }
    return !(monitor?.isClosed ?? process.isEnding) || !process.exits(withinMilliseconds: 2000)
  }

  public func setOOMScore(_ adjustment: Int) throws(Failure) {
    // A new QEMU that has ended is found out elsewhere.
    guard let newProcess, !newProcess.hasExited else { return }
    do throws(Failure) { try OOMScore.apply(adjustment, to: newProcess.pid) } catch where error.errno == .permissionDenied {
      var failure = error
      failure.hint = "to make a process as dear to the kernel as the VM is (oom_score_adj \(adjustment)) moult needs CAP_SYS_RESOURCE; or write 0 to the VM's oom_score_adj"
      throw failure
    }
  }

  public func handOver(unit: String) throws(Failure) {
    guard let oldProcess, let newProcess else { return }
    try ServiceManager.handOver(unit: unit, from: oldProcess.pid, to: newProcess.pid, seconds: Executor.switchSeconds)
  }

  public func freeze(_ side: Side) throws(Failure) {
    try (side == .old ? oldProcess : newProcess)?.send(signal: SIGSTOP)
  }

  public func thaw(_ side: Side) throws(Failure) {
    do throws(Failure) {
      try (side == .old ? oldProcess : newProcess)?.send(signal: SIGCONT)
    } catch where error.errno == .noSuchProcess {}
  }

  public func end(_ side: Side) throws(Failure) {
    if side == .new { tracedStart = nil }
    try kill(side)
    guard side == .new, let id = recovered?.id ?? launchedUpgrade else { return }
    try FileServerProcess.endWaiting(upgrade: id, networkOf: isAlive(.old) ? oldProcess?.pid : nil)
  }

  private func kill(_ side: Side) throws(Failure) {
    guard let process = side == .old ? oldProcess : newProcess, !process.hasExited else {
      newProcess?.reap(if: side == .new)
      return
    }
    do { try process.kill() } catch {
      if error.errno != .noSuchProcess { throw error }
    }
    _ = try reactor.wait(
      seconds: 30, step: "end", subject: "the \(side.rawValue) QEMU (pid \(process.pid))",
      hint: "it does not die of SIGKILL: it waits for a device or file system that does not answer"
    ) { () throws(Failure) -> Bool? in process.hasExited ? true : nil }
    process.reap(if: side == .new)
  }

  public func matchThreads(old: LiveMachine, new: LiveMachine) throws(Failure) {
    guard let newProcess, let oldProcess else { return }
    var pairs = Array(zip(old.vcpuThreads, new.vcpuThreads))
    for (id, thread) in old.iothreads {
      if let twin = new.iothreads[id] { pairs.append((thread, twin)) }
    }
    let shared = try CgroupMembership.of(process: oldProcess.pid)
    for (from, to) in pairs {
      let wanted = try Scheduling.read(thread: from)
      if try Scheduling.read(thread: to) != wanted { try wanted.apply(to: to) }
      for membership in try CgroupMembership.of(thread: from, in: oldProcess.pid) where !shared.contains(membership) {
        try membership.join(thread: to, of: newProcess.pid)
      }
    }
  }

  public func extraMemory() -> UInt64 {
    // Cheap counters; the proportional set size would walk every page table of the guest's RAM.
    var bytes: UInt64 = 0
    for (pid, fields) in [(newProcess?.pid ?? 0, ["RssAnon:"]), (getpid(), ["RssAnon:"])] where pid != 0 {
      let text: String
      // A figure for the report; the guest has moved, and nothing is undone for its sake.
      do throws(Failure) { text = try Files.readText("/proc/\(pid)/status") } catch { continue }
      for line in text.split(separator: "\n") where fields.contains(where: line.hasPrefix) {
        bytes += (line.split(separator: " ").dropLast().last.flatMap { UInt64($0) } ?? UInt64(0)) << 10
      }
    }
    return bytes
  }
}

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
  /// What stands in the new QEMU for what the old one still uses.
  var wiring: Wiring?
  /// Of diverted connections, by their number in the new QEMU: where the old one's words come out, and where they go.
  var diverted: [CInt: (output: DescriptorBox, client: DescriptorBox)] = [:]
  /// Of the new QEMU's standard error, if it is a file: where its messages begin.
  var messages: (file: DescriptorBox, offset: Int64)?
  /// The held upgrade that this one takes back.
  let superseded: UpgradeRecord?
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

  /// Takes up where an interrupted upgrade was left.
  /// - Parameters:
  ///   - lock: the VM's, already held.
  ///   - oldMonitor, newMonitor: connections that the interrupted moult had.
  init(
    recovering record: UpgradeRecord, superseded: UpgradeRecord?, lock: consuming OwnedFD, oldMonitor: DescriptorBox?,
    newMonitor: DescriptorBox?, reactor: Reactor, state: StateDirectory
  ) throws(Failure) {
    self.reactor = reactor
    self.state = state
    // Nothing interrupts a recovery.
    signals = -1
    nextSignal = { () throws(Failure) in nil }
    self.superseded = superseded
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
    // One that never answered has never run the guest: there is nothing to ask it.
    if let newProcess, record.new != nil {
      try thaw(.new)
      self.newMonitor = try takeOver(newMonitor, of: newProcess, record)
    }
    // A `cont` may be waiting at another monitor of the old one: where the guest has run in the new one, nobody lets it go on.
    if record.hasResumed { return }
    if let monitor = self.newMonitor, try monitor.execute("query-status")["running"]?.bool ?? false { return }
    // The moult that was killed may have stopped it: then its monitor would not answer.
    try thaw(.old)
    if let oldProcess { self.oldMonitor = try takeOver(oldMonitor, of: oldProcess, record) }
  }

  func watchExit(of process: ProcessHandle) {
    reactor.add(process.raw) { [unowned self] () throws(Failure) in self.reactor.remove(process.raw) }
  }

  /// A connection to one twin: the interrupted moult's, or else a new one.
  private func takeOver(
    _ former: DescriptorBox?, of process: ProcessHandle, _ record: UpgradeRecord
  ) throws(Failure) -> QMPConnection? {
    if let former {
      let monitor = QMPConnection(takingOver: try former.duplicate(), subject: "QEMU (pid \(process.pid))", reactor: reactor)
      do throws(Failure) {
        _ = try monitor.execute("query-status", seconds: Executor.switchSeconds)
        return monitor
      } catch {
        // Silent or closed: it is not asked this way again.
        if process.hasExited { return nil }
      }
    }
    return try findMonitor(of: process, record)
  }

  /// The QMP socket of one twin: public or staged, whichever inode the process listens at.
  private func findMonitor(of process: ProcessHandle, _ record: UpgradeRecord) throws(Failure) -> QMPConnection? {
    var paths = [record.monitor]
    let (directory, base) = (try Paths.real(Paths.parent(record.monitor)), Paths.base(record.monitor))
    paths += record.stages.filter { $0.directory == directory }.map { Stage.join($0.path, base) }
    let listening: [UnixSocketEntry]
    do throws(Failure) {
      let own = Set(try ProcFS.openDescriptors(of: process.pid).compactMap(\.socketInode))
      listening = try UnixSocketTable.read(networkOf: process.pid).filter { $0.state == .listening && own.contains($0.inode) }
    } catch where error.errno == .noSuchFileOrDirectory || error.errno == .noSuchProcess {
      return nil  // It was killed, and is ending just now.
    }
    for path in paths {
      guard let status = try Files.statusIfPresent(path), listening.contains(where: { $0.isBound(to: status) }) else { continue }
      let monitor = QMPConnection(try UnixSocket.connect(path), subject: path, reactor: reactor)
      _ = try monitor.negotiate(seconds: Observer.greetingSeconds)
      return monitor
    }
    return nil
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
    throw Failure(step: "interrupted by", subject: name, errno: .interrupted)
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
    guard let lockFile, let oldMonitor else { return false }
    var isNew = false
    // One that was killed meanwhile is replaced once; two in a row are no accident.
    for _ in 0..<2 {
      if guardian?.isGone ?? true {
        guardian = try GuardianLink(
          key: key, lock: lockFile.raw, oldMonitor: oldMonitor.descriptor, newMonitor: newMonitor?.descriptor, reactor: reactor)
        wiring?.clients.values.forEach { guardian?.give(kept: $0.raw) }
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
      guard let oldMonitor else { throw Failure(step: "reach", subject: "the old QEMU", reason: "it has no monitor any more") }
      return oldMonitor
    case .new:
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

  /// The first version whose `migrate-incoming` has `exit-on-error`. Source: qapi/migration.json.
  private static let survivesFailedLoad = QEMUVersion(major: 9, minor: 1)

  public func startMigration(_ last: () throws(Failure) -> Void) throws(Failure) {
    guard let migrationStream else { throw Failure(step: "migrate", subject: "", reason: "there is no stream") }
    var incoming: [String: JSONValue] = ["uri": .string("fd:\(LaunchPlan.migrationDescriptor)")]
    // One that lives on after a failed load can be asked for the reason.
    if let version = try monitor(.new).version, version >= Self.survivesFailedLoad { incoming["exit-on-error"] = false }
    _ = try monitor(.new).execute("migrate-incoming", .object(incoming))
    _ = try monitor(.old).execute("getfd", ["fdname": "moult-migration"], descriptor: migrationStream.raw)
    self.migrationStream = nil
    try last()
    _ = try monitor(.old).execute("migrate", ["uri": "fd:moult-migration"])
  }

  public func awaitMigration(
    _ side: Side, states: Set<String>, seconds: Double?, peerMustLive: Bool
  ) throws(Failure) -> String {
    let connection = try monitor(side)
    let peer: Side = side == .old ? .new : .old
    let step = "await migration (\(states.sorted().joined(separator: " or "))) of"
    return try reactor.wait(seconds: seconds, step: step, subject: "the \(side.rawValue) QEMU") { () throws(Failure) -> String? in
      while let event = try connection.takeEvent(where: {
        $0.name == "MIGRATION" || $0.name == "MIGRATION_PASS" || $0.name == "STOP" && states.contains("stopped")
      }) {
        if event.name == "STOP" {
          self.seen.append((side, event))
          return "stopped"
        }
        if event.name == "MIGRATION_PASS" {
          if states.contains("pass") { return "pass" }
          continue
        }
        let status = event.data["status"]?.string ?? ""
        if states.contains(status) { return status }
        if ["failed", "cancelled"].contains(status) { throw self.migrationFailure(side, status) }
      }
      if connection.isClosed || !self.isAlive(side) { throw self.death(of: side, during: "migrate") }
      if peerMustLive, !self.isAlive(peer) { throw self.death(of: peer, during: "migrate") }
      return nil
    }
  }

  /// What both QEMUs say of a migration that failed.
  private func migrationFailure(_ side: Side, _ status: String) -> Failure {
    var reasons = ["the \(side.rawValue) QEMU reports \(status)"]
    if !isAlive(.new) { reasons.append("the new QEMU has ended") }
    for side in [Side.old, .new] where isAlive(side) {
      do {
        if let text = try command(side, "query-migrate", nil)["error-desc"]?.string { reasons.append("the \(side.rawValue) one says: \(text)") }
      } catch {
        reasons.append("\(side.rawValue): \(error)")
      }
    }
    if let text = newMessages() {
      reasons.append("the new one's last words: \(text)")
    } else if !isAlive(.new), messages == nil {
      reasons.append("what it said went where the VM's messages go, and cannot be read back there (/dev/null, a pipe, a terminal)")
    }
    return Failure(step: "migrate", subject: "", reason: reasons.joined(separator: "; "))
  }

  func death(of side: Side, during step: String) -> Failure {
    var reason = "the \(side.rawValue) QEMU ended"
    if side == .new, let text = newMessages() { reason += ": \(text)" }
    if side == .old { reason += " (the guest powered off, or it was killed)" }
    return Failure(step: step, subject: "", reason: reason)
  }

  /// What the new QEMU has written to its log since it was started; nil if its log cannot be read back.
  func newMessages(lines: Int = 3) -> String? {
    guard let messages else { return nil }
    let size: Int64
    do { size = try Files.status(of: messages.file.raw).size } catch { return "its messages cannot be read (\(error))" }
    // Its end, where the reason is.
    var bytes = [UInt8](repeating: 0, count: 200 * max(lines, 10))
    let count = pread(messages.file.raw, &bytes, bytes.count, off_t(max(messages.offset, size - Int64(bytes.count))))
    guard count > 0 else { return nil }
    let text = String(decoding: bytes[..<count], as: UTF8.self).trimmingWhitespace
    return text.isEmpty ? nil : text.split(separator: "\n").suffix(lines).joined(separator: lines > 3 ? "\n" : " / ")
  }

  public func awaitEvent(_ side: Side, _ name: String, seconds: Double) throws(Failure) {
    let event = try monitor(side).awaitEvent(step: "await event \(name) of", seconds: seconds) { $0.name == name }
    seen.append((side, event))
  }

  public func hearEvents(_ side: Side) throws(Failure) {
    // In a recovery of a guest that runs in the new one: the old one stands still, and says nothing more.
    if side == .old, oldMonitor == nil { return }
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

  /// A QEMU that ends closes its monitor first: its process is given a moment to be gone, too.
  private func isAlive(_ process: ProcessHandle?, _ monitor: QMPConnection?) -> Bool {
    guard let process, !process.hasExited else { return false }
    return monitor?.isClosed != true || !process.exits(withinMilliseconds: 2000)
  }

  public func setOOMScore(_ adjustment: Int) throws(Failure) {
    // A new QEMU that has ended is found out elsewhere.
    guard let newProcess, !newProcess.hasExited else { return }
    try OOMScore.apply(adjustment, to: newProcess.pid)
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

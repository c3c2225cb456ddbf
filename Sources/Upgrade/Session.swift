import Glibc
public import Kernel
import QEMU

/// One command's work on one VM: find, observe, plan, carry out.
///
/// Must be made while the process has one thread: signals are blocked for it and read from a descriptor.
public final class Session {
  public let state: StateDirectory
  public let reactor = Reactor()
  private let signals: SignalDescriptor
  private let began = Instant.now()
  /// Called with each interrupted upgrade that was brought to an end on the way.
  public var recovered: (UpgradeRecord, UpgradeReport) -> Void = { _, _ in }

  public init(state: StateDirectory = StateDirectory()) throws(Failure) {
    self.state = state
    if geteuid() != 0 {
      throw Failure(step: "start", subject: "moult", errno: .notPermitted, hint: "moult needs root: it makes namespaces and takes over descriptors of the VM")
    }
    try Self.makeRoomForDescriptors()
    // What the caller ignores stays ignored (nohup, a shell's background jobs): a blocked signal would be
    // read all the same.
    let ignored = try ProcessStatus.read(pid: getpid()).ignoredSignals
    signals = try SignalDescriptor([SIGINT, SIGTERM, SIGHUP, SIGQUIT].filter { ignored >> UInt64($0 - 1) & 1 == 0 })
    // Nothing else may end or stop moult half-way: a reader that goes away, a terminal's Ctrl-Z or tostop,
    // a file size limit, a stray signal. Children get the defaults back (the child's stage sees to it).
    for number in [SIGPIPE, SIGTSTP, SIGTTIN, SIGTTOU, SIGXFSZ, SIGUSR1, SIGUSR2, SIGALRM] { signal(number, SIG_IGN) }
  }

  /// Descriptors that an upgrade may need at once, with a good margin.
  private static let descriptors: UInt64 = 256

  /// An upgrade that runs out of descriptors half-way could not even open what it has to remove.
  private static func makeRoomForDescriptors() throws(Failure) {
    guard let limit = try ResourceLimits.read(pid: getpid()).limits[.openFiles], limit.soft < descriptors else { return }
    do throws(Failure) {
      let wanted = ResourceLimit(soft: descriptors, hard: max(limit.hard, descriptors))
      try ResourceLimits([.openFiles: wanted]).apply(to: getpid())
    } catch {
      throw Failure(
        step: "start", subject: "moult", reason: "only \(limit.soft) open files are allowed, and \(descriptors) may be needed",
        hint: "raise the limit: ulimit -n \(descriptors)")
    }
  }

  deinit {
    // What came too late to undo anything is no reason to die when the former mask is restored.
    do { while try signals.next() != nil {} } catch { FileDescriptorOutput.error("moult: \(error)") }
  }

  public struct Observed {
    public var observation: Observation
    let monitor: QMPConnection
  }

  /// - Parameter selector: a guest's name, a pid, a pidfile or a QMP socket path.
  public func observe(_ selector: String) throws(Failure) -> Observed {
    try recoverInterrupted(selector, isAlone: true)
    let pid = try Locator.find(selector, state: state)
    do throws(Failure) {
      let (observation, monitor) = try Observer.observe(pid, reactor: reactor, state: state)
      return Observed(observation: observation, monitor: monitor)
    } catch where error.meansGone || error.errno == .connectionReset {
      // It closes its monitor first.
      guard try unlessGone({ () throws(Failure) in try ProcessHandle(pid: pid) })?.exits(withinMilliseconds: 2000) ?? true else { throw error }
      throw Failure(
        step: "look at the VM", subject: selector, reason: "its QEMU (pid \(pid)) has ended meanwhile",
        hint: "if another moult has upgraded it just now, try again; moult list shows the VMs")
    }
  }

  /// What `--to` and `--root` stand for when they are left out: what is installed now where the VM was
  /// started from.
  public func request(
    for observation: Observation, binary: String?, root: String?, memory: MemoryStrategy, hold: Bool, probation: Double?
  ) throws(Failure) -> UpgradeRequest {
    var tree: String?
    if let root { tree = try Paths.real(root, hint: "--root names the directory of a root tree") }
    if tree == nil, binary == nil { tree = observation.root }
    if tree == "/" { tree = nil }
    if let tree, try !Files.status(tree).isDirectory {
      throw Failure(step: "use the root tree", subject: tree, errno: .notDirectory, hint: "--root names the directory of a root tree")
    }
    do throws(Failure) {
      return UpgradeRequest(
        binary: try Self.check(binary ?? observation.binary, in: tree), root: tree, memory: memory, hold: hold, probation: probation)
    } catch where binary == nil && observation.binaryDeleted && error.errno == .noSuchFileOrDirectory {
      throw Failure(
        step: "find the QEMU to change to", subject: observation.binary,
        reason: "the VM runs a QEMU whose file is gone from there, and nothing has taken its place",
        hint: "--to names the binary to change to; or install QEMU again, and it is taken from there")
    }
  }

  /// The binary must be there and executable; what it is, it has to say itself.
  private static func check(_ binary: String, in root: String?) throws(Failure) -> String {
    let hint = "--to names the QEMU binary to change to" + (root == nil ? "" : ", a path inside --root")
    guard root == nil || binary.hasPrefix("/") else {
      throw Failure(step: "use the binary", subject: binary, reason: "inside a root tree it must be an absolute path", hint: hint)
    }
    let path = root == nil ? try Paths.real(binary, hint: hint) : binary
    let status: FileStatus
    do throws(Failure) { status = try self.status(path, in: root) } catch {
      throw Failure(step: "use the binary", subject: path, errno: error.errno, hint: hint)
    }
    if status.isDirectory || !status.isRegularFile || status.mode & 0o111 == 0 {
      throw Failure(step: "use the binary", subject: path, errno: .permissionDenied, reason: "it is not an executable file", hint: hint)
    }
    return path
  }

  private static func status(_ binary: String, in root: String?) throws(Failure) -> FileStatus {
    if let root { return try Paths.status(binary, inTree: root) }
    return try Files.status(binary)
  }

  public func plan(_ observed: Observed, _ request: UpgradeRequest, target: TargetFacts? = nil) throws(Failure) -> UpgradePlan {
    UpgradePlan.make(id: try Self.newIdentifier(), observation: observed.observation, request: request, target: target)
  }

  /// Unique on this host, and sorts by time: `20261121-101530-5f3a`.
  static func newIdentifier() throws(Failure) -> String {
    var time = timespec()
    clock_gettime(CLOCK_REALTIME, &time)
    var parts = tm()
    gmtime_r(&time.tv_sec, &parts)
    func two(_ value: Int32) -> String { value < 10 ? "0\(value)" : "\(value)" }
    let day = "\(parts.tm_year + 1900)\(two(parts.tm_mon + 1))\(two(parts.tm_mday))"
    // Always four digits: names of one length.
    let suffix = String((UInt64(getpid()) << 12 ^ UInt64(time.tv_nsec)) & 0xffff | 0x10000, radix: 16).dropFirst()
    return "\(day)-\(two(parts.tm_hour))\(two(parts.tm_min))\(two(parts.tm_sec))-\(suffix)"
  }

  /// Carries the plan out. A guest that turns out unhealthy in probation is rolled back.
  public func upgrade(
    _ observed: Observed, _ plan: UpgradePlan, takingBack held: UpgradeRecord? = nil,
    progress: @escaping (Executor.Progress) -> Void
  ) throws(Failure) -> UpgradeReport {
    if held == nil, plan.blockers.isEmpty, let former = try state.record(plan.key), former.isHeld, let twin = former.new,
      try ProcessHandle(twin.process) == nil
    {
      // Its VM has ended, and this one was started in its place: there is nothing left to take back.
      try commit(former)
    }
    var report = try Executor(plan: plan, host: host(observed, takingBack: held), began: began, progress: progress).run()
    // The guest has not noticed anything so far.
    if report.outcome == .failed, let masked = plan.masking(report.gainedFeatures) {
      report = try Executor(plan: masked, host: host(observed, takingBack: held), began: began, progress: progress).run()
      report.notes.append(
        "the new QEMU was started a second time, without CPU features that the guest has not seen so far: \(masked.request.maskedFeatures.joined(separator: ", "))")
    }
    if report.outcome == .failed, report.failure?.step == .compare, !report.differences.isEmpty {
      report.outcome = .refused
      report.blockers = TwinComparison.blockers(report.differences)
    }
    // Nothing was begun: nothing to remember.
    if report.steps.isEmpty, report.outcome == .refused { return report }
    do throws(Failure) {
      try History(state).add(HistoryEntry(plan, report, takesBack: held != nil))
      if ![.committed, .held].contains(report.outcome) { report.notes.append(History.hint(plan.id)) }
    } catch {
      report.notes.append("could not write the history: \(error)")
    }
    return report
  }

  /// Whether neither QEMU of an upgrade that was carried out is there any more.
  public func hasEnded(_ plan: UpgradePlan, _ report: UpgradeReport) throws(Failure) -> Bool {
    for process in [plan.observation.process, report.new?.process].compactMap({ $0 }) where try ProcessHandle(process) != nil { return false }
    return true
  }

  func host(_ observed: Observed, takingBack held: UpgradeRecord?) throws(Failure) -> LinuxHost {
    try LinuxHost(
      observation: observed.observation, monitor: observed.monitor, reactor: reactor, state: state, signals: signals.raw,
      nextSignal: { [self] () throws(Failure) in try signals.next()?.signal }, superseded: held)
  }

  /// The plan with all that can be found out without starting the VM's twin: what the new binary knows, and whether
  /// device state fits. Nothing of the VM is touched. `plan` and `upgrade` refuse by the same.
  public func assess(_ observed: Observed, _ request: UpgradeRequest) throws(Failure) -> UpgradePlan {
    var observed = observed
    if observed.observation.commandLine.options.contains(where: { $0.name == "global" }) {
      observed.observation.deviceTypes = try GuestView.deviceTypes(observed.monitor)
    }
    let formats = try FormatComparison(observed.observation, request)
    defer { formats.end() }
    let demands = try plan(observed, request).demands
    let facts = try TargetProbe.run(observed.observation, request, demands: demands, reactor: reactor)
    var plan = try plan(observed, request, target: facts)
    // A binary that does not know the machine type has no formats for it either.
    if facts.catalog.machines[observed.observation.live.machineType] != nil {
      plan.judge(try formats.result(observed.monitor))
    }
    let (running, chosen) = (try Files.status("/proc/\(observed.observation.process.pid)/exe"), try Self.status(request.binary, in: request.root))
    if running.isSameFile(as: chosen) {
      plan.warnings.append("the VM runs this very file already: it gets a new process, and what was replaced of the libraries, but no other QEMU; --to names another")
    }
    if !request.takesBack, let held = try state.record(plan.key), held.isHeld, held.new?.process == observed.observation.process {
      plan.blockers.insert(
        Blocker(
          option: "upgrade \(held.id)", reason: "it is held: the VM can still go back to QEMU \(held.oldVersion)",
          wayOut: "moult commit \(plan.vm), or moult rollback \(plan.vm), first"), at: 0)
    }
    return plan
  }
}

extension Paths {
  static func real(_ path: String, hint: String) throws(Failure) -> String {
    do { return try real(path) } catch { throw Failure(step: "use", subject: path, errno: error.errno, hint: hint) }
  }

  /// stat(2) of an absolute path as a process sees it whose root directory is `tree`.
  static func status(_ path: String, inTree tree: String) throws(Failure) -> FileStatus {
    let file = try OwnedFD.resolving(path, inRoot: tree)
    return try Files.status(of: file.raw)
  }
}

import Glibc
public import Kernel
public import QEMU
import Sandbox

/// Starting the new QEMU.
extension LinuxHost {
  /// Seconds until a new QEMU must have greeted. It takes tens of milliseconds; a loaded host takes longer.
  static let greetingSeconds = 60.0

  public func spawn(_ plan: UpgradePlan, noting: (ProcessIdentity) throws(Failure) -> Void) throws(Failure) {
    let (handle, streams, control, stream) = try start(plan, noting)
    newProcess = handle
    watchExit(of: handle)
    rememberMessages(of: streams[2])

    let monitor = QMPConnection(try control.duplicate(), subject: "the new QEMU", reactor: reactor)
    newMonitor = monitor
    guardian?.give(newMonitor: monitor.descriptor)
    migrationStream = stream
  }

  public func greet(_ plan: UpgradePlan) throws(Failure) -> QEMUVersion {
    let version: QEMUVersion
    // Only of one that ends by itself its messages say why.
    do throws(Failure) { try traceStart() } catch { throw error.errno == .noSuchProcess ? try startFailure(plan, error) : error }
    do { version = try monitor(.new).negotiate(seconds: Self.greetingSeconds) } catch {
      throw try startFailure(plan, error)
    }
    try mustBeConfinedAlike(plan)
    try mustHaveOpenedTheImages(plan)
    return version
  }

  /// Lets the new QEMU run until it has made the connections that are led elsewhere.
  private func traceStart() throws(Failure) {
    guard let tracedStart, let wiring else { return }
    self.tracedStart = nil
    let redirections = wiring.redirections
    try tracedStart.run(reactor, seconds: Self.greetingSeconds) { redirections[$0].what }
  }

  /// A security module gives a label at exec, by its own rules: it must be the one that the VM lives under.
  private func mustBeConfinedAlike(_ plan: UpgradePlan) throws(Failure) {
    guard let oldProcess, let newProcess else { return }
    let (old, new) = (try ProcFS.securityLabel(of: oldProcess.pid), try ProcFS.securityLabel(of: newProcess.pid))
    if old == new { return }
    throw Failure(
      step: "start the new QEMU", subject: plan.request.binary,
      reason: "the VM runs under the security label \(old ?? "none"), the new QEMU would run under \(new ?? "none")",
      hint: "no step of this version carries a label over: let the policy give it to the binary")
  }

  /// The same names may lead elsewhere by now: a link or a directory that was changed since the observation.
  private func mustHaveOpenedTheImages(_ plan: UpgradePlan) throws(Failure) {
    guard let newProcess else { return }
    let open = Set(try ProcFS.openDescriptors(of: newProcess.pid).map(\.status.identity))
    for file in plan.observation.files where file.isImage {
      guard let identity = file.onHost, !open.contains(identity) else { continue }
      throw Failure(
        step: "compare the images of", subject: plan.vm, reason: "\(file.path) is not what the new QEMU has opened",
        hint: "the file or a link to it was replaced during the upgrade")
    }
  }

  /// Starts the process. Of its ends of the channels it has the only ones when this returns: otherwise
  /// its death would go unnoticed.
  private func start(
    _ plan: UpgradePlan, _ noting: (ProcessIdentity) throws(Failure) -> Void
  ) throws(Failure) -> (process: ProcessHandle, streams: [StandardStream], control: DescriptorBox, stream: DescriptorBox) {
    guard let oldProcess else { throw Failure(step: "start the new QEMU", subject: plan.vm, reason: "the old one has ended") }
    let (control, stream) = (try Channel(), try Channel())
    var inherited = [
      ProcessPlan.Inherited(source: control.theirs.raw, number: LaunchPlan.controlDescriptor),
      ProcessPlan.Inherited(source: stream.theirs.raw, number: LaunchPlan.migrationDescriptor),
    ]
    var kept = [control.theirs, stream.theirs]
    for memory in LaunchPlan.givenMemory(plan) {
      let file: DescriptorBox
      if let source = memory.source {
        file = DescriptorBox(try oldProcess.duplicate(descriptor: source))
      } else {
        file = DescriptorBox(try OwnedFD.memory(named: "moult-\(memory.id)"))
      }
      kept.append(file)
      inherited.append(ProcessPlan.Inherited(source: file.raw, number: memory.number))
    }
    if let directory = LaunchPlan.workingDirectory(plan) {
      let file = DescriptorBox(try OwnedFD.open(directory.path, O_RDONLY | O_DIRECTORY, step: "open the working directory"))
      kept.append(file)
      inherited.append(ProcessPlan.Inherited(source: file.raw, number: directory.descriptor))
    }
    launchedUpgrade = plan.id
    let wiring = try Wiring(plan, old: oldProcess, directory: state.directory(plan.key))
    inherited += wiring.inherited.map { ProcessPlan.Inherited(source: $0.source, number: $0.number) }
    let streams = try plan.isTrial ? trialStreams() : standardStreams(of: oldProcess)
    let process = LaunchPlan.process(
      plan, try ProcessAttributes.read(pid: oldProcess.pid), network: wiring.substitution, streams: streams.map(\.stream),
      inherited: inherited)
    let sandbox = LaunchPlan.sandbox(plan) { wiring.file(ofPeer: $0) }
    let redirections = wiring.redirections.map(\.0)
    defer { withExtendedLifetime((kept, streams)) {} }
    do throws(Failure) {
      // What the new QEMU sees of the network is what the VM sees.
      let child = try Namespaces.within(oldProcess.pid, [.network]) { () throws(Failure) in
        try Sandbox.launch(sandbox, process) { pid throws(Failure) in
          try wiring.expect(pid)
          if !redirections.isEmpty { tracedStart = try TracedStart(pid, redirections) }
          try noting(ProcessIdentity(pid: pid, startTime: try ProcessStatus.read(pid: pid).startTime))
        }
      }
      wiring.hasStarted()
      self.wiring = wiring
      do throws(Failure) {
        return (try ProcessHandle(pid: child.pid), streams, control.ours, stream.ours)
      } catch {
        // Nobody could end it any more: no second descriptor was to be had for it.
        try child.pidfd.send(signal: SIGKILL)
        throw error
      }
    } catch {
      throw error.hintingAtLibraries
    }
  }

  private struct StandardStream {
    var stream: ProcessPlan.Stream
    var box: DescriptorBox?
  }

  /// The old QEMU's own standard streams: the same open files, so that a log is written on, never truncated.
  private func standardStreams(of oldProcess: ProcessHandle) throws(Failure) -> [StandardStream] {
    var streams: [StandardStream] = []
    for number in CInt(0)...2 {
      do {
        let box = DescriptorBox(try oldProcess.duplicate(descriptor: number))
        streams.append(StandardStream(stream: .descriptor(box.raw), box: box))
      } catch where error.errno == .badFileDescriptor {
        streams.append(StandardStream(stream: .null, box: nil))
      }
    }
    return streams
  }

  /// A trial leaves no word in the VM's log.
  private func trialStreams() throws(Failure) -> [StandardStream] {
    let box = DescriptorBox(try OwnedFD.memory(named: "messages"))
    let messages = StandardStream(stream: .descriptor(box.raw), box: box)
    return [StandardStream(stream: .null, box: nil), messages, messages]
  }

  private func rememberMessages(of stream: StandardStream) {
    guard let box = stream.box else { return }
    do throws(Failure) {
      let status = try Files.status(of: box.raw)
      // A terminal, a pipe or /dev/null: nothing to read back.
      guard status.isRegularFile else { return }
      messages = (DescriptorBox(try OwnedFD.open("/proc/self/fd/\(box.raw)", O_RDONLY)), status.size)
    } catch { whyNoMessages = error }
  }

  /// Why the new QEMU ended before it greeted: what it wrote, or what the binary alone says.
  private func startFailure(_ plan: UpgradePlan, _ failure: Failure) throws(Failure) -> Failure {
    if failure.errno == .interrupted || failure.errno == .timedOut { return failure }
    var reason = newComplaints
    if reason == nil {
      // Its messages went where they cannot be read back. Tried alone, it may say what is wrong with it.
      let facts = try TargetProbe.run(plan.observation, plan.request, demands: plan.demands, reactor: reactor)
      let blockers = UpgradePlan.versionBlockers(plan.observation, facts)
        + plan.demands.unmet(by: facts.catalog, version: facts.version)
      reason = blockers.first.map { "\($0.option): \($0.reason)" } ?? "it ended at its start; its messages are in the VM's log"
    }
    return Failure(
      step: "start the new QEMU", subject: plan.request.binary, reason: reason,
      hint: "\(plan.command) tells more")
  }
}

extension Failure {
  /// Of a program that could not be executed: what may be missing.
  var hintingAtLibraries: Failure {
    var failure = self
    if hint == nil, step == Launching.executeStep { failure.hint = "is it a QEMU for this machine, and are its libraries there?" }
    return failure
  }
}

import Kernel
import QEMU
import Sandbox

/// How the new QEMU is started: its command line, its sandbox, its process. Pure.
enum LaunchPlan {
  /// Descriptor numbers in the new QEMU.
  static let controlDescriptor: CInt = 3
  static let migrationDescriptor: CInt = 4
  static let firstMemoryDescriptor: CInt = 5
  /// Until the guest runs in it, the new QEMU is the first to go when memory runs out: the kernel would take the
  /// largest process of the control group, and that is the VM.
  static let waitingOOMScore = 1000

  /// Backends whose memory the new QEMU is given as a descriptor: its number there, and which of the running
  /// QEMU's it is. No source means a new, empty file: RAM is copied, and what it was copied from came by
  /// descriptor in an earlier upgrade, so that no path makes it.
  static func givenMemory(_ plan: UpgradePlan) -> [(id: String, source: CInt?, number: CInt)] {
    if plan.memory.strategy == .shared {
      return plan.observation.memory.enumerated().compactMap { index, backend in
        // A trial never comes near the guest's memory.
        backend.descriptor.map { (backend.id, plan.isTrial ? nil : $0, firstMemoryDescriptor + CInt(index)) }
      }
    }
    return plan.observation.description.guestRAM.enumerated().compactMap { index, backend in
      guard let path = backend.path, path.hasPrefix("/proc/self/fd/") else { return nil }
      return (backend.id, nil, firstMemoryDescriptor + CInt(index))
    }
  }

  /// The working directory, where a stage hides it when the new QEMU starts: entered through the stage it would be
  /// gone with the stage. The new QEMU enters it anew, by descriptor, when the stage is.
  static func workingDirectory(_ plan: UpgradePlan) -> HiddenDirectory? {
    let path = plan.observation.base
    guard !plan.isTrial, plan.stages.contains(where: { $0.kind == .shared && Paths.contains($0.directory, path) }) else { return nil }
    return HiddenDirectory(path: path, descriptor: firstMemoryDescriptor + CInt(givenMemory(plan).count))
  }

  static func rewiring(_ plan: UpgradePlan) -> Rewiring {
    // Behind the memory and the working directory.
    Rewiring(plan.observation.network, from: firstMemoryDescriptor + CInt(givenMemory(plan).count) + 1)
  }

  /// - Parameter network: the stand-ins; without them, the VM's own words.
  static func arguments(_ plan: UpgradePlan, network: NetworkSubstitution = NetworkSubstitution()) -> [String] {
    var twin = TwinArguments(
      machine: plan.observation.live.machineType, control: controlDescriptor,
      memory: Dictionary(uniqueKeysWithValues: givenMemory(plan).map { ($0.id, .descriptor($0.number)) }),
      sharedMemory: plan.memory.strategy == .shared,
      // Never as root for QEMU to step down: the arguments and environment are the old process's own
      // memory, and whoever broke into it, or any user at all, can write -runas and LD_PRELOAD there.
      switchesUser: false)
    twin.maskedFeatures = plan.request.maskedFeatures
    twin.version = plan.target?.version ?? plan.request.version
    var arguments = twin.applied(to: network.applied(to: plan.observation.commandLine)).argv
    arguments[0] = plan.request.binary
    return arguments
  }

  /// Private to the new QEMU. In the network it stays where the VM is: what is plugged in later, and what connects to
  /// the outside, must find the same network as before.
  private static let namespaces: NamespaceKinds = [.mount, .ipc, .uts]

  /// - Parameter socket: the file of the socket that is to answer in the place of an outgoing connection's peer, by its
  ///   place; nil where nobody is to answer.
  static func sandbox(_ plan: UpgradePlan, socket: (Int) -> String? = { _ in nil }) -> SandboxPlan {
    let covers = covers(plan).map { outgoing, path -> MountOperation in
      socket(outgoing).map { .bind(source: $0, target: path) } ?? .hide(path: path)
    }
    guard let root = plan.request.root else {
      let profile = plan.observation.profile?.sandbox
      var operations = keptLayers(plan.request) + (profile?.operations ?? [])
      operations += (plan.isTrial ? hidden(plan.stages) : plan.stages.flatMap(cover)) + covers
      // The paths of a profile may lead over symbolic links (`/var/run`); those of stages are real.
      var sandbox = SandboxPlan(namespaces: namespaces, operations: operations, targetResolution: profile?.targetResolution)
      sandbox.makesMountPoints = plan.isTrial
      return sandbox
    }
    let observation = plan.observation
    var operations = keptLayers(plan.request)
    let reached = reached(plan)
    for link in links(observation.names.map { ($0.path, $0.directory) } + reached) { operations.append(.symbolicLink(path: link.path, target: link.target)) }
    var devices: [String] = observation.usesKVM ? ["/dev/kvm"] : []
    // For those that are plugged in later, too; the kernel asks who opens it.
    devices += observation.networkDevices
    for file in observation.files {
      if file.onHost?.device == UInt64.max {
        devices.append(file.path)
      } else {
        operations.append(.bind(source: file.path, target: file.path))
      }
    }
    // Names of hosts must mean what they mean to the VM.
    for file in observation.resolverFiles { operations.append(.bind(source: file, target: file, readOnly: true)) }
    operations.append(.directory(path: observation.base, mode: 0o755))
    for directory in Set(reached.map(\.directory)).sorted() { operations.append(.bind(source: directory, target: directory, recursive: true, readOnly: true)) }
    if plan.isTrial { return .tree(root, namespaces: namespaces, devices: devices, files: operations + hidden(plan.stages) + covers) }
    // Outer directories first: the inner ones are seen through them.
    for stage in plan.stages.reversed() {
      switch stage.kind {
      case .exclusive: operations.append(.bind(source: stage.path, target: stage.directory))
      case .shared:
        // Beneath the stage lies the public directory itself: what the new QEMU sees once the stage is detached.
        operations.append(.bind(source: stage.directory, target: stage.directory, recursive: true))
        operations.append(.bind(source: stage.path, target: stage.directory, recursive: true))
        // On top, not into the stage: what is mounted in the tree is not seen through the host's path to it.
        for name in stage.carried {
          let path = Stage.join(stage.directory, name)
          operations.append(.bind(source: path, target: path, recursive: true))
        }
      }
    }
    return .tree(root, namespaces: namespaces, devices: devices, files: operations + covers)
  }

  /// In a tree, directories of other programs' sockets to which QEMU connects again by itself, or for a disk, as they
  /// are written and as they are: a socket alone could not be replaced when the other program is started anew.
  private static func reached(_ plan: UpgradePlan) -> [(path: String, directory: String)] {
    let network = plan.observation.network
    let peers = network.outgoing.compactMap { outgoing -> (String, String)? in
      guard outgoing.peer.reconnects, case .path(let written) = outgoing.peer.peer, let path = outgoing.path else { return nil }
      return (written, path)
    }
    let disks = network.disks.compactMap { disk -> (String, String)? in
      guard case .path(let written)? = disk.node.server, let path = disk.path else { return nil }
      return (written, path)
    }
    return (peers + disks).compactMap { written, path in
      let directory = Paths.parent(path)
      if plan.stages.contains(where: { Paths.contains($0.directory, directory) }) { return nil }
      return (plan.observation.absolute(written), directory)
    }
  }

  /// Puts a stage over its directory, what it must let through included.
  private static func cover(_ stage: Stage) -> [MountOperation] {
    let directory = stage.directory
    let carried = stage.carried.map { name -> MountOperation in
      .bind(source: Stage.join(directory, name), target: Stage.join(stage.path, name), recursive: true)
    }
    return carried + [.bind(source: stage.path, target: directory, recursive: true)]
  }

  /// For a trial: empty directories in memory, that only the new QEMU sees, over those with public names.
  private static func hidden(_ stages: [Stage]) -> [MountOperation] {
    // Outer directories first: the inner ones are seen through them.
    stages.reversed().flatMap { stage -> [MountOperation] in
      [.tmpfs(target: stage.directory, options: "mode=1777")]
        + stage.carried.map { .bind(source: Stage.join(stage.directory, $0), target: Stage.join(stage.directory, $0), recursive: true) }
    }
  }

  /// Files of the old version over those that replaced them, directory by directory: a name that is gone
  /// altogether could not be mounted upon.
  static func keptLayers(_ request: UpgradeRequest) -> [MountOperation] {
    guard let kept = request.kept else { return [] }
    return request.keptDirectories.map { .layers([kept.directory + $0, (request.root ?? "") + $0], target: $0) }
  }

  /// Symbolic links by which public names are written (`/var/run` for `/run`): a tree may not have them.
  /// - Parameter names: as they are written, and the directories that they really lie in.
  static func links(_ names: [(path: String, directory: String)]) -> [(path: String, target: String)] {
    var links: [(path: String, target: String)] = []
    for name in names {
      var written = Paths.components(Paths.parent(name.path))
      var real = Paths.components(name.directory)
      // `/var/run` for `/run`, never `/var` for `/`.
      while let last = written.last, last == real.last, real.count > 1 {
        written.removeLast()
        real.removeLast()
      }
      if written.isEmpty || written == real { continue }
      let link = (path: "/" + written.joined(separator: "/"), target: "/" + real.joined(separator: "/"))
      if !links.contains(where: { $0.path == link.path }) { links.append(link) }
    }
    return links
  }

  /// The process: what the old one is, in everything that the kernel knows of it.
  static func process(
    _ plan: UpgradePlan, _ attributes: ProcessAttributes, network: NetworkSubstitution, streams: [ProcessPlan.Stream],
    inherited: [ProcessPlan.Inherited]
  ) -> ProcessPlan {
    let (words, started) = (arguments(plan), arguments(plan, network: network))
    var environment = KeptAnswers.without(KeptWords.without(attributes.environment))
    if let answers = KeptAnswers.entry(plan.observation.network) { environment.append(answers) }
    if started != words { environment.append(KeptWords.entry(words, started: started)) }
    return ProcessPlan(
      executable: .path(plan.request.binary), arguments: started, environment: environment,
      workingDirectory: plan.observation.base, umask: attributes.status.umask,
      credentials: attributes.status.credentials,
      noNewPrivileges: attributes.status.credentials.noNewPrivileges, limits: attributes.limits,
      scheduling: attributes.scheduling, oomScoreAdjustment: waitingOOMScore, cgroups: attributes.cgroups,
      standardInput: streams[0], standardOutput: streams[1], standardError: streams[2], inherited: inherited,
      newSession: true, orphan: !plan.isTrial, endsWithParent: plan.isTrial, ignoredSignals: attributes.status.ignoredSignals)
  }
}

/// What the kernel knows of the old QEMU's process that is part of the VM.
struct ProcessAttributes {
  var status: ProcessStatus
  var environment: [String]
  var limits: ResourceLimits
  var scheduling: Scheduling
  var cgroups: [CgroupMembership]

  static func read(pid: Int32) throws(Failure) -> ProcessAttributes {
    ProcessAttributes(
      status: try ProcessStatus.read(pid: pid), environment: try ProcFS.environment(of: pid),
      limits: try ResourceLimits.read(pid: pid), scheduling: try Scheduling.read(thread: pid),
      cgroups: try CgroupMembership.of(process: pid))
  }
}

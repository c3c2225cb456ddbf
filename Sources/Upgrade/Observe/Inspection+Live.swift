import Glibc
import Kernel
import QEMU

extension Session {
  /// Inspects a running VM: argv, the kernel, and QEMU if its monitor is free. Changes nothing, takes no lock, and
  /// keeps off the monitor of a VM that is being upgraded.
  public func inspect(_ selector: String) throws(Failure) -> Inspection {
    let pid = try Locator.find(selector, state: state)
    var description = MachineDescription(try Observer.commandLine(of: pid, startTime: try ProcessStatus.read(pid: pid).startTime))
    let root = try Observer.root(of: pid)
    var inspection = Inspection(description, binary: try Observer.executable(of: pid, root: root).path)
    inspection.pid = pid
    inspection.process = try InspectedProcess(pid: pid, root: root)

    // Kept to the end: closed, the connection would be among QEMU's descriptors until QEMU has noticed, and be nobody's.
    var observed: Observed?
    defer { withExtendedLifetime(observed) {} }
    do throws(Failure) {
      // To ask it one would have to recover it first, which is not for those who only look.
      if let record = try unended(String(pid)).first {
        throw Failure(
          step: "ask", subject: record.vm, reason: "upgrade \(record.id) of it is under way, or was interrupted",
          hint: "moult status tells which; moult recover \(record.vm) ends one that was interrupted")
      }
      observed = try observe(String(pid))
    } catch {
      inspection.notes.append(
        "QEMU was not asked over QMP (\(error)): run state, resolved machine type, what has changed since the start, and what blocks because of it, are not known"
          + (error.hint.map { "; \($0)" } ?? ""))
    }
    let observation = observed?.observation
    let base: String
    if let observation {
      base = observation.base
      let plan = UpgradePlan.make(
        id: "inspect", observation: observation, request: UpgradeRequest(binary: observation.binary, root: observation.root), target: nil)
      inspection.version = observation.version
      inspection.resolvedMachine = observation.live.machineType
      inspection.drift = observation.drift
      // The VM as it is, not as it was started.
      if observation.description != description {
        description = observation.description
        let now = Inspection(description, binary: inspection.binary)
        (inspection.bindings, inspection.memory) = (now.bindings, now.memory)
      }
      inspection.blockers = plan.blockers
      inspection.warnings = plan.warnings
      // What the plan knows better, such as how this RAM gets over.
      for index in inspection.bindings.indices {
        let binding = inspection.bindings[index].binding
        guard let planned = plan.bindings.first(where: { $0.kind == binding.kind.rawValue && $0.address == binding.address }),
          let handover = Binding.Handover(rawValue: planned.handover)
        else { continue }
        inspection.bindings[index].binding.handover = handover
        inspection.bindings[index].binding.why = planned.why
      }
    } else {
      base = try Observer.base(of: pid, daemonizes: description.daemonizes, paths: description.paths())
      let isReplaced = try Observer.executable(of: pid, root: root).deleted
      if root == nil || !isReplaced {
        var versions = VersionCache()
        inspection.version = versions.version(of: "/proc/\(pid)/exe", root: root, as: inspection.binary, pid: pid)
      }
    }

    var descriptors = try ProcFS.openDescriptors(of: pid)
    let tables = try SocketTables.read(of: pid)
    try tables.removeTransient(from: &descriptors, of: pid, monitor: observed?.monitor.descriptor)
    let own = Set(descriptors.compactMap(\.socketInode))
    let ends = Dictionary(
      descriptors.compactMap { descriptor in descriptor.socketInode.flatMap(tables.peer).map { (descriptor.number, $0) } }) { first, _ in first }
    let holders = try SocketHolders.find(Set(ends.values))
    let held = HeldDescriptor.joined(
      descriptors.map { HeldDescriptor.classify($0, tables, own: own) }, peers: ends.compactMapValues { holders[$0]?.description })
    let absolute = { (path: String) in path.hasPrefix("/") ? path : Stage.join(base, path) }
    let view = try FileView.of(pid, tree: nil)
    var identities: [String: FileIdentity] = [:]
    for address in Set(inspection.bindings.map(\.binding.address)) where !address.isEmpty {
      // What cannot be looked up is no file that QEMU has open.
      do { identities[address] = try view.status(absolute(address), pid: pid)?.identity } catch {}
    }
    var memory: [String: FileIdentity] = [:]
    for (backend, seen) in zip(
      description.guestRAM, try Observer.memory(description, pid: pid, absolute: absolute, descriptors: descriptors))
    {
      if let file = descriptors.first(where: { $0.number == seen.descriptor }) { memory[backend.option] = file.status.identity }
    }
    inspection.descriptors = held
    var (taps, connections): ([String: [Int32]], [String: [Int32]]) = ([:], [:])
    if let observation {
      for outgoing in observation.network.outgoing where outgoing.socket != nil {
        connections[observation.commandLine.options[outgoing.peer.option].text] = outgoing.connections.map(\.descriptor)
      }
      for tap in observation.network.taps { taps[observation.commandLine.options[tap.tap.option].text] = tap.descriptors }
    }
    let served = observation?.network.passing ?? []
    let passing = Set(descriptors.filter { $0.socketInode.map(served.contains) ?? false }.map(\.number))
    inspection.bindings = BindingMatch(descriptors: held, identity: { identities[$0] }, memory: memory, sets: observation?.live.descriptorSets ?? [:], taps: taps, connections: connections, passing: passing)
      .match(inspection.bindings.map(\.binding), nodes: observation?.nodeFiles)
    return inspection
  }
}

extension Observation {
  /// The files of block nodes, and whether QEMU only reads them: by each node that has one.
  fileprivate var nodeFiles: [String: Bool] {
    Dictionary(live.graph.nodes.values.compactMap { node in imagePath(node.file).map { ($0, node.isReadOnly) } }) { $0 && $1 }
  }
}

extension SocketTables {
  /// Takes out what is there only because somebody looks: QEMU's end of moult's own connection, and sockets that were
  /// closed before the tables were read.
  fileprivate func removeTransient(from descriptors: inout [OpenDescriptor], of pid: pid_t, monitor: CInt?) throws(Failure) {
    let ours = try monitor.map { descriptor throws(Failure) in try Files.status(of: descriptor).inode }
    var kept: [OpenDescriptor] = []
    for descriptor in descriptors {
      if let inode = descriptor.socketInode {
        if let ours, peer(of: inode) == ours { continue }
        if unix[inode] == nil, internet[inode] == nil,
          try !Files.isLink("/proc/\(pid)/fd/\(descriptor.number)", to: descriptor.target) { continue }
      }
      kept.append(descriptor)
    }
    descriptors = kept
  }

  /// Those of the process's network namespace and of ours: connections that it accepted are in their clients'.
  static func read(of pid: pid_t) throws(Failure) -> SocketTables {
    var (unix, internet) = (try UnixSocketTable.read(networkOf: pid), try InternetSocketTable.read(networkOf: pid))
    let (theirs, ours) = (try ProcFS.namespace("net", of: pid), try ProcFS.namespace("net", of: getpid()))
    if theirs != ours {
      unix += try UnixSocketTable.read()
      internet += try InternetSocketTable.read(networkOf: getpid())
    }
    return SocketTables(unix: unix, internet: internet)
  }
}

extension InspectedProcess {
  init(pid: pid_t, root: String?) throws(Failure) {
    let status = try ProcessStatus.read(pid: pid)
    user = status.credentials.user.effective
    group = status.credentials.group.effective
    state = status.state
    label = try ProcFS.securityLabel(of: pid)
    let groups = try CgroupMembership.of(process: pid)
    cgroup = (groups.first(where: \.isUnified) ?? groups.first { $0.controllers.contains("name=systemd") } ?? groups.first)?.path
    unit = CgroupMembership.unit(in: groups)
    self.root = root
    namespaces = [:]
    for kind in ["mnt", "net", "ipc", "uts", "pid", "user", "cgroup"] {
      let theirs = try ProcFS.namespace(kind, of: pid)
      if theirs != (try ProcFS.namespace(kind, of: getpid())) { namespaces[kind] = theirs }
    }
    resident = try ProcessMemory.read(pid: pid)
    sharedMappings = [:]
    for file in try ProcFS.mappedFiles(of: pid) where file.isShared && file.permissions.contains("w") {
      sharedMappings[file.path, default: 0] += file.size
    }
  }
}

extension CgroupMembership {
  /// The systemd unit that the groups belong to; nil for none.
  static func unit(in groups: [CgroupMembership]) -> String? {
    groups.flatMap { Paths.components($0.path) }.last { $0.hasSuffix(".service") || $0.hasSuffix(".scope") }
  }
}

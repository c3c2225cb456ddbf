public import Glibc
public import Kernel
public import QEMU
import Sandbox

/// Reads everything about a VM, changing nothing: procfs, sock_diag, and QMP queries.
public enum Observer {
  /// Seconds that a monitor may take to greet. A healthy one takes a millisecond.
  static let greetingSeconds = 3.0
  /// Seconds that another client of the monitor may take to go.
  static let clientSeconds = 1.0

  /// - Returns: the observation, and the QMP connection it was made over: kept for the upgrade, because a
  ///   monitor serves one client at a time.
  public static func observe(
    _ pid: pid_t, reactor: Reactor, state: StateDirectory
  ) throws(Failure) -> (Observation, QMPConnection) {
    let status = try ProcFS.status(pid)
    let expanded = try commandLine(of: pid, startTime: status.startTime)
    let original = expanded.commandLine
    let arguments = original.argv
    var description = MachineDescription(expanded)
    let base = try base(of: pid, daemonizes: description.daemonizes, paths: description.paths())
    let absolute = { (path: String) in path.hasPrefix("/") ? path : Stage.join(base, path) }
    let descriptors = try ProcFS.openDescriptors(of: pid)
    // A connection that QEMU accepted belongs to the client's network namespace, not to the listener's:
    // the clients of a VM that was upgraded, or runs in a sandbox, are in the host's.
    var sockets = try UnixSocketTable.read(networkOf: pid)
    let known = Set(sockets.map(\.inode))
    sockets += try UnixSocketTable.read().filter { !known.contains($0.inode) }

    if status.state == "T" || status.state == "t" {
      throw Failure(
        step: "reach the VM", subject: description.name ?? "pid \(pid)", reason: "its QEMU is stopped (SIGSTOP, or by a debugger)",
        hint: "kill -CONT \(pid) lets it go on")
    }
    guard let first = description.qmpSockets.first else {
      throw Failure(
        step: "reach the VM", subject: description.name ?? "pid \(pid)", reason: "it has no QMP monitor on a unix socket",
        hint: "start it with -qmp unix:/run/…/qmp.sock,server=on,wait=off")
    }
    let key = UpgradePlan.key(name: description.name, monitor: absolute(first))
    if let holder = try state.holder(of: key) {
      throw Failure(
        step: "lock the VM", subject: description.name ?? "pid \(pid)",
        reason: "another moult (pid \(holder)) is working on it", hint: "wait for it, or end it with Ctrl-C there")
    }
    // Before the monitor is asked: it would tell of a migration, not of the upgrade that it was for.
    if let record = try state.record(key), !record.isHeld {
      throw Failure(
        step: "lock the VM", subject: record.vm, reason: "upgrade \(record.id) was interrupted",
        hint: "moult recover \(record.vm) brings it to an end")
    }
    let monitor = try connect(
      description.qmpSockets.map { absolute($0) }, pid: pid, sockets: sockets, descriptors: descriptors, reactor: reactor)
    var live = try LiveMachine.query(monitor)
    try live.queryParts(monitor, beyond: original, base: base)
    // Everything below is about the VM as it is, not as it was started.
    let now = LiveCommandLine(original, live: live, base: base, vhosts: descriptors.count { VhostNet.isDevice($0.status) })
    if now.commandLine != original {
      var rebuilt = expanded
      rebuilt.commandLine = now.commandLine
      description = MachineDescription(rebuilt)
    }

    nameMemory(&description, descriptors: descriptors)

    let names = try names(description, pid: pid, absolute: absolute, descriptors: descriptors, sockets: sockets)
    let files = try files(description, live, pid: pid, absolute: absolute, descriptors: descriptors,
      displaced: try displacedImages(live, monitor: monitor, absolute: absolute, descriptors: descriptors))
    let memory = try memory(description, pid: pid, absolute: absolute, descriptors: descriptors)
    let mounts = try MountInfo.ofSelf()
    var directories: [NameDirectory] = []
    for path in Set(names.map(\.directory)).sorted() {
      directories.append(
        NameDirectory(
          path: path, entries: Set(try Files.names(in: path)), isMountPoint: path == "/" || MountInfo.isMountPoint(path, in: mounts)))
    }
    let headroom = try MemoryHeadroom.of(process: pid)
    let root = try root(of: pid)
    let executable = try executable(of: pid, root: root)
    guard let version = monitor.version else {
      throw Failure(step: "reach the VM", subject: absolute(first), reason: "its monitor names no version")
    }
    var profile: Profile?
    var profileFailure: String?
    do throws(Failure) { profile = try Self.profile(of: pid) } catch { profileFailure = "\(error)" }
    var network = try network(
      now.commandLine, started: CommandLine(argv: try ProcFS.arguments(of: pid)), remote: live.graph.remoteNodes, pid: pid,
      descriptors: descriptors, sockets: sockets, absolute: absolute)
    try network.findBackEnds(now.commandLine, descriptors, unix: sockets, pid: pid, monitor)
    try network.findFileServers(now.commandLine, descriptors, unix: sockets, pid: pid)
    try network.findExports(
      live, version: version, files: names.compactMap(\.owned), descriptors: descriptors, internet: try InternetSocketTable.read(networkOf: pid),
      unix: sockets, pid: pid) { () throws(Failure) in _ = try monitor.execute("query-status") }
    if let exports = network.exports { description.add(exports.binding) }
    for tap in network.taps {
      let option = now.commandLine.options[tap.tap.option].text
      description.setAddress(tap.interface, ofTap: option)
      if tap.tap.wantsVhost, !tap.hasVhost, network.vhosts.isEmpty { description.removeVhost(ofTap: option) }
    }
    var observation = Observation(
      process: ProcessIdentity(pid: pid, startTime: status.startTime), arguments: arguments,
      commandLine: now.commandLine, drift: now.drift, unreadable: now.unreadable, base: base,
      binary: executable.path, binaryDeleted: executable.deleted, root: root,
      description: description, version: version, live: live, monitor: absolute(first), names: names,
      directories: directories, files: files, memory: memory,
      foreign: try foreign(descriptors, sockets: sockets, names: names, memory: memory, network: network, pid: pid),
      standardInputIsNull: descriptors.first { $0.number == 0 }.map { $0.target == "/dev/null" } ?? true,
      profile: profile, profileFailure: profileFailure, usesKVM: descriptors.contains { $0.target == "/dev/kvm" },
      room: MemoryRoom(host: try HostMemory.available(), cgroup: headroom?.bytes, cgroupPath: headroom?.cgroup),
      clients: try clients(descriptors, sockets: sockets, names: names, network: network, absolute: absolute),
      supervision: try Supervision.of(pid, pidfile: description.pidfile.map { absolute($0) }), oomScoreAdjustment: try OOMScore.read(pid: pid),
      foreignNamespaces: try foreignNamespaces(of: pid), isInUnknownRoot: try isInUnknownRoot(pid, root: root))
    observation.network = network
    observation.waiting = try waiting(descriptors, sockets: sockets, names: names)
    if let start = try Files.statusIfPresent(base) {
      observation.hasLeftBase = try !start.isSameFile(as: Files.status("/proc/\(pid)/cwd/"))
    }
    func present(_ paths: String...) throws(Failure) -> [String] {
      var found: [String] = []
      for path in paths where try Files.statusIfPresent(path) != nil { found.append(path) }
      return found
    }
    observation.networkDevices = try present("/dev/net/tun", "/dev/vhost-net", "/dev/vhost-vsock")
    observation.resolverFiles = try present("/etc/hosts", "/etc/nsswitch.conf", "/etc/resolv.conf")
    return (observation, monitor)
  }

  /// The profile that `moult run` left the name of in the environment.
  private static func profile(of pid: pid_t) throws(Failure) -> Profile? {
    let prefix = Profile.variable + "="
    guard let variable = try ProcFS.environment(of: pid).first(where: { $0.hasPrefix(prefix) }) else { return nil }
    let path = String(variable.dropFirst(prefix.count))
    return try Profile(toml: try Files.readText(path), path: path)
  }

  /// Where relative paths of the command line start. A daemon has changed to `/`: what its
  /// environment says of the directory it came from is taken, and every file is checked by inode later.
  static func base(of pid: pid_t, daemonizes: Bool, paths: [String]) throws(Failure) -> String {
    let current = try ProcFS.workingDirectory(of: pid)
    guard daemonizes, paths.contains(where: { !$0.hasPrefix("/") }) else { return current }
    let prefix = "PWD="
    let variable = try ProcFS.environment(of: pid).first { $0.hasPrefix(prefix) }
    return variable.map { String($0.dropFirst(prefix.count)) } ?? current
  }

  /// The binary, and whether that name still stands for it: in a root tree, asked in there.
  static func executable(of pid: pid_t, root: String?) throws(Failure) -> (path: String, deleted: Bool) {
    let executable = try ProcFS.executable(of: pid)
    if root == nil { return executable }
    let running = try Files.status("/proc/\(pid)/exe")
    let named = try Files.statusIfPresent(executable.path, inRootOf: pid)
    return (executable.path, !(named?.isSameFile(as: running) ?? false))
  }

  /// The root tree that the process lives in: the source of the overlay that moult mounted for it (its layers
  /// are descriptors of the moult that did), or the lowest layer of an overlay of somebody else's.
  /// Nil for the host's own root, and for one that cannot be told.
  static func root(of pid: pid_t) throws(Failure) -> String? {
    let theirs = try Files.status("/proc/\(pid)/root/")
    if theirs.isSameFile(as: try Files.status("/")) { return nil }
    let (theirNamespace, ours) = (try ProcFS.namespace("mnt", of: pid), try ProcFS.namespace("mnt", of: getpid()))
    if theirNamespace == ours { return nil }
    guard let mount = MountInfo.containing("/", in: try MountInfo.read(pid: pid)), mount.filesystem == "overlay" else { return nil }
    if mount.source.hasPrefix("/") { return mount.source }
    let layers = mount.superOptions.first { $0.hasPrefix("lowerdir=") }?.dropFirst("lowerdir=".count).split(separator: ":")
    guard let lowest = layers?.last.map(String.init), lowest.hasPrefix("/"), !lowest.hasPrefix("/proc/"),
      let tree = try Files.statusIfPresent(lowest), tree.isDirectory
    else { return nil }
    return lowest
  }

  /// The process has a root directory that is neither the host's nor a tree that a new QEMU could be started in.
  private static func isInUnknownRoot(_ pid: pid_t, root: String?) throws(Failure) -> Bool {
    if root != nil { return false }
    let (theirs, ours) = (try Files.status("/proc/\(pid)/root/"), try Files.status("/"))
    return !theirs.isSameFile(as: ours)
  }

  /// The mount, network, IPC and UTS namespaces are private to every twin; these are not made anew.
  private static func foreignNamespaces(of pid: pid_t) throws(Failure) -> [String] {
    var foreign: [String] = []
    for kind in ["user", "pid"] where try ProcFS.namespace(kind, of: pid) != ProcFS.namespace(kind, of: getpid()) {
      foreign.append(kind)
    }
    return foreign
  }

  private static func connect(
    _ paths: [String], pid: pid_t, sockets: [UnixSocketEntry], descriptors: [OpenDescriptor], reactor: Reactor
  ) throws(Failure) -> QMPConnection {
    var last: Failure?
    for path in paths {
      // A monitor that has a client accepts no other: asking the kernel is quicker than waiting for a greeting.
      let own = Set(descriptors.compactMap(\.socketInode))
      var clients = try established(at: path, sockets: sockets, own: own)
      // One that only asks something is gone in a moment.
      let deadline = Instant.now().adding(seconds: clientSeconds)
      while !clients.isEmpty, Instant.now() < deadline {
        usleep(10_000)
        clients = try established(at: path, sockets: try UnixSocketTable.read(networkOf: pid), own: own)
      }
      if let entry = clients.first {
        let holder = try entry.peerInode.flatMap { (inode: UInt64) throws(Failure) in try SocketHolders.find([inode])[inode]?.description }
        last = Failure(
          step: "reach the VM", subject: path, reason: "its QMP monitor is held by \(holder ?? "another client")",
          hint: "a monitor serves one client at a time: end that one, or give the VM a second -qmp socket")
        continue
      }
      do {
        let monitor = QMPConnection(try UnixSocket.connect(path), subject: path, reactor: reactor)
        _ = try monitor.negotiate(seconds: greetingSeconds)
        return monitor
      } catch {
        last = error
        last?.hint = error.errno == .timedOut
          ? "QEMU does not answer: is it stopped (SIGSTOP), or another program connected to the monitor?" : error.hint
      }
    }
    throw last ?? Failure(step: "reach the VM", subject: "\(pid)", reason: "it has no QMP monitor")
  }

  /// Connections that QEMU accepted at a listening socket: they carry the path it was bound to.
  private static func established(
    at path: String, sockets: [UnixSocketEntry], own: Set<UInt64>
  ) throws(Failure) -> [UnixSocketEntry] {
    let bound = try listening(at: path, sockets: sockets, own: own).compactMap(\.path)
    return sockets.filter { entry in
      entry.state == .established && own.contains(entry.inode) && entry.path.map(bound.contains) ?? false
    }
  }

  private static func listening(at path: String, sockets: [UnixSocketEntry], own: Set<UInt64>) throws(Failure) -> [UnixSocketEntry] {
    guard let file = try unlessGone({ () throws(Failure) in try Files.status(path) }) else { return [] }
    return sockets.filter { $0.state == .listening && own.contains($0.inode) && $0.isBound(to: file) }
  }

  /// Whoever has connected to a socket with a path, and QEMU has not accepted: another client is there before.
  private static func waiting(_ descriptors: [OpenDescriptor], sockets: [UnixSocketEntry], names: [PublicName]) throws(Failure) -> [String: Int] {
    let own = Set(descriptors.compactMap(\.socketInode))
    var waiting: [String: Int] = [:]
    for name in names where name.kind == .socket {
      let count = try listening(at: name.path, sockets: sockets, own: own).reduce(0) { $0 + Int($1.receiveQueue ?? 0) }
      if count > 0 { waiting[name.path] = count }
    }
    return waiting
  }

  private static func clients(
    _ descriptors: [OpenDescriptor], sockets: [UnixSocketEntry], names: [PublicName], network: ObservedNetwork,
    absolute: (String) -> String
  ) throws(Failure) -> [String: Int] {
    let own = Set(descriptors.compactMap(\.socketInode))
    var clients: [String: Int] = [:]
    for name in names where name.kind == .socket {
      let count = try established(at: name.path, sockets: sockets, own: own).count
      if count > 0 { clients[name.path] = count }
    }
    if let exports = network.exports, exports.clients > 0 { clients[exports.address] = exports.clients }
    for outgoing in network.outgoing where outgoing.peer.isAccepted && outgoing.carried != nil {
      if case .path(let path) = outgoing.peer.peer { clients[absolute(path)] = nil }
    }
    for listener in network.listeners {
      if case .path(let path) = listener.endpoint.name {
        if listener.carried != nil { clients[absolute(path)] = nil }
      } else if listener.carried == nil, !listener.connections.isEmpty {
        clients[listener.endpoint.text] = listener.connections.count
      }
    }
    return clients
  }
}

extension ProcFS {
  static func status(_ pid: pid_t) throws(Failure) -> ProcessStatus { try ProcessStatus.read(pid: pid) }
}

extension FileStatus {
  /// A device file is the device it stands for, wherever its node lies.
  var identity: FileIdentity {
    isBlockDevice || isCharacterDevice
      ? FileIdentity(device: UInt64.max, inode: specialDevice) : FileIdentity(device: device, inode: inode)
  }
}

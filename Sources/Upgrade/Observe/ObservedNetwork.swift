import Glibc
public import Kernel
public import QEMU

/// What the running QEMU has open in its network namespace, and which words of the command line it is for.
public struct ObservedNetwork: Sendable, Equatable {
  /// A listening socket.
  public struct Socket: Sendable, Equatable {
    /// The running QEMU's descriptor.
    public var descriptor: CInt
    public var inode: UInt64
    /// What two sockets of one endpoint differ in: IPv4 and IPv6 of one port. Empty for unix sockets.
    public var address: String
  }
  /// A connection that QEMU has accepted.
  public struct Connection: Sendable, Equatable {
    public var descriptor: CInt
    public var inode: UInt64
  }
  public struct Listener: Sendable, Equatable {
    public var endpoint: NetworkEndpoint
    public var sockets: [Socket]
    public var connections: [Connection]
    /// A character device that passes bytes on as they are keeps its connection: it has one at a time.
    public var carried: Connection? { endpoint.isRaw && connections.count == 1 ? connections.first : nil }
  }
  /// What QEMU connects to.
  public struct Outgoing: Sendable, Equatable {
    public var peer: OutgoingConnection
    /// Nil while it is not connected.
    public var socket: Connection?
    /// The other program has not answered yet.
    public var isConnecting = false
    /// Of a unix socket with a path: where that is, symbolic links resolved; nil if none is there.
    public var path: String?
    /// The socket that listens there, by inode.
    public var listener: UInt64?
    /// Of one to a back end: what stands in for that.
    public var backEnd: BackEnd?
    /// Of one to a program that serves a directory: how another one is started.
    public var fileServer: FileServer?
    /// Further connections, which were opened over this one.
    public var channels: [Connection] = []
    var connections: [Connection] { (socket.map { [$0] } ?? []) + channels }
    var carried: Connection? { (peer.isRaw || backEnd != nil) && !isConnecting ? socket : nil }
  }
  public struct Queues: Sendable, Equatable {
    public var tap: TapOption
    public var interface: String
    public var flags: Tap.Flags
    /// The running QEMU's descriptors, one a queue.
    public var descriptors: [CInt]
    /// The kernel serves the card (vhost-net).
    public var hasVhost = false
  }

  public var listeners: [Listener] = []
  /// Sockets with which user networks serve the guest, by inode: connections and what UDP needs.
  public var passing: Set<UInt64> = []
  public var taps: [Queues] = []
  /// The running QEMU's descriptors of /dev/vhost-net.
  public var vhosts: Set<CInt> = []
  public var vsock: Vsock?
  /// The running QEMU's descriptors of /dev/vhost-vsock.
  var vsocks: Set<CInt> = []
  public var outgoing: [Outgoing] = []
  /// Disks that other programs or machines serve.
  public var disks: [RemoteDisk] = []
  /// Connections of the libraries that reach some of them, by inode.
  public var served: Set<UInt64> = []
  /// Disks that back ends among those serve.
  public var servedDisks: [VhostUserDevice] = []
  /// The server of block nodes that were exported over a monitor.
  public var exports: ExportServer?
  /// Why there is none, though there are exports.
  public var untoldExports: String?
  /// Its socket and its clients', by inode.
  var exportSockets: Set<UInt64> = []
  /// Words for which nothing was found, each with why.
  public var unresolved: [(words: String, why: String)] = []

  public init() {}

  public static func == (a: ObservedNetwork, b: ObservedNetwork) -> Bool {
    a.listeners == b.listeners && a.passing == b.passing && a.taps == b.taps && a.vhosts == b.vhosts && a.vsock == b.vsock && a.vsocks == b.vsocks && a.outgoing == b.outgoing && a.disks == b.disks && a.served == b.served
      && a.servedDisks == b.servedDisks && a.exports == b.exports && a.untoldExports == b.untoldExports && a.exportSockets == b.exportSockets && a.unresolved.elementsEqual(b.unresolved, by: ==)
  }

  /// Inodes of the sockets that are accounted for.
  var inodes: Set<UInt64> {
    let listening = listeners.flatMap { $0.sockets.map(\.inode) + $0.connections.map(\.inode) }
    let connecting = outgoing.flatMap(\.connections)
    return Set(listening).union(connecting.map(\.inode)).union(disks.compactMap(\.socket)).union(passing).union(served).union(exportSockets)
  }
  /// Descriptors of taps, their cards and vsock devices that are.
  var descriptors: Set<CInt> { vhosts.union(vsocks).union(taps.flatMap(\.descriptors)) }
}

extension ObservedNetwork {
  /// - Parameters:
  ///   - commandLine: the VM's.
  ///   - started: the words that the process itself was started with: after an upgrade they have other descriptors.
  ///   - interfaces: of the descriptors that are queues of taps.
  ///   - remote: the block nodes that other programs or machines serve.
  ///   - locate: where a path of the command line leads to, and the socket there.
  init(
    _ commandLine: CommandLine, started: CommandLine, remote: [RemoteNode] = [], descriptors: [OpenDescriptor], internet: [InternetSocketEntry],
    unix: [UnixSocketEntry], interfaces: [CInt: (name: String, flags: Tap.Flags)],
    locate: (String) throws(Failure) -> (path: String, status: FileStatus)? = { _ in nil }
  ) throws(Failure) {
    let numbers = Self.numbers(descriptors)
    let accepted = Set(commandLine.outgoingConnections.filter(\.isAccepted).map(\.option))
    for endpoint in commandLine.networkEndpoints {
      var listener = Self.listener(endpoint, numbers, internet: internet, unix: unix)
      // What comes there is one of those that QEMU has with other programs, whoever makes it.
      if accepted.contains(endpoint.option) { listener.connections = [] }
      // A path is looked after by the names; only its connections matter here.
      if listener.sockets.isEmpty, case .path = endpoint.name { continue }
      if listener.sockets.isEmpty {
        unresolved.append((commandLine.options[endpoint.option].text, "QEMU does not listen at \(endpoint.text)"))
      }
      listeners.append(listener)
    }
    forgetShared(commandLine)
    findTaps(commandLine, started, interfaces)
    findVhosts(commandLine, descriptors)
    findVsock(commandLine, descriptors)
    try findOutgoing(commandLine, numbers, internet: internet, unix: unix, locate)
    try findDisks(remote, numbers, internet: internet, unix: unix, locate)
    if !commandLine.userNetworks.isEmpty || commandLine.hasDefaultNetwork {
      // Whatever else is a socket of the network: libslirp makes them as the guest asks.
      let known = Set(unix.map(\.inode) + internet.filter(\.isListening).map(\.inode))
      passing = Set(numbers.keys).subtracting(known).subtracting(inodes)
    }
  }

  /// Descriptors by their sockets.
  static func numbers(_ descriptors: [OpenDescriptor]) -> [UInt64: CInt] {
    Dictionary(descriptors.compactMap { descriptor in descriptor.socketInode.map { ($0, descriptor.number) } }) { first, _ in first }
  }

  /// What two take for their own is of one of them: a port at two addresses, two members of a group.
  private mutating func forgetShared(_ commandLine: CommandLine) {
    let claims = Dictionary(grouping: listeners.flatMap(\.inodes)) { $0 }.filter { $1.count > 1 }
    for (index, listener) in listeners.enumerated() where listener.inodes.contains(where: { claims[$0] != nil }) {
      listeners[index].sockets = []
      listeners[index].connections = []
      unresolved.append(
        (commandLine.options[listener.endpoint.option].text, "which of several sockets at \(listener.endpoint.text) is its own cannot be told"))
    }
  }

  private static func listener(
    _ endpoint: NetworkEndpoint, _ numbers: [UInt64: CInt], internet: [InternetSocketEntry], unix: [UnixSocketEntry]
  ) -> Listener {
    var listener = Listener(endpoint: endpoint, sockets: [], connections: [])
    func isHost(_ entry: InternetSocketEntry) -> Bool { endpoint.host.map { $0 == entry.local.host } ?? true }
    func addDatagrams(_ isOurs: (InternetSocketEntry) -> Bool) {
      for entry in internet where entry.transport == .udp && isOurs(entry) {
        guard let number = numbers[entry.inode] else { continue }
        listener.sockets.append(Socket(descriptor: number, inode: entry.inode, address: entry.local.host))
      }
    }
    switch endpoint.name {
    case .datagrams(let port), .multicast(let port): addDatagrams { $0.local.port == port && isHost($0) }
    case .datagramsFrom(let port):
      addDatagrams { $0.remote.port == port }
      // Two that exchange datagrams with one peer cannot be told apart.
      if listener.sockets.count > 1 { listener.sockets = [] }
    case .port(let first, let last):
      let own = internet.filter { $0.transport == .tcp && numbers[$0.inode] != nil && (first...last).contains($0.local.port) }
      let port = own.first { $0.isListening && isHost($0) }?.local.port
      // A connection is at one of the addresses that are listened at.
      for entry in own where entry.local.port == port && (isHost(entry) || !entry.isListening) {
        guard let number = numbers[entry.inode] else { continue }
        if entry.isListening {
          listener.sockets.append(Socket(descriptor: number, inode: entry.inode, address: entry.local.host))
        } else {
          listener.connections.append(Connection(descriptor: number, inode: entry.inode))
        }
      }
    case .abstract(let name):
      for entry in unix where entry.path == "@" + name { listener.add(entry, numbers) }
    case .path(let path):
      // As it was given to bind(2); several may have had the name.
      for entry in unix where entry.path == path { listener.add(entry, numbers) }
    }
    return listener
  }

  private mutating func findTaps(
    _ commandLine: CommandLine, _ started: CommandLine, _ interfaces: [CInt: (name: String, flags: Tap.Flags)]
  ) {
    let wanted = commandLine.taps
    var before = started.taps
    var free = interfaces
    var found: [Int: (name: String, flags: Tap.Flags, descriptors: [CInt])] = [:]
    func take(_ index: Int, _ descriptors: [CInt]) {
      guard let first = descriptors.first, let interface = free[first] else { return }
      found[index] = (interface.name, interface.flags, descriptors)
      for descriptor in descriptors { free[descriptor] = nil }
    }
    func queues(of name: String) -> [CInt] { free.filter { $0.value.name == name }.keys.sorted() }
    // By number, by name, and what is left by there being no choice.
    for (index, tap) in wanted.enumerated() {
      // One that was added since the start has its own numbers.
      let started = before.firstIndex { $0.id == tap.id }.map { before.remove(at: $0) } ?? tap
      if !started.descriptors.isEmpty, started.descriptors.allSatisfy({ free[$0] != nil }) {
        take(index, started.descriptors)
      } else if let name = started.interface, !name.contains("%") {
        take(index, queues(of: name))
      }
    }
    let open = wanted.indices.filter { found[$0] == nil }
    let names = Set(free.values.map(\.name))
    if open.count == 1, names.count == 1, let name = names.first { take(open[0], queues(of: name)) }
    for (index, tap) in wanted.enumerated() {
      if let match = found[index] {
        taps.append(Queues(tap: tap, interface: match.name, flags: match.flags, descriptors: match.descriptors))
      } else {
        let why = names.isEmpty ? "QEMU has no such tap open" : "which of the taps \(names.sorted().joined(separator: ", ")) it is cannot be told"
        unresolved.append((commandLine.options[tap.option].text, why))
      }
    }
  }

  private mutating func findVhosts(_ commandLine: CommandLine, _ descriptors: [OpenDescriptor]) {
    vhosts = Set(descriptors.filter { VhostNet.isDevice($0.status) }.map(\.number))
    let wanting = taps.indices.filter { taps[$0].tap.wantsVhost }
    // QEMU opens one for each queue; or, if it has none that it may open, serves the card by itself and only warns.
    if vhosts.isEmpty { return }
    if vhosts.count == wanting.map({ taps[$0].descriptors.count }).reduce(0, +) {
      for index in wanting { taps[index].hasVhost = true }
    } else {
      unresolved.append(("vhost-net", "which cards it serves cannot be told: QEMU has \(vhosts.count) of its descriptors open, and other queues that want one"))
    }
  }
}

extension ObservedNetwork.Listener {
  fileprivate var inodes: [UInt64] { sockets.map(\.inode) + connections.map(\.inode) }

  fileprivate mutating func add(_ entry: UnixSocketEntry, _ numbers: [UInt64: CInt]) {
    guard let number = numbers[entry.inode] else { return }
    switch entry.state {
    case .listening: sockets.append(.init(descriptor: number, inode: entry.inode, address: ""))
    default: connections.append(.init(descriptor: number, inode: entry.inode))
    }
  }
}

extension Observer {
  static func network(
    _ commandLine: CommandLine, started: CommandLine, remote: [RemoteNode], pid: pid_t, descriptors: [OpenDescriptor],
    sockets: [UnixSocketEntry], absolute: (String) -> String
  ) throws(Failure) -> ObservedNetwork {
    var interfaces: [CInt: (name: String, flags: Tap.Flags)] = [:]
    let devices = descriptors.filter(\.status.isCharacterDevice)
    let majors = devices.isEmpty ? [] : try Tap.upperMajors()
    let tun = devices.filter { Tap.isQueue($0.status) || majors.contains(DeviceNumber.parts($0.status.specialDevice).major) }
    if !tun.isEmpty {
      let process = try Pidfd(pid: pid)
      for descriptor in tun {
        let copy = try process.duplicate(descriptor: descriptor.number)
        interfaces[descriptor.number] = Tap.interface(of: copy.raw)
      }
    }
    var network = try ObservedNetwork(
      commandLine, started: started, remote: remote, descriptors: descriptors, internet: try InternetSocketTable.read(networkOf: pid),
      unix: sockets, interfaces: interfaces
    ) { written throws(Failure) in
      guard let status = try Files.statusIfPresent(absolute(written)), status.isSocket else { return nil }
      return (try Paths.real(absolute(written)), status)
    }
    try network.askServers(networkOf: pid)
    if let cid = network.vsock?.cid { network.vsock?.connections = connections(with: cid) }
    return network
  }
}

import Glibc
public import Kernel
import QEMU

/// The stand-ins of one upgrade: what the new QEMU has open in the place of what the old one still uses.
final class Wiring {
  private final class Stand {
    let tap: DetachedTap
    let frames: FrameSocket
    init(_ flags: Tap.Flags) throws(Failure) {
      tap = try DetachedTap(like: flags)
      frames = try FrameSocket(tap: tap.queue.raw)
    }
  }
  private final class Port {
    let reserved: ReservedPort
    init() throws(Failure) { reserved = try ReservedPort() }
  }

  let rewiring: Rewiring
  private let network: ObservedNetwork
  private let id: String
  /// Kept until the guest runs: the last one to close a tap waits for the kernel.
  private var taps: [Stand] = []
  /// Descriptors of /dev/vhost-net, which the new QEMU keeps.
  private var vhosts: [DescriptorBox] = []
  /// The device of /dev/vhost-vsock that the new QEMU keeps, with the CID that it has until it gets the guest's.
  private var vsock: (device: DescriptorBox, cid: UInt32)?
  private var ports: [Port] = []
  /// Duplicates of the old QEMU's, of ours while the new one starts.
  private var real: [DescriptorBox] = []
  /// Duplicates of the new QEMU's stand-ins.
  private var held: [DescriptorBox] = []
  /// Our ends of connections that stand in for live ones, by the number that the new QEMU has the live one at.
  private(set) var clients: [CInt: DescriptorBox] = [:]
  /// Our ends of connections in whose place nothing comes: their users are to connect again, when the old QEMU is dead.
  private var waiting: [DescriptorBox] = []
  /// By their place among the VM's outgoing connections.
  private var peers: [PeerStandIn] = []
  /// The other ends of what the new QEMU has sent for the requests of back ends, by its own ends (``BackEndSuccession/channel``).
  private(set) var channels: [UInt64: DescriptorBox] = [:]
  /// What has answered the new QEMU until it gets the real connections.
  private var backEnds: [BackEndProcess] = []

  /// - Parameter directory: for the files of stand-ins.
  init(_ plan: UpgradePlan, old: ProcessHandle, directory: String) throws(Failure) {
    rewiring = plan.rewiring
    network = plan.observation.network
    id = plan.id
    for queue in rewiring.queues {
      taps.append(try Stand(queue.flags))
      if queue.vhost != nil { vhosts.append(DescriptorBox(try VhostNet.open())) }
    }
    // A trial has the stand-ins only.
    for (source, given) in plan.isTrial ? [] : Array(zip(rewiring.sources, rewiring.given)) {
      let isSuccessor = rewiring.peers.contains { $0.given == given && $0.isSuccessor }
      real.append(try isSuccessor ? BackEndSuccession.socket() : DescriptorBox(try old.duplicate(descriptor: source)))
    }
    let count = network.listeners.count(where: Rewiring.needsPort)
    // Made in an array of ours, lest a failure in there leave some of them open.
    try Namespaces.within(old.pid, [.network]) { () throws(Failure) in
      for _ in 0..<count { ports.append(try Port()) }
      if rewiring.vsock != nil {
        let device = DescriptorBox(try VhostVsock.open())
        vsock = (device, try VhostVsock.setFreeCID(of: device.raw))
      }
    }
    for (index, outgoing) in network.outgoing.enumerated() {
      peers.append(try PeerStandIn(outgoing, index, id: id, key: plan.key, network: old.pid, directory: plan.isTrial ? nil : directory) { plan.observation.absolute($0) })
    }
  }

  var substitution: NetworkSubstitution {
    var substitution = rewiring.substitution(network, id: id, ports: ports.map { $0.reserved.port })
    for (outgoing, peer) in zip(network.outgoing, peers) { substitution.peers[outgoing.peer.option] = peer.substitution }
    return substitution
  }

  /// The socket that lies over the path of an outgoing connection; nil where none is to answer.
  func file(ofPeer outgoing: Int) -> String? { peers[outgoing].file }

  /// What the new QEMU is to inherit: our descriptor, its number.
  var inherited: [(source: CInt, number: CInt)] {
    Array(zip(taps.map { $0.tap.queue.raw }, rewiring.queues.map(\.standIn)))
      + zip(vhosts.map(\.raw), rewiring.queues.compactMap(\.vhost)) + zip(real.map(\.raw), rewiring.given)
      + (rewiring.vsock.flatMap { own in vsock.map { [($0.device.raw, own.given)] } } ?? [])
  }

  /// Calls of the new QEMU that are led elsewhere at its start, each in words.
  private(set) lazy var redirections: [(CallRedirection, what: String)] = {
    var calls: [(CallRedirection, what: String)] = zip(network.outgoing, peers).compactMap { outgoing, stand in
      stand.redirection.map { (.connect($0), "the connection to \(outgoing.peer.text) (\(outgoing.peer.user.text))") }
    }
    if let own = rewiring.vsock, let vsock {
      calls.append((.control(.init(cid: own.cid, of: own.given, becomes: vsock.cid)), "the vsock device's CID \(own.cid)"))
    }
    return calls
  }()

  /// The old QEMU is dead: whoever waits may connect where its command line says. Shut down, as the guardian has copies.
  func letGo() {
    // What cannot be shut down has ended.
    for end in waiting { shutdown(end.raw, CInt(SHUT_RDWR)) }
    waiting = []
  }

  /// What must stay open for the new QEMU to go on, if moult does not: see ``LinuxHost/guardian``.
  var lifelines: [CInt] { (clients.values + waiting).map(\.raw) }

  /// Lets those that stand in know who it is that they are to answer. Before it starts.
  func expect(_ pid: pid_t) throws(Failure) { for peer in peers { try peer.process?.expect(pid) } }

  /// What stand-ins did not answer the new QEMU, and why; nil if they answered everything.
  var complaint: String? {
    let complaints = (backEnds + peers.compactMap(\.process)).compactMap { $0.complaint() } + peers.compactMap { $0.fileServer?.complaint }
    return complaints.isEmpty ? nil : complaints.joined(separator: "; ")
  }

  /// The new QEMU has them now.
  func hasStarted() {
    (real, vhosts, vsock) = ([], [], nil)
    for peer in peers { peer.removeFile() }
  }

  /// Finds the new QEMU's stand-ins, and connects those that stand for live connections.
  /// - Parameters:
  ///   - settle: lets the new QEMU take what has arrived at its sockets.
  ///   - isConnected: whether a character device of the new QEMU is.
  func moves(
    in new: ProcessHandle, staged: (String) -> String, settle: () throws(Failure) -> Void, isConnected: (String) throws(Failure) -> Bool
  ) throws(Failure) -> [WiredMove] {
    // By the number of the real one.
    var accepted: [CInt: CInt] = [:]
    var successions: [CInt: BackEndSuccession] = [:]
    var told: [CInt: UInt64] = [:]
    for (index, peer) in peers.enumerated() {
      let carried = rewiring.peers.filter { $0.outgoing == index }
      if let process = peer.process {
        backEnds.append(process)
        let backEnd = network.outgoing[index].backEnd
        let numbers = try peer.numbers(in: new, expected: backEnd?.connections ?? carried.count)
        for (peer, number) in zip(carried, numbers) { accepted[peer.given] = number }
        if let given = carried.first?.given {
          switch backEnd {
          case .vhostUser?: successions[given] = succession(of: network.outgoing[index], try channel(process, numbers, new))
          case .network?: told[given] = try channel(process, numbers, new)
          case .tpm?, nil: break
          }
        }
        continue
      }
      guard let (end, number) = try peer.accept(new, isConnected: isConnected) else { continue }
      guard let given = carried.first?.given else {
        waiting.append(end)
        continue
      }
      (clients[given], accepted[given]) = (end, number)
    }
    peers = []
    if rewiring.isEmpty { return [] }
    try Transplant.probe(new.pid)
    var moves: [WiredMove] = []
    func add(_ given: CInt, _ standIn: CInt, _ what: String, connection: CInt? = nil, isFramed: Bool = false, isWatchedByRing: Bool = false, former: WiredMove.Former? = nil) throws(Failure) {
      guard let identity = try WiredMove.identity(of: given, in: new.pid), let other = try WiredMove.identity(of: standIn, in: new.pid) else {
        throw Failure(
          step: "find in the new QEMU", subject: what, reason: "it has closed descriptor \(given) or \(standIn)",
          hint: "moult plan tells whether it starts with the VM's arguments")
      }
      moves.append(
        WiredMove(
          move: .init(from: given, to: standIn), identity: identity, standIn: other, what: what, isConnection: connection != nil,
          source: connection, isFramed: isFramed, isWatchedByRing: isWatchedByRing, former: former, succession: successions[given], channel: told[given]))
    }
    for queue in rewiring.queues { try add(queue.given, queue.standIn, "the tap \(queue.interface)") }
    let substitution = substitution
    let internet = try InternetSocketTable.read(networkOf: new.pid)
    let unix = try UnixSocketTable.read(networkOf: new.pid)
    let numbers = try Self.socketNumbers(of: new.pid)
    var listening: [DescriptorBox] = []
    for socket in rewiring.sockets {
      let listener = network.listeners[socket.listener]
      let place = NetworkSubstitution.Place(listener.endpoint)
      let standIn: CInt
      if socket.isConnection {
        let connection = try connect(
          listener.endpoint, port: substitution.ports[place], abstract: substitution.abstractNames[place], new, staged, settle)
        standIn = connection.number
        clients[socket.given] = connection.ours
      } else {
        let inode: UInt64?
        let group: UInt16? = if case .multicast(let port) = listener.endpoint.name { port } else { nil }
        if let port = substitution.ports[place] ?? group {
          let isStream = if case .port = listener.endpoint.name { true } else { false }
          inode = internet.first {
            (isStream ? $0.isListening : $0.transport == .udp) && $0.local == .init(host: socket.address, port: port)
              // The real one of a group has the same address.
              && numbers[$0.inode].map { !rewiring.given.contains($0) } ?? false
          }?.inode
        } else {
          inode = unix.first { $0.state == .listening && $0.path == substitution.abstractNames[place].map { "@" + $0 } }?.inode
        }
        guard let number = inode.flatMap({ numbers[$0] }) else {
          throw Failure(
            step: "find the new QEMU's socket for", subject: "\(listener.endpoint.purpose) at \(listener.endpoint.text)",
            reason: "it does not listen at the addresses at which the running one does",
            hint: "does the name of a host mean other addresses by now, or in the new QEMU's root tree?")
        }
        standIn = number
        listening.append(DescriptorBox(try new.duplicate(descriptor: number)))
      }
      let what = "\(listener.endpoint.purpose) at \(listener.endpoint.text)"
      try add(
        socket.given, standIn, socket.isConnection ? "the connection of \(what)" : what, connection: socket.isConnection ? socket.source : nil,
        isFramed: socket.isConnection && listener.endpoint.isFramed, isWatchedByRing: !socket.isConnection && listener.endpoint.isWatchedByRing)
    }
    for peer in rewiring.peers {
      guard let standIn = accepted[peer.given] else { continue }
      let outgoing = network.outgoing[peer.outgoing].peer
      try add(
        peer.given, standIn, "the connection of \(outgoing.user.text) to \(outgoing.text)", connection: peer.isRaw ? peer.source : nil,
        isFramed: outgoing.isFramed,
        former: peer.isRaw ? nil : network.outgoing[peer.outgoing].connections.first { $0.descriptor == peer.source }.map { .init(descriptor: $0.descriptor, identity: WiredMove.identity(ofSocket: $0.inode)) })
    }
    if let twice = Dictionary(grouping: moves, by: \.move.to).values.first(where: { $0.count > 1 }) {
      throw Failure(
        step: "find in the new QEMU", subject: twice.map(\.what).joined(separator: " and "), reason: "both are at its descriptor \(twice[0].move.to)",
        hint: "give each a port of its own")
    }
    // A monitor has greeted.
    for client in clients.values { try StreamSocket.passOn(from: client.raw, to: nil) }
    // Ours have connected: nobody else has any business there.
    for socket in listening { try ListeningSocket.deafen(socket.raw) }
    held += listening
    return moves
  }

  /// - Parameter numbers: of the new QEMU's connections with the stand-in, the second one for the back end's requests.
  private func channel(_ standIn: BackEndProcess, _ numbers: [CInt], _ new: ProcessHandle) throws(Failure) -> UInt64? {
    guard let number = numbers.dropFirst().first else { return nil }
    let (inode, end) = try standIn.end(of: number, in: new)
    channels[inode] = end
    return inode
  }

  private func succession(of outgoing: ObservedNetwork.Outgoing, _ channel: UInt64?) -> BackEndSuccession? {
    guard case .vhostUser(let answers) = outgoing.backEnd, let path = outgoing.path, let listener = outgoing.listener else { return nil }
    return BackEndSuccession(path: path, listener: listener, protocolFeatures: answers.offered, channel: channel)
  }

  /// Makes a connection to the new QEMU that stands for a live one, and finds its end there.
  private func connect(
    _ endpoint: NetworkEndpoint, port: UInt16?, abstract: String?, _ new: ProcessHandle, _ staged: (String) -> String,
    _ settle: () throws(Failure) -> Void
  ) throws(Failure) -> (number: CInt, ours: DescriptorBox) {
    func failure() -> Failure {
      Failure(
        step: "connect to the new QEMU's socket for", subject: "\(endpoint.purpose) at \(endpoint.text)",
        reason: "it does not accept the connection", hint: "disconnect the client of \(endpoint.text), then try again")
    }
    let isOurs: () throws(Failure) -> UInt64?
    let ours: DescriptorBox
    switch endpoint.name {
    case .port, .datagrams, .datagramsFrom, .multicast:
      guard let port else { throw failure() }
      let isIPv6 = try !InternetSocketTable.read(networkOf: new.pid).contains {
        $0.transport == .tcp && $0.isListening && $0.local.port == port && !$0.local.host.contains(":")
      }
      let connection = try Namespaces.within(new.pid, [.network]) { () throws(Failure) in
        try LoopbackConnection(to: port, isIPv6: isIPv6)
      }
      let local = connection.localPort
      ours = DescriptorBox(try connection.socket.duplicate())
      isOurs = { () throws(Failure) in
        try InternetSocketTable.read(networkOf: new.pid).first {
          $0.transport == .tcp && $0.local.port == port && $0.remote.port == local
        }?.inode
      }
    case .path(let path):
      ours = DescriptorBox(try UnixSocket.connect(staged(path)))
      let inode = try Files.status(of: ours.raw).inode
      isOurs = { () throws(Failure) in
        // A connection belongs to its client's network namespace.
        let entry = try UnixSocketTable.read().first { $0.inode == inode }
        return entry?.peerInode
      }
    case .abstract:
      ours = DescriptorBox(
        try Namespaces.within(new.pid, [.network]) { () throws(Failure) in try UnixSocket.connect(abstract: abstract ?? "") })
      let inode = try Files.status(of: ours.raw).inode
      isOurs = { () throws(Failure) in
        try UnixSocketTable.read(networkOf: new.pid).first { $0.inode == inode }?.peerInode
      }
    }
    // The new QEMU accepts it in its main loop, in which it answers as well.
    for _ in 0..<200 {
      try settle()
      if let inode = try isOurs(), let number = try Self.socketNumbers(of: new.pid)[inode] { return (number, ours) }
    }
    throw failure()
  }

  private static func socketNumbers(of pid: pid_t) throws(Failure) -> [UInt64: CInt] {
    let descriptors = try ProcFS.openDescriptors(of: pid)
    return Dictionary(descriptors.compactMap { entry in entry.socketInode.map { ($0, entry.number) } }) { first, _ in first }
  }

  /// Makes a stand-in of a tap readable.
  /// - Parameter number: the new QEMU's.
  /// - Returns: false if it is none of these.
  func stir(_ number: CInt) throws(Failure) -> Bool {
    guard let place = rewiring.queues.firstIndex(where: { $0.standIn == number }) else { return false }
    try taps[place].frames.stir()
    return true
  }
}

/// One exchange in the new QEMU. A number that was closed may mean something else by now: it goes by what is there.
public struct WiredMove: Sendable, Equatable, Codable {
  public var move: Transplant.Move
  /// What the source is, and what the stand-in is that is in its place until then.
  public var identity: String
  public var standIn: String
  /// In words: `connection to the chardev ser`.
  public var what: String
  /// A stand-in for it goes when moult does.
  public var isConnection: Bool
  /// Of a connection, the old QEMU's descriptor; nil in records of versions that did not divert any.
  public var source: CInt?
  public var diversion: Diversion?
  /// Frames go over it: what waits there may begin in the middle of one. Nil in records of versions that knew of none.
  public var isFramed: Bool?
  /// A socket that QEMU may watch by io_uring. Nil in records of versions that knew of none.
  public var isWatchedByRing: Bool?
  /// Of a connection to a back end: the old QEMU's own. Nil in records of versions that knew of none.
  public var former: Former?
  /// It is another connection than the old QEMU's, which must have ended for this one to be served.
  public var succession: BackEndSuccession?
  /// The new QEMU's end of what it has sent for the requests of a back end that goes on over this connection: the back end must
  /// be given the other one (``BackEndSuccession/channel``). Nil if there is none.
  public var channel: UInt64?

  public struct Former: Sendable, Equatable, Codable {
    public var descriptor: CInt
    public var identity: String
  }

  var isTap: Bool { identity.hasPrefix(Self.tapMark) }
  private static let tapMark = "tap "

  enum State { case pending, done, lost }

  /// - Throws: if neither it nor its stand-in is there, and it is no connection.
  func state(in pid: pid_t, isGiven: Bool) throws(Failure) -> State {
    let there = try Self.identity(of: move.to, in: pid)
    if there == standIn, isGiven { return .pending }
    if there == identity { return .done }
    if isConnection { return .lost }
    throw Failure(
      step: "exchange the stand-in for", subject: what, reason: "the new QEMU has \(there ?? "nothing") in its place",
      hint: "restart the VM with its network unchanged during the upgrade")
  }

  /// Whether the source is there under its number.
  func isGiven(in pid: pid_t) throws(Failure) -> Bool { try Self.identity(of: move.from, in: pid) == identity }

  static func identity(ofSocket inode: UInt64) -> String { "socket:[\(inode)]" }

  /// What a descriptor stands for, in words that no other open file has; nil for a free number.
  static func identity(of descriptor: CInt, in pid: pid_t) throws(Failure) -> String? {
    let path = "/proc/\(pid)/fd/\(descriptor)"
    do throws(Failure) {
      // The path of a device depends on mounts that go with the old QEMU.
      let status = try Files.status(path)
      if !status.isCharacterDevice { return try Files.link(path) }
      if !Tap.isQueue(status) {
        let (major, minor) = DeviceNumber.parts(status.specialDevice)
        return tapMark + "\(major):\(minor)"
      }
      let info = try Files.readText("/proc/\(pid)/fdinfo/\(descriptor)").split(separator: "\n")
      return tapMark + (info.first { $0.hasPrefix("iff:") }.map { $0.dropFirst("iff:".count).filter { $0 != "\t" } } ?? "")
    } catch where error.errno == .noSuchFileOrDirectory { return nil }
  }
}

import Glibc
public import Kernel
import QEMU

/// How the new QEMU gets what only one process of a network namespace can have. Pure.
///
/// It is started with stand-ins: taps that are connected to nothing, free ports, other abstract names. The real ones
/// it inherits under numbers that it does not know of, and when it takes the guest over they are put in the
/// stand-ins' places (``Transplant``).
public struct Rewiring: Sendable, Equatable {
  public struct TapQueue: Sendable, Equatable {
    public var option: Int
    public var interface: String
    /// The running QEMU's descriptor.
    public var source: CInt
    public var flags: Tap.Flags
    /// Numbers in the new QEMU: of the stand-in, and of the real one.
    public var standIn: CInt
    public var given: CInt
    /// Of the descriptor of /dev/vhost-net that is its own; nil if QEMU serves the card.
    public var vhost: CInt?
  }
  /// A listening socket or a connection.
  public struct Socket: Sendable, Equatable {
    public var listener: Int
    public var source: CInt
    public var given: CInt
    /// Of a listening socket: what tells it from others of its listener.
    public var address: String
    public var isConnection: Bool
  }
  /// A connection that QEMU has made.
  public struct Peer: Sendable, Equatable {
    public var outgoing: Int
    /// 0: the connection; N: the Nth that was opened over it to a back end.
    public var channel = 0
    /// The new QEMU gets a connection of its own to the same program, which serves that when the running QEMU's has ended.
    public var isSuccessor = false
    /// It can be diverted while the state is saved: what goes over it is no dialogue with QEMU itself.
    public var isRaw = true
    public var source: CInt
    public var given: CInt
  }
  /// The device with which the kernel serves the guest's vsock: the new QEMU has one of its own, with a CID that nobody asks
  /// for, until the running one's gives the guest's up.
  public struct Vsock: Sendable, Equatable, Codable {
    public var cid: UInt32
    /// The running QEMU's descriptor, and the new one's.
    public var source: CInt
    public var given: CInt
  }
  public var vsock: Vsock?
  public var queues: [TapQueue] = []
  public var sockets: [Socket] = []
  public var peers: [Peer] = []

  /// - Parameter number: the first one that is free in the new QEMU.
  init(_ network: ObservedNetwork, from number: CInt) {
    var next = number
    func take() -> CInt {
      next += 1
      return next - 1
    }
    for tap in network.taps {
      for descriptor in tap.descriptors {
        queues.append(
          TapQueue(
            option: tap.tap.option, interface: tap.interface, source: descriptor, flags: tap.flags, standIn: take(), given: take(),
            vhost: tap.hasVhost ? take() : nil))
      }
    }
    for (index, listener) in network.listeners.enumerated() {
      if case .path = listener.endpoint.name {} else {
        for socket in listener.sockets {
          sockets.append(
            Socket(listener: index, source: socket.descriptor, given: take(), address: socket.address, isConnection: false))
        }
      }
      if let connection = listener.carried {
        sockets.append(
          Socket(listener: index, source: connection.descriptor, given: take(), address: "", isConnection: true))
      }
    }
    if let device = network.vsock { vsock = Vsock(cid: device.cid, source: device.descriptor, given: take()) }
    for (index, outgoing) in network.outgoing.enumerated() {
      guard outgoing.carried != nil else { continue }
      let isSuccessor = outgoing.backEnd?.servesSuccessors ?? false
      // The channels of others are the new QEMU's own.
      let isTPM = if case .tpm? = outgoing.backEnd { true } else { false }
      for (channel, socket) in outgoing.connections.prefix(isTPM ? .max : 1).enumerated() {
        peers.append(
          Peer(
            outgoing: index, channel: channel, isSuccessor: isSuccessor, isRaw: outgoing.backEnd == nil, source: socket.descriptor, given: take()))
      }
    }
  }

  /// Those that are diverted.
  public var hasConnections: Bool { sockets.contains { $0.isConnection } || peers.contains(where: \.isRaw) }
  /// Nothing is exchanged in the new QEMU.
  public var isEmpty: Bool { queues.isEmpty && sockets.isEmpty && peers.isEmpty }
  /// The running QEMU's descriptors of the real ones.
  var sources: [CInt] { queues.map(\.source) + sockets.map(\.source) + peers.map(\.source) }
  /// The numbers of the real ones, which are closed when they are in their places.
  var given: [CInt] { queues.map(\.given) + sockets.map(\.given) + peers.map(\.given) }

  /// Listeners that need a stand-in port, by their index.
  static func needsPort(_ listener: ObservedNetwork.Listener) -> Bool {
    switch listener.endpoint.name {
    case .port, .datagrams, .datagramsFrom: true
    // Both QEMUs have it at once.
    case .multicast: false
    case .abstract, .path: false
    }
  }

  /// - Parameter ports: of the listeners that need one, in their order.
  func substitution(_ network: ObservedNetwork, id: String, ports: [UInt16]) -> NetworkSubstitution {
    var substitution = NetworkSubstitution()
    var ports = ports[...]
    for (index, listener) in network.listeners.enumerated() {
      switch listener.endpoint.name {
      case .port, .datagrams, .datagramsFrom: if let port = ports.popFirst() { substitution.ports[.init(listener.endpoint)] = port }
      case .abstract: substitution.abstractNames[.init(listener.endpoint)] = Self.abstractName(index, id: id)
      case .path, .multicast: break
      }
    }
    for queue in queues { substitution.taps[queue.option, default: []].append(queue.standIn) }
    for tap in network.taps where tap.tap.wantsVhost {
      substitution.vhosts[tap.tap.option] = queues.filter { $0.option == tap.tap.option }.compactMap(\.vhost)
    }
    if let device = network.vsock { substitution.vsocks[device.option] = vsock?.given }
    return substitution
  }

  static func abstractName(_ listener: Int, id: String) -> String { "moult-\(id)-\(listener)" }

  /// The step's sentence in a plan.
  func summary(_ network: ObservedNetwork) -> String {
    var parts: [String] = []
    func count(_ number: Int, _ one: String, _ many: String) {
      if number > 0 { parts.append(number == 1 ? "1 \(one)" : "\(number) \(many)") }
    }
    count(network.taps.count, "tap", "taps")
    count(sockets.count { !$0.isConnection }, "listening socket", "listening sockets")
    count(sockets.count { $0.isConnection } + peers.count { !$0.isSuccessor }, "live connection", "live connections")
    let successors = peers.count(where: \.isSuccessor)
    let carried = network.taps.count + sockets.count + peers.count - successors
    var clauses = carried == 0 ? [] : [parts.joined(separator: ", ") + ": the new QEMU gets the very \(carried == 1 ? "one" : "ones")"]
    if successors > 0 { clauses.append("\(successors == 1 ? "1 disk that another program serves" : "\(successors) disks that other programs serve"): the new QEMU is served next") }
    if let vsock { clauses.append("vsock: the new QEMU's device gets the CID \(vsock.cid)") }
    return clauses.joined(separator: "; ")
  }
}

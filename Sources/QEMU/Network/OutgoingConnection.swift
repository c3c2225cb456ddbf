/// A connection that the command line makes QEMU open to another program, for a character device or a network; or, to a back
/// end, lets that make.
public struct OutgoingConnection: Sendable, Hashable {
  public enum Peer: Sendable, Hashable {
    /// A unix socket with a path, as written.
    case path(String)
    case abstract(String)
    case port(UInt16, host: String)
  }
  /// By its id.
  public enum User: Sendable, Hashable {
    case chardev(String), network(String)
    public var text: String {
      switch self {
      case .chardev(let id): "the chardev \(id)"
      case .network(let id): "the network \(id)"
      }
    }
  }
  /// The option's place in the command line.
  public var option: Int
  public var peer: Peer
  public var user: User
  /// Bytes go through as they are: see ``NetworkEndpoint/isRaw``.
  public var isRaw: Bool
  /// When it ends QEMU connects again, after this many milliseconds; 0: it does not.
  public var reconnectMilliseconds: Int
  /// Of one to a back end, which speaks a protocol of its own with one QEMU.
  public var backEnd: BackEnd.Kind?
  /// QEMU listens, at a path, and the other program makes the connection: of a network's back end only.
  public var isAccepted = false

  public var reconnects: Bool { reconnectMilliseconds > 0 }
  /// Another address cannot stand for it, as QEMU comes back to it, and no mount can lie over it.
  public var isLedElsewhere: Bool { if case .path = peer { false } else { reconnects } }
  /// What goes over it are frames, each after its length (``FrameStream``).
  public var isFramed: Bool { if case .network = user { true } else { false } }
  /// As in messages: `/run/peer.sock`, `@name`, `host:port`.
  public var text: String {
    switch peer {
    case .path(let path): path
    case .abstract(let name): "@" + name
    case .port(let port, let host): (host.contains(":") ? "[\(host)]" : host) + ":\(port)"
    }
  }
}

extension CommandLine {
  /// What QEMU connects to by this command line. Block devices and the like are not among them.
  public var outgoingConnections: [OutgoingConnection] {
    var labels = LegacyLabels()
    let negotiated = negotiatedChardevs
    let backEndChardevs = backEndChardevs
    return options.enumerated().compactMap { index, option -> OutgoingConnection? in
      let label = labels.next(for: option)
      let parameters = option.parameters
      switch option.name {
      case "chardev":
        guard parameters["backend"] == "socket", let id = parameters["id"], !id.hasPrefix(TwinArguments.controlID),
          let peer = OutgoingConnection.Peer(parameters)
        else { return nil }
        let isAccepted = parameters.isOn("server")
        if isAccepted {
          guard backEndChardevs[id] == .network, case .path = peer else { return nil }
        }
        return OutgoingConnection(
          option: index, peer: peer, user: .chardev(id), isRaw: parameters.isPlainSocket && !negotiated.contains(id),
          reconnectMilliseconds: parameters.reconnectMilliseconds, backEnd: backEndChardevs[id], isAccepted: isAccepted)
      case "serial", "parallel", "monitor", "qmp", "qmp-pretty", "debugcon":
        guard let legacy = LegacySocket(option.value ?? ""), !legacy.parameters.isOn("server"), let peer = legacy.peer else { return nil }
        return OutgoingConnection(
          option: index, peer: peer, user: .chardev(label ?? option.name), isRaw: legacy.isPlain && !option.name.hasPrefix("qmp"),
          reconnectMilliseconds: legacy.parameters.reconnectMilliseconds)
      case "netdev", "nic", "net":
        guard let peer = OutgoingConnection.Peer(network: parameters) else { return nil }
        return OutgoingConnection(
          option: index, peer: peer, user: .network(parameters["id"] ?? option.name), isRaw: true,
          reconnectMilliseconds: parameters.reconnectMilliseconds)
      default: return nil
      }
    }
  }
}

extension CommandLine {
  /// Character devices that are connections to back ends, by id.
  var backEndChardevs: [String: BackEnd.Kind] {
    let ids = options.compactMap { option -> (String, BackEnd.Kind)? in
      guard let chardev = option.parameters["chardev"] else { return nil }
      switch option.name {
      case "netdev": return option.parameters["type"] == "vhost-user" ? (chardev, .network) : nil
      case "tpmdev": return option.parameters["type"] == "emulator" ? (chardev, .tpm) : nil
      case "device":
        let driver = option.parameters["driver"] ?? ""
        return DeviceTable.isServedDisk(driver) ? (chardev, .vhostUser) : DeviceTable.isServedDirectory(driver) ? (chardev, .fileSystem) : nil
      default: return nil
      }
    }
    return Dictionary(ids) { first, _ in first }
  }
}

extension OutgoingConnection.Peer {
  /// Where a network of type `stream` connects to; nil if it does not, or where that cannot be told.
  init?(network parameters: OptionValue) {
    guard parameters["type"] == "stream", !parameters.isOn("server") else { return nil }
    switch parameters["addr.type"] {
    case "unix":
      guard let path = parameters["addr.path"] else { return nil }
      self = parameters.isOn("addr.abstract") ? .abstract(path) : .path(path)
    case "inet":
      guard let port = parameters["addr.port"].flatMap({ UInt16($0) }) else { return nil }
      self = .port(port, host: parameters["addr.host"] ?? "")
    default: return nil
    }
  }

  /// A port that is on this host by its very name.
  public var isLoopback: Bool {
    guard case .port(_, let host) = self else { return false }
    return host.hasPrefix("127.") || ["::1", "localhost", "ip6-localhost"].contains(host)
  }

  /// Where a chardev of type socket connects to; nil where that cannot be told.
  init?(_ parameters: OptionValue) {
    if let path = parameters["path"] {
      self = parameters.isOn("abstract") ? .abstract(path) : .path(path)
    } else if let port = parameters["port"].flatMap({ UInt16($0) }), port != 0 {
      self = .port(port, host: parameters["host"] ?? "")
    } else {
      return nil
    }
  }
}

extension OptionValue {
  /// Of a socket: neither telnet nor websocket nor TLS.
  var isPlainSocket: Bool { !["telnet", "tn3270", "websocket"].contains(where: isOn) && self["tls-creds"] == nil }

  /// Of a socket that QEMU connects: 0 without `reconnect=` or `reconnect-ms=`.
  var reconnectMilliseconds: Int {
    self["reconnect-ms"].flatMap { Int($0) } ?? self["reconnect"].flatMap { Int($0) }.map { $0 * 1000 } ?? 0
  }
}

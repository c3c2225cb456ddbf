/// A connection that the command line makes QEMU open to another program, for a character device.
public struct OutgoingConnection: Sendable, Hashable {
  public enum Peer: Sendable, Hashable {
    /// A unix socket with a path, as written.
    case path(String)
    case abstract(String)
    case port(UInt16, host: String)
  }
  /// The option's place in the command line.
  public var option: Int
  public var peer: Peer
  /// The character device's id.
  public var chardev: String
  /// Bytes go through as they are: see ``NetworkEndpoint/isRaw``.
  public var isRaw: Bool
  /// When it ends QEMU connects again, after this many milliseconds; 0: it does not.
  public var reconnectMilliseconds: Int

  public var reconnects: Bool { reconnectMilliseconds > 0 }
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
  /// What QEMU connects to by this command line. Networks, block devices and the like are not among them.
  public var outgoingConnections: [OutgoingConnection] {
    var labels = LegacyLabels()
    let negotiated = negotiatedChardevs
    return options.enumerated().compactMap { index, option -> OutgoingConnection? in
      let label = labels.next(for: option)
      let parameters = option.parameters
      switch option.name {
      case "chardev":
        guard parameters["backend"] == "socket", !parameters.isOn("server"), let id = parameters["id"],
          !id.hasPrefix(TwinArguments.controlID), let peer = OutgoingConnection.Peer(parameters)
        else { return nil }
        return OutgoingConnection(
          option: index, peer: peer, chardev: id, isRaw: parameters.isPlainSocket && !negotiated.contains(id),
          reconnectMilliseconds: parameters.reconnectMilliseconds)
      case "serial", "parallel", "monitor", "qmp", "qmp-pretty", "debugcon":
        guard let legacy = LegacySocket(option.value ?? ""), !legacy.parameters.isOn("server"), let peer = legacy.peer else { return nil }
        return OutgoingConnection(
          option: index, peer: peer, chardev: label ?? option.name, isRaw: legacy.isPlain && !option.name.hasPrefix("qmp"),
          reconnectMilliseconds: legacy.parameters.reconnectMilliseconds)
      default: return nil
      }
    }
  }
}

extension OutgoingConnection.Peer {
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

/// Networks between QEMUs and other programs over sockets. Source: net/socket.c, net/dgram.c, net/stream.c of QEMU.
extension NetworkEndpoint {
  /// Where a network of type `dgram`, `stream` or, over UDP, `socket` receives frames; nil if it does not, or if which
  /// of QEMU's sockets that is cannot be told.
  static func network(_ index: Int, _ parameters: OptionValue) -> NetworkEndpoint? {
    func endpoint(_ name: Name, host: String? = nil) -> NetworkEndpoint {
      NetworkEndpoint(option: index, part: .frames, name: name, host: host, purpose: "network \(parameters["id"] ?? parameters["type"] ?? "")")
    }
    func datagrams(_ address: (host: String, port: UInt16)?, isGroup: Bool) -> NetworkEndpoint? {
      guard let address, address.port != 0, isMulticast(address.host) == isGroup else { return nil }
      return endpoint(isGroup ? .multicast(address.port) : .datagrams(address.port), host: numeric(address.host))
    }
    switch parameters["type"] {
    case "socket":
      return datagrams(parameters["mcast"].flatMap(address), isGroup: true)
        ?? (parameters["udp"] == nil ? nil : datagrams(parameters["localaddr"].flatMap(address), isGroup: false))
    case "dgram":
      func side(_ key: String) -> (host: String, port: UInt16)? {
        guard parameters[key + ".type"] == "inet", let port = parameters[key + ".port"].flatMap({ UInt16($0) }) else { return nil }
        return (parameters[key + ".host"] ?? "", port)
      }
      return datagrams(side("remote"), isGroup: true) ?? datagrams(side("local"), isGroup: false)
    case "stream":
      guard parameters.isOn("server") else { return nil }
      var found: NetworkEndpoint
      if parameters["addr.type"] == "unix", !parameters.isOn("addr.abstract"), let path = parameters["addr.path"] {
        found = endpoint(.path(path))
      } else if parameters["addr.type"] == "inet", parameters["addr.to"] == nil, let port = parameters["addr.port"].flatMap({ UInt16($0) }), port != 0 {
        found = endpoint(.port(port, last: port))
      } else {
        return nil
      }
      found.isRaw = true
      return found
    default: return nil
    }
  }

  /// The option's parameters with another port.
  static func network(_ parameters: OptionValue, listeningAt port: UInt16) -> OptionValue {
    var parameters = parameters
    switch parameters["type"] {
    case "socket": parameters.set("localaddr", to: "\(parameters["localaddr"].flatMap(address)?.host ?? ""):\(port)")
    case "dgram": parameters.set("local.port", to: "\(port)")
    default: parameters.set("addr.port", to: "\(port)")
    }
    return parameters
  }

  /// `HOST:PORT`, of version 4.
  private static func address(_ text: String) -> (host: String, port: UInt16)? {
    guard let colon = text.lastIndex(of: ":"), let port = UInt16(text[text.index(after: colon)...]) else { return nil }
    return (String(text[..<colon]), port)
  }

  static func isMulticast(_ host: String) -> Bool {
    host.split(separator: ".").first.flatMap { UInt8($0) }.map { (224..<240).contains($0) } ?? false
  }

  /// As the kernel's tables have it; nil for a name.
  private static func numeric(_ host: String) -> String? {
    host.isEmpty ? "0.0.0.0" : host.allSatisfy { $0.isNumber || $0 == "." } || host.contains(":") ? host : nil
  }
}

extension NetworkEndpoint.Name {
  /// Where a chardev of type udp receives: its own port, or, if the kernel chooses that, whatever comes from its peer's.
  init?(datagrams parameters: OptionValue) {
    if let local = parameters["localport"].flatMap({ UInt16($0) }), local != 0 {
      self = .datagrams(local)
    } else if let remote = parameters["port"].flatMap({ UInt16($0) }), remote != 0 {
      self = .datagramsFrom(remote)
    } else {
      return nil
    }
  }
}

/// `udp:HOST:PORT@HOST:PORT`, perhaps behind `mon:`. Source: `qemu_chr_parse_compat` in QEMU's chardev/char.c.
struct LegacyDatagrams {
  private let prefix: String
  private let remote: Substring
  private var localHost = Substring()
  private var localPort = Substring()

  init?(_ value: String) {
    guard let prefix = ["udp:", "mon:udp:"].first(where: value.hasPrefix) else { return nil }
    self.prefix = prefix
    let sides = value.dropFirst(prefix.count).split(separator: "@", maxSplits: 1, omittingEmptySubsequences: false)
    remote = sides[0]
    guard sides.count == 2 else { return }
    let colon = sides[1].lastIndex(of: ":") ?? sides[1].endIndex
    (localHost, localPort) = (sides[1][..<colon], sides[1][colon...].dropFirst())
  }

  var name: NetworkEndpoint.Name? {
    var parameters = OptionValue("")
    parameters.set("localport", to: String(localPort))
    parameters.set("port", to: String(remote.split(separator: ":", omittingEmptySubsequences: false).last ?? ""))
    return NetworkEndpoint.Name(datagrams: parameters)
  }

  func text(receivingAt port: UInt16) -> String { "\(prefix)\(remote)@\(localHost):\(port)" }
}

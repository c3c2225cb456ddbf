/// A name at which the command line makes QEMU listen for connections.
public struct NetworkEndpoint: Sendable, Hashable {
  public enum Name: Sendable, Hashable {
    /// A TCP port; with `last`, the first free one of a range (`to=`).
    case port(UInt16, last: UInt16)
    /// A UDP port.
    case datagrams(UInt16)
    /// A UDP port that the kernel chose, to which this port of another address sends.
    case datagramsFrom(UInt16)
    /// A UDP port of a group, which any number of sockets may have; ``NetworkEndpoint/host`` is the group.
    case multicast(UInt16)
    /// A unix socket without a file, in the network namespace.
    case abstract(String)
    /// A unix socket with a path: of no namespace of the network, so that both QEMUs can have it.
    case path(String)
  }
  public enum Part: Sendable, Hashable {
    case main, websocket
    /// SPICE over TLS has a port of its own.
    case tls
    /// A network's frames.
    case frames
    /// A rule that forwards a port of the host, by the place of its key in the option.
    case forward(Int)
  }

  /// The option's place in the command line.
  public var option: Int
  public var part = Part.main
  public var name: Name
  /// The address that it is bound to, where several of one port are told apart by it.
  public var host: String?
  /// The character device's id, if it is one.
  public var chardev: String?
  /// What it is for: `serial`, `qmp`, `vnc`, …
  public var purpose: String
  /// Bytes go through as they are, so that a connection can go on in another QEMU without its client's knowing.
  /// Others begin with a negotiation, of which only the QEMU that took part knows.
  public var isRaw = false
  /// What goes over a connection are frames, each after its length (``FrameStream``).
  public var isFramed: Bool { part == .frames }
  /// QEMU's main loop watches it by io_uring, if at all by that (`qemu_set_fd_handler`): the others it gives to glib.
  public var isWatchedByRing: Bool { isFramed && !isRaw || purpose.hasPrefix("spice") }

  /// As in messages: `port 5901`, `@name`, a path.
  public var text: String {
    switch name {
    case .port(let first, let last): first == last ? "port \(first)" : "ports \(first) to \(last)"
    case .datagrams(let port): "UDP port \(port)"
    case .datagramsFrom(let port): "UDP from port \(port)"
    case .multicast(let port): "UDP group \(host ?? ""):\(port)"
    case .abstract(let name): "@" + name
    case .path(let path): path
    }
  }
}

extension CommandLine {
  /// Where QEMU listens by this command line.
  public var networkEndpoints: [NetworkEndpoint] {
    var labels = LegacyLabels()
    let negotiated = negotiatedChardevs
    return options.enumerated().flatMap { index, option -> [NetworkEndpoint] in
      let label = labels.next(for: option)
      let parameters = option.parameters
      switch option.name {
      case "chardev":
        if parameters["backend"] == "udp", let id = parameters["id"], let name = NetworkEndpoint.Name(datagrams: parameters) {
          return [NetworkEndpoint(option: index, name: name, chardev: id, purpose: "chardev \(id)")]
        }
        guard parameters["backend"] == "socket", parameters.isOn("server"), let id = parameters["id"],
          !id.hasPrefix(TwinArguments.controlID), let name = NetworkEndpoint.Name(socket: parameters)
        else { return [] }
        return [
          NetworkEndpoint(
            option: index, name: name, chardev: id, purpose: "chardev \(id)", isRaw: parameters.isPlainSocket && !negotiated.contains(id))
        ]
      case "serial", "parallel", "monitor", "qmp", "qmp-pretty", "debugcon", "gdb":
        if let name = LegacyDatagrams(option.value ?? "")?.name {
          return [NetworkEndpoint(option: index, name: name, chardev: label ?? option.name, purpose: option.name)]
        }
        guard let legacy = LegacySocket(option.value ?? ""), legacy.parameters.isOn("server") || option.name == "gdb",
          let name = legacy.name
        else { return [] }
        return [
          NetworkEndpoint(
            option: index, name: name, chardev: label ?? option.name, purpose: option.name,
            isRaw: legacy.isPlain && !option.name.hasPrefix("qmp") && option.name != "gdb")
        ]
      case "s": return [NetworkEndpoint(option: index, name: .port(1234, last: 1234), chardev: "gdb", purpose: "gdb")]
      case "vnc": return Self.vnc(index, parameters)
      case "display":
        guard let value = option.value, value.hasPrefix("vnc=") else { return [] }
        return Self.vnc(index, OptionValue(String(value.dropFirst("vnc=".count)), impliedKey: "vnc"))
      case "spice": return Self.spice(index, parameters)
      case "netdev", "nic", "net": return Self.forwards(index, option) + [NetworkEndpoint.network(index, parameters)].compactMap(\.self)
      default: return []
      }
    }
  }

  /// Ports of the host that a user network forwards to the guest.
  private static func forwards(_ index: Int, _ option: CommandOption) -> [NetworkEndpoint] {
    let parameters = option.parameters
    guard option.isUserNetwork else { return [] }
    return parameters.entries.enumerated().compactMap { place, entry in
      guard HostForward.isKey(entry.key), let rule = HostForward(entry.value) else { return nil }
      return NetworkEndpoint(
        option: index, part: .forward(place), name: rule.isDatagram ? .datagrams(rule.port) : .port(rule.port, last: rule.port),
        host: rule.address.isEmpty ? "0.0.0.0" : rule.address, purpose: "hostfwd")
    }
  }

  /// Character devices whose users do more than to pass on what arrives: QMP, gdb, USB redirection and the like.
  var negotiatedChardevs: Set<String> {
    Set(options.flatMap { option -> [String?] in
      switch option.name {
      case "mon": option.parameters["mode"] == "control" ? [option.parameters["chardev"]] : []
      case "qmp", "qmp-pretty", "gdb": [option.value.flatMap { $0.hasPrefix("chardev:") ? String($0.dropFirst("chardev:".count)) : nil }]
      case "device":
        Self.plainDevices.contains(DeviceTable.family(option.parameters["driver"] ?? "")) ? [] : [option.parameters["chardev"]]
      case "serial", "parallel", "monitor", "debugcon", "chardev": []
      default: [option.parameters["chardev"]]
      }
    }.compactMap(\.self))
  }

  /// Devices that pass bytes on.
  private static let plainDevices: Set<String> = [
    "isa-serial", "pci-serial", "pci-serial-2x", "pci-serial-4x", "isa-parallel", "isa-debugcon", "virtserialport", "virtconsole",
    "usb-serial", "sclpconsole", "sclplmconsole", "spapr-vty",
  ]

  /// `HOST:DISPLAY`; port 5900 and up. A websocket that is just on has 5700 and up.
  private static func vnc(_ index: Int, _ parameters: OptionValue) -> [NetworkEndpoint] {
    guard let address = parameters["vnc"], !address.hasPrefix("unix:"), !parameters.isOn("reverse"),
      let display = address.split(separator: ":", omittingEmptySubsequences: false).last.flatMap({ UInt16($0) }),
      address.contains(":"), display <= UInt16.max - 5900
    else { return [] }
    let more = parameters["to"].flatMap { UInt16($0) } ?? 0
    func name(_ port: UInt16) -> NetworkEndpoint.Name { .port(port, last: port.addingReportingOverflow(more).partialValue) }
    var endpoints = [NetworkEndpoint(option: index, name: name(5900 + display), purpose: "vnc")]
    if let websocket = parameters["websocket"], !OptionValue.isOff(websocket) {
      let said = websocket.split(separator: ":").last.flatMap { UInt16($0) }
      endpoints.append(
        NetworkEndpoint(
          option: index, part: .websocket, name: said.map { .port($0, last: $0) } ?? name(5700 + display), purpose: "vnc websocket"))
    }
    return endpoints
  }
}

extension CommandLine {
  /// A port 0 is none. Source: `qemu_spice.init` in QEMU's ui/spice-core.c.
  private static func spice(_ index: Int, _ parameters: OptionValue) -> [NetworkEndpoint] {
    if parameters.isOn("unix") { return [] }
    return [(NetworkEndpoint.Part.main, "port"), (.tls, "tls-port")].compactMap { part, key in
      guard let port = parameters[key].flatMap({ UInt16($0) }), port != 0 else { return nil }
      return NetworkEndpoint(option: index, part: part, name: .port(port, last: port), purpose: part == .tls ? "spice over TLS" : "spice")
    }
  }
}

extension NetworkEndpoint.Name {
  /// Where a chardev of type socket listens; nil where that cannot be told.
  init?(socket parameters: OptionValue) {
    if let path = parameters["path"] {
      self = parameters.isOn("abstract") ? .abstract(path) : .path(path)
    } else if let port = parameters["port"].flatMap({ UInt16($0) }), port != 0 {
      self = .port(port, last: max(port, parameters["to"].flatMap { UInt16($0) } ?? port))
    } else {
      return nil
    }
  }
}

/// A socket in the old short form: `tcp:HOST:PORT,server=on`, `unix:PATH,…`, perhaps behind `mon:`.
struct LegacySocket {
  /// What comes before the parameters: `mon:tcp:`.
  var prefix: String
  var parameters: OptionValue
  /// Neither telnet nor websocket.
  var isPlain: Bool
  private var isUnix: Bool

  init?(_ value: String) {
    let multiplexed = value.hasPrefix("mon:") ? "mon:" : ""
    let plain = value.dropFirst(multiplexed.count)
    guard let kind = ["tcp:", "telnet:", "tn3270:", "websocket:", "unix:"].first(where: plain.hasPrefix) else { return nil }
    prefix = multiplexed + kind
    isUnix = kind == "unix:"
    parameters = OptionValue(String(plain.dropFirst(kind.count)), impliedKey: isUnix ? "path" : "host", mayBeJSON: false)
    isPlain = ["tcp:", "unix:"].contains(kind) && !["telnet", "websocket", "tn3270"].contains(where: parameters.isOn)
  }

  private var host: (name: Substring, port: Substring)? {
    guard let address = parameters["host"], let colon = address.lastIndex(of: ":") else { return nil }
    return (address[..<colon], address[address.index(after: colon)...])
  }

  var name: NetworkEndpoint.Name? {
    if isUnix { return NetworkEndpoint.Name(socket: parameters) }
    guard let port = host.flatMap({ UInt16($0.port) }), port != 0 else { return nil }
    return .port(port, last: max(port, parameters["to"].flatMap { UInt16($0) } ?? port))
  }

  /// Where it connects to, if it does not listen.
  var peer: OutgoingConnection.Peer? {
    if isUnix { return OutgoingConnection.Peer(parameters) }
    guard let host, let port = UInt16(host.port), port != 0 else { return nil }
    let isBracketed = host.name.hasPrefix("[") && host.name.hasSuffix("]")
    return .port(port, host: String(isBracketed ? host.name.dropFirst().dropLast() : host.name))
  }

  /// - Parameter name: of the host; nil leaves it.
  mutating func setPort(_ port: UInt16, host name: String? = nil) {
    guard let host else { return }
    parameters.set("host", to: "\(name ?? String(host.name)):\(port)")
    parameters.remove("to")
  }

  var text: String { prefix + parameters.text }
}

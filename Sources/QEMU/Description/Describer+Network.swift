extension Describer {
  private static let unplug = "unplug the network device first (device_del, netdev_del), or start the VM with -nic none"

  mutating func network(_ option: CommandOption, _ parameters: OptionValue) {
    if option.name == "netdev", let id = parameters["id"] { result.netdevIDs.append(id) }
    guard let type = parameters["type"] ?? (option.name == "nic" ? "user" : nil) else {
      block(option, "names no type", "check the command line: QEMU itself refuses it")
      return
    }
    switch type {
    case "none", "nic", "hubport", "help", "?": break
    case "user": userNetwork(option, parameters)
    case "tap", "bridge": tap(option, parameters, type)
    case "socket", "stream", "dgram": socketNetwork(option, parameters, type)
    case "vhost-user":
      // Its socket is the binding.
      if let chardev = parameters["chardev"] {
        consume(chardev, by: option.name == "netdev" ? Chardev.network : "\(option.name) vhost-user", option)
      } else {
        block(option, "names no chardev", "check the command line: QEMU itself refuses it")
      }
    case "vhost-vdpa":
      refuse(
        .vhostVdpa, .own, parameters["vhostdev"] ?? parameters["vhostfd"].map { "fd=" + $0 } ?? "", option.text,
        "a vDPA device has one owner", Self.unplug)
    case "l2tpv3":
      func end(_ name: String) -> String? {
        parameters[name].map { $0 + (parameters[name + "port"].map { ":" + $0 } ?? "") }
      }
      refuse(
        .netdevSocket, .connect, [end("dst"), end("src")].compactMap(\.self).joined(separator: "@"), option.text,
        "an L2TPv3 tunnel ends in the host's network namespace", Self.unplug)
    case "vde":
      refuse(
        .netdevSocket, .connect, parameters["sock"] ?? "", option.text,
        "a port of a VDE switch cannot be handed over yet", Self.unplug)
    case "netmap", "af-xdp", "passt", "vmnet-host", "vmnet-shared", "vmnet-bridged":
      refuse(
        .netdevSocket, .own, parameters["ifname"] ?? parameters["path"] ?? type, option.text,
        "a \(type) network cannot be handed over yet", Self.unplug)
    default: unknown(option, "no QEMU is known to have this network type")
    }
  }

  /// The values of a key that may be repeated, or be a list in JSON (`hostfwd.0.str`).
  private func rules(_ key: String, _ parameters: OptionValue) -> [String] {
    parameters.entries.filter { $0.key == key || $0.key.hasPrefix(key + ".") }.map(\.value)
  }

  /// libslirp's state has the leases and the connections of `guestfwd` to character devices, and no other.
  private mutating func userNetwork(_ option: CommandOption, _ parameters: OptionValue) {
    bind(
      .netdevUser, .own, parameters["id"] ?? "user", option.text, .relaunch,
      parameters.isOn("restrict") ? "it is cut off from the outside, so a new one is as good" : Self.endingConnections)
    for rule in rules("hostfwd", parameters) { hostForward(rule, option) }
    for rule in rules("guestfwd", parameters) { guestForward(rule, option) }
    if let path = parameters["tftp"] { file(path, .other, option, isDirectory: true) }
    if let path = parameters["smb"] {
      refuse(
        .directory, .share, path, option.text,
        "QEMU serves it by a Samba of its own, whose configuration in /tmp it would leave behind when it is killed (smb)",
        "start the VM without smb=, and let a Samba of the host serve the directory", purpose: "smb")
    }
  }

  static let endingConnections = "the new QEMU has its own; connections that go through the running one's end"

  private mutating func hostForward(_ text: String, _ option: CommandOption) {
    if let rule = HostForward(text) {
      bind(
        rule.isDatagram ? .udpSocket : .tcpSocket, .listen, "\(rule.address):\(rule.port)", option.text, .duplicate,
        "the new QEMU gets the running one's socket: the port is never closed", purpose: "hostfwd")
    } else if text.hasPrefix("unix:") {
      refuse(
        .unixSocket, .listen, String((text.lastIndex(of: "-").map { text[..<$0] } ?? text[...]).dropFirst("unix:".count)), option.text,
        "a forwarded unix socket cannot be handed over yet", Self.forwardingWayOut, purpose: "hostfwd")
    } else {
      block(option, "which socket of the running QEMU \(text) is cannot be told", Self.forwardingWayOut)
    }
  }

  private static let forwardingWayOut =
    "start the VM with numbers for the address and the port, not 0: the arguments count, hostfwd_remove in the monitor does not help"

  /// `tcp:server:port-DEVICE`: DEVICE is a command for each connection, a chardev's id, or a chardev of the old short form.
  private mutating func guestForward(_ rule: String, _ option: CommandOption) {
    guard let dash = rule.firstIndex(of: "-") else { return }
    let device = String(rule[rule.index(after: dash)...])
    if device.hasPrefix("cmd:") { return }
    if device.hasPrefix("chardev:") {
      // libslirp's state has the guest's connection.
      consume(String(device.dropFirst("chardev:".count)), by: "guestfwd", option)
      return
    }
    block(option, "a connection of the guest to a character device that the rule itself makes (guestfwd) cannot be handed over yet",
      "give the rule one of its own: -chardev socket,id=ID,… and guestfwd=…-chardev:ID")
    let port = rule[..<dash].split(separator: ":").last ?? ""
    legacyChardev(CommandOption(name: option.name, value: option.value), device, "guestfwd.tcp.\(port)")
  }

  private mutating func tap(_ option: CommandOption, _ parameters: OptionValue, _ type: String) {
    let why = "the new QEMU gets the running one's queues: bridge, addresses, filters and statistics stay"
    if let fd = Self.numbers("fd", parameters) {
      bind(.tap, .own, fd, option.text, .duplicate, why)
    } else if type == "bridge" || parameters["helper"] != nil {
      bind(.bridgeHelper, .own, parameters["br"] ?? "br0", option.text, .duplicate, why)
    } else {
      // The kernel fills in the number of an unnamed one.
      bind(.tap, .own, parameters["ifname"] ?? "tap%d", option.text, .duplicate, why)
    }
    guard type == "tap", parameters.wantsVhost else { return }
    bind(
      .vhostNet, .own, Self.numbers("vhostfd", parameters) ?? "/dev/vhost-net", option.text, .reopen,
      "the new QEMU gets descriptors of its own: the kernel takes the card's rings up where it has left them for the running one")
  }

  /// `fd=3` or `fds=3:4`, by a key (`fd`, `vhostfd`) or its plural; nil if neither is there.
  private static func numbers(_ key: String, _ parameters: OptionValue) -> String? {
    parameters[key].map { "fd=" + $0 } ?? parameters[key + "s"].map { "fds=" + $0 }
  }

  private mutating func socketNetwork(_ option: CommandOption, _ parameters: OptionValue, _ type: String) {
    func refuse(_ role: Binding.Role, _ address: String) {
      let isStream = type == "socket" && ["connect", "listen", "fd"].contains { parameters[$0] != nil }
      self.refuse(
        .netdevSocket, role, address, option.text,
        isStream
          ? "told of a frame when the connection is another one already, QEMU ends itself (net_socket_send in its net/socket.c)"
          : "which socket of the running QEMU this is cannot be told, or peers are bound to that one (unix datagrams, a descriptor, a port 0, an abstract name)",
        (isStream ? "-netdev stream speaks as socket does; or " : "an address with a number for the port; or ") + Self.unplug)
    }
    /// The address below a key of `stream` and `dgram`.
    func address(_ key: String) -> String? {
      if let path = parameters[key + ".path"] { return path }
      if let fd = parameters[key + ".str"] { return "fd=" + fd }
      guard let host = parameters[key + ".host"] else { return nil }
      return (host.contains(":") ? "[\(host)]" : host) + ":" + (parameters[key + ".port"] ?? "")
    }
    if let peer = OutgoingConnection.Peer(network: parameters) {
      connectedNetwork(option, peer)
      return
    }
    if let endpoint = NetworkEndpoint.network(0, parameters) {
      switch endpoint.name {
      case .path(let path):
        bind(.unixSocket, .listen, path, option.text, .swap, "the new QEMU listens behind the public name, then both are exchanged", purpose: "netdev")
      case .port(let port, _):
        bind(.netdevSocket, .listen, address("addr") ?? "\(port)", option.text, .duplicate, Self.sameSocket)
      case .multicast(let port):
        bind(.netdevSocket, .share, withLocal("\(endpoint.host ?? ""):\(port)", parameters["localaddr"] ?? address("local")), option.text, .duplicate, Self.sameDatagrams)
      default:
        let remote = parameters["udp"] ?? address("remote") ?? ""
        bind(.netdevSocket, remote.isEmpty ? .listen : .connect, withLocal(remote, parameters["localaddr"] ?? address("local")), option.text, .duplicate, Self.sameDatagrams)
      }
      return
    }
    func withLocal(_ remote: String, _ local: String?) -> String { local.map { remote + "@" + $0 } ?? remote }
    switch type {
    case "stream": refuse(parameters.isOn("server") ? .listen : .connect, address("addr") ?? "")
    case "dgram":
      let (remote, local) = (address("remote"), address("local"))
      refuse(
        remote.map(NetworkEndpoint.isMulticast) ?? false ? .share : remote == nil ? .listen : .connect,
        remote.map { withLocal($0, local) } ?? local ?? "")
    default:
      if let listen = parameters["listen"] {
        refuse(.listen, listen)
      } else if let group = parameters["mcast"] {
        refuse(.share, withLocal(group, parameters["localaddr"]))
      } else if let udp = parameters["udp"] {
        refuse(.connect, withLocal(udp, parameters["localaddr"]))
      } else {
        refuse(.connect, parameters["connect"] ?? parameters["fd"].map { "fd=" + $0 } ?? "")
      }
    }
  }

  /// Frames go over it, and the new QEMU must begin with a whole one: see ``FrameStream``.
  private mutating func connectedNetwork(_ option: CommandOption, _ peer: OutgoingConnection.Peer) {
    let address: String
    var why: String?
    switch peer {
    case .path(let path): address = path
    case .abstract(let name): address = "@" + name
    case .port(let port, let host):
      address = (host.contains(":") ? "[\(host)]" : host) + ":\(port)"
      if !peer.isLoopback { why = "part of a frame may be on its way from another host, and where the next one begins could not be told" }
    }
    if let why {
      refuse(.netdevSocket, .connect, address, option.text, why, "use a unix socket that has a path; or unplug the network device first (device_del, netdev_del)")
    } else {
      bind(.netdevSocket, .connect, address, option.text, .duplicate, Self.sameConnection)
    }
  }
}

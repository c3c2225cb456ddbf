extension Describer {
  mutating func network(_ option: CommandOption, _ parameters: OptionValue) {
    let type = parameters["type"] ?? ""
    if option.name == "netdev" {
      if let id = parameters["id"] { result.netdevIDs.append(id) }
    }
    switch type {
    case "none", "nic", "hubport", "help", "?": break
    case "user": userNetwork(option, parameters)
    case "tap", "bridge": tap(option, parameters, type)
    case "socket", "stream", "dgram": socketNetwork(option, parameters)
    case "vhost-user":
      if let chardev = parameters["chardev"] { consume(chardev, by: "netdev vhost-user", option) }
      refuse(
        .vhostUser, .connect, parameters["chardev"] ?? "", option.text,
        "the back end of vhost-user serves one QEMU at a time", "unplug the network device first")
    case "vhost-vdpa":
      refuse(
        .vhostVdpa, .own, parameters["vhostdev"] ?? parameters["vhostfd"] ?? "", option.text,
        "a vDPA device has one owner", "unplug the network device first")
    case "l2tpv3", "vde", "netmap", "af-xdp", "passt", "vmnet-host", "vmnet-shared", "vmnet-bridged":
      refuse(
        .netdevSocket, .own, parameters["ifname"] ?? parameters["sock"] ?? type, option.text,
        "a \(type) network cannot be handed over yet",
        "unplug the network device first, or start the VM with -nic none")
    default: unknown(option, "no QEMU is known to have this network type")
    }
  }

  private mutating func userNetwork(_ option: CommandOption, _ parameters: OptionValue) {
    let outside = ["hostfwd", "guestfwd", "smb", "smbserver", "tftp", "tftp-server-name"].filter { key in
      // JSON has lists: `hostfwd.0.str`.
      parameters.entries.contains { $0.key == key || $0.key.hasPrefix(key + ".") }
    }
    let isRestricted = parameters.isOn("restrict")
    if isRestricted, outside.isEmpty {
      bind(
        .netdevUser, .own, parameters["id"] ?? "user", option.text, .relaunch,
        "it is cut off from the outside, so a new one is as good")
      return
    }
    let reason =
      outside.isEmpty
      ? "the guest's connections would end, and in a private network namespace the outside is gone"
      : "\(outside.joined(separator: ", ")) reach the host, which a private network namespace does not"
    refuse(
      .netdevUser, .own, parameters["id"] ?? "user", option.text, reason,
      "use restrict=on without forwarding, or -nic none")
  }

  private mutating func tap(_ option: CommandOption, _ parameters: OptionValue, _ type: String) {
    if type == "bridge" || parameters["helper"] != nil || parameters["br"] != nil {
      refuse(
        .bridgeHelper, .own, parameters["br"] ?? "br0", option.text,
        "a tap made by the bridge helper cannot be handed over yet", "unplug the network device first")
    } else if let fd = parameters["fd"] ?? parameters["fds"] {
      refuse(
        .fd, .own, fd, option.text, "a tap passed by number cannot be handed over yet",
        "unplug the network device first")
    } else {
      refuse(
        .tap, .own, parameters["ifname"] ?? "", option.text, "a tap cannot be handed over yet",
        "unplug the network device first")
    }
    if parameters.isOn("vhost") || parameters.isOn("vhostforce") || parameters["vhostfd"] != nil
      || parameters["vhostfds"] != nil
    {
      refuse(
        .vhostNet, .own, parameters["vhostfd"] ?? parameters["vhostfds"] ?? "/dev/vhost-net",
        option.text, "vhost-net cannot be handed over yet", "unplug the network device first")
    }
  }

  private mutating func socketNetwork(_ option: CommandOption, _ parameters: OptionValue) {
    let listens = parameters["listen"] != nil || parameters.isOn("server")
    let address =
      ["listen", "connect", "mcast", "udp", "fd", "addr.path", "addr.str", "local.path"].lazy
      .compactMap { parameters[$0] }.first
      ?? [parameters["addr.host"], parameters["addr.port"]].compactMap(\.self).joined(separator: ":")
    refuse(
      .netdevSocket, listens ? .listen : .connect, address, option.text,
      "a network over sockets cannot be handed over yet", "unplug the network device first")
  }
}

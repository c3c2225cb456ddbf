extension Describer {
  mutating func vnc(_ option: CommandOption, _ parameters: OptionValue) {
    displayTypes.append("vnc")
    let address = parameters["vnc"] ?? ""
    if address == "none" { return }
    if parameters.isOn("password") {
      result.warnings.append(
        "\(option.text): a password set over QMP cannot be read back; set it again after the upgrade")
    }
    if let websocket = parameters["websocket"] {
      refuse(
        .tcpSocket, .listen, websocket, option.text, "the websocket's port cannot be handed over yet",
        "start the VM without websocket=", purpose: "vnc")
    }
    if parameters.isOn("reverse") {
      refuse(
        .tcpSocket, .connect, address, option.text, "a connection to a viewer cannot be handed over yet",
        "start the VM without reverse", purpose: "vnc")
    } else if address.hasPrefix("unix:") {
      bind(
        .unixSocket, .listen, String(address.dropFirst("unix:".count)), option.text, .swap,
        "the new QEMU listens behind the public name, then both are exchanged", purpose: "vnc")
    } else {
      refuse(
        .tcpSocket, .listen, address, option.text, "a TCP port cannot be handed over yet",
        "use -vnc unix:PATH", purpose: "vnc")
    }
  }

  mutating func spice(_ option: CommandOption, _ parameters: OptionValue) {
    displayTypes.append("spice")
    if parameters["password"] == nil, parameters["password-secret"] == nil,
      !parameters.isOn("disable-ticketing")
    {
      result.warnings.append(
        "\(option.text): a password set over QMP cannot be read back; set it again after the upgrade")
    }
    if let directory = parameters["x509-dir"] { file(directory, .secret, option, isDirectory: true) }
    for key in ["x509-key-file", "x509-cert-file", "x509-cacert-file", "x509-dh-key-file"] {
      if let path = parameters[key] { file(path, .secret, option) }
    }
    let address = parameters["addr"] ?? ""
    if parameters.isOn("unix") {
      bind(
        .unixSocket, .listen, address, option.text, .swap,
        "the new QEMU listens behind the public name, then both are exchanged", purpose: "spice")
      return
    }
    for key in ["port", "tls-port"] {
      guard let port = parameters[key], port != "0" else { continue }
      refuse(
        .tcpSocket, .listen, address + ":" + port, option.text, "a TCP port cannot be handed over yet",
        "use -spice unix=on,addr=PATH", purpose: "spice")
    }
  }

  mutating func display(_ option: CommandOption, _ parameters: OptionValue) {
    if option.name == "nographic" {
      displayTypes.append("nographic")
      return
    }
    // `-display vnc=ADDRESS` is `-vnc ADDRESS`.
    if let value = option.value, value.hasPrefix("vnc=") {
      vnc(option, OptionValue(String(value.dropFirst("vnc=".count)), impliedKey: "vnc"))
      return
    }
    let type = parameters["type"] ?? ""
    displayTypes.append(type)
    switch type {
    case "none", "egl-headless": break
    case "default": displayTypes.removeLast()
    default:
      refuse(
        .display, .own, parameters["addr"] ?? type, option.text,
        "the window or terminal of the display cannot be handed over",
        "start the VM with -display none and -vnc unix:PATH")
    }
  }

  mutating func audio(_ option: CommandOption, _ parameters: OptionValue) {
    let driver = parameters["driver"] ?? ""
    if option.name != "soundhw", driver == "none" { return }
    refuse(
      .display, .own, option.name == "soundhw" ? "default audio" : driver, option.text,
      "the host's audio cannot be handed over yet", "use -audiodev none,id=ID", purpose: "audio")
  }

  /// What QEMU adds when no option says otherwise.
  mutating func finishDefaults() {
    let hasDefaults = !has("nodefaults")
    result.usesDefaultDisplay = displayTypes.isEmpty
    // qemu_create_default_devices: a serial port and a monitor, each unless an option makes one.
    if has("nographic"), hasDefaults {
      let hasMonitor = has("monitor", "qmp", "qmp-pretty", "mon")
      let hasSerial =
        has("serial") || commandLine.options.contains { $0.name == "device" && $0.parameters["driver"] == "isa-serial" }
      if !hasMonitor || !hasSerial { result.usesStandardInput = true }
    }
    if hasDefaults, !has("netdev", "nic", "net") {
      refuse(
        .netdevUser, .own, "user", "",
        "without -nic, -net, -netdev or -nodefaults QEMU adds a network card on a user network, "
          + "which loses the outside in a private network namespace",
        "start the VM with -nic none, or with -nic user,restrict=on")
    }
  }
}

extension Describer {
  mutating func vnc(_ option: CommandOption, _ parameters: OptionValue) {
    displayTypes.append("vnc")
    // Without an address it listens nowhere.
    guard let address = parameters["vnc"], address != "none" else { return }
    let isReverse = parameters.isOn("reverse")
    if let websocket = parameters["websocket"] {
      bind(
        .tcpSocket, .listen, Self.websocketAddress(websocket, vnc: address), option.text, .duplicate, Self.sameSocket,
        purpose: "vnc")
    }
    if let directory = parameters["x509"] ?? parameters["x509verify"] {
      file(directory, .secret, option, isDirectory: true)
    }
    if address.hasPrefix("unix:"), !isReverse {
      bind(
        .unixSocket, .listen, String(address.dropFirst("unix:".count)), option.text, .swap,
        "the new QEMU listens behind the public name, then both are exchanged", purpose: "vnc")
    } else if address.hasPrefix("unix:") {
      refuse(
        .unixSocket, .connect, String(address.dropFirst("unix:".count)), option.text,
        "a connection to a viewer cannot be handed over yet", "start the VM without reverse", purpose: "vnc")
    } else if isReverse {
      refuse(
        .tcpSocket, .connect, address, option.text, "a connection to a viewer cannot be handed over yet",
        "start the VM without reverse", purpose: "vnc")
    } else {
      bind(
        .tcpSocket, .listen, Self.port(5900, ofDisplay: address), option.text, .duplicate, Self.sameSocket, purpose: "vnc")
    }
  }

  /// `host:port` of `host:display`: what the kernel knows it by.
  static func port(_ base: Int, ofDisplay address: String) -> String {
    guard let colon = address.lastIndex(of: ":"), let display = UInt16(address[address.index(after: colon)...]) else {
      return address
    }
    return address[...colon] + String(base + Int(display))
  }

  /// `websocket=on` is port 5700 + display; a port may follow a host of its own.
  private static func websocketAddress(_ websocket: String, vnc: String) -> String {
    if OptionValue.isOn(websocket) { return port(5700, ofDisplay: vnc) }
    if websocket.contains(":") { return websocket }
    let host = vnc.hasPrefix("unix:") ? "" : vnc.lastIndex(of: ":").map { String(vnc[..<$0]) } ?? ""
    return host + ":" + websocket
  }

  mutating func spice(_ option: CommandOption, _ parameters: OptionValue) {
    displayTypes.append("spice")
    if let directory = parameters["x509-dir"] { file(directory, .secret, option, isDirectory: true) }
    for key in ["x509-key-file", "x509-cert-file", "x509-cacert-file", "x509-dh-key-file"] {
      if let path = parameters[key] { file(path, .secret, option) }
    }
    if parameters.isOn("gl") { renderNode(option, parameters) }
    let address = parameters["addr"] ?? ""
    if parameters.isOn("unix") {
      bind(
        .unixSocket, .listen, address, option.text, .swap,
        "the new QEMU listens behind the public name, then both are exchanged", purpose: "spice")
      return
    }
    for key in ["port", "tls-port"] {
      guard let port = parameters[key], port != "0" else { continue }
      let host = address.contains(":") ? "[\(address)]" : address
      bind(.tcpSocket, .listen, host + ":" + port, option.text, .duplicate, Self.sameSocket, purpose: "spice")
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
    case "none": break
    case "egl-headless": renderNode(option, parameters)
    case "default": displayTypes.removeLast()
    case "dbus":
      let isPrivate = parameters.isOn("p2p")
      refuse(
        .display, isPrivate ? .listen : .connect, parameters["addr"] ?? (isPrivate ? "p2p" : "session bus"), option.text,
        "a D-Bus display cannot be handed over yet", "start the VM with -display none and -vnc unix:PATH")
    case "gtk", "sdl", "curses", "cocoa", "spice-app":
      refuse(
        .display, .own, type, option.text, "the window or terminal of the display cannot be handed over",
        "start the VM with -display none and -vnc unix:PATH")
    default: unknown(option, "no QEMU is known to have this display")
    }
  }

  /// The host's GPU, as far as it only draws what the guest's card shows.
  private mutating func renderNode(_ option: CommandOption, _ parameters: OptionValue) {
    bind(
      .display, .share, parameters["rendernode"] ?? "/dev/dri/renderD*", option.text, .reopen,
      "any number of processes may use a render node, and the new QEMU opens it for itself", purpose: "rendernode")
  }

  mutating func audio(_ option: CommandOption, _ parameters: OptionValue) {
    let driver = parameters["driver"] ?? ""
    let wayOut = "use -audiodev none,id=ID"
    switch option.name == "soundhw" ? "default" : driver {
    case "none": break
    case "spice", "dbus":
      block(option, "sound over \(driver == "spice" ? "SPICE" : "D-Bus") cannot be handed over yet", wayOut)
    case "wav":
      refuse(
        .file, .own, parameters["path"] ?? "qemu.wav", option.text, "the new QEMU would truncate the recording", wayOut,
        purpose: "audio")
    case "alsa", "coreaudio", "dsound", "jack", "oss", "pa", "pipewire", "sdl", "sndio", "default":
      refuse(
        .display, .own, option.name == "soundhw" ? "default audio" : parameters["server"] ?? driver, option.text,
        "the host's audio cannot be handed over yet", wayOut, purpose: "audio")
    default: unknown(option, "no QEMU is known to have this audio driver")
    }
  }

  /// What QEMU adds when no option says otherwise.
  mutating func finishDefaults() {
    if isPart { return }
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
      // The two are compared before the guest is paused.
      bind(.netdevUser, .own, "user", "", .relaunch, Self.endingConnections)
    }
  }
}

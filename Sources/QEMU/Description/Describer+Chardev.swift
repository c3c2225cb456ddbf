extension Describer {
  mutating func chardev(_ option: CommandOption, _ parameters: OptionValue) {
    let id = parameters["id"] ?? ""
    // The private monitor of an earlier upgrade is no part of the VM.
    if id.hasPrefix(TwinArguments.controlID) { return }
    guard let backend = parameters["backend"] else {
      block(option, "names no backend", "check the command line: QEMU itself refuses it")
      return
    }
    result.chardevIDs.append(id)
    chardevs.append(Chardev(id: id, backend: backend, parameters: parameters, option: option.text))
  }

  mutating func monitor(_ option: CommandOption, _ parameters: OptionValue) {
    guard let id = parameters["chardev"] else {
      block(option, "names no chardev", "check the command line: QEMU itself refuses it")
      return
    }
    if id.hasPrefix(TwinArguments.controlID) { return }
    let isQMP = parameters["mode"] == "control"
    result.monitors.append(Monitor(mode: isQMP ? .qmp : .hmp, chardev: id))
    consume(id, by: isQMP ? "qmp" : "hmp", option)
  }

  mutating func legacyChardev(_ option: CommandOption, _ value: String, _ label: String?) {
    let isQMP = option.name.hasPrefix("qmp")
    let isMonitor = isQMP || option.name == "monitor"
    if value == "none" || (option.name == "monitor" && value.hasPrefix("none")) { return }
    let purpose = isQMP ? "qmp" : isMonitor ? "hmp" : option.name
    var id = label ?? "gdb"
    if value.hasPrefix("chardev:") {
      id = String(value.dropFirst("chardev:".count))
      consume(id, by: purpose, option)
    } else if var chardev = Chardev(legacy: value, id: id, option: option.text) {
      chardev.consumers.append(purpose)
      if chardev.consumers.first == "hmp", !isMonitor {
        result.monitors.append(Monitor(mode: .hmp, chardev: id))
      }
      result.chardevIDs.append(id)
      chardevs.append(chardev)
    } else {
      unknown(option, "no QEMU is known to take this character device")
    }
    if isMonitor { result.monitors.append(Monitor(mode: isQMP ? .qmp : .hmp, chardev: id)) }
  }


  /// Notes that an option uses a chardev. The chardev may come later in the command line.
  mutating func consume(_ id: String, by consumer: String, _ option: CommandOption) {
    pendingConsumers.append((id, consumer, option))
  }

  mutating func finishChardevs() {
    for (id, consumer, option) in pendingConsumers {
      guard let index = chardevs.firstIndex(where: { $0.id == id }) else {
        block(option, "names a chardev (\(id)) that no option makes", "check the command line")
        continue
      }
      chardevs[index].consumers.append(consumer)
    }
    for index in result.monitors.indices {
      let id = result.monitors[index].chardev
      result.monitors[index].socket = chardevs.first { $0.id == id }?.listeningPath
    }
    for chardev in chardevs { bind(chardev) }
  }

  private mutating func bind(_ chardev: Chardev) {
    let purpose = chardev.consumers.joined(separator: ", ")
    let path = chardev.parameters["path"] ?? ""
    if let log = chardev.parameters["logfile"] {
      bind(
        .file, .own, log, chardev.option, .share, "opened for appending by both QEMUs",
        purpose: "log of \(purpose)")
    }
    func refuseDevice(_ kind: Binding.Kind, _ why: String, _ wayOut: String) {
      refuse(kind, .own, path.isEmpty ? chardev.backend : path, chardev.option, why, wayOut, purpose: purpose)
    }
    switch chardev.backend {
    case "null", "ringbuf", "memory", "vc", "msmouse", "wctablet", "testdev", "mux", "hub",
      "spicevmc", "spiceport":
      break  // Inside of QEMU.
    case "stdio": result.usesStandardInput = true
    case "socket": bindSocket(chardev, purpose)
    case "udp":
      refuse(
        .udpSocket, .connect, networkAddress(chardev.parameters), chardev.option,
        "a UDP socket in a private network namespace reaches nobody",
        "use a unix socket", purpose: purpose)
    case "file":
      bind(
        .file, .own, path, chardev.option, .share, "opened for appending by both QEMUs",
        purpose: purpose)
      if let input = chardev.parameters["input-path"] {
        refuse(
          .file, .share, input, chardev.option,
          "how far the input file has been read is not known", "use a unix socket",
          purpose: purpose)
      }
    case "pty":
      refuseDevice(
        .pty, "the new QEMU would get another pseudo terminal", "use a unix socket (server=on,wait=off)")
    case "pipe":
      refuseDevice(.file, "both QEMUs would read from the same pipe", "use a unix socket (server=on,wait=off)")
    case "serial", "tty", "parallel", "parport", "braille", "console":
      refuseDevice(.file, "a device of the host has one owner", "detach the device from the VM")
    case "dbus":
      refuseDevice(.display, "a D-Bus display cannot be handed over", "use -display none and -vnc unix:PATH")
    case "qemu-vdagent":
      refuseDevice(.display, "the clipboard agent blocks migration", "start the VM without qemu-vdagent")
    default:
      let option = CommandOption(name: "chardev", value: chardev.backend)
      if !result.unknown.contains(chardev.option) { result.unknown.append(chardev.option) }
      block(
        chardev.option, "\(option.text): no QEMU is known to have this backend",
        "remove it, or report it to the makers of moult")
    }
  }

  private mutating func bindSocket(_ chardev: Chardev, _ purpose: String) {
    let parameters = chardev.parameters
    if let fd = parameters["fd"] {
      refuse(
        .fd, .own, fd, chardev.option,
        "a socket passed by number, which the new QEMU would not have",
        "start the VM with path= instead of fd=", purpose: purpose)
      return
    }
    let listens = parameters.isOn("server")
    guard let path = parameters["path"] else {
      refuse(
        .tcpSocket, listens ? .listen : .connect, networkAddress(parameters), chardev.option,
        "a TCP socket cannot be handed over yet", "use a unix socket (server=on,wait=off)",
        purpose: purpose)
      return
    }
    if parameters.isOn("abstract") {
      refuse(
        .unixSocket, listens ? .listen : .connect, "@" + path, chardev.option,
        "an abstract name lives in the network namespace and cannot be exchanged",
        "use a socket with a path", purpose: purpose)
    } else if listens {
      bind(
        .unixSocket, .listen, path, chardev.option, .swap,
        "the new QEMU listens behind the public name, then both are exchanged", purpose: purpose)
    } else {
      refuse(
        .unixSocket, .connect, path, chardev.option,
        "a connection to another program's socket cannot be handed over yet",
        "let QEMU listen (server=on,wait=off), or disconnect it first", purpose: purpose)
    }
  }

  func networkAddress(_ parameters: OptionValue) -> String {
    let host = parameters["host"] ?? ""
    return parameters["port"].map { host + ":" + $0 } ?? host
  }
}

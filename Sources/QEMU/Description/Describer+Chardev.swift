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
    if let agent = chardevs.first(where: { $0.id == agentChardev }), let path = agent.listeningPath {
      result.guestAgent = GuestAgent(chardev: agent.id, path: path)
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
      "spicevmc", "spiceport", "dbus":
      break  // Inside of QEMU, or a channel of the display.
    case "stdio": result.usesStandardInput = true
    case "socket": bindSocket(chardev, purpose)
    case "udp":
      bind(.udpSocket, .connect, chardev.networkAddress, chardev.option, .duplicate, Self.sameDatagrams, purpose: purpose)
    case "file":
      if path.hasPrefix("/dev/fdset/") {
        refuseDevice(.file, "opened from a descriptor that was passed by number, which the new QEMU would not have", "start the VM with the file's path")
        return
      }
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
    case "qemu-vdagent":
      block(chardev.option, "the clipboard agent blocks migration", "start the VM without qemu-vdagent")
    default:
      let option = CommandOption(name: "chardev", value: chardev.backend)
      if !result.unknown.contains(chardev.option) { result.unknown.append(chardev.option) }
      block(
        chardev.option, "\(option.text): no QEMU is known to have this backend",
        "remove it, or report it to the makers of moult")
    }
  }

  static let sameDatagrams = "the new QEMU gets the running one's socket; what arrives while the guest stands still may be lost, as datagrams may"
  static let sameSocket = "the new QEMU gets the running one's listening socket: it is never closed"

  /// One socket is one binding: a back end's own kind, or the transport's.
  private mutating func bindSocket(_ chardev: Chardev, _ purpose: String) {
    let parameters = chardev.parameters
    let role: Binding.Role = parameters.isOn("server") ? .listen : .connect
    let isAbstract = parameters.isOn("abstract")
    let path = parameters["path"].map { isAbstract ? "@" + $0 : $0 }
    func refuse(_ kind: Binding.Kind, _ address: String, _ why: String, _ wayOut: String) {
      self.refuse(kind, role, address, chardev.option, why, wayOut, purpose: purpose)
    }
    if let kind = chardev.consumedKind {
      let address = parameters["fd"].map { "fd=" + $0 } ?? path ?? chardev.networkAddress
      if kind == .tpm {
        // Its commands go over a descriptor that it is sent: unix(7) only.
        if path != nil, role == .connect, parameters.isPlainSocket, parameters.reconnectMilliseconds == 0 {
          bind(
            kind, role, address, chardev.option, .duplicate, "the new QEMU gets the running one's connections: the emulator, which has the TPM's state, does not notice",
            purpose: purpose)
        } else {
          refuse(
            kind, address, "the state of the TPM is in the emulator behind this socket, which serves one QEMU",
            "let QEMU connect to the emulator by path=, without reconnect=")
        }
      } else if chardev.servesDisk {
        if path != nil, !isAbstract, role == .connect, parameters.isPlainSocket, parameters.reconnectMilliseconds == 0 {
          bind(
            kind, role, address, chardev.option, .duplicate,
            "the back end serves the new QEMU's connection as soon as the running one's has ended", purpose: purpose)
        } else {
          refuse(
            kind, address, "the back end of vhost-user serves one QEMU at a time",
            "let QEMU connect to it by path=, without server= and reconnect=; or unplug the disk first (device_del, then chardev-remove)")
        }
      } else if chardev.servesNetwork {
        if path != nil, !isAbstract, parameters.isPlainSocket, parameters.reconnectMilliseconds == 0 {
          bind(
            kind, role, address, chardev.option, role == .listen ? .swap : .duplicate,
            (role == .listen ? "the new QEMU listens behind the public name, then both are exchanged; it" : "the new QEMU")
              + " gets the running one's connection: the back end does not notice", purpose: purpose)
        } else {
          refuse(
            kind, address, "the back end of vhost-user serves one QEMU at a time",
            "let QEMU connect to it, or listen for it, by path=, without reconnect=; or unplug the network first (device_del, netdev_del, chardev-remove)")
        }
      } else if chardev.servesDirectory {
        if path != nil, !isAbstract, role == .connect, parameters.isPlainSocket, parameters.reconnectMilliseconds == 0 {
          bind(
            kind, role, address, chardev.option, .relaunch,
            "the new QEMU gets another process of the program, which takes over the first one's state in the migration", purpose: purpose)
        } else {
          refuse(
            kind, address, "the program that serves a directory ends with its connection, and moult starts another one for a path that QEMU connects to once",
            "let QEMU connect to it by path= alone, without server=, reconnect= and abstract=; or unplug the device first (device_del, then chardev-remove)")
        }
      } else {
        refuse(
          kind, address, "the back end of vhost-user serves one QEMU at a time, and only those of disks (vhost-user-blk), of directories (vhost-user-fs) and of -netdev can be handed over yet",
          "unplug the device first (device_del, then chardev-remove)")
      }
    } else if let fd = parameters["fd"] {
      refuse(
        .fd, fd, "a socket passed by number, which the new QEMU would not have",
        "start the VM with path= instead of fd=")
    } else if let path {
      if isAbstract, role == .listen {
        bind(.unixSocket, .listen, path, chardev.option, .duplicate, Self.sameSocket, purpose: purpose)
      } else if role == .listen {
        bind(
          .unixSocket, .listen, path, chardev.option, .swap,
          "the new QEMU listens behind the public name, then both are exchanged", purpose: purpose)
      } else {
        bindConnection(chardev, .unixSocket, path, purpose)
      }
    } else if role == .listen {
      bind(.tcpSocket, .listen, chardev.networkAddress, chardev.option, .duplicate, Self.sameSocket, purpose: purpose)
    } else {
      bindConnection(chardev, .tcpSocket, chardev.networkAddress, purpose)
    }
  }

  /// A connection to another program.
  private mutating func bindConnection(_ chardev: Chardev, _ kind: Binding.Kind, _ address: String, _ purpose: String) {
    let connection = commandLine.outgoingConnections.first { $0.user == .chardev(chardev.id) }
    func refuse(_ why: String, _ wayOut: String) {
      self.refuse(kind, .connect, address, chardev.option, why, wayOut, purpose: purpose)
    }
    guard let connection, connection.isRaw || chardev.consumers == ["qmp"] && chardev.parameters.isPlainSocket else {
      refuse("a connection to another program, of whose protocol moult does not know how it is begun again", "let QEMU listen (server=on,wait=off), or disconnect it first")
      return
    }
    if connection.reconnects {
      bind(
        kind, .connect, address, chardev.option, connection.isRaw ? .duplicate : .reopen,
        connection.isRaw ? Self.sameConnection : "it ends with the old QEMU, and the new one makes another, as reconnect= says", purpose: purpose)
    } else if connection.isRaw {
      bind(kind, .connect, address, chardev.option, .duplicate, Self.sameConnection, purpose: purpose)
    } else {
      refuse("QMP begins with a greeting, so the connection would have to be made anew, and without reconnect= nobody does", "start the VM with reconnect=5, or let QEMU listen (server=on,wait=off)")
    }
  }

  static let sameConnection = "the new QEMU gets the running one's connection: the other program does not notice"
}

extension Describer {
  /// One option: by the table first, then by its own rules.
  mutating func read(_ option: CommandOption) {
    if option.isImage {
      drive(filename: option.value ?? "", BlockNode.Drive(option: option, readOnly: has("snapshot")))
      return
    }
    let label = labels.next(for: option)
    guard let info = option.info else {
      unknown(option, "no QEMU from 5.2 to 11.1 is known to have this option")
      return
    }
    if option.lacksValue {
      block(
        option, "the option needs a value, but the command line ends here",
        "check the command line: QEMU itself refuses it")
      return
    }
    if option.parameters.isMalformed {
      block(
        option, "the value starts as JSON but is not valid JSON",
        "check the command line: QEMU itself refuses it")
      return
    }
    switch info.treatment {
    case .inert, .dropped:
      inert(option)
    case .refused(let reason, let wayOut):
      refused(option, reason, wayOut)
    case .parsed:
      parsed(option, label)
    }
  }

  private mutating func inert(_ option: CommandOption) {
    switch option.name {
    case "uuid": result.uuid = option.value
    case "daemonize": result.daemonizes = true
    default: break
    }
  }

  private mutating func refused(_ option: CommandOption, _ reason: String, _ wayOut: String) {
    switch option.name {
    case "chroot":
      result.chroot = option.value
      block(option, reason, wayOut)
    case "plugin":
      // Without `file=` the first word is the path.
      let path = option.parameters["file"] ?? String((option.value ?? "").prefix { $0 != "," })
      refuse(.file, .share, path, option.text, reason, wayOut, purpose: "plugin")
    case "writeconfig", "qtest-log": refuse(.file, .own, option.value ?? "", option.text, reason, wayOut)
    case "qtest":
      legacyChardev(option, option.value ?? "", "qtest")
      block(option, reason, wayOut)
    case "semihosting-config":
      if let id = option.parameters["chardev"] { consume(id, by: "semihosting", option) }
      block(option, reason, wayOut)
    case "curses", "sdl":
      displayTypes.append(option.name)
      refuse(.display, .own, option.name, option.text, reason, wayOut)
    default: block(option, reason, wayOut)
    }
  }

  private mutating func parsed(_ option: CommandOption, _ label: String?) {
    let value = option.value ?? ""
    let parameters = option.parameters
    switch option.name {
    case "name": result.name = parameters["guest"] ?? result.name
    case "pidfile":
      result.pidfile = value
      bind(
        .pidfile, .own, value, option.text, .swap,
        "the new QEMU writes its own behind the public name, then both are exchanged")
    case "machine", "M": machine(option, parameters)
    case "accel": accelerator(parameters["accel"] ?? "", option)
    case "enable-kvm": accelerator("kvm", option)
    case "m":
      memoryOption = option.text
      if let size = parameters["size"] { ramSize(size, option) }
    case "mem-path": memoryPath = (value, option.text)
    case "mem-prealloc": break
    case "numa":
      if let id = parameters["memdev"] { ramBackendIDs.insert(id) }
    case "object": object(option, parameters)
    case "device": device(option, parameters)
    case "usbdevice": usbDevice(option, value)
    case "watchdog":
      result.anonymousDevices += 1
      if !DeviceTable.isKnown(value) { unknown(option, "no QEMU from 5.2 to 11.1 is known to have the device \(value)") }
    case "chardev": chardev(option, parameters)
    case "mon": monitor(option, parameters)
    case "serial", "parallel", "monitor", "qmp", "qmp-pretty", "debugcon", "gdb":
      legacyChardev(option, value, label)
    case "s":
      bind(.tcpSocket, .listen, ":1234", option.text, .duplicate, Self.sameSocket, purpose: "gdb")
    case "netdev", "nic", "net": network(option, parameters)
    case "drive", "blockdev": blockOption(option, parameters)
    case "hda", "hdb", "hdc", "hdd", "fda", "fdb", "sd", "mtdblock", "pflash", "cdrom":
      drive(
        filename: value,
        BlockNode.Drive(
          option: option, readOnly: option.name == "cdrom" || has("snapshot"), isFirmware: option.name == "pflash"))
    case "vnc": vnc(option, parameters)
    case "spice": spice(option, parameters)
    case "display", "nographic": display(option, parameters)
    case "audio", "audiodev", "soundhw": audio(option, parameters)
    case "tpmdev": tpm(option, parameters)
    case "fsdev", "virtfs": sharedDirectory(option, parameters)
    default: fileOption(option, value, parameters)
    }
  }

  private mutating func tpm(_ option: CommandOption, _ parameters: OptionValue) {
    switch parameters["type"] {
    case "passthrough":
      refuse(
        .tpm, .own, parameters["path"] ?? "/dev/tpm0", option.text, "the host's TPM has one owner",
        "start the VM without a TPM, or move it by a cold restart")
    case "emulator":
      // Its socket is the binding.
      if let id = parameters["chardev"] {
        consume(id, by: "tpmdev emulator", option)
      } else {
        block(option, "names no chardev", "check the command line: QEMU itself refuses it")
      }
    default: unknown(option, "no QEMU is known to have this TPM back end")
    }
  }

  private mutating func sharedDirectory(_ option: CommandOption, _ parameters: OptionValue) {
    if option.name == "virtfs" { result.anonymousDevices += 1 }
    let reason = "a directory shared by 9p blocks migration while the guest has it mounted"
    let wayOut = "unmount it in the guest and start the VM without it"
    switch parameters["fsdriver"] {
    case "local", "handle": refuse(.directory, .share, parameters["path"] ?? "", option.text, reason, wayOut)
    case "proxy":
      if let fd = parameters["sock_fd"] {
        refuse(.fd, .connect, fd, option.text, reason, wayOut, purpose: "9p proxy")
      } else {
        refuse(.unixSocket, .connect, parameters["socket"] ?? "", option.text, reason, wayOut, purpose: "9p proxy")
      }
    case "synth": block(option, reason, wayOut)
    default: unknown(option, "no QEMU is known to have this file system driver")
    }
  }

  private mutating func fileOption(
    _ option: CommandOption, _ value: String, _ parameters: OptionValue
  ) {
    switch option.name {
    case "kernel", "shim": file(value, .kernel, option)
    case "initrd": file(value, .initrd, option)
    case "dtb": file(value, .other, option, isSearched: true)
    case "bios": file(value, .firmware, option, isSearched: true)
    case "option-rom":
      // The whole value was the path once, and `romfile=` came with bootindex.
      let path = parameters["romfile"] ?? parameters.entries.first?.key ?? value
      file(path, .rom, option, isSearched: true)
    case "L": file(value, .firmware, option, isDirectory: true)
    case "acpitable":
      for entry in parameters.entries where entry.key == "file" || entry.key == "data" {
        for path in entry.value.split(separator: ":") { file(String(path), .acpi, option) }
      }
    case "smbios":
      for key in ["file", "path"] {
        if let path = parameters[key] { file(path, .acpi, option) }
      }
    case "fw_cfg":
      if let path = parameters["file"] { file(path, .other, option) }
    case "boot":
      if let path = parameters["splash"] { file(path, .other, option, isSearched: true) }
    case "trace":
      if let path = parameters["events"] { file(path, .other, option) }
      if let path = parameters["file"] {
        refuse(
          .file, .own, path, option.text, "the new QEMU would truncate the trace file",
          "start the VM without -trace file=")
      }
    case "D":
      if has("d", "trace") {
        refuse(
          .file, .own, value, option.text, "the new QEMU would truncate the log file",
          "start the VM without -D, or without -d and -trace", purpose: "log")
      } else {
        bind(
          .file, .own, value, option.text, .reopen, "nothing is logged without -d or -trace: the new QEMU may open it anew",
          purpose: "log")
      }
    case "icount":
      if let mode = parameters["rr"] {
        refuse(
          .file, mode == "replay" ? .share : .own, parameters["rrfile"] ?? "", option.text,
          "record and replay (rr=\(mode)) ties the run to one process", "start the VM without rr=")
      }
    case "overcommit":
      if parameters.isOn("mem-lock") {
        result.warnings.append("\(option.text): both QEMUs lock memory during the upgrade")
      }
    case "runas": result.runAs = value
    case "run-with":
      result.runAs = parameters["user"] ?? result.runAs
      if let path = parameters["chroot"] {
        result.chroot = path
        block(
          option, "paths would mean something else after the change of root",
          "start the VM with `moult run` instead of a change of root")
      }
      if parameters.isOn("async-teardown") {
        block(
          option, "starts a second process that holds the guest's memory",
          "start the VM without async-teardown")
      }
      if parameters.isOn("exit-with-parent") {
        block(
          option, "the new QEMU has another parent, whose end would end it",
          "start the VM without exit-with-parent")
      }
    default: break  // `-add-fd`: by its set, when all that open it are known. `-d`, `-iscsi`, `-sandbox`: nothing that the host would notice.
    }
  }

  private mutating func machine(_ option: CommandOption, _ parameters: OptionValue) {
    for entry in heeded(parameters) {
      switch entry.key {
      case "type": machineType(entry.value, option)
      case "accel":
        for name in entry.value.split(separator: ":") { accelerator(String(name), option) }
      case "memory-backend": ramBackendIDs.insert(entry.value)
      case "memory.size", "memory": ramSize(entry.value, option)
      case "kernel", "shim": file(entry.value, .kernel, option)
      case "initrd": file(entry.value, .initrd, option)
      case "dtb": file(entry.value, .other, option)
      case "firmware": file(entry.value, .firmware, option, isSearched: true)
      case _ where entry.key.hasPrefix("pflash"): firmwareNodes.insert(entry.value)
      case "confidential-guest-support", "memory-encryption":
        block(
          option, "the memory of a confidential guest cannot be read by a migration",
          "restart the VM in the new QEMU")
      case "dumpdtb": block(option, "dumps the device tree and exits", "name a running QEMU")
      case _ where entry.key.hasPrefix("sgx-epc."):
        block(option, "SGX enclaves cannot be migrated", "start the VM without sgx-epc")
      default: break
      }
    }
  }

  private mutating func machineType(_ type: String, _ option: CommandOption) {
    result.machine = type
    if type.hasPrefix("xen") || type == "x-remote" {
      block(
        option, "a machine of type \(type) belongs to another process on the host",
        "restart the VM in the new QEMU")
    }
  }

  private mutating func accelerator(_ name: String, _ option: CommandOption) {
    if name == "kvm" { result.usesKVM = true }
    if name == "xen" {
      block(
        option, "a Xen domain belongs to Xen's tool stack", "migrate the domain with Xen's own tools")
    }
  }

  private mutating func ramSize(_ text: String, _ option: CommandOption) {
    guard let size = Size.bytes(text, unit: 1 << 20) else {
      block(option, "\(text) is no size", "check the command line: QEMU itself refuses it")
      return
    }
    // QEMU rounds up to 8 KiB, and 0 asks for the machine's default.
    if size > 0, size <= UInt64.max - 8191 { result.ramSize = (size + 8191) & ~8191 }
  }

  private mutating func usbDevice(_ option: CommandOption, _ value: String) {
    switch value {
    case "tablet", "mouse", "keyboard", "wacom-tablet": break
    case _ where value.hasPrefix("host:"):
      refuse(
        .usbHost, .own, String(value.dropFirst("host:".count)), option.text, "a USB device of the host has one owner",
        "detach the device first")
    default: unknown(option, "this kind of USB device is not known here")
    }
  }
}

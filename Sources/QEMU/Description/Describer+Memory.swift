extension Describer {
  /// `-object`: known types that hold nothing, those that are memory, files or secrets, and refusals.
  mutating func object(_ option: CommandOption, _ parameters: OptionValue) {
    let type = parameters["qom-type"] ?? ""
    if let id = parameters["id"] { result.objectIDs.append(id) }
    switch type {
    case _ where type.hasPrefix("memory-backend-"): memoryBackend(option, parameters, type)
    case "iothread", "throttle-group", "main-loop", "thread-context", "rng-builtin", "can-bus",
      "authz-simple", "authz-list", "authz-pam", "tls-cipher-suites", "secret_keyring",
      "cryptodev-backend", "cryptodev-backend-builtin", "acpi-generic-initiator",
      "acpi-generic-port":
      break
    case "rng-random": file(parameters["filename"] ?? "/dev/urandom", .other, option)
    case "secret":
      if let path = parameters["file"] { file(path, .secret, option) }
    case "tls-creds-x509", "tls-creds-psk", "tls-creds-anon":
      if let path = parameters["dir"] { file(path, .secret, option, isDirectory: true) }
    case "monitor-qmp", "monitor-hmp":
      let mode: Monitor.Mode = type == "monitor-qmp" ? .qmp : .hmp
      guard let id = parameters["chardev"] else {
        block(option, "names no chardev", "check the command line: QEMU itself refuses it")
        return
      }
      result.monitors.append(Monitor(mode: mode, chardev: id))
      consume(id, by: mode.rawValue, option)
    case "authz-list-file":
      if let path = parameters["filename"] { file(path, .other, option) }
    case "igvm-cfg":
      if let path = parameters["file"] { file(path, .firmware, option) }
    default: refusedObject(option, parameters, type)
    }
  }

  private mutating func refusedObject(
    _ option: CommandOption, _ parameters: OptionValue, _ type: String
  ) {
    let wayOut = "remove the object first (object-del), or start the VM without it"
    for key in ["chardev", "indev", "outdev", "primary_in", "secondary_in", "notify_dev"] {
      if let id = parameters[key] { consume(id, by: "object \(type)", option) }
    }
    switch type {
    case "filter-dump":
      refuse(
        .file, .own, parameters["file"] ?? "qemu-vlan0.pcap", option.text,
        "the new QEMU would truncate the capture", wayOut)
    case _ where type.hasPrefix("filter-"):
      block(option, "a network filter keeps packets that migration does not carry", wayOut)
    case "colo-compare": block(option, "COLO has two QEMUs of its own", wayOut)
    case "input-linux":
      refuse(
        .inputHost, .own, parameters["evdev"] ?? "", option.text,
        "an input device of the host is grabbed by one QEMU", wayOut)
    case "input-barrier":
      refuse(
        .tcpSocket, .connect, (parameters["server"] ?? "localhost") + ":" + (parameters["port"] ?? "24800"),
        option.text, "a connection to another program cannot be handed over yet", wayOut)
    case "rng-egd": block(option, "a connection to another program cannot be handed over yet", wayOut)
    case "can-host-socketcan":
      refuse(
        .netdevSocket, .share, parameters["if"] ?? "", option.text,
        "a socket on the host's CAN bus cannot be handed over yet", wayOut)
    case "cryptodev-vhost-user":
      break  // Its chardev is the binding.
    case "cryptodev-backend-lkcf":
      block(option, "sessions of the host's crypto framework cannot be handed over", wayOut)
    case "pr-manager-helper":
      refuse(
        .unixSocket, .connect, parameters["path"] ?? "", option.text,
        "a connection to another program's socket cannot be handed over yet", wayOut)
    case "sev-guest", "sev-snp-guest", "tdx-guest", "s390-pv-guest", "pef-guest", "arm-rme-guest":
      block(
        option, "the memory of a confidential guest cannot be read by a migration",
        "restart the VM in the new QEMU")
    case "x-remote-object":
      refuse(.fd, .connect, parameters["fd"] ?? "", option.text, Self.elsewhere(type), wayOut)
    case "x-vfio-user-server", "vhost-user-blk-server":
      refuse(
        .unixSocket, .listen, parameters["socket.path"] ?? parameters["addr.path"] ?? parameters["path"] ?? "", option.text,
        Self.elsewhere(type), wayOut)
    case "iommufd":
      if let fd = parameters["fd"] {
        refuse(.fd, .own, fd, option.text, "vfio devices are bound to it, and they have one owner", wayOut)
      } else {
        refuse(.vfio, .own, "/dev/iommu", option.text, "vfio devices are bound to it, and they have one owner", wayOut)
      }
    case "dbus-vmstate":
      refuse(.unixSocket, .connect, parameters["addr"] ?? "", option.text, Self.elsewhere(type), wayOut)
    case "qtest": block(option, Self.elsewhere(type), wayOut)
    default: unknown(option, "no QEMU is known to have this object")
    }
  }

  private static func elsewhere(_ type: String) -> String { "\(type) belongs to another process on the host" }

  private mutating func memoryBackend(
    _ option: CommandOption, _ parameters: OptionValue, _ type: String
  ) {
    let huge = parameters.isOn("hugetlb")
    let kind: MemoryBackend.Kind =
      switch type {
      case "memory-backend-ram": .ram
      case "memory-backend-file": .file
      case "memory-backend-memfd": huge ? .hugetlb : .memfd
      case "memory-backend-shm": .shm
      default: .other
      }
    // The type's own default: hostmem-memfd.c and hostmem-shm.c set it, the others do not.
    let share = parameters["share"].map(OptionValue.isOn) ?? (type.hasSuffix("memfd") || kind == .shm)
    let id = parameters["id"] ?? ""
    let backend = MemoryBackend(
      id: id, kind: kind,
      size: parameters["size"].flatMap { Size.bytes($0, unit: 1) } ?? 0, share: share,
      path: parameters["mem-path"] ?? (type == "memory-backend-epc" ? "/dev/sgx_vepc" : nil), discardData: parameters.isOn("discard-data"),
      readonly: parameters.isOn("readonly") || parameters.isOn("rom"), isGuestRAM: false,
      option: option.text)
    result.memoryBackends.append(backend)
    if backend.size == 0 {
      block(option, "the size is missing or is no size", "check the command line: QEMU itself refuses it")
    }
    func refuse(_ reason: String, _ wayOut: String) {
      backendRefusals[id] = backendRefusals[id] ?? Refusal(reason: reason, wayOut: wayOut)
      block(option, reason, wayOut)
    }
    if huge { refuse("huge pages cannot be handed over yet", "use ordinary pages (hugetlb=off)") }
    if backend.discardData {
      refuse("discard-data=on wipes the memory when the old QEMU ends", "start the VM with discard-data=off")
    }
    if backend.readonly { refuse("read-only memory cannot be handed over yet", "start the VM without readonly and rom") }
    if parameters.isOn("pmem") || backend.path?.hasPrefix("/dev/dax") ?? false {
      refuse("persistent memory of the host cannot be handed over yet", "use an ordinary file")
    }
    if kind == .other { refuse("\(type) cannot be migrated", "start the VM without it") }
  }

  /// Only the host knows what is mounted where, but these names are the custom.
  private mutating func warnOfHugePages() {
    for backend in result.memoryBackends {
      guard backend.isHugeByName else { continue }
      result.warnings.append(
        "\(backend.option): huge pages, by the name of the path, which cannot be handed over yet")
    }
  }

  mutating func finishMemory() {
    for index in result.memoryBackends.indices
    where ramBackendIDs.contains(result.memoryBackends[index].id) {
      result.memoryBackends[index].isGuestRAM = true
      result.memoryBackends[index].requestedSize = requestedSizes[result.memoryBackends[index].id]
    }
    let made = Set(result.memoryBackends.map(\.id))
    for id in ramBackendIDs.subtracting(made).sorted() {
      block(id, "is named as the guest's memory, but no -object makes it", "check the command line")
    }
    if !hasNamedRAM {
      result.memoryBackends.append(
        MemoryBackend(
          id: "", kind: memoryPath == nil ? .ram : .file, size: result.ramSize, share: false,
          path: memoryPath?.path, discardData: false, readonly: false, isGuestRAM: true,
          option: memoryPath?.option ?? memoryOption))
    }
    warnOfHugePages()
    for backend in result.memoryBackends { bind(backend) }
  }

  /// Private anonymous memory is nothing that the host knows by a name: no binding.
  private mutating func bind(_ backend: MemoryBackend) {
    let address: String
    switch backend.kind {
    case .ram: return
    case .memfd, .hugetlb: address = "memfd:" + backend.id
    case .file, .shm, .other: address = backend.path ?? backend.id
    }
    let role: Binding.Role = backend.share ? .share : .own
    if let refusal = backendRefusals[backend.id] {
      bind(.memory, role, address, backend.option, .refuse, refusal.reason)
    } else if backend.share {
      bind(
        .memory, role, address, backend.option, .share,
        backend.isHugeByName
          ? "both QEMUs could map the same pages; if they are huge ones, as the path says, `plan` refuses them"
          : "both QEMUs can map the same pages")
    } else {
      bind(
        .memory, role, address, backend.option, .reopen,
        "mapped privately (no share=on): migration copies what is in it into memory of the new QEMU's own")
    }
  }

  /// RAM by `-machine memory-backend=` or `-numa memdev=`; memory devices (`pc-dimm`) come on top.
  private var hasNamedRAM: Bool {
    commandLine.options.contains { option in
      switch option.name {
      case "machine", "M": option.parameters["memory-backend"] != nil
      case "numa": option.parameters["memdev"] != nil
      default: false
      }
    }
  }
}

extension MemoryBackend {
  fileprivate var isHugeByName: Bool {
    path.map { $0.contains("hugepages") || $0.contains("hugetlbfs") } ?? false
  }
}

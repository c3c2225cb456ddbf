extension Describer {
  mutating func device(_ option: CommandOption, _ parameters: OptionValue) {
    let driver = parameters["driver"] ?? ""
    if let id = parameters["id"], !id.isEmpty {
      result.deviceIDs.append(id)
    } else {
      result.anonymousDevices += 1
    }
    if driver.isEmpty {
      block(option, "names no driver", "check the command line: QEMU itself refuses it")
      return
    }
    guard DeviceTable.isKnown(driver) else {
      unknown(option, "no QEMU from 5.2 to 11.1 is known to have the device \(driver)")
      return
    }
    if let path = parameters["romfile"], !path.isEmpty { file(path, .rom, option, isSearched: true) }
    if driver == "loader" || driver == "guest-loader" {
      for key in ["file", "kernel", "initrd"] {
        if let path = parameters[key] { file(path, .rom, option) }
      }
    }
    if driver == "virtserialport", parameters["name"] == "org.qemu.guest_agent.0" { agentChardev = parameters["chardev"] }
    // pci-serial-2x and -4x have numbered ones.
    for key in ["chardev", "chardev1", "chardev2", "chardev3", "chardev4"] {
      if let id = parameters[key] { consume(id, by: "device \(driver)", option) }
    }
    if let refusal = Self.backendRefusal(driver) {
      block(option, refusal.reason, refusal.wayOut)
      for key in ["drive", "memdev", "volatile-memdev", "persistent-memdev", "lsa"] {
        if let id = parameters[key] { backendRefusals[id] = refusal }
      }
    } else if let id = parameters["memdev"] ?? parameters["hostmem"] {
      ramBackendIDs.insert(id)
      if DeviceTable.family(driver) == "virtio-mem" { requestedSizes[id] = parameters["requested-size"].flatMap { Size.bytes($0, unit: 1) } ?? 0 }
    }
    hostDevice(driver, parameters, option)
  }

  /// Devices that hold nothing of the host themselves, but whose back end, made by another option, cannot
  /// be handed over because of them.
  static func backendRefusal(_ driver: String) -> Refusal? {
    switch DeviceTable.family(driver) {
    case "scsi-generic", "scsi-block":
      Refusal(
        reason: "\(driver) passes the guest's SCSI commands to the host's device, whose state migration does not carry",
        wayOut: "give the guest the disk by scsi-hd, or unplug it first")
    case "nvdimm", "virtio-pmem", "cxl-type3", "spapr-nvdimm":
      Refusal(
        reason: "persistent memory (\(driver)) cannot be handed over yet",
        wayOut: "unplug the device first, or start the VM without it")
    case "ivshmem", "ivshmem-plain", "ivshmem-doorbell":
      Refusal(
        reason: "memory that the guest shares with other programs (\(driver)) cannot be handed over yet",
        wayOut: "unplug the device first, or start the VM without it")
    default: nil
    }
  }

  /// Devices that hold something of the host themselves.
  private mutating func hostDevice(_ driver: String, _ parameters: OptionValue, _ option: CommandOption) {
    let unplug = "unplug the device first, or start the VM without it"
    func first(_ keys: String...) -> String? { keys.lazy.compactMap { parameters[$0] }.first }
    func hold(_ kind: Binding.Kind, _ address: String?, _ why: String, role: Binding.Role = .own) {
      refuse(kind, role, address ?? "", option.text, why, unplug, purpose: "device \(driver)")
    }
    switch DeviceTable.family(driver) {
    case "vfio-pci-igd-lpc-bridge", "igd-passthrough-isa-bridge": break  // Emulated, in spite of the name.
    case "vfio-user":
      hold(.unixSocket, first("socket.path", "socket"), "the device lives in another process, which serves one QEMU", role: .connect)
    case "x-pci-proxy-dev":
      hold(.fd, first("fd"), "the device lives in another process, which serves one QEMU", role: .connect)
    case let family where family.hasPrefix("vfio") || family == "pci-assign" || family == "kvm-pci-assign"
      || family == "xen-pci-passthrough":
      hold(
        .vfio, parameters["host"].map(Self.pciAddress) ?? first("sysfsdev") ?? first("fd").map { "fd=" + $0 },
        "a device of the host (vfio) has one owner, and its state stays in the hardware")
    case "vhost-vsock":
      bind(
        .vhostVsock, .own, first("guest-cid") ?? "", option.text, .reopen,
        "the new QEMU gets a device of its own, and the guest's CID with the guest; open connections end", purpose: "device \(driver)")
    case "vhost-scsi":
      hold(.disk, first("wwpn"), "a vhost-scsi target of the kernel has one owner")
    case "vhost-vdpa":
      hold(.vhostVdpa, first("vhostdev") ?? first("vhostfd").map { "fd=" + $0 }, "a vDPA device has one owner")
    case "usb-host":
      hold(.usbHost, Self.usbAddress(parameters), "a USB device of the host has one owner")
    case "u2f-passthru":
      hold(.usbHost, first("hidraw") ?? "/dev/hidraw*", "a security key of the host has one owner")
    case "u2f-emulated", "canokey":
      if let path = first("dir") {
        hold(.directory, path, "the state of the emulated key is in files that only one QEMU may use", role: .share)
      } else if let path = first("file") {
        hold(.file, path, "the state of the emulated key is in a file that only one QEMU may use")
      } else {
        block(option, "the state of an emulated key is not migrated", unplug)
      }
    case "ccid-card-emulated":
      hold(
        .directory, first("db") ?? "/etc/pki/nssdb", "a smart card of the host (its NSS database) cannot be handed over yet",
        role: .share)
    case "usb-mtp":
      hold(.directory, first("rootdir", "x-root"), "MTP blocks migration", role: .share)
    case "virtio-input-host":
      hold(.inputHost, first("evdev"), "an input device of the host is grabbed by one QEMU")
    case "spapr-tpm-proxy":
      hold(.tpm, first("host-path"), "the state of the TPM is outside of QEMU")
    case "pvrdma":
      hold(.netdevSocket, first("ibdev", "netdev"), "an RDMA device of the host has one owner")
    case "ivshmem":
      if let name = first("shm") {
        hold(.memory, name, "memory that the guest shares with other programs cannot be handed over yet", role: .share)
      }
    case "usb-redir": block(option, "a redirected USB device is bound to one connection", unplug)
    case "ccid-card-passthru": block(option, "a smart card is bound to one connection", unplug)
    case "ipmi-bmc-extern": block(option, "the BMC lives in another process, which serves one QEMU", unplug)
    case "virtio-gpu-gl", "virtio-vga-gl", "virtio-gpu-rutabaga", "virtio-vga-rutabaga":
      block(option, "the state of 3D graphics is in the host's GPU", "start the VM with a device without 3D: virtio-gpu-pci, virtio-vga")
    case let family where family.hasPrefix("xen-"): block(option, "a Xen domain belongs to Xen's tool stack", unplug)
    default:
      if parameters.isOn("virgl") {
        block(option, "the state of 3D graphics is in the host's GPU", "start the VM with virgl=off")
      }
    }
  }

  /// A PCI address as the kernel names it: with its domain, which QEMU takes to be 0 if left out.
  static func pciAddress(_ text: String) -> String {
    text.split(separator: ":").count == 2 ? "0000:" + text : text
  }

  /// `BUS.ADDRESS` or `BUS-PORT` as `-usbdevice host:` and sysfs have them, else `VENDOR:PRODUCT` in hex as
  /// `lsusb` does.
  static func usbAddress(_ parameters: OptionValue) -> String? {
    func hex(_ key: String) -> String {
      guard let text = parameters[key] else { return "*" }
      guard let number = text.hasPrefix("0x") ? UInt16(text.dropFirst(2), radix: 16) : UInt16(text) else { return text }
      let digits = String(number, radix: 16)
      return String(repeating: "0", count: 4 - digits.count) + digits
    }
    if let path = parameters["hostdevice"] { return path }
    if let bus = parameters["hostbus"] {
      return parameters["hostport"].map { bus + "-" + $0 } ?? bus + "." + (parameters["hostaddr"] ?? "*")
    }
    if parameters["vendorid"] == nil, parameters["productid"] == nil { return parameters["hostaddr"] }
    return hex("vendorid") + ":" + hex("productid")
  }
}

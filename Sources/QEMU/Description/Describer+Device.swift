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
    }
    if let path = parameters["romfile"], !path.isEmpty { file(path, .rom, option, isSearched: true) }
    for key in ["memdev", "hostmem"] {
      if let id = parameters[key], driver != "nvdimm", !driver.hasPrefix("ivshmem") {
        ramBackendIDs.insert(id)
      }
    }
    // pci-serial-2x and -4x have numbered ones.
    for key in ["chardev", "chardev1", "chardev2", "chardev3", "chardev4"] {
      if let id = parameters[key] { consume(id, by: "device \(driver)", option) }
    }
    switch driver {
    case "loader", "guest-loader":
      for key in ["file", "kernel", "initrd"] {
        if let path = parameters[key] { file(path, .rom, option) }
      }
    default: break
    }
    for rule in Self.refusedDevices where rule.matches(driver) {
      let address = rule.addressKeys.lazy.compactMap { parameters[$0] }.first ?? driver
      if let kind = rule.kind {
        refuse(
          kind, rule.kind == .vhostUser ? .connect : .own, address, option.text, rule.reason,
          rule.wayOut)
      } else {
        block(option, rule.reason, rule.wayOut)
      }
      return
    }
    if parameters.isOn("virgl") {
      block(
        option, "the state of 3D graphics is in the host's GPU", "start the VM with virgl=off")
    }
    // A driver that is not in the list, but is given something of the host.
    for key in ["vhostfd", "vhostdev", "evdev", "sysfsdev", "hostdevice", "hostbus", "rootdir"] {
      guard let value = parameters[key] else { continue }
      refuse(
        .fd, .own, value, option.text, "\(key) gives the device something of the host",
        "unplug the device first")
      return
    }
  }

  struct DeviceRule {
    var names: [String]
    var kind: Binding.Kind?
    var addressKeys: [String] = []
    var reason: String
    var wayOut = "unplug the device first, or start the VM without it"

    /// A name that ends in `*` is a prefix.
    func matches(_ driver: String) -> Bool {
      names.contains { name in
        name.hasSuffix("*") ? driver.hasPrefix(name.dropLast()) : driver == name
      }
    }
  }

  static let refusedDevices: [DeviceRule] = [
    DeviceRule(
      names: ["vfio-user*", "x-pci-proxy-dev"], kind: .unixSocket, addressKeys: ["socket.path", "socket", "fd"],
      reason: "the device lives in another process"),
    DeviceRule(
      names: ["vfio*", "pci-assign", "kvm-pci-assign", "igd-passthrough*"], kind: .vfio, addressKeys: ["host", "sysfsdev", "fd"],
      reason: "a device of the host (vfio) has one owner"),
    DeviceRule(
      names: ["vhost-user*"], kind: .vhostUser, addressKeys: ["chardev"],
      reason: "the back end of vhost-user serves one QEMU at a time"),
    DeviceRule(
      names: ["vhost-vsock*"], kind: .vhostVsock, addressKeys: ["guest-cid"],
      reason: "the guest's vsock CID can have one owner"),
    DeviceRule(
      names: ["vhost-scsi*"], kind: .vhostUser, addressKeys: ["wwpn", "vhostfd"],
      reason: "a vhost-scsi target has one owner"),
    DeviceRule(
      names: ["vhost-vdpa*", "vdpa*"], kind: .vhostVdpa, addressKeys: ["vhostdev", "vhostfd"],
      reason: "a vDPA device has one owner"),
    DeviceRule(
      names: ["usb-host"], kind: .usbHost,
      addressKeys: ["hostdevice", "hostbus", "vendorid", "hostaddr"],
      reason: "a USB device of the host has one owner"),
    DeviceRule(
      names: ["usb-redir"], kind: .usbHost, addressKeys: ["chardev"],
      reason: "a redirected USB device is bound to one connection"),
    DeviceRule(
      names: ["u2f-*", "ccid-card-*"], kind: .usbHost, addressKeys: ["hidraw", "dir", "chardev", "db"],
      reason: "a key or smart card of the host has one owner"),
    DeviceRule(
      names: ["usb-mtp"], kind: .directory, addressKeys: ["rootdir", "x-root"],
      reason: "MTP blocks migration"),
    DeviceRule(
      names: ["virtio-input-host*"], kind: .inputHost, addressKeys: ["evdev"],
      reason: "an input device of the host has one owner"),
    DeviceRule(
      names: ["virtio-9p*"], kind: .directory, addressKeys: ["fsdev"],
      reason: "a directory shared by 9p blocks migration while the guest has it mounted"),
    DeviceRule(
      names: ["ivshmem*"], kind: .memory, addressKeys: ["memdev", "chardev", "shm"],
      reason: "memory shared with other programs cannot be handed over yet"),
    DeviceRule(
      names: ["tpm-*"], kind: .tpm, addressKeys: ["tpmdev"],
      reason: "the state of the TPM is outside of QEMU"),
    DeviceRule(
      names: ["nvdimm", "virtio-pmem*", "cxl-type3"], kind: .memory, addressKeys: ["memdev"],
      reason: "persistent memory cannot be handed over yet"),
    DeviceRule(
      names: ["scsi-generic", "scsi-block"], kind: .disk, addressKeys: ["drive"],
      reason: "a SCSI device passed through keeps state that migration does not carry"),
    DeviceRule(
      names: ["pvrdma"], kind: .netdevSocket, addressKeys: ["ibdev", "netdev"],
      reason: "an RDMA device of the host has one owner"),
    DeviceRule(
      names: ["ipmi-bmc-extern"], kind: .unixSocket, addressKeys: ["chardev"],
      reason: "the BMC lives in another process"),
    DeviceRule(
      names: ["virtio-gpu-gl*", "virtio-vga-gl*", "virtio-gpu-rutabaga*", "virtio-vga-rutabaga*"],
      kind: .display, reason: "the state of 3D graphics is in the host's GPU"),
    DeviceRule(names: ["xen-*", "xen*"], reason: "a Xen domain belongs to Xen's tool stack"),
  ]
}

/// A guest's vsock that the host's kernel serves: `-device vhost-vsock-pci` and its like. Source: QEMU's hw/virtio/vhost-vsock.c.
public struct VsockDevice: Sendable, Hashable {
  /// The option's place in the command line.
  public var option: Int
  /// The guest's address; nil if the option does not say it.
  public var cid: UInt32?
}

extension CommandLine {
  public var vsockDevices: [VsockDevice] {
    options.enumerated().compactMap { index, option in
      guard option.name == "device" else { return nil }
      let parameters = option.parameters
      guard VsockDevice.isModel(parameters["driver"] ?? "") else { return nil }
      return VsockDevice(option: index, cid: parameters["guest-cid"].flatMap(VsockDevice.number))
    }
  }
}

extension VsockDevice {
  static func isModel(_ driver: String) -> Bool { DeviceTable.family(driver) == "vhost-vsock" }

  /// A number as QEMU reads properties (strtoull with base 0).
  static func number(_ text: String) -> UInt32? {
    if text.lowercased().hasPrefix("0x") { return UInt32(text.dropFirst(2), radix: 16) }
    return text.hasPrefix("0") ? UInt32(text, radix: 8) : UInt32(text)
  }
}

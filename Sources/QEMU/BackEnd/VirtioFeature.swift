/// Features of virtio and vhost-user by the names that QEMU prints. Source: the virtio specification;
/// docs/interop/vhost-user.rst, hw/virtio/virtio-qmp.c of QEMU, which prints `NAME: what it is`.
enum VirtioFeature {
  /// The bits that a list of `x-query-virtio-status` stands for; nil if a name is not known.
  static func bits(_ value: JSONValue?) -> UInt64? {
    guard let value, var bits = number(value["unknown-dev-features"]) else { return nil }
    for name in names(value["transports"]) + names(value["dev-features"]) {
      guard let bit = features[name] else { return nil }
      bits |= 1 << bit
    }
    return bits
  }

  static func protocolBits(_ value: JSONValue?) -> UInt64? {
    guard let value, var bits = number(value["unknown-protocols"]) else { return nil }
    for name in names(value["protocols"]) {
      // Before 8.1 a back end was called a slave.
      let short = name.dropFirst("VHOST_USER_PROTOCOL_F_".count).replacingPrefix("SLAVE_", with: "BACKEND_")
      guard let bit = protocolFeatures.firstIndex(of: short) else { return nil }
      bits |= 1 << UInt64(bit)
    }
    return bits
  }

  static let accessPlatform: UInt64 = 1 << 33
  static let ringPacked: UInt64 = 1 << 34

  private static func names(_ list: JSONValue?) -> [String] {
    (list?.array ?? []).compactMap { $0.string.map { String($0.prefix { $0 != ":" }) } }
  }

  /// Nil for what a signed number cannot hold: it has lost digits.
  private static func number(_ value: JSONValue?) -> UInt64? { value.map { $0.integer.map { UInt64(bitPattern: $0) } } ?? 0 }

  private static let features: [String: UInt64] = [
    "VIRTIO_F_NOTIFY_ON_EMPTY": 24, "VIRTIO_F_ANY_LAYOUT": 27, "VIRTIO_RING_F_INDIRECT_DESC": 28, "VIRTIO_RING_F_EVENT_IDX": 29,
    "VIRTIO_F_VERSION_1": 32, "VIRTIO_F_IOMMU_PLATFORM": 33, "VIRTIO_F_ACCESS_PLATFORM": 33, "VIRTIO_F_RING_PACKED": 34,
    "VIRTIO_F_IN_ORDER": 35, "VIRTIO_F_ORDER_PLATFORM": 36, "VIRTIO_F_SR_IOV": 37, "VIRTIO_F_RING_RESET": 40,
    "VHOST_F_LOG_ALL": 26, "VHOST_USER_F_PROTOCOL_FEATURES": 30,
    "VIRTIO_BLK_F_BARRIER": 0, "VIRTIO_BLK_F_SIZE_MAX": 1, "VIRTIO_BLK_F_SEG_MAX": 2, "VIRTIO_BLK_F_GEOMETRY": 4, "VIRTIO_BLK_F_RO": 5,
    "VIRTIO_BLK_F_BLK_SIZE": 6, "VIRTIO_BLK_F_SCSI": 7, "VIRTIO_BLK_F_FLUSH": 9, "VIRTIO_BLK_F_TOPOLOGY": 10,
    "VIRTIO_BLK_F_CONFIG_WCE": 11, "VIRTIO_BLK_F_MQ": 12, "VIRTIO_BLK_F_DISCARD": 13, "VIRTIO_BLK_F_WRITE_ZEROES": 14,
    "VIRTIO_BLK_F_SECURE_ERASE": 16, "VIRTIO_BLK_F_ZONED": 17,
    "VIRTIO_NET_F_CSUM": 0, "VIRTIO_NET_F_GUEST_CSUM": 1, "VIRTIO_NET_F_CTRL_GUEST_OFFLOADS": 2, "VIRTIO_NET_F_MTU": 3, "VIRTIO_NET_F_MAC": 5,
    "VIRTIO_NET_F_GSO": 6, "VIRTIO_NET_F_GUEST_TSO4": 7, "VIRTIO_NET_F_GUEST_TSO6": 8, "VIRTIO_NET_F_GUEST_ECN": 9, "VIRTIO_NET_F_GUEST_UFO": 10,
    "VIRTIO_NET_F_HOST_TSO4": 11, "VIRTIO_NET_F_HOST_TSO6": 12, "VIRTIO_NET_F_HOST_ECN": 13, "VIRTIO_NET_F_HOST_UFO": 14,
    "VIRTIO_NET_F_MRG_RXBUF": 15, "VIRTIO_NET_F_STATUS": 16, "VIRTIO_NET_F_CTRL_VQ": 17, "VIRTIO_NET_F_CTRL_RX": 18, "VIRTIO_NET_F_CTRL_VLAN": 19,
    "VIRTIO_NET_F_CTRL_RX_EXTRA": 20, "VIRTIO_NET_F_GUEST_ANNOUNCE": 21, "VIRTIO_NET_F_MQ": 22, "VIRTIO_NET_F_CTRL_MAC_ADDR": 23,
    "VIRTIO_NET_F_VQ_NOTF_COAL": 52, "VIRTIO_NET_F_NOTF_COAL": 53, "VIRTIO_NET_F_GUEST_USO4": 54, "VIRTIO_NET_F_GUEST_USO6": 55,
    "VIRTIO_NET_F_HOST_USO": 56, "VIRTIO_NET_F_HASH_REPORT": 57, "VIRTIO_NET_F_GUEST_HDRLEN": 59, "VIRTIO_NET_F_RSS": 60, "VIRTIO_NET_F_RSC_EXT": 61,
    "VIRTIO_NET_F_STANDBY": 62, "VIRTIO_NET_F_SPEED_DUPLEX": 63,
  ]

  /// By their numbers.
  private static let protocolFeatures = [
    "MQ", "LOG_SHMFD", "RARP", "REPLY_ACK", "NET_MTU", "BACKEND_REQ", "CROSS_ENDIAN", "CRYPTO_SESSION", "PAGEFAULT", "CONFIG",
    "BACKEND_SEND_FD", "HOST_NOTIFIER", "INFLIGHT_SHMFD", "RESET_DEVICE", "INBAND_NOTIFICATIONS", "CONFIGURE_MEM_SLOTS", "STATUS",
    "XEN_MMAP", "SHARED_OBJECT", "DEVICE_STATE",
  ]
}

extension Substring {
  fileprivate func replacingPrefix(_ prefix: String, with other: String) -> String {
    hasPrefix(prefix) ? other + dropFirst(prefix.count) : String(self)
  }
}

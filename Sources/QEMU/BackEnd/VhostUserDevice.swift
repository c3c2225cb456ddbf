public import Kernel

/// A device whose rings another program serves, as the running QEMU tells of it.
public struct VhostUserDevice: Sendable, Equatable {
  /// The QOM path of its virtio part.
  public var path: String
  /// The character device whose connection leads to the back end.
  public var chardev: String
  public var answers: VhostUserAnswers
  public var queues: Int
  /// Why it cannot be handed over.
  public var obstacle: String?
  /// A network card, not a disk.
  public var isNetwork = false
}

extension VhostUserDevice {
  /// Which versions tell of their devices (`x-query-virtio-status`). 7.2 and 10.0 do. 11.1 ends itself when it is asked of one
  /// that a back end serves, with a running guest: `visit_start_struct: Assertion … *obj failed`, and a fault by `info
  /// virtio-status`. None between is known not to.
  public static func isTold(by version: QEMUVersion) -> Bool { version >= QEMUVersion(major: 7, minor: 2) && version < QEMUVersion(major: 10, minor: 1) }
  /// Pieces of memory that can be told at once. Source: VHOST_MEMORY_BASELINE_NREGIONS.
  private static let mostSections = 8
  /// VHOST_USER_MAX_CONFIG_SIZE.
  private static let longestConfiguration = 256

  /// Asks for the disks among them.
  public static func disks(of monitor: QMPConnection) throws(Failure) -> [VhostUserDevice] {
    var found: [VhostUserDevice] = []
    for entry in try monitor.execute("x-query-virtio").array ?? [] where entry["name"]?.string == "virtio-blk" {
      guard let path = entry["path"]?.string else { continue }
      let status = try monitor.execute("x-query-virtio-status", ["path": .string(path)])
      if status["vhost-dev"] == nil { continue }
      let chardev = try monitor.execute("qom-get", ["path": .string(path), "property": "chardev"]).string ?? ""
      var device = VhostUserDevice(path: path, chardev: chardev, status: status)
      if device.obstacle == nil { try device.readConfiguration(monitor) }
      found.append(device)
    }
    return found
  }

  /// Asks for the network cards among them.
  /// - Parameter chardevs: those of the networks that back ends serve, by the networks' ids. No other card is asked for.
  public static func networks(_ chardevs: [String: String], of monitor: QMPConnection) throws(Failure) -> [VhostUserDevice] {
    var found: [VhostUserDevice] = []
    for entry in chardevs.isEmpty ? [] : try monitor.execute("x-query-virtio").array ?? [] where entry["name"]?.string == "virtio-net" {
      guard let path = entry["path"]?.string, let network = try monitor.execute("qom-get", ["path": .string(path), "property": "netdev"]).string,
        let chardev = chardevs[network]
      else { continue }
      let status = try monitor.execute("x-query-virtio-status", ["path": .string(path)])
      found.append(VhostUserDevice(network: path, chardev: chardev, status: status))
    }
    return found
  }

  init(network path: String, chardev: String, status: JSONValue) {
    self.init(path: path, chardev: chardev, status: status)
    isNetwork = true
    if status["vhost-dev"] == nil {
      obstacle = "the guest has not enabled it yet"
    } else if let agreed = VirtioFeature.bits(status["guest-features"]), agreed & VirtioFeature.ringPacked != 0 {
      // Not seen to work at all: no frame came through Open vSwitch 3.1.
      obstacle = "its rings are packed (packed=on), which has not been tried"
    } else if obstacle == nil, let agreed = VirtioFeature.bits(status["guest-features"]), agreed & VirtioFeature.accessPlatform != 0 {
      obstacle = "the back end asks QEMU where the guest's memory is (iommu_platform=on)"
    } else if obstacle == nil, answers.offered != answers.protocolFeatures {
      obstacle = "the back end keeps the guest's memory piece by piece (CONFIGURE_MEM_SLOTS)"
    }
  }

  /// - Parameter status: the answer to `x-query-virtio-status`.
  init(path: String, chardev: String, status: JSONValue) {
    let vhost = status["vhost-dev"]
    let features = VirtioFeature.bits(vhost?["features"])
    let chosen = VirtioFeature.protocolBits(vhost?["protocol-features"])
    let agreed = VirtioFeature.bits(status["guest-features"])
    (self.path, self.chardev) = (path, chardev)
    queues = Int(status["num-vqs"]?.integer ?? 0)
    answers = VhostUserAnswers(
      features: features ?? 0, protocolFeatures: chosen ?? 0, queues: UInt64(clamping: vhost?["max-queues"]?.integer ?? 0), configuration: [])
    if features == nil || chosen == nil || agreed == nil {
      obstacle = "QEMU tells features of the back end by names that this version of moult does not know"
    } else if agreed.map({ $0 & VirtioFeature.ringPacked != 0 }) ?? false {
      obstacle = "its rings are packed (packed=on), and whether all requests are done cannot be told from those"
    } else if vhost?["n-mem-sections"]?.integer ?? .max > Self.mostSections {
      obstacle = "the guest's memory is in more than \(Self.mostSections) pieces, which cannot be told to the back end at once"
    }
  }

  /// Reads what the guest finds there, through the registers of the card. Reading changes nothing.
  /// Source: hw/virtio/virtio-pci.c, `virtio_pci_modern_regions_init`; of a region's end the last bytes can be read one by one only.
  private mutating func readConfiguration(_ monitor: QMPConnection) throws(Failure) {
    let card = path.split(separator: "/").dropLast().map { "/" + $0 }.joined()
    let regions = try monitor.execute("qom-list", ["path": .string(card)]).array ?? []
    guard let name = regions.compactMap({ $0["name"]?.string }).first(where: { $0.hasPrefix("virtio-pci-device-") }) else {
      obstacle = "it is no PCI device"
      return
    }
    let region = card + "/" + name
    func address(_ path: String) throws(Failure) -> UInt64? {
      try monitor.execute("qom-get", ["path": .string(path), "property": "addr"]).integer.flatMap { UInt64(exactly: $0) }
    }
    let bar = try monitor.execute("qom-get", ["path": .string(region), "property": "container"]).string ?? ""
    guard let start = try address(bar), start != 0, let offset = try address(region) else {
      obstacle = "the guest has not enabled it yet"
      return
    }
    let pending = try (0..<UInt64(Self.longestConfiguration)).map { index throws(Failure) in
      try monitor.send("human-monitor-command", ["command-line": .string("xp /1xb 0x" + String(start + offset + index, radix: 16))])
    }
    var bytes: [UInt8] = []
    for identifier in pending {
      // `00000000febfa000: 0x00`
      let text = try monitor.reply(to: identifier, command: "xp").string ?? ""
      let digits = text.split(separator: ":").last.map { $0.filter { $0.isHexDigit || $0 == "x" } } ?? ""
      guard digits.hasPrefix("0x"), let byte = UInt8(digits.dropFirst(2), radix: 16) else {
        obstacle = "its configuration cannot be read (\(text))"
        return
      }
      bytes.append(byte)
    }
    // Behind the end it reads as ones.
    while bytes.last == 0xff { bytes.removeLast() }
    if bytes.isEmpty { obstacle = "the guest has not enabled it yet" }
    answers.configuration = bytes
  }

  /// Where the running QEMU has the rings, one a queue that is in use; they change when the guest resets the device.
  public static func rings(of path: String, queues: Int, _ monitor: QMPConnection) throws(Failure) -> [Ring] {
    // Without a driver in the guest there are none.
    guard try monitor.execute("x-query-virtio-status", ["path": .string(path)])["vhost-started"]?.bool ?? false else { return [] }
    var rings: [Ring] = []
    for queue in 0..<queues {
      let status = try monitor.execute("x-query-virtio-vhost-queue-status", ["path": .string(path), "queue": .integer(Int64(queue))])
      guard let available = status["avail"]?.integer, let used = status["used"]?.integer, available != 0, used != 0 else { continue }
      rings.append(Ring(available: UInt64(bitPattern: available), used: UInt64(bitPattern: used)))
    }
    return rings
  }

  /// Addresses in QEMU's memory of the two halves of a split ring. Both begin with two numbers of 16 bits: flags, and how many
  /// entries there have been. Source: the virtio specification, 2.7.
  public struct Ring: Sendable, Equatable {
    public var available: UInt64
    public var used: UInt64
    /// Behind the flags.
    public static let index: UInt64 = 2
  }
}

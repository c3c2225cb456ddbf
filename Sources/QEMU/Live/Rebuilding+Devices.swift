/// Devices that were plugged in or out, and where they and the others are.
extension Rebuilding {
  static let named = "/machine/peripheral/"
  static let anonymous = "/machine/peripheral-anon/device["

  /// QOM paths → types of the devices that no option makes.
  var addedDevices: [String: String] {
    var found: [String: String] = [:]
    let said = Set(original.options.filter { $0.name == "device" }.compactMap { $0.parameters["id"] })
    for (id, type) in live.devices where !said.contains(id) || isReplaced(id) { found[Self.named + id] = type }
    let count = anonymousOptions.count
    for (number, type) in zip(live.anonymousNumbers, live.anonymousDevices) where number >= count {
      found["\(Self.anonymous)\(number)]"] = type
    }
    return found
  }

  /// Whether a device that an option made was unplugged, and another one plugged in under its id.
  private func isReplaced(_ id: String) -> Bool { parts.hotplugged.contains(Self.named + id) }

  /// Places of the options whose devices are gone.
  var removedDevices: [Int] {
    let named = original.options.indices.filter { index in
      original.options[index].name == "device" && original.options[index].parameters["id"].map { !$0.isEmpty && (live.devices[$0] == nil || isReplaced($0)) } ?? false
    }
    let gone = anonymousOptions.enumerated().filter { !live.anonymousNumbers.contains($0.offset) }.map(\.element)
    return (named + gone).sorted()
  }

  /// QOM path of the device that an option makes.
  func path(of index: Int) -> String? {
    if let id = original.options[index].parameters["id"], !id.isEmpty, original.options[index].name == "device" { return Self.named + id }
    return anonymousOptions.firstIndex(of: index).map { "\(Self.anonymous)\($0)]" }
  }

  mutating func rebuildDevices() {
    let gone = removedDevices
    for index in gone where original.options[index].name == "device" {
      guard let option = options[index] else { continue }
      remove(index)
      rebuilt("device \(option.parameters["id"] ?? option.parameters["driver"] ?? "")", "it was removed after the start", as: "without \(option.text)")
    }
    if !gone.isEmpty { pinPlaces() }
    var waiting = addedDevices.sorted { $0.key < $1.key }
    while !waiting.isEmpty {
      let paths = waiting.map(\.key)
      // A controller before what is plugged into it.
      let next = waiting.firstIndex { path, _ in
        let bus = parts.devices[path]?.bus ?? ""
        return !paths.contains { $0 != path && bus.hasPrefix($0 + "/") }
      } ?? 0
      let (path, type) = waiting.remove(at: next)
      addDevice(path, type)
    }
  }

  /// Gives the devices that are left the places that they have: QEMU would put them where the others were.
  private mutating func pinPlaces() {
    for index in original.options.indices {
      guard let path = path(of: index), var option = options[index], let device = parts.devices[path], !device.bus.isEmpty else { continue }
      if option.name == "drive" {
        // `if=virtio` has no way to say where: it is split into what QEMU makes of it.
        guard let backend = graph.backends.first(where: { $0.device.hasPrefix(path + "/") }) else { continue }
        change(index) {
          $0.set("if", to: "none")
          $0.set("id", to: backend.label)
        }
        // Read-only and the like are the drive's own.
        option = CommandOption(name: "device", value: Self.text(implied: "virtio-blk-pci", [("drive", backend.label)]))
        added.append(pinned(option, device))
        continue
      }
      let pinned = pinned(option, device)
      if pinned != option {
        options[index] = pinned
        hasChanged = true
      }
    }
  }

  private func pinned(_ option: CommandOption, _ device: LiveParts.Device) -> CommandOption {
    var value = option.parameters
    if let address = device.properties["addr"]?.integer {
      if value["bus"] == nil { value.set("bus", to: Self.busName(device.bus)) }
      if value["addr"] == nil { value.set("addr", to: Self.slot(address)) }
    } else if value["port"] == nil, let port = parts.usbPort(of: value["id"]), device.type.isEmpty || device.type.hasPrefix("usb-") {
      // Only a USB device is told by `info usb`.
      if value["driver"]?.hasPrefix("usb-") ?? false { value.set("port", to: port) }
    }
    if value["mac"] == nil, let address = device.properties["mac"]?.string { value.set("mac", to: address) }
    var option = option
    option.value = value.text
    return option
  }

  static func busName(_ path: String) -> String { path.split(separator: "/").last.map(String.init) ?? "" }

  /// `05.0` for the PCI slot and function in one number.
  static func slot(_ address: Int64) -> String {
    let slot = String(address >> 3, radix: 16)
    return (slot.count < 2 ? "0" : "") + slot + "." + String(address & 7)
  }

  private mutating func addDevice(_ path: String, _ type: String) {
    let id = path.hasPrefix(Self.named) ? String(path.dropFirst(Self.named.count)) : nil
    let subject = "device \(id ?? type)"
    guard let device = parts.devices[path], !device.properties.isEmpty else {
      return refuse(subject, "it was plugged in after the start, and QEMU does not tell its properties")
    }
    if device.properties["failover"]?.bool ?? false || !(device.properties["failover_pair_id"]?.string ?? "").isEmpty {
      return refuse(subject, "it was plugged in after the start as one of a failover pair", wayOut: "unplug it first")
    }
    var values: [(String, JSONValue)] = [("driver", .string(type))]
    if let id { values.append(("id", .string(id))) }
    if type.hasSuffix("-cpu") {
      for key in ["socket-id", "die-id", "core-id", "thread-id"] where device.properties[key]?.integer ?? -1 >= 0 {
        values.append((key, device.properties[key]!))
      }
    } else {
      if !device.bus.isEmpty { values.append(("bus", .string(Self.busName(device.bus)))) }
      for name in device.properties.keys.sorted() {
        guard let value = property(name, of: device, path, subject: subject) else { continue }
        values.append((name, value))
      }
      if type.hasPrefix("usb-"), !device.bus.isEmpty, !values.contains(where: { $0.0 == "port" }) {
        guard let port = parts.usbPort(of: id) else {
          return refuse(subject, "it was plugged in after the start, and QEMU does not tell its port for sure", wayOut: "unplug it, and plug it in with an id")
        }
        values.append(("port", .string(port)))
      }
    }
    // QEMU makes the devices in JSON after all others: their buses would not be there yet.
    let usesJSON = original.options.contains { $0.name == "device" && $0.parameters.isJSON }
    let text = usesJSON
      ? "{" + values.map { JSONText.quote($0.0) + ":" + $0.1.text() }.joined(separator: ",") + "}"
      : Self.text(implied: type, values.dropFirst().map { ($0.0, Self.word($0.1) ?? "") })
    added.append(CommandOption(name: "device", value: text))
    hasChanged = true
    rebuilt(subject, "it was plugged in after the start", as: added.last!.text)
  }

  /// What an option must say of a property; nil if nothing.
  private mutating func property(_ name: String, of device: LiveParts.Device, _ path: String, subject: String) -> JSONValue? {
    guard DeviceProperties.told.contains(name), let value = device.properties[name], let word = Self.word(value) else { return nil }
    switch name {
    case "addr": return device.bus.isEmpty ? value : value.integer.map { .string(Self.slot($0)) }
    case "drive":
      // One without a name is given one.
      guard let backend = graph.backends.first(where: { $0.device == String(path.dropFirst(Self.named.count)) || $0.device == path || $0.device.hasPrefix(path + "/") })
      else { return nil }
      if !backend.label.isEmpty { return .string(backend.label) }
      return backend.root.map { .string(reference(to: $0, for: subject)) }
    case "romfile":
      // The default of each kind of card is its own; a card without one has to be told so.
      return word.isEmpty && device.properties["mac"] != nil ? .string("") : nil
    default:
      if word.isEmpty || value == device.defaults[name] || DeviceProperties.defaults[name]?.contains(word) ?? false { return nil }
      // A link to an object is told by its path.
      if word.hasPrefix("/objects/") { return .string(String(word.dropFirst("/objects/".count))) }
      return word.hasPrefix("/machine/") ? nil : value
    }
  }

  /// A value as comma syntax has it; nil for lists and objects.
  static func word(_ value: JSONValue) -> String? {
    switch value {
    case .string(let text): text
    case .bool(let isOn): isOn ? "on" : "off"
    case .integer(let number): "\(number)"
    // Sizes and masks of 64 bits.
    case .number(let number): UInt64(exactly: number).map { "\($0)" }
    default: nil
    }
  }
}

/// Which properties of a device that was plugged in are put into its option if they are not the default: what users
/// and programs set, and what places it. All of them are known to QEMU 5.2. The others follow from the machine type;
/// the comparison of the twins finds those that do not.
enum DeviceProperties {
  static let told: Set<String> = Set(
    """
    addr multifunction rombar romfile acpi-index bus-nr chassis chassis_nr slot node memdev hotplug power_controller_present shpc msi
    drive serial bootindex logical_block_size physical_block_size min_io_size opt_io_size discard_granularity write-cache share-rw
    rerror werror num-queues queue-size seg-max-adjust config-wce discard write-zeroes scsi max_sectors cmd_per_lun iothread
    scsi-id channel lun wwn port_wwn port_index device_id ver vendor product removable dpofua rotation_rate max_unmap_size
    max_io_size scsi_version unit ioeventfd vectors disable-legacy disable-modern iommu_platform ats packed event_idx indirect_desc
    page-per-vq virtio-pci-bus-master-bug-migration mac netdev csum gso guest_csum guest_tso4 guest_tso6 guest_ecn guest_ufo
    host_tso4 host_tso6 host_ecn host_ufo mrg_rxbuf status ctrl_vq ctrl_rx ctrl_vlan ctrl_rx_extra ctrl_mac_addr
    ctrl_guest_offloads mq rss hash guest_rsc_ext rx_queue_size tx_queue_size host_mtu speed duplex tx mac-programming
    chardev chardev1 chardev2 name nr max_ports rng max-bytes period port p2 p3 streams intrs slots
    usb_version msos-desc full-path attached display cryptodev deflate-on-oom free-page-reporting free-page-hint guest-cid
    """.split(whereSeparator: \.isWhitespace).map(String.init))

  /// Defaults that QEMU does not tell, or that it fills in by itself.
  /// The name of a property that may be set while the device runs, of what `device-list-properties` says of it.
  ///
  /// QEMU says no more of that than this: a property that can only be set before the device is made has a default, but
  /// for strings, which are ids and names of what it is connected to. Links and children are never set later.
  static func settable(_ property: JSONValue) -> String? {
    guard let name = property["name"]?.string, let type = property["type"]?.string, property["default-value"] == nil,
      !type.hasPrefix("link<"), !type.hasPrefix("child<"), type != "str", !name.hasPrefix("legacy-"),
      name == "bootindex" || !told.contains(name)
    else { return nil }
    return name
  }

  static let defaults: [String: Set<String>] = [
    "bootindex": ["-1"], "ver": ["2.5+"], "vendor": ["QEMU"], "product": ["QEMU HARDDISK", "QEMU CD-ROM"], "attached": ["on"], "usb_version": ["1", "2"],
  ]
}

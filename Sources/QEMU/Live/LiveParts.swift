public import Kernel

/// More of a running QEMU than ``LiveMachine`` asks for. Of devices that arguments make only what can be changed while
/// they run; everything of those that arguments do not make.
public struct LiveParts: Sendable, Equatable {
  public struct Device: Sendable, Equatable {
    public var type: String
    /// QOM path of the bus it is on; empty for one that is on none.
    public var bus: String
    public var properties: [String: JSONValue]
    /// Defaults of its properties, where QEMU tells them.
    public var defaults: [String: JSONValue]
  }

  /// By QOM path. Of the devices that arguments make, only where they are and their MAC address.
  public var devices: [String: Device] = [:]
  /// Properties of objects, by id.
  public var objects: [String: [String: JSONValue]] = [:]
  /// What may have been set while they ran, by the device's QOM path.
  public var settings: [String: [String: JSONValue]] = [:]
  /// QOM paths of devices that were plugged in after the start.
  public var hotplugged: Set<String> = []
  /// Addresses of sockets that arguments do not make, by the chardev's id.
  public var sockets: [String: JSONValue] = [:]
  /// What `info usb` prints.
  public var usb = ""

  /// What to ask.
  public struct Wanted: Sendable, Equatable {
    /// QOM paths.
    public var placed: Set<String> = []
    /// QOM path → type, of those whose properties are wanted.
    public var devices: [String: String] = [:]
    public var objects: Set<String> = []
    public var chardevs: Set<String> = []
    /// QOM path → type, of those whose settings are wanted.
    public var settable: [String: String] = [:]
    public var isEmpty: Bool { placed.isEmpty && devices.isEmpty && objects.isEmpty && chardevs.isEmpty && settable.isEmpty }
  }

  /// Asks in two round trips, however much it is: a third of a millisecond for each question on a slow host.
  public static func query(_ monitor: QMPConnection, _ wanted: Wanted) throws(Failure) -> LiveParts {
    var parts = LiveParts()
    var first = Questions()
    for path in wanted.placed.sorted() {
      parts.devices[path] = Device(type: wanted.devices[path] ?? "", bus: "", properties: [:], defaults: [:])
      first.get(path, "parent_bus") { $0.devices[path]?.bus = $1.string ?? "" }
      for name in ["addr", "mac"] { first.get(path, name) { $0.devices[path]?.properties[name] = $1 } }
    }
    var lists: [String: [String]] = [:]
    for (path, type) in wanted.devices.sorted(by: { $0.key < $1.key }) {
      first.ask("device-list-properties", ["typename": .string(type)]) { parts, answer in
        for property in answer.array ?? [] {
          guard let name = property["name"]?.string, let type = property["type"]?.string, !type.hasPrefix("child<") else { continue }
          lists[path, default: []].append(name)
          parts.devices[path]?.defaults[name] = property["default-value"]
        }
      }
    }
    var objectLists: [String: [String]] = [:]
    for id in wanted.objects.sorted() {
      first.ask("qom-list", ["path": .string("/objects/" + id)]) { _, answer in
        for property in answer.array ?? [] {
          guard let name = property["name"]?.string, let type = property["type"]?.string, !type.hasPrefix("child<") else { continue }
          objectLists[id, default: []].append(name)
        }
      }
    }
    for id in wanted.chardevs.sorted() { first.get("/chardevs/" + id, "addr") { $0.sockets[id] = $1 } }
    if !wanted.devices.isEmpty || !wanted.placed.isEmpty {
      first.ask("human-monitor-command", ["command-line": "info usb"]) { $0.usb = $1.string ?? "" }
    }
    var settable: [String: [String]] = [:]
    for type in Set(wanted.settable.values).sorted() {
      first.ask("device-list-properties", ["typename": .string(type)]) { _, answer in
        settable[type] = (answer.array ?? []).compactMap(DeviceProperties.settable)
      }
    }
    for path in wanted.settable.keys.sorted() {
      first.get(path, "hotplugged") { if $1.bool ?? false { $0.hotplugged.insert(path) } }
    }
    try first.put(to: monitor, into: &parts)

    var second = Questions()
    for (path, names) in lists { for name in names { second.get(path, name) { $0.devices[path]?.properties[name] = $1 } } }
    for (id, names) in objectLists { for name in names { second.get("/objects/" + id, name) { $0.objects[id, default: [:]][name] = $1 } } }
    for (path, type) in wanted.settable {
      for name in settable[type] ?? [] { second.get(path, name) { $0.settings[path, default: [:]][name] = $1 } }
    }
    try second.put(to: monitor, into: &parts)
    return parts
  }

  /// Questions that are sent together. What QEMU refuses to answer, such as a property that this kind of device
  /// does not have, stays unknown.
  private struct Questions {
    var list: [(command: String, arguments: JSONValue, take: (inout LiveParts, JSONValue) -> Void)] = []

    mutating func ask(_ command: String, _ arguments: JSONValue, _ take: @escaping (inout LiveParts, JSONValue) -> Void) {
      list.append((command, arguments, take))
    }

    mutating func get(_ path: String, _ property: String, _ take: @escaping (inout LiveParts, JSONValue) -> Void) {
      ask("qom-get", ["path": .string(path), "property": .string(property)], take)
    }

    func put(to monitor: QMPConnection, into parts: inout LiveParts) throws(Failure) {
      let answers = try monitor.answers(to: list.map { ($0.command, $0.arguments) })
      for (question, answer) in zip(list, answers) {
        if let answer { question.take(&parts, answer) }
      }
    }
  }
}

extension LiveParts {
  /// In what the parts that were rebuilt differ from `other`'s, in words.
  ///
  /// - Parameters:
  ///   - place: a QOM path as both twins have it.
  func differences(from other: LiveParts, places: (String) -> String, otherPlaces: (String) -> String) -> [String] {
    var found: [String] = []
    let mine = Dictionary(devices.map { (places($0.key), $0.value) }) { first, _ in first }
    for (path, theirs) in other.devices.sorted(by: { $0.key < $1.key }) {
      let name = otherPlaces(path)
      guard let ours = mine[name] else {
        found.append("device \(name): absent here")
        continue
      }
      let (bus, otherBus) = (Self.bus(places(ours.bus)), Self.bus(otherPlaces(theirs.bus)))
      if bus != otherBus { found.append("device \(name): on bus \(bus) here, \(otherBus) there") }
      for (key, value) in theirs.properties.sorted(by: { $0.key < $1.key }) where !Self.isTransient(key) {
        // A property that only one version has follows from the machine type.
        guard let own = ours.properties[key], own != value else { continue }
        if Rebuilding.word(own) == nil && Rebuilding.word(value) == nil { continue }
        // The port of a USB device stays empty where QEMU chose it (`info usb` tells it), and -1 stands for 1 since 9.2.
        if key == "port" && value.string != nil || key == "rombar" && [own, value].allSatisfy({ [1, -1].contains($0.integer) }) { continue }
        found.append("device \(name): \(key) is \(own) here, \(value) there")
      }
    }
    let (ports, others) = (usbPorts, other.usbPorts)
    if ports != others { found.append("USB: \(ports) here, \(others) there") }
    return found + objectDifferences(from: other).map { id, key, own, value in
      let isSecret = other.objects[id]?["type"]?.string?.hasPrefix("secret") ?? false
      return isSecret ? "object \(id): another secret here than there" : "object \(id): \(key) is \(own.text()) here, \(value.text()) there"
    }
  }

  /// Properties of objects that differ, of those that both QEMUs have.
  func objectDifferences(from other: LiveParts) -> [(id: String, key: String, own: JSONValue, other: JSONValue)] {
    var found: [(id: String, key: String, own: JSONValue, other: JSONValue)] = []
    for (id, theirs) in other.objects.sorted(by: { $0.key < $1.key }) {
      let type = theirs["type"]?.string ?? ""
      for (key, value) in theirs.sorted(by: { $0.key < $1.key }) where !Self.isTransient(key) {
        guard let own = objects[id]?[key], own != value else { continue }
        // The defaults of two versions.
        let words = [own, value].map { Rebuilding.word($0) ?? "" }
        if words.allSatisfy({ ObjectProperties.isDefault($0, key, of: type) }) { continue }
        found.append((id, key, own, value))
      }
    }
    return found
  }

  /// What a device of the machine's own is called differs between versions; the bus's name does not.
  private static func bus(_ path: String) -> String {
    path.hasPrefix("/machine/peripheral") ? path : path.split(separator: "/").last.map(String.init) ?? ""
  }

  private static func isTransient(_ property: String) -> Bool {
    ["hotplugged", "hotpluggable", "realized", "parent_bus", "type", "drive", "attached", "busnr", "memdev", "mem-path", "share", "crash-information",
      "prealloc", "prealloc-threads", "prealloc-context", "qom-type", "romsize", "align", "unplugged", "seal", "vhostfd",
    ].contains(property) || property.hasPrefix("legacy-")
  }

  /// `port product ID` of each USB device, without the addresses that the guest gives.
  var usbPorts: [String] {
    usb.split(whereSeparator: \.isNewline).compactMap { line in
      guard let port = line.range(of: ", Port "), let product = line.range(of: ", Product ") else { return nil }
      return line[port.upperBound...].prefix { $0 != "," } + " " + line[product.upperBound...]
    }.sorted()
  }

  /// The port of a USB device; nil if `info usb` does not tell it for sure.
  /// - Parameter id: nil for a device without one.
  func usbPort(of id: String?) -> String? {
    let mark = ", ID: "
    let lines = usb.split(whereSeparator: \.isNewline).filter { line in
      guard let id else { return line.contains(", Port ") && !line.contains(mark) }
      return line.hasSuffix(mark + id)
    }
    guard lines.count == 1, let port = lines[0].range(of: ", Port ") else { return nil }
    return String(lines[0][port.upperBound...].prefix { $0 != "," })
  }
}

extension StringProtocol {
  /// The first place where `text` stands.
  fileprivate func range(of text: String) -> Range<Index>? {
    var start = startIndex
    while start < endIndex {
      if self[start...].hasPrefix(text) { return start..<index(start, offsetBy: text.count) }
      start = index(after: start)
    }
    return nil
  }
}

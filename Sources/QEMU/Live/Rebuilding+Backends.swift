/// Objects, character devices and networks that were added or removed.
extension Rebuilding {
  var addedObjects: [String] {
    let said = Set(original.options.filter { $0.name == "object" }.compactMap { $0.parameters["id"] })
    // The RAM that -m makes is an object of the machine's own: `pc.ram`.
    return live.objects.filter { !said.contains($0.key) && !($0.value.hasPrefix("memory-backend") && $0.key.hasSuffix(".ram")) }.keys.sorted()
  }

  mutating func rebuildObjects() {
    for index in options.indices where options[index]?.name == "object" {
      guard let option = options[index], let id = option.parameters["id"], live.objects[id] == nil else { continue }
      // Monitors are objects from 11.0 on, and are left out of the list.
      if option.parameters["qom-type"]?.hasPrefix("monitor") ?? false { continue }
      remove(index)
      rebuilt("object \(id)", "it was removed after the start", as: "without \(option.text)")
    }
    for id in addedObjects {
      let type = live.objects[id] ?? ""
      let subject = "object \(id)"
      guard let known = ObjectProperties.defaults[type] else {
        refuse(
          subject, type == "secret" ? "it was added after the start, and a secret cannot be read back" : "it (\(type)) was added after the start",
          wayOut: "remove it (QMP: object-del), or restart the VM with it in its arguments")
        continue
      }
      let values = parts.objects[id] ?? [:]
      var keys = [("id", id)]
      var isWhole = !values.isEmpty
      for name in values.keys.sorted() where name != "type" {
        guard let expected = known[name] else { continue }
        guard let word = Self.word(values[name]!) else {
          isWhole = isWhole && values[name] == .array([])
          continue
        }
        if word.isEmpty || expected.split(separator: "|").contains(Substring(word)) { continue }
        if expected.hasPrefix("!") { isWhole = isWhole && word == expected.dropFirst() } else { keys.append((name, word)) }
      }
      if !isWhole {
        refuse(subject, "it was added after the start with settings that cannot be rebuilt", wayOut: Drift.restart)
        continue
      }
      rebuilt(subject, "it was added after the start", as: add("object", implied: type, keys).text)
    }
  }

  var addedChardevs: [String] {
    // QEMU numbers its own; `serial-log` is somebody's.
    let implicit = ["serial", "parallel", "compat_monitor", "virtiocon", "sclpconsole", "gdb", "usbserial", "debugcon"]
    let said = MachineDescription(original).chardevIDs
    return live.chardevs.filter { label in
      let isImplicit = implicit.contains { label.hasPrefix($0) && label.dropFirst($0.count).allSatisfy(\.isNumber) }
      return !isImplicit && !said.contains(label) && !label.hasPrefix("moult-")
    }
  }

  mutating func rebuildChardevs() {
    for index in options.indices where options[index]?.name == "chardev" {
      guard let option = options[index], let id = option.parameters["id"], !id.hasPrefix("moult-") else { continue }
      guard let file = live.chardevFiles[id] else {
        if live.chardevs.contains(id) { continue }
        remove(index)
        rebuilt("character device \(id)", "it was removed after the start", as: "without \(option.text)")
        continue
      }
      // `chardev-change` puts another one under the same id.
      if option.parameters["backend"] == "socket", let path = option.parameters["path"], file.contains("unix:"), !file.contains("unix:" + path) {
        refuse("character device \(id)", "it is \(file), the arguments say \(path)")
      }
    }
    for id in addedChardevs {
      let subject = "character device \(id)", file = live.chardevFiles[id] ?? ""
      let address = parts.sockets[id]
      if file == "null" {
        rebuilt(subject, "it was added after the start", as: add("chardev", implied: "null", [("id", id)]).text)
      } else if file.hasPrefix("unix:") || file.hasPrefix("disconnected:unix:"), file.contains(",server"), let path = address?["path"]?.string,
        !(address?["abstract"]?.bool ?? false)
      {
        let keys = [("id", id), ("path", path), ("server", "on"), ("wait", "off")]
        rebuilt(subject, "it was added after the start", as: add("chardev", implied: "socket", keys).text)
      } else {
        refuse(
          subject, "it (\(file)) was added after the start, and is no unix socket that QEMU listens on",
          wayOut: "remove it (QMP: chardev-remove), or restart the VM with it in its arguments")
      }
    }
  }

  /// A line of `info network` for a network or a card: `net0: index=0,type=user,net=10.0.2.0,restrict=on`.
  struct Network: Sendable, Hashable {
    var name: String
    var type: String
    var settings: String

    init?(_ line: Substring) {
      let text = line.drop { $0 == " " || $0 == "\\" }
      guard let colon = text.firstIndex(of: ":") else { return nil }
      name = String(text[..<colon])
      let fields = text[text.index(after: colon)...].drop { $0 == " " }.split(separator: ",")
      guard fields.count >= 2, fields[0].hasPrefix("index="), fields[1].hasPrefix("type=") else { return nil }
      type = String(fields[1].dropFirst("type=".count))
      settings = fields.dropFirst(2).joined(separator: ",")
    }

    /// QEMU made the name up: `#net123`, `hub0port0`, `e1000.0`.
    var isImplicit: Bool { name.hasPrefix("#") || name.hasPrefix("__org.qemu") || name.contains(".") || type == "hubport" }
  }

  mutating func rebuildNetworks() {
    let there = live.networks
    for index in options.indices where options[index]?.name == "netdev" {
      guard let option = options[index], let id = option.parameters["id"], option.parameters["type"] != "hubport" else { continue }
      if there.contains(where: { $0.name == id }) || live.networkText.contains("\(id): index=") { continue }
      remove(index)
      rebuilt("network \(id)", "it was removed after the start", as: "without \(option.text)")
    }
    let said = Set(original.options.filter { ["netdev", "nic", "net"].contains($0.name) }.compactMap { $0.parameters["id"] })
    for network in there.sorted(by: { $0.name < $1.name }) where network.type != "nic" && !network.isImplicit && !said.contains(network.name) {
      let subject = "network \(network.name)"
      guard network.type == "user", network.settings == "net=10.0.2.0,restrict=on" else {
        refuse(
          subject, "it (\(network.type), \(network.settings)) was added after the start; only a user network with restrict=on can be made anew",
          wayOut: "unplug the network device first (QMP: device_del, netdev_del)")
        continue
      }
      rebuilt(subject, "it was added after the start", as: add("netdev", implied: "user", [("id", network.name), ("restrict", "on")]).text)
    }
  }
}

/// What is told of objects that were added: their properties with their defaults, which may differ between versions
/// (`0|2`); `*` stands for none, `!` for the only value that can be rebuilt.
enum ObjectProperties {
  private static let memory: [String: String] = [
    "size": "*", "share": "off", "merge": "on", "dump": "on", "policy": "!default", "host-nodes": "!", "prealloc": "off",
    "reserve": "on",
  ]

  static let defaults: [String: [String: String]] = {
    var limits: [String: String] = [:]
    for kind in ["bps", "iops"] {
      for direction in ["total", "read", "write"] {
        limits["x-\(kind)-\(direction)"] = "0"
        limits["x-\(kind)-\(direction)-max"] = "0"
        limits["x-\(kind)-\(direction)-max-length"] = "1"
      }
    }
    limits["x-iops-size"] = "0"
    func with(_ more: [String: String]) -> [String: String] { memory.merging(more) { $1 } }
    return [
      "iothread": [
        "poll-max-ns": "32768", "poll-grow": "0|2", "poll-shrink": "0|2", "aio-max-batch": "0", "thread-pool-min": "0", "thread-pool-max": "64",
        "poll-weight": "0|3",
      ],
      "throttle-group": limits, "rng-builtin": [:], "rng-random": ["filename": "*"],
      "memory-backend-ram": memory,
      "memory-backend-file": with(["mem-path": "*", "align": "0", "pmem": "!off", "readonly": "off", "discard-data": "off", "offset": "0", "rom": "!auto"]),
      "memory-backend-memfd": with(["share": "on", "seal": "on", "hugetlb": "off", "hugetlbsize": "0"]),
    ]
  }()
}

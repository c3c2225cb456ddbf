/// Objects, character devices and networks that were added or removed.
extension Rebuilding {
  var addedObjects: [String] {
    var said: [String: String] = [:]
    for option in original.options where option.name == "object" { said[option.parameters["id"] ?? ""] = option.parameters["qom-type"] ?? "" }
    // The RAM that -m makes is an object of the machine's own: `pc.ram`.
    return live.objects.filter { id, type in
      said[id].map { $0 != type && !ObjectProperties.isStandIn(type, for: $0) } ?? !(type.hasPrefix("memory-backend") && id.hasSuffix(".ram"))
    }.keys.sorted()
  }

  mutating func rebuildObjects() {
    let added = addedObjects
    for index in options.indices where options[index]?.name == "object" {
      guard let option = options[index], let id = option.parameters["id"] else { continue }
      if live.objects[id] != nil, !added.contains(id) {
        rebuildObject(index, id)
        continue
      }
      // Monitors are objects from 11.0 on, and are left out of the list.
      if option.parameters["qom-type"]?.hasPrefix("monitor") ?? false { continue }
      remove(index)
      rebuilt("object \(id)", "it was removed after the start", as: "without \(option.text)")
    }
    for id in added {
      let type = live.objects[id] ?? ""
      let subject = "object \(id)"
      guard ObjectProperties.defaults[type] != nil else {
        refuse(
          subject,
          type.hasPrefix("secret") ? "it was added after the start, and moult writes no secret into arguments" : "it (\(type)) was added after the start",
          wayOut: "remove it (QMP: object-del), or restart the VM with it in its arguments")
        continue
      }
      guard let keys = objectKeys(id, type) else {
        refuse(subject, "it was added after the start with settings that cannot be rebuilt", wayOut: Drift.restart)
        continue
      }
      rebuilt(subject, "it was added after the start", as: add("object", implied: type, keys).text)
    }
  }

  /// What makes an object what it is now; nil if QEMU does not tell all of it.
  private func objectKeys(_ id: String, _ type: String) -> [(String, String)]? {
    guard let known = ObjectProperties.defaults[type], let values = parts.objects[id], !values.isEmpty else { return nil }
    var keys = [("id", id)]
    for name in values.keys.sorted() where name != "type" {
      guard let expected = known[name] else { continue }
      guard let word = Self.word(values[name]!) else {
        if values[name] == .array([]) { continue }
        return nil
      }
      if word.isEmpty || ObjectProperties.isDefault(word, name, of: type) { continue }
      if !expected.hasPrefix("!") { keys.append((name, word)) } else if word != expected.dropFirst() { return nil }
    }
    return keys
  }

  /// Makes the option of an object what the object is: its properties were set (`qom-set`), or it was made anew
  /// under the same id.
  private mutating func rebuildObject(_ index: Int, _ id: String) {
    guard let option = options[index], let type = live.objects[id], ObjectProperties.isTold(type), let keys = objectKeys(id, type) else { return }
    let said = ObjectProperties.said(option.parameters, type)
    let now = Dictionary(keys.filter { $0.0 != "id" }) { $1 }
    if said == now { return }
    let changes = Set(said.keys).union(now.keys).sorted().filter { said[$0] != now[$0] }
    options[index]?.value = Self.text(implied: type, keys)
    hasChanged = true
    rebuilt(
      "object \(id)", "it was changed after the start: \(changes.map { "\($0) is \(now[$0] ?? "the default")" }.joined(separator: ", "))",
      as: options[index]?.text ?? "")
  }

  var addedChardevs: [String] { live.chardevs(beyond: MachineDescription(original).chardevIDs) }

  /// Character devices that options make, and that are something else now: `chardev-change` and `chardev-remove` with
  /// `chardev-add` put another one under the same id.
  var replacedChardevs: [(chardev: Chardev, place: Int)] {
    var describer = Describer(original, isPart: false)
    _ = describer.describe()
    var places: [String: [Int]] = [:]
    for index in original.options.indices { places[original.options[index].text, default: []].append(index) }
    return describer.chardevs.compactMap { chardev in
      // The same words may make several.
      guard let place = places[chardev.option]?.first else { return nil }
      places[chardev.option]?.removeFirst()
      guard let file = live.chardevFiles[chardev.id], chardev.id != "gdb" else { return nil }
      // A multiplexer stands before the one that the option makes.
      let text = ChardevText(file == "mux" ? live.chardevFiles[chardev.id + "-base"] ?? file : file)
      return text.isWhat(chardev, absolute: absolute) ? nil : (chardev, place)
    }
  }

  mutating func rebuildChardevs() {
    for index in options.indices where options[index]?.name == "chardev" {
      guard let option = options[index], let id = option.parameters["id"], !id.hasPrefix("moult-"), !live.chardevs.contains(id) else { continue }
      remove(index)
      rebuilt("character device \(id)", "it was removed after the start", as: "without \(option.text)")
    }
    var made: [String] = []
    for (chardev, place) in replacedChardevs {
      let subject = "character device \(chardev.id)", file = live.chardevFiles[chardev.id] ?? ""
      let what = "it is \(file) now, the arguments say \(chardev.option)"
      let isOption = original.options[place].name == "chardev"
      let keys = chardevKeys(chardev.id)
      // The short form has no way to write a comma.
      guard let keys, isOption || !(keys["path"]?.contains(",") ?? false) else {
        refuse(subject, what, wayOut: "change it back (QMP: chardev-change, chardev-remove, chardev-add), or restart the VM with it in its arguments")
        continue
      }
      options[place]?.value = isOption ? Self.text(implied: keys.backend, [("id", chardev.id)] + keys.entries) : keys.short
      hasChanged = true
      rebuilt(subject, what, as: options[place]?.text ?? "")
      made.append(chardev.id)
    }
    for id in addedChardevs {
      let subject = "character device \(id)"
      guard let keys = chardevKeys(id) else {
        refuse(
          subject, "it (\(live.chardevFiles[id] ?? "")) was added after the start, and is no socket that QEMU listens on and passes on what arrives",
          wayOut: "remove it (QMP: chardev-remove), or restart the VM with it in its arguments")
        continue
      }
      rebuilt(subject, "it was added after the start", as: add("chardev", implied: keys.backend, [("id", id)] + keys.entries).text)
      made.append(id)
    }
    if !made.isEmpty {
      unreadable.append("the character devices made after the start (\(made.joined(separator: ", "))) get no logfile=: whether they have one cannot be read back")
    }
  }

  private struct ChardevKeys {
    var backend: String
    var entries: [(String, String)]
    /// As `-serial` and `-monitor` have it.
    var short: String
    subscript(key: String) -> String? { entries.first { $0.0 == key }?.1 }
  }

  /// What makes a character device what it is now; nil if QEMU does not tell all of it.
  private func chardevKeys(_ id: String) -> ChardevKeys? {
    let text = ChardevText(live.chardevFiles[id] ?? "")
    if text.kind == "null" { return ChardevKeys(backend: "null", entries: [], short: "null") }
    guard text.isServer, let address = parts.sockets[id] else { return nil }
    func socket(_ entries: [(String, String)], _ short: String) -> ChardevKeys {
      ChardevKeys(backend: "socket", entries: entries + [("server", "on"), ("wait", "off")], short: short + ",server=on,wait=off")
    }
    if text.kind == "unix", let path = address["path"]?.string {
      guard address["abstract"]?.bool ?? false else { return socket([("path", path)], "unix:" + path) }
      let keys = [("abstract", "on")] + (address["tight"]?.bool == false ? [("tight", "off")] : [])
      return socket([("path", path)] + keys, "unix:\(path)," + keys.map { "\($0.0)=\($0.1)" }.joined(separator: ","))
    }
    // A port with TLS looks like any other.
    if text.kind == "tcp", let host = address["host"]?.string, let port = address["port"]?.string,
      !live.objects.values.contains(where: { $0.hasPrefix("tls-creds") })
    {
      return socket([("host", host), ("port", port)], "tcp:\(host.contains(":") ? "[\(host)]" : host):\(port)")
    }
    return nil
  }

  /// A line of `info network` for a network or a card: `net0: index=0,type=user,net=10.0.2.0,restrict=on`.
  struct Network: Sendable, Hashable {
    var name: String
    var type: String
    var settings: String

    init?(_ line: Substring) {
      var text = line.drop { $0 == " " || $0 == "\\" }
      // One that is plugged into a hub comes after its port.
      if let port = HubPort.port(of: text) { text = text.dropFirst(port.count + ": ".count) }
      guard let colon = text.firstIndex(of: ":") else { return nil }
      name = String(text[..<colon])
      let fields = text[text.index(after: colon)...].drop { $0 == " " }.split(separator: ",")
      guard fields.count >= 2, fields[0].hasPrefix("index="), fields[1].hasPrefix("type=") else { return nil }
      type = String(fields[1].dropFirst("type=".count))
      settings = fields.dropFirst(2).joined(separator: ",")
    }

    /// What is said of a tap, a connection or a socket's own port differs between twins: a new one has a stand-in.
    var comparableSettings: String {
      switch type {
      case "tap", "stream": ""
      // `udp=OWN/OTHER`, `mcast=GROUP`.
      case "dgram": String(settings.split(separator: "/").last ?? "")
      default: settings
      }
    }

    /// QEMU made the name up: `#net123`, `hub0port0`, `e1000.0`.
    var isImplicit: Bool { name.hasPrefix("#") || name.hasPrefix("__org.qemu") || name.contains(".") || type == "hubport" }
  }

  /// A line of `info network` for a port of a hub: ` \ port1: net0: index=0,…`.
  struct HubPort: Sendable, Hashable {
    var hub: String
    var name: String
    /// What is plugged in; nil if nothing is.
    var peer: Network?

    static func all(in text: String) -> [HubPort] {
      var hub: String?
      var found: [HubPort] = []
      for line in text.split(whereSeparator: \.isNewline) {
        if line.hasPrefix("hub ") {
          hub = String(line.dropFirst("hub ".count))
        } else if let hub, line.hasPrefix(" \\ ") {
          let text = line.dropFirst(" \\ ".count)
          found.append(HubPort(hub: hub, name: port(of: text) ?? String(text), peer: Network(line)))
        } else {
          hub = nil
        }
      }
      return found
    }

    /// The port in a line that names a port and what is plugged in.
    static func port(of text: Substring) -> String? {
      let words = text.split(separator: " ", maxSplits: 2)
      guard words.count > 2, words[0].hasSuffix(":"), words[1].hasSuffix(":"), words[2].hasPrefix("index=") else { return nil }
      return String(words[0].dropLast())
    }

    /// `hub0port1`, as those of `-net` are called.
    var isImplicit: Bool { name.hasPrefix("hub\(hub)port") }

    var comparable: String {
      "hub \(hub) \(name): " + (peer.map { "\($0.isImplicit || $0.type == "nic" ? "" : $0.name) \($0.type) \($0.comparableSettings)" } ?? "nothing")
    }
  }

  private mutating func rebuildHubPorts() {
    let ports = live.hubPorts
    var said: Set<String> = []
    for index in options.indices where options[index]?.name == "netdev" {
      guard let option = options[index], option.parameters["type"] == "hubport", let id = option.parameters["id"] else { continue }
      said.insert(id)
      if ports.contains(where: { $0.name == id }) { continue }
      remove(index)
      rebuilt("network \(id)", "it was removed after the start", as: "without \(option.text)")
    }
    for port in ports.sorted(by: { $0.name < $1.name }) where !port.isImplicit && !said.contains(port.name) {
      var keys = [("id", port.name), ("hubid", port.hub)]
      if let peer = port.peer, peer.type != "nic" { keys.append(("netdev", peer.name)) }
      rebuilt("network \(port.name)", "it was added after the start", as: add("netdev", implied: "hubport", keys).text)
    }
  }

  mutating func rebuildNetworks() {
    defer { rebuildHubPorts() }
    let there = live.networks
    for index in options.indices where options[index]?.name == "netdev" {
      guard let option = options[index], let id = option.parameters["id"], option.parameters["type"] != "hubport" else { continue }
      if there.contains(where: { $0.name == id }) || live.networkText.contains("\(id): index=") { continue }
      remove(index)
      rebuilt("network \(id)", "it was removed after the start", as: "without \(option.text)")
    }
    let said = Set(original.options.filter { ["netdev", "nic", "net"].contains($0.name) }.compactMap { $0.parameters["id"] })
    let new = there.sorted { $0.name < $1.name }.filter { $0.type != "nic" && !$0.isImplicit && !said.contains($0.name) }
    // Those of the arguments that are left have theirs; the others all have one, or none has: else it is refused later.
    var left = original
    left.options = result
    let rest = vhosts - left.taps.filter(\.wantsVhost).map(\.queues).reduce(0, +)
    let vhost = rest > 0 && rest == new.count { $0.type == "tap" } ? [("vhost", "on")] : []
    var made: Set<String> = []
    for network in new where !made.contains(network.name) {
      let subject = "network \(network.name)"
      let queues = new.filter { $0.name == network.name }
      if network.type == "tap", let keys = Self.tap(queues.map(\.settings)) {
        rebuilt(subject, "it was added after the start", as: add("netdev", implied: "tap", [("id", network.name)] + keys + vhost).text)
        made.insert(network.name)
        continue
      }
      guard network.type == "user", network.settings == "net=10.0.2.0,restrict=on" else {
        refuse(
          subject, "it (\(network.type), \(network.settings)) was added after the start; only a tap, by name or descriptor, and a user network with restrict=on, can be made anew",
          wayOut: "unplug the network device first (QMP: device_del, netdev_del)")
        continue
      }
      rebuilt(subject, "it was added after the start", as: add("netdev", implied: "user", [("id", network.name), ("restrict", "on")]).text)
    }
  }

  /// A tap is found again by the name of its interface, or by its number in QEMU. Its scripts have run.
  /// - Parameter queues: of each `ifname=tap0,script=no,downscript=no`, `fd=31` or `helper=…,br=br0`.
  private static func tap(_ queues: [String]) -> [(String, String)]? {
    func values(_ key: String) -> [String] {
      queues.compactMap { $0.split(separator: ",").first { $0.hasPrefix(key + "=") }.map { String($0.dropFirst(key.count + 1)) } }
    }
    let count = queues.count
    let numbers = values("fd").filter { Int32($0) != nil }
    if numbers.count == count { return [(count == 1 ? "fd" : "fds", numbers.joined(separator: ":"))] }
    let names = values("ifname")
    guard let name = names.first, names.count == count, Set(names).count == 1 else { return nil }
    return [("ifname", name)] + (count == 1 ? [] : [("queues", "\(count)")]) + [("script", "no"), ("downscript", "no")]
  }
}

extension LiveMachine {
  /// Character devices that neither an option makes, with one of these ids, nor QEMU or moult for itself.
  public func chardevs(beyond said: [String]) -> [String] {
    // QEMU numbers its own; `serial-log` is somebody's.
    let implicit = ["serial", "parallel", "compat_monitor", "virtiocon", "sclpconsole", "gdb", "usbserial", "debugcon"]
    return chardevs.filter { label in
      let isImplicit = implicit.contains { label.hasPrefix($0) && label.dropFirst($0.count).allSatisfy(\.isNumber) }
      // What a multiplexer stands before is called after it.
      let isBehindMultiplexer = label.hasSuffix("-base") && chardevFiles[String(label.dropLast("-base".count))] == "mux"
      return !isImplicit && !isBehindMultiplexer && !said.contains(label) && !label.hasPrefix("moult-")
    }
  }
}

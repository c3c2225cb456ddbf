/// Drives of `-drive` and its old forms, and what devices of a node of their own hold.
extension Rebuilding {
  /// Nodes that `-drive` makes by itself: its outermost one and that one's file.
  var driveNodes: Set<String> {
    var names: Set<String> = []
    for backend in graph.backends where !backend.label.isEmpty {
      guard let root = backend.root, !madeNodes.contains(root) else { continue }
      names.insert(root)
      if let file = graph.nodes[root]?.children["file"], !madeNodes.contains(file) { names.insert(file) }
    }
    return names
  }

  mutating func rebuildDrives() {
    var names = DriveNames(machineType: live.machineType)
    var known: Set<String> = []
    // Images of drives whose names cannot be told: undrifted they are the new QEMU's by the same words.
    var unnamed: [String] = []
    var hasUnnamed = false
    for index in options.indices {
      guard let option = options[index] else { continue }
      let old = DriveNames.keys(of: option)
      if option.name != "drive", old == nil { continue }
      let drive = old.map { OptionValue(Self.text($0)) } ?? option.parameters
      guard let name = names.next(drive) else {
        if let file = Self.file(of: drive) { unnamed.append(absolute(file)) }
        hasUnnamed = true
        continue
      }
      known.insert(name)
      guard let backend = graph.backends.first(where: { $0.label == name }) else {
        remove(index)
        rebuilt("drive \(name)", "it was removed after the start", as: "without \(option.text)")
        continue
      }
      var new = drive
      guard let what = rebuild(&new, backend), new.text != drive.text else { continue }
      options[index] = CommandOption(name: "drive", value: new.text)
      hasChanged = true
      rebuilt("drive \(name)", what, as: options[index]!.text)
    }
    for backend in graph.backends where !backend.label.isEmpty && !known.contains(backend.label) {
      if hasUnnamed {
        let path = backend.root.flatMap { graph.nodes[$0] }.map { absolute(graph.path($0)) }
        if !(path.map(unnamed.contains) ?? false) {
          refuse("drive \(backend.label)", "which option made it cannot be told, and it uses \(path ?? "no image")", wayOut: "start the VM with id= for each -drive")
        }
        continue
      }
      let place = names.defaultDrive(backend.label)
      // The machine makes these empty by itself, and so it does in the new QEMU.
      if backend.root == nil, place != nil { continue }
      var new = OptionValue(Self.text(place ?? [("if", "none"), ("id", backend.label)]))
      guard rebuild(&new, backend) != nil || backend.root == nil else { continue }
      added.append(CommandOption(name: "drive", value: new.text))
      hasChanged = true
      let what = place == nil ? "it was added after the start" : "it was given \(backend.root.flatMap { graph.nodes[$0] }.map(graph.path) ?? "") after the start"
      rebuilt("drive \(backend.label)", what, as: added.last!.text)
    }
  }

  /// Makes the keys of a drive what it is now.
  /// - Returns: what has changed; nil if nothing has, or if it is refused.
  private mutating func rebuild(_ drive: inout OptionValue, _ backend: BlockGraph.Backend) -> String? {
    // Its node is a file that QEMU has deleted already; the drive is refused for that.
    if drive["snapshot"].map(OptionValue.isOn) ?? original.options.contains(where: { $0.name == "snapshot" }) { return nil }
    let subject = "drive \(backend.label)"
    var changes: [String] = []
    guard let root = backend.root.flatMap({ graph.nodes[$0] }) else {
      guard let file = Self.file(of: drive) else { return nil }
      for key in ["file", "format", "driver", "node-name", "backing"] { drive.removeTree(key) }
      for entry in drive.entries where !Self.isCommon(entry.key) { drive.remove(entry.key) }
      return "it is empty, the arguments say \(file)"
    }
    let path = graph.path(root)
    let said = Self.file(of: drive)
    let format = drive["format"] ?? drive["driver"]
    let (scheme, plain) = said.map(BlockDriver.split) ?? (nil, "")
    // What is no file of the host is refused as such; the comparison of the twins proves that it is the same.
    if let scheme, scheme != "file", scheme != "host_device" { return nil }
    if said == nil, graph.isRemote(root), case .node(let inner)? = drive.blockOption.children["file"],
      inner.keys["driver"].map(BlockDriver.isRemote) ?? false { return nil }
    if said == nil || absolute(plain) != absolute(path) || format.map({ $0 != root.driver }) ?? false {
      guard mayBeDrive(root, subject) else { return nil }
      for key in ["driver", "node-name", "backing"] { drive.removeTree(key) }
      for entry in drive.entries where entry.key.hasPrefix("file.") && !NodeSettings.isOne(String(entry.key.dropFirst("file.".count))) { drive.remove(entry.key) }
      // Settings of another format's would be refused by this one.
      if format != root.driver { for entry in drive.entries where !Self.isCommon(entry.key) && !entry.key.hasPrefix("file") { drive.remove(entry.key) } }
      drive.set("file", to: path)
      drive.set("format", to: root.driver)
      changes.append("it uses \(path), \(said.map { "the arguments say \($0)" } ?? "the arguments say that it is empty")")
    }
    if !root.isAnonymous, drive["node-name"] != root.name {
      drive.set("node-name", to: root.name)
      if changes.isEmpty { changes.append("its node is called \(root.name)") }
    }
    let saysBelow = drive.blockOption.children["backing"]
    if !isSameBelow(saysBelow, root) {
      drive.removeTree("backing")
      if let below = root.children["backing"] {
        if !graph.followsHeader(root) { drive.set("backing", to: reference(to: below, for: subject)) }
      } else if root.headerBacking != nil {
        drive.set("backing", to: "")
      }
      if changes.isEmpty { changes.append("what is below \(path) is not what the arguments or its header say") }
    }
    let isCD = drive["media"] == "cdrom"
    let saysReadOnly = drive.isOn("read-only") || drive.isOn("readonly") || isCD
    if root.isReadOnly != saysReadOnly, !drive.isOn("auto-read-only") {
      drive.remove("readonly")
      drive.set("read-only", to: root.isReadOnly)
      changes.append(root.isReadOnly ? "it is read-only" : "it is written to")
    }
    if root.detectsZeroes != drive["detect-zeroes"] ?? "off" {
      if root.detectsZeroes == "off" { drive.remove("detect-zeroes") } else { drive.set("detect-zeroes", to: root.detectsZeroes) }
      if changes.isEmpty { changes.append("detect-zeroes is \(root.detectsZeroes)") }
    }
    changes += rebuildLimits(&drive, backend)
    return changes.isEmpty ? nil : changes.joined(separator: ", ")
  }

  private func isSameBelow(_ said: BlockOption.Child?, _ root: BlockGraph.Node) -> Bool {
    switch (said, root.children["backing"]) {
    case (nil, _): graph.followsHeader(root)
    case (.reference(let name), let below?): name == below
    case (.nothing, nil): true
    // Told in the arguments by file name: whether it is the same, the comparison of the twins proves.
    case (.node(let node), let below?):
      node.keys["filename"].map(absolute) ?? Self.inner(node).map(absolute) == graph.nodes[below].map(graph.path).map(absolute)
    default: false
    }
  }

  private static func inner(_ node: BlockOption) -> String? {
    if let path = node.keys["filename"] { return path }
    if case .node(let file)? = node.children["file"] { return inner(file) }
    return nil
  }

  /// Whether `file=` and `format=` can say a node and the file below it.
  private mutating func mayBeDrive(_ root: BlockGraph.Node, _ subject: String) -> Bool {
    func refuse(_ why: String) -> Bool {
      self.refuse(subject, "it uses \(graph.path(root)), \(why)")
      return false
    }
    if madeNodes.contains(root.name) || graph.nodes.values.contains(where: { $0.children.values.contains(root.name) }) {
      return refuse("by a node (\(root.name)) that others use, too, which -drive cannot say")
    }
    guard Self.plainDrivers.contains(root.driver), !root.isEncrypted else { return refuse("by a node (\(root.driver)) that QEMU does not tell all of") }
    if root.children.keys.contains(where: { $0 != "file" && $0 != "backing" }) { return refuse("which has parts that cannot be rebuilt") }
    var file = root
    if let child = root.children["file"].flatMap({ graph.nodes[$0] }) {
      file = child
      if !child.isAnonymous { return refuse("by a node of its file (\(child.name)) that has a name, which -drive cannot say") }
    }
    if !["file", "host_device"].contains(file.driver) || file.file.hasPrefix("json:") { return refuse("which is no plain file or block device") }
    if root.file.hasPrefix("json:"), BlockGraph.own(root.file)?.contains(where: { $0.value.object == nil && $0.key != "driver" && $0.key != "backing" }) ?? true {
      return refuse("with settings (\(root.file)) that cannot be rebuilt")
    }
    return true
  }

  /// The image as a drive's keys name it.
  static func file(of drive: OptionValue) -> String? {
    if let file = drive["file"], !file.isEmpty { return BlockGraph.path(file) }
    return inner(drive.blockOption)
  }

  /// Keys of `-drive` that are not the format's.
  private static func isCommon(_ key: String) -> Bool {
    ["if", "id", "index", "bus", "unit", "media", "snapshot", "cache", "aio", "discard", "format", "werror", "rerror", "readonly",
      "read-only", "auto-read-only", "copy-on-read", "detect-zeroes", "serial", "locking", "stats-account-invalid",
      "stats-account-failed", "group", "bps", "iops", "iops_size",
    ].contains(key) || ["cache.", "throttling.", "bps_", "iops_"].contains { key.hasPrefix($0) }
  }

  /// Makes the throttling of a drive what is in force.
  private func rebuildLimits(_ drive: inout OptionValue, _ backend: BlockGraph.Backend) -> [String] {
    let before = drive.text
    for (live, key) in BlockGraph.limitKeys.sorted(by: { $0.value < $1.value }) {
      // `bps_rd` and the like are aliases, which may not stand beside the name itself.
      let own = drive[live] == nil ? key : live
      let said = drive[own].flatMap { Int64($0) } ?? 0
      let isLength = key.hasSuffix("-length")
      let now = backend.limits[live] ?? 0
      // The length of a burst is 1 where nothing is said, and is told only while there are limits.
      if isLength, now <= 1, said <= 1 { continue }
      if said == now { continue }
      if now == 0 { drive.remove(own) } else { drive.set(own, to: .number(UInt64(now))) }
    }
    let saysGroup = drive["throttling.group"] ?? drive["group"]
    if !backend.limits.isEmpty, let group = backend.group, group != saysGroup ?? backend.label {
      drive.set(drive["group"] == nil ? "throttling.group" : "group", to: group)
    }
    return drive.text == before ? [] : ["its limits were changed"]
  }

  /// Devices that were given a node: which one they have now.
  mutating func rebuildAttachments() {
    for backend in graph.backends where backend.label.isEmpty && !backend.device.isEmpty {
      let subject = "drive of \(Self.shortName(backend.device))"
      if !backend.limits.isEmpty {
        refuse(
          subject, "it was given limits after the start, which only a -drive can be given at the start",
          wayOut: "take the limits away (QMP: block_set_io_throttle with 0), and set them again after the upgrade")
      }
      guard let index = deviceOption(of: backend.device), let option = options[index] else { continue }
      let said = option.parameters["drive"]
      guard let root = backend.root else {
        guard let said else { continue }
        change(index) { $0.remove("drive") }
        rebuilt(subject, "it is empty, the arguments say \(said)", as: options[index]?.text ?? "")
        continue
      }
      if said == root { continue }
      // The label of a -drive that this device took over.
      if let said, graph.backends.contains(where: { $0.label == said }) { continue }
      let before = original.options.first { $0.name == "blockdev" && $0.parameters["node-name"] == said }
      settings = before.map { settings(of: $0.parameters.blockOption) } ?? NodeSettings()
      let name = reference(to: root, for: subject)
      settings = NodeSettings()
      change(index) { $0.set("drive", to: name) }
      rebuilt(
        subject, "it uses \(graph.nodes[root].map(graph.path) ?? root), \(said.map { "the arguments say \($0)" } ?? "the arguments say that it is empty")",
        as: options[index]?.text ?? "")
    }
  }

  /// A device's id, or its number among those without: `blk0` for `/machine/peripheral/blk0/virtio-backend`.
  static func shortName(_ device: String) -> String {
    let parts = device.split(separator: "/")
    return parts.count > 2 && parts[1].hasPrefix("peripheral") ? String(parts[2]) : device
  }

  /// The `-device` that made a device.
  /// - Parameter name: an id or a QOM path, which may lead to a part of the device.
  func deviceOption(of name: String) -> Int? {
    var id = name
    let named = "/machine/peripheral/", anonymous = "/machine/peripheral-anon/device["
    if name.hasPrefix(named) {
      id = String(name.dropFirst(named.count).prefix { $0 != "/" })
    } else if name.hasPrefix(anonymous) {
      return Int(name.dropFirst(anonymous.count).prefix { $0 != "]" }).flatMap { anonymousOption($0) }
    }
    return options.firstIndex { $0?.name == "device" && $0?.parameters["id"] == id }
  }

  /// The `-device` without id that made `/machine/peripheral-anon/device[number]`: those in comma syntax come
  /// first, those that `-drive if=virtio` makes after them, those in JSON last. Source: `qemu_create_cli_devices`.
  func anonymousOption(_ number: Int) -> Int? {
    let places = anonymousOptions
    return number < places.count ? places[number] : nil
  }

  var anonymousOptions: [Int] {
    func places(_ isWanted: (CommandOption) -> Bool) -> [Int] { original.options.indices.filter { isWanted(original.options[$0]) } }
    func isAnonymous(_ option: CommandOption) -> Bool { option.name == "device" && option.parameters["id"]?.isEmpty ?? true }
    return places { (isAnonymous($0) && !$0.parameters.isJSON) || $0.name == "virtfs" }
      + places { $0.name == "drive" && $0.parameters["if"] == "virtio" } + places { isAnonymous($0) && $0.parameters.isJSON }
  }
}

/// Block nodes that options make, and those that do not exist any more.
extension Rebuilding {
  /// Drivers whose nodes are told wholly by their children, their file name and what `query-named-block-nodes` says.
  static let plainDrivers: Set<String> = ["file", "host_device", "raw", "qcow2", "qcow", "qed", "vmdk", "vdi", "vhdx", "vpc", "parallels"]

  mutating func rebuildBlocks() {
    for option in original.options where option.name == "blockdev" { madeNodes.formUnion(option.parameters.blockOption.names.made) }
    // What a job has put into the graph goes when it ends: until then the VM is refused for it.
    if !live.blockJobs.isEmpty { return }
    var removed = Set(madeNodes.filter { graph.nodes[$0] == nil })
    rebuildDrives()
    rebuildAttachments()
    for index in options.indices where options[index]?.name == "blockdev" { rebuildNode(index, &removed) }
    // What nothing above has asked for: nodes that wait for a device.
    for name in graph.nodes.keys.sorted() where !graph.nodes[name]!.isAnonymous && !madeNodes.contains(name) && !driveNodes.contains(name) {
      make(name, for: "block node \(name)")
    }
    // Exports are looked at by themselves.
    for (name, uses) in graph.otherwiseUsed.sorted(by: { $0.key < $1.key }) where uses > live.exports.count(where: { $0.node == name }) {
      refuse("block node \(name)", "something other than a disk uses it: a job, or another program", wayOut: "end what uses it (QMP: query-block-jobs)")
    }
  }

  /// Makes one `-blockdev` what its node is now.
  private mutating func rebuildNode(_ index: Int, _ removed: inout Set<String>) {
    guard let option = options[index] else { return }
    let said = option.parameters.blockOption
    guard let name = said.name else { return }
    let subject = "block node \(name)"
    guard let node = graph.nodes[name] else {
      remove(index)
      rebuilt(subject, "it was removed after the start", as: "without \(option.text)")
      return
    }
    // One inside it that is not what it was: the whole is told anew, with the settings that QEMU does not tell.
    if node.driver != said.keys["driver"] || !isSame(said, node, deep: true) {
      settings = settings(of: said)
      defer { settings = NodeSettings() }
      guard let keys = keys(of: name, subject: subject) else { return }
      let new = CommandOption(name: "blockdev", value: Self.text(keys))
      options[index] = new
      hasChanged = true
      rebuilt(subject, "it is another image or stands on others than the arguments say", as: new.text)
      return
    }
    var changes: [String] = []
    for role in Set(said.children.keys).union(node.children.keys).sorted() where !isSame(said.children[role], role, node) {
      let child = node.children[role].map { reference(to: $0, for: subject) }
      change(index) { value in
        value.removeTree(role)
        if let child {
          value.set(role, to: child)
        } else if node.headerBacking != nil {
          value.set(role, to: "")
        }
      }
      changes.append(node.children[role].map { "\(role) is \(graph.nodes[$0].map(graph.path) ?? $0)" } ?? "it has no \(role)")
    }
    let saysReadOnly = said.keys["read-only"].map(OptionValue.isOn) ?? false
    let adapts = said.keys["auto-read-only"].map(OptionValue.isOn) ?? false
    if node.isReadOnly != saysReadOnly, !(adapts && node.isReadOnly) {
      change(index) { $0.set("read-only", to: node.isReadOnly) }
      changes.append(node.isReadOnly ? "it is only read now" : "it is written to now")
    }
    if !changes.isEmpty { rebuilt(subject, changes.joined(separator: ", "), as: options[index]?.text ?? "") }
  }

  /// Whether what an option says of a node is what the node is, its named children aside.
  /// - Parameter deep: only what is inside its children: the node's own children can be changed one by one.
  private func isSame(_ said: BlockOption, _ node: BlockGraph.Node, deep: Bool) -> Bool {
    if let path = said.keys["filename"], absolute(path) != absolute(BlockGraph.path(node.file)) { return false }
    for role in Set(said.children.keys).union(node.children.keys) {
      if deep {
        guard case .node(let inner)? = said.children[role], let child = node.children[role].flatMap({ graph.nodes[$0] }) else { continue }
        if inner.name ?? "" != (child.isAnonymous ? "" : child.name) { continue }
        if !isInner(inner, child) { return false }
      } else if !isSame(said.children[role], role, node) {
        return false
      }
    }
    return true
  }

  private func isSame(_ said: BlockOption.Child?, _ role: String, _ node: BlockGraph.Node) -> Bool {
    let child = node.children[role].flatMap { graph.nodes[$0] }
    switch (said, child) {
    case (.reference(let name), let child?): return name == child.name
    case (.node(let inner), let child?):
      return inner.name ?? "" == (child.isAnonymous ? "" : child.name) && isInner(inner, child)
    case (.nothing, nil): return true
    case (nil, _): return role == "backing" && graph.followsHeader(node)
    default: return false
    }
  }

  private func isInner(_ said: BlockOption, _ node: BlockGraph.Node) -> Bool {
    (said.keys["driver"].map { $0 == node.driver } ?? true) && isSame(said, node, deep: false)
  }

  /// Settings of the nodes that an option makes which QEMU does not tell.
  func settings(of said: BlockOption) -> NodeSettings {
    var settings = NodeSettings(format: said.keys.filter { NodeSettings.isOne($0.key) })
    switch said.children["file"] {
    case .node(let file)?: settings.file = file.keys.filter { NodeSettings.isOne($0.key) }
    case .reference(let name)?:
      let option = original.options.first { $0.name == "blockdev" && $0.parameters["node-name"] == name }
      settings.file = option?.parameters.blockOption.keys.filter { NodeSettings.isOne($0.key) } ?? [:]
    default: break
    }
    return settings
  }

  /// The name by which another option can refer to a node, which is made if no option makes it.
  mutating func reference(to name: String, for subject: String) -> String {
    if madeNodes.contains(name), graph.nodes[name] != nil { return name }
    if let given = givenNames[name] { return given }
    make(name, for: subject)
    return givenNames[name] ?? name
  }

  /// Adds a `-blockdev` for a node.
  mutating func make(_ name: String, for subject: String) {
    guard let node = graph.nodes[name], givenNames[name] == nil else { return }
    if node.isAnonymous {
      givenNames[name] = freshName()
    } else {
      guard madeNodes.insert(name).inserted else { return }
    }
    guard let keys = keys(of: name, subject: subject) else { return }
    if settings == NodeSettings(), node.children["backing"] == nil || !node.isReadOnly {
      unreadable.append(
        "\(graph.path(node)) was opened after the start: discard=, aio=, lazy-refcounts= and the sizes of its caches cannot be read back, and are QEMU's defaults")
    }
    let option = add("blockdev", keys)
    rebuilt(node.isAnonymous ? subject : "block node \(name)", "\(graph.path(node)) is in use, which the arguments do not say", as: option.text)
  }

  private func freshName() -> String {
    var number = 1
    let taken = Set(graph.nodes.keys).union(givenNames.values)
    while taken.contains("moult-\(number)") { number += 1 }
    return "moult-\(number)"
  }

  /// All that tells a node; nil, and refused, if that cannot be told.
  private mutating func keys(of name: String, subject: String) -> [(String, String)]? {
    var keys: [(String, String)] = []
    return tell(name, prefix: "", parent: nil, depth: 0, subject: subject, into: &keys) ? keys : nil
  }

  private mutating func tell(
    _ name: String, prefix: String, parent: (role: String, node: BlockGraph.Node)?, depth: Int, subject: String,
    into keys: inout [(String, String)]
  ) -> Bool {
    guard let node = graph.nodes[name], depth < 200 else { return false }
    guard Self.plainDrivers.contains(node.driver), !node.isEncrypted else {
      refuse(subject, "a node of \(node.isEncrypted ? "an encrypted image" : "the driver \(node.driver)") was added after the start, which QEMU does not tell all of")
      return false
    }
    keys.append((prefix + "driver", node.driver))
    if let given = node.isAnonymous ? givenNames[name] : name { keys.append((prefix + "node-name", given)) }
    let isProtocol = node.children.isEmpty
    if isProtocol { keys.append((prefix + "filename", BlockGraph.path(node.file))) }
    if node.file.hasPrefix("json:") {
      guard let own = BlockGraph.own(node.file) else {
        refuse(subject, "QEMU calls its image \(node.file), which is not understood")
        return false
      }
      for (key, value) in own.sorted(by: { $0.key < $1.key }) where value.object == nil && !["driver", "filename", "backing", "node-name"].contains(key) {
        guard node.driver == "raw", let number = value.integer, ["offset", "size"].contains(key) else {
          refuse(subject, "QEMU calls its image \(node.file), whose \(key) cannot be rebuilt")
          return false
        }
        keys.append((prefix + key, "\(number)"))
      }
    }
    if parent == nil || parent?.role == "backing" || parent?.node.isReadOnly != node.isReadOnly {
      if node.isReadOnly || parent != nil { keys.append((prefix + "read-only", node.isReadOnly ? "on" : "off")) }
    }
    // A file of its own node keeps the right to write for when it is asked for.
    if parent == nil, isProtocol, !node.isReadOnly { keys.append((prefix + "auto-read-only", "on")) }
    if node.isDirect != parent?.node.isDirect ?? false { keys.append((prefix + "cache.direct", node.isDirect ? "on" : "off")) }
    if node.ignoresFlush != parent?.node.ignoresFlush ?? false { keys.append((prefix + "cache.no-flush", node.ignoresFlush ? "on" : "off")) }
    if !prefix.contains("backing") {
      for (key, value) in (isProtocol ? settings.file : settings.format).sorted(by: { $0.key < $1.key })
      where !keys.contains(where: { $0.0 == prefix + key }) { keys.append((prefix + key, value)) }
    }
    if node.detectsZeroes != "off", !keys.contains(where: { $0.0 == prefix + "detect-zeroes" }) { keys.append((prefix + "detect-zeroes", node.detectsZeroes)) }
    // QEMU does the one only with the other.
    if node.detectsZeroes == "unmap", !keys.contains(where: { $0.0 == prefix + "discard" }) { keys.append((prefix + "discard", "unmap")) }
    for (role, child) in node.children.sorted(by: { $0.key > $1.key }) {
      guard role == "file" || role == "backing" else {
        refuse(subject, "its image has a part (\(role)) that cannot be rebuilt")
        return false
      }
      if graph.nodes[child]?.isAnonymous ?? false, givenNames[child] == nil {
        guard tell(child, prefix: prefix + role + ".", parent: (role, node), depth: depth + 1, subject: subject, into: &keys) else { return false }
      } else {
        keys.append((prefix + role, reference(to: child, for: subject)))
      }
    }
    if node.children["backing"] == nil, node.headerBacking != nil { keys.append((prefix + "backing", "")) }
    return true
  }

  /// Puts every `-blockdev` behind those that it refers to, which QEMU opens in order.
  mutating func sortNodes() {
    var waiting: [(option: CommandOption, made: [String], needed: [String])] = []
    var first: Int?
    for index in options.indices where options[index]?.name == "blockdev" {
      first = first ?? index
      let names = options[index]!.parameters.blockOption.names
      waiting.append((options[index]!, names.made, names.needed))
      options[index] = nil
    }
    for option in added where option.name == "blockdev" {
      let names = option.parameters.blockOption.names
      waiting.append((option, names.made, names.needed))
    }
    added.removeAll { $0.name == "blockdev" }
    var sorted: [CommandOption] = []
    while !waiting.isEmpty {
      let open = Set(waiting.flatMap(\.made))
      let place = waiting.firstIndex { entry in !entry.needed.contains { open.contains($0) && !entry.made.contains($0) } } ?? 0
      sorted.append(waiting.remove(at: place).option)
    }
    let place = first ?? options.count
    options.replaceSubrange(place..<place, with: sorted.map { $0 })
  }
}

/// Settings of a node that QEMU does not tell the values of. A node that was put in another's place gets that one's.
struct NodeSettings: Equatable {
  var format: [String: String] = [:]
  var file: [String: String] = [:]

  static func isOne(_ key: String) -> Bool {
    ["aio", "discard", "locking", "drop-cache", "lazy-refcounts", "pass-discard-request", "pass-discard-snapshot",
      "pass-discard-other", "l2-cache-size", "refcount-cache-size", "cache-clean-interval", "discard-no-unref",
    ].contains(key)
  }
}

/// One block node of the command line: what it opens and what it stands on.
struct BlockNode {
  var name: String?
  /// The path of the host that it opens.
  var filename: String?
  /// What it opens if that is no plain path.
  var target: BlockDriver.Target?
  /// As the node says itself; nil if it does not.
  var readOnly: Bool?
  var autoReadOnly = false
  /// Names of the nodes it refers to.
  var children: [String] = []
  /// Places in the list of the nodes inside it.
  var inner: [Int] = []
  /// What it only reads where it has nothing of its own: a place in the list, or a name.
  var innerBacking: Int?
  var backing: String?
  var drive: Drive
  var rootName: String?

  /// The option that the node belongs to.
  struct Drive {
    var option: CommandOption
    /// `id` of `-drive`.
    var id: String?
    /// As the option says; nil if each node says it for itself.
    var readOnly: Bool?
    /// Flash memory of the machine, not a disk.
    var isFirmware = false
  }
}

extension Describer {
  /// `-drive` and `-blockdev`: a tree of nodes, in dotted keys or nested JSON.
  mutating func blockOption(_ option: CommandOption, _ parameters: OptionValue) {
    var entries = parameters.entries.map { ($0.key, $0.value) }
    guard option.name == "drive" else {
      _ = nodes(entries, BlockNode.Drive(option: option))
      return
    }
    let drive = self.drive(option, parameters)
    // The file name of a -drive has its own rules, and is read by them.
    if let name = parameters["file"] {
      entries.removeAll { $0.0 == "file" || $0.0 == "node-name" }
      self.drive(filename: name, drive, nodeName: parameters["node-name"], driver: parameters["file.driver"])
    }
    _ = nodes(entries, drive)
  }

  private mutating func drive(_ option: CommandOption, _ parameters: OptionValue) -> BlockNode.Drive {
    if let id = parameters["id"] { result.driveIDs.append(id) }
    if parameters["if"] == "virtio" { result.anonymousDevices += 1 }
    let isSnapshot = parameters.isOn("snapshot")
    if isSnapshot {
      block(
        option, "the guest's writes are in a temporary file that only the old QEMU can see",
        "start the VM on an overlay image instead of snapshot=on")
    }
    let readOnly =
      isSnapshot || parameters.isOn("readonly") || parameters.isOn("read-only") || parameters["media"] == "cdrom"
    return BlockNode.Drive(
      option: option, id: parameters["id"], readOnly: readOnly || has("snapshot"),
      isFirmware: parameters["if"] == "pflash")
  }

  /// Builds the nodes of one tree; gives the place of its root.
  private mutating func nodes(
    _ entries: [(String, String)], _ drive: BlockNode.Drive, isRoot: Bool = true, rootName: String? = nil
  ) -> Int? {
    let option = drive.option
    var own: [String: String] = [:]
    var nested: [(key: String, entries: [(String, String)])] = []
    for (key, value) in entries {
      guard let dot = key.firstIndex(of: "."), Self.hasChildNode(key[..<dot]) else {
        own[key] = value
        continue
      }
      // `children.0.driver` of quorum has two steps to a child.
      var head = String(key[..<dot])
      var tail = key[key.index(after: dot)...]
      if head == "children" || head == "nodes", let second = tail.firstIndex(of: ".") {
        head += "." + tail[..<second]
        tail = tail[tail.index(after: second)...]
      }
      if head == "children", !tail.contains(".") {
        own["children.\(tail)"] = value
        continue
      }
      if let index = nested.firstIndex(where: { $0.key == head }) {
        nested[index].entries.append((String(tail), value))
      } else {
        nested.append((head, [(String(tail), value)]))
      }
    }
    // `filename` as a key is a path, whatever it looks like: only a file name alone has a protocol.
    let driver = own["driver"] ?? own["format"] ?? ""
    let name = own["node-name"]
    var node = BlockNode(
      name: name, filename: own["filename"], target: BlockDriver.target(driver, own),
      readOnly: own["read-only"].map(OptionValue.isOn) ?? (isRoot ? drive.readOnly : nil),
      autoReadOnly: own["auto-read-only"].map(OptionValue.isOn) ?? false, drive: drive,
      rootName: rootName ?? name)
    if let name { result.nodeNames.append(name) }
    for key in Self.childKeys {
      if let child = own[key] { node.children.append(child) }
    }
    node.backing = own["backing"]
    node.children += own.filter { $0.key.hasPrefix("children.") }.map(\.value)
    switch driver {
    case "blkdebug":
      if let path = own["config"] { file(path, .other, option) }
    case "blklogwrites":
      block(option, "the log of writes would be truncated", "start the VM without blklogwrites")
    case "replication":
      block(option, "replication (COLO) has two QEMUs of its own", "stop the replication")
    case "" where own["tls-creds"] != nil: block(option, BlockDriver.negotiated.reason, BlockDriver.negotiated.wayOut)
    case _ where !driver.isEmpty && node.target == nil && !BlockDriver.known.contains(driver):
      unknown(option, "no QEMU is known to have the block driver \(driver)")
    default: break
    }
    let place = blockNodes.count
    let rootName = node.rootName
    blockNodes.append(node)
    for child in nested {
      if let index = nodes(child.entries, drive, isRoot: false, rootName: rootName) {
        blockNodes[place].inner.append(index)
        if child.key == "backing" { blockNodes[place].innerBacking = index }
      }
    }
    return place
  }

  private static let childKeys = [
    "file", "backing", "image", "raw", "test", "log", "data-file", "top", "target", "bitmap",
    "vmstate", "metadata-file",
  ]

  private static func hasChildNode(_ key: Substring) -> Bool {
    childKeys.contains(String(key)) || key == "children" || key == "extents"
  }

  /// A file name as `-drive file=`, `-hda` and a bare word take it: with a protocol in front, or as
  /// JSON after `json:`, or a path.
  mutating func drive(
    filename: String, _ drive: BlockNode.Drive, nodeName: String? = nil, driver: String? = nil
  ) {
    if filename.isEmpty { return }
    let option = drive.option
    if filename.hasPrefix("json:") {
      let json = OptionValue(String(filename.dropFirst("json:".count)))
      if !json.isJSON || json.isMalformed {
        block(option, "the file name starts with json: but is not valid JSON", "check the command line")
        return
      }
      _ = nodes(json.entries.map { ($0.key, $0.value) }, drive, rootName: nodeName)
      return
    }
    let (scheme, path) = BlockDriver.split(filename)
    let driver = scheme ?? driver ?? ""
    let target = BlockDriver.target(driver, ["filename": path], filename: filename)
    if target == nil, let scheme, !BlockDriver.known.contains(scheme) {
      unknown(option, "no QEMU is known to open \(scheme):")
      return
    }
    if scheme == "null-co" || scheme == "null-aio" { return }
    blockNodes.append(
      BlockNode(
        name: nodeName, filename: path, target: target, readOnly: drive.readOnly, drive: drive,
        rootName: nodeName))
    if let nodeName { result.nodeNames.append(nodeName) }
  }

  /// Decides what each leaf is for and which images are written to, once all nodes are known.
  mutating func finishBlock() {
    var readers: [Int: [Int]] = [:]
    var byName: [String: [Int]] = [:]
    for (index, node) in blockNodes.enumerated() {
      for name in [node.name, node.drive.id].compactMap(\.self) { byName[name, default: []].append(index) }
    }
    for (index, node) in blockNodes.enumerated() {
      for child in node.inner + node.children.compactMap({ byName[$0]?.first }) {
        readers[child, default: []].append(index)
      }
    }
    func isReadOnly(_ index: Int, _ depth: Int) -> Bool {
      let node = blockNodes[index]
      if let own = node.readOnly { return own }
      let parents = readers[index] ?? []
      // A node inside another inherits; a node of its own is written to unless it adapts.
      let isInner = parents.contains { blockNodes[$0].inner.contains(index) }
      guard isInner || node.autoReadOnly, !parents.isEmpty, depth < 64 else { return false }
      return parents.allSatisfy { isReadOnly($0, depth + 1) }
    }
    /// Backing files are read, whatever the right is that they are opened with.
    func isBacking(_ index: Int, _ depth: Int) -> Bool {
      let parents = readers[index] ?? []
      guard !parents.isEmpty, depth < 64 else { return false }
      return parents.allSatisfy { parent in
        blockNodes[parent].innerBacking == index
          || blockNodes[parent].backing.map { byName[$0]?.first == index } ?? false || isBacking(parent, depth + 1)
      }
    }
    /// The nodes below (and with) those of this node name or drive id.
    func below(_ name: String) -> Set<Int> {
      var found: Set<Int> = []
      var next = byName[name] ?? []
      while let index = next.popLast() {
        guard found.insert(index).inserted else { continue }
        next += readers.filter { $0.value.contains(index) }.map(\.key)
      }
      return found
    }
    var firmware: Set<Int> = []
    for name in firmwareNodes { firmware.formUnion(below(name)) }
    var refusals: [Int: Refusal] = [:]
    for (name, refusal) in backendRefusals { for index in below(name) { refusals[index] = refusal } }

    for (index, node) in blockNodes.enumerated() {
      let option = node.drive.option
      let writable = !isReadOnly(index, 0) && !isBacking(index, 0)
      let role: Binding.Role = writable ? .own : .share
      if let target = node.target {
        if let refusal = target.refusal ?? refusals[index] {
          refuse(target.kind, target.role ?? role, target.address, option.text, refusal.reason, refusal.wayOut)
        } else {
          bind(
            target.kind, target.role ?? role, target.address, option.text, .reopen,
            writable ? "both QEMUs are connected to its server; the right to write moves with the guest" : "both QEMUs only read it")
        }
        continue
      }
      guard let path = node.filename, !path.isEmpty else { continue }
      result.images.append(
        ImageReference(
          path: path, driveID: node.drive.id, nodeName: node.name, rootNodeName: node.rootName,
          writable: writable, option: option.text))
      result.files.append(FileReference(path: path, use: .image, writable: writable, option: option.text))
      let isFirmware = node.drive.isFirmware || firmware.contains(index)
      bind(
        isFirmware ? .file : .disk, role, path, option.text,
        refusals[index] == nil ? .reopen : .refuse,
        refusals[index]?.reason
          ?? (writable
            ? "both QEMUs open it; the right to write moves with the guest" : "both QEMUs only read it"),
        purpose: isFirmware ? "firmware" : "")
    }
  }
}

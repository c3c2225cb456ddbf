/// One block node of the command line: what it opens and what it stands on.
struct BlockNode {
  var name: String?
  var driver: String
  var filename: String?
  /// As the node says itself; nil if it does not.
  var readOnly: Bool?
  var autoReadOnly = false
  /// Names of the nodes it refers to.
  var children: [String] = []
  /// Places in the list of the nodes inside it.
  var inner: [Int] = []
  var driveID: String?
  var rootName: String?
  var option: String
}

extension Describer {
  /// `-drive` and `-blockdev`: a tree of nodes, in dotted keys or nested JSON.
  mutating func blockOption(_ option: CommandOption, _ parameters: OptionValue) {
    let isDrive = option.name == "drive"
    var entries = parameters.entries.map { ($0.key, $0.value) }
    if isDrive {
      drive(option, parameters)
      // The filename of a -drive has its own rules, and is read by them.
      if let name = parameters["file"] {
        entries.removeAll { $0.0 == "file" || $0.0 == "node-name" }
        drive(
          filename: name, option, readOnly: isReadOnlyDrive(parameters), id: parameters["id"],
          nodeName: parameters["node-name"], driver: parameters["file.driver"])
      }
    }
    _ = nodes(
      entries, option: option.text, driveID: isDrive ? parameters["id"] : nil,
      isReadOnly: isDrive ? isReadOnlyDrive(parameters) : nil)
  }

  private func isReadOnlyDrive(_ parameters: OptionValue) -> Bool {
    parameters.isOn("readonly") || parameters.isOn("read-only") || parameters["media"] == "cdrom"
  }

  private mutating func drive(_ option: CommandOption, _ parameters: OptionValue) {
    if let id = parameters["id"] { result.driveIDs.append(id) }
    if parameters["if"] == "virtio" { result.anonymousDevices += 1 }
    if parameters.isOn("snapshot") {
      block(
        option, "the guest's writes are in a temporary file that only the old QEMU can see",
        "start the VM on an overlay image instead of snapshot=on")
    }
  }

  /// Builds the nodes of one tree; gives the place of its root.
  private mutating func nodes(
    _ entries: [(String, String)], option: String, driveID: String?, isReadOnly: Bool?,
    rootName: String? = nil
  ) -> Int? {
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
    var driver = own["driver"] ?? own["format"] ?? ""
    if driver.isEmpty, let filename = own["filename"] {
      // Without a driver the file name may say it.
      let (scheme, path) = BlockDriver.split(filename)
      driver = scheme ?? ""
      own["filename"] = path
    }
    var node = BlockNode(
      name: own["node-name"], driver: driver, filename: own["filename"],
      readOnly: own["read-only"].map(OptionValue.isOn) ?? isReadOnly,
      autoReadOnly: own["auto-read-only"].map(OptionValue.isOn) ?? false, driveID: driveID,
      rootName: rootName ?? own["node-name"], option: option)
    if let name = node.name { result.nodeNames.append(name) }
    for key in Self.childKeys {
      if let child = own[key], key != "filename" { node.children.append(child) }
    }
    node.children += own.filter { $0.key.hasPrefix("children.") }.map(\.value)
    let rules = BlockDriver.rules(driver, own)
    if let refusal = rules {
      refuse(
        refusal.kind, refusal.kind == .blockRemote ? .connect : .own, refusal.address, option,
        refusal.reason, refusal.wayOut)
      node.filename = nil
    } else if !driver.isEmpty, !BlockDriver.known.contains(driver) {
      if !result.unknown.contains(option) { result.unknown.append(option) }
      block(
        option, "no QEMU is known to have the block driver \(driver)",
        "remove it, or report it to the makers of moult")
    }
    let place = blockNodes.count
    let rootName = node.rootName
    blockNodes.append(node)
    for child in nested {
      if let index = nodes(
        child.entries, option: option, driveID: driveID, isReadOnly: nil, rootName: rootName)
      {
        blockNodes[place].inner.append(index)
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
    filename: String, _ option: CommandOption, readOnly: Bool, id: String? = nil,
    nodeName: String? = nil, driver: String? = nil
  ) {
    if filename.isEmpty { return }
    if filename.hasPrefix("json:") {
      let json = OptionValue(String(filename.dropFirst("json:".count)))
      if !json.isJSON || json.isMalformed {
        block(option, "the file name starts with json: but is not valid JSON", "check the command line")
        return
      }
      _ = nodes(
        json.entries.map { ($0.key, $0.value) }, option: option.text, driveID: id,
        isReadOnly: readOnly, rootName: nodeName)
      return
    }
    let (scheme, path) = BlockDriver.split(filename)
    var own = ["driver": driver ?? "", "filename": path]
    if let scheme { own["driver"] = scheme }
    if let refusal = BlockDriver.rules(own["driver"] ?? "", own, filename: filename) {
      refuse(
        refusal.kind, refusal.kind == .blockRemote ? .connect : .own, refusal.address, option.text,
        refusal.reason, refusal.wayOut)
      return
    }
    if let scheme, !BlockDriver.known.contains(scheme) {
      unknown(option, "no QEMU is known to open \(scheme):")
      return
    }
    if scheme == "null-co" || scheme == "null-aio" { return }
    blockNodes.append(
      BlockNode(
        name: nodeName, driver: "file", filename: path, readOnly: readOnly, driveID: id,
        rootName: nodeName, option: option.text))
    if let nodeName { result.nodeNames.append(nodeName) }
  }

  /// Decides which images are written to, once all nodes are known.
  mutating func finishBlock() {
    var readers: [Int: [Int]] = [:]
    var byName: [String: Int] = [:]
    for (index, node) in blockNodes.enumerated() {
      if let name = node.name { byName[name] = index }
    }
    for (index, node) in blockNodes.enumerated() {
      for child in node.inner + node.children.compactMap({ byName[$0] }) {
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
    for (index, node) in blockNodes.enumerated() {
      guard let path = node.filename, !path.isEmpty else { continue }
      let writable = !isReadOnly(index, 0)
      result.images.append(
        ImageReference(
          path: path, driveID: node.driveID, nodeName: node.name, rootNodeName: node.rootName,
          writable: writable, option: node.option))
      result.files.append(
        FileReference(path: path, use: .image, writable: writable, option: node.option))
      bind(
        .disk, writable ? .own : .share, path, node.option, .reopen,
        writable
          ? "both QEMUs open it; the right to write moves with the guest"
          : "both QEMUs only read it")
    }
  }
}

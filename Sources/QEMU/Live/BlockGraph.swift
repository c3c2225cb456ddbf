public import Kernel

/// The block nodes of a running QEMU, how they stand on each other, and what uses them.
public struct BlockGraph: Sendable, Equatable {
  public struct Node: Sendable, Equatable {
    /// Unique in its QEMU; `#block123` if nobody gave it a name.
    public var name: String
    public var driver: String
    /// As QEMU prints it: a path, or `json:{…}` where a path does not say it all.
    public var file: String
    public var isReadOnly = false
    public var isDirect = false
    public var ignoresFlush = false
    public var detectsZeroes = "off"
    public var isEncrypted = false
    /// Bytes that the file takes of its file system, as QEMU's own descriptor tells it; nil where it cannot be told.
    public var allocated: Int64?
    /// Bytes that a guest would see of it.
    public var virtualSize: Int64?
    /// The image below, as this image's own header names it, made absolute, and its format there.
    public var headerBacking: String?
    public var headerFormat: String?
    /// Role (`file`, `backing`, …) → the child's name.
    public var children: [String: String] = [:]

    public var isAnonymous: Bool { name.hasPrefix("#") }
  }

  /// What a guest's device, or a `-drive` that waits for one, reads and writes through.
  public struct Backend: Sendable, Equatable {
    /// The id of `-drive`; empty for a device that was given a node.
    public var label: String
    /// The device's id or its QOM path; empty while no device has it.
    public var device: String
    /// The outermost node; nil for an empty drive.
    public var root: String?
    /// Limits in force, by their names in `query-block`; without those that are 0.
    public var limits: [String: Int64] = [:]
    /// The group that shares the limits; nil without limits.
    public var group: String?
  }

  public var nodes: [String: Node]
  public var backends: [Backend]
  /// Nodes used by something that is neither a node nor in `query-block`, a job or an export, with how often they are.
  public var otherwiseUsed: [String: Int]

  public init() { (nodes, backends, otherwiseUsed) = ([:], [], [:]) }

  /// From what `query-block`, `query-named-block-nodes` and `x-debug-query-block-graph` return.
  init(drives: JSONValue, nodes list: JSONValue, edges: JSONValue) {
    self.init()
    for node in (list.array ?? []).map(Node.init) { nodes[node.name] = node }
    for drive in drives.array ?? [] {
      let inserted = drive["inserted"]
      var limits: [String: Int64] = [:]
      for name in Self.limitKeys.keys {
        if let value = inserted?[name]?.integer, value != 0 { limits[name] = value }
      }
      backends.append(
        Backend(
          label: drive["device"]?.string ?? "", device: drive["qdev"]?.string ?? "",
          root: inserted?["node-name"]?.string, limits: limits, group: inserted?["group"]?.string))
    }
    var names: [Int64: (name: String, isNode: Bool)] = [:]
    for entry in edges["nodes"]?.array ?? [] {
      guard let id = entry["id"]?.integer else { continue }
      names[id] = (entry["name"]?.string ?? "", entry["type"]?.string == "block-driver")
    }
    for edge in edges["edges"]?.array ?? [] {
      guard let parent = edge["parent"]?.integer.flatMap({ names[$0] }), let child = edge["child"]?.integer.flatMap({ names[$0] }),
        child.isNode, let role = edge["name"]?.string
      else { continue }
      if parent.isNode {
        nodes[parent.name]?.children[role] = child.name
      } else if !backends.contains(where: { $0.root == child.name && (parent.name == $0.label || parent.name == $0.device) }) {
        otherwiseUsed[child.name, default: 0] += 1
      }
    }
  }

  /// Members of `query-block` → parameters of `-drive`. Source: `qapi/block-core.json`, `blockdev.c`.
  static let limitKeys: [String: String] = {
    var keys = ["iops_size": "throttling.iops-size"]
    for kind in ["bps", "iops"] {
      for (short, long) in [("", "-total"), ("_rd", "-read"), ("_wr", "-write")] {
        for (tail, suffix) in [("", ""), ("_max", "-max"), ("_max_length", "-max-length")] {
          keys[kind + short + tail] = "throttling." + kind + long + suffix
        }
      }
    }
    return keys
  }()

  /// Whether a `-drive` or `-blockdev` that says nothing of what is below a node would open just that: its
  /// header leads there, and no node of the chain has a name to lose.
  func followsHeader(_ node: Node) -> Bool {
    guard let name = node.children["backing"] else { return node.headerBacking == nil }
    guard let below = nodes[name], below.isAnonymous, let header = node.headerBacking,
      Self.path(header) == path(below), node.headerFormat ?? below.driver == below.driver, below.detectsZeroes == "off",
      below.children["file"].flatMap({ nodes[$0] })?.isAnonymous ?? true
    else { return false }
    return followsHeader(below)
  }

  /// The file that a node ends at, or what stands for it.
  func path(_ node: Node) -> String {
    var node = node
    while let child = node.children["file"].flatMap({ nodes[$0] }) { node = child }
    return Self.path(node.file)
  }

  /// The path in a file name of QEMU's: it may be `json:{…}` with the file innermost.
  static func path(_ file: String) -> String {
    guard file.hasPrefix("json:"), let json = own(file) else { return file }
    var value = JSONValue.object(json)
    while let inner = value["file"], inner.object != nil { value = inner }
    return value["filename"]?.string ?? file
  }

  /// The members of a `json:` file name.
  static func own(_ file: String) -> [String: JSONValue]? {
    do { return try JSONValue(parsing: Array(file.dropFirst("json:".count).utf8)).object } catch { return nil }
  }
}

extension BlockGraph {
  /// In what the nodes and what they stand under differ from `other`'s, in words. Names that QEMU or moult made up
  /// are left out, and each tree is told from its top.
  ///
  /// - Parameter places: the device as both twins call it, by its QOM path: one without id has a number of its own.
  func differences(from other: BlockGraph, places: (String) -> String, otherPlaces: (String) -> String) -> [String] {
    let (mine, theirs) = (described(places), other.described(otherPlaces))
    var found: [String] = []
    for tree in mine where !theirs.contains(tree) { found.append("disk here only: \(tree)") }
    for tree in theirs where !mine.contains(tree) { found.append("disk there only: \(tree)") }
    if found.isEmpty, mine.count != theirs.count { found.append("block trees: \(mine.count) here, \(theirs.count) there") }
    return found
  }

  private func described(_ place: (String) -> String) -> [String] {
    let used = Set(backends.compactMap(\.root)).union(nodes.values.flatMap(\.children.values))
    // An empty drive that no device has: the machines of one version make some that another's do not.
    return backends.filter { $0.root != nil || !$0.device.isEmpty }.map { backend in
      let limits = backend.limits.sorted { $0.key < $1.key }.map { " \($0.key)=\($0.value)" }.joined()
      return "\(backend.label) \(place(backend.device))\(limits): \(backend.root.map { tree($0) } ?? "empty")"
    }.sorted() + nodes.keys.filter { !used.contains($0) }.map { tree($0) }.sorted()
  }

  /// The same text for the same members, in whatever order a version of QEMU prints them, as numbers or strings.
  private static func told(_ file: String) -> String {
    guard file.hasPrefix("json:"), let own = own(file) else { return file }
    func words(_ value: JSONValue) -> String {
      switch value {
      case .string(let text): text
      case .integer(let number): "\(number)"
      case .object(let members): "{" + members.sorted { $0.key < $1.key }.map { $0.key + "=" + words($0.value) }.joined(separator: ",") + "}"
      default: "\(value)"
      }
    }
    return words(.object(own))
  }

  private func tree(_ name: String) -> String {
    guard let node = nodes[name] else { return "nothing" }
    var text = node.driver
    if !node.isAnonymous, !name.hasPrefix("moult-") { text += " " + name }
    if node.children.isEmpty {
      text += " " + Self.told(Self.path(node.file))
    } else if let size = node.virtualSize {
      // The file below grows with what the guest writes.
      text += " \(size)"
    }
    if node.isReadOnly { text += " read-only" }
    if node.isDirect { text += " direct" }
    if node.ignoresFlush { text += " no-flush" }
    if node.detectsZeroes != "off" { text += " detect-zeroes=\(node.detectsZeroes)" }
    for (role, child) in node.children.sorted(by: { $0.key < $1.key }) { text += " \(role)=(\(tree(child)))" }
    return text
  }
}

extension BlockGraph.Node {
  /// One entry of `query-named-block-nodes`.
  init(_ node: JSONValue) {
    let (cache, image) = (node["cache"], node["image"])
    self.init(
      name: node["node-name"]?.string ?? "", driver: node["drv"]?.string ?? "", file: node["file"]?.string ?? "",
      isReadOnly: node["ro"]?.bool ?? false, isDirect: cache?["direct"]?.bool ?? false,
      ignoresFlush: cache?["no-flush"]?.bool ?? false, detectsZeroes: node["detect_zeroes"]?.string ?? "off",
      isEncrypted: node["encrypted"]?.bool ?? false, allocated: image?["actual-size"]?.integer, virtualSize: image?["virtual-size"]?.integer,
      headerBacking: image?["full-backing-filename"]?.string ?? image?["backing-filename"]?.string,
      headerFormat: image?["backing-filename-format"]?.string)
  }
}

extension BlockGraph {
  /// Nodes of plain files, by path.
  public var fileNodes: [Node] { nodes.values.filter(\.isPlainFile) }
}

extension BlockGraph.Node {
  var isPlainFile: Bool { driver == "file" && !file.hasPrefix("json:") }
}

extension LiveMachine {
  /// The nodes of plain files as they are now.
  public static func queryFileNodes(_ monitor: QMPConnection) throws(Failure) -> [BlockGraph.Node] {
    (try monitor.execute("query-named-block-nodes", ["flat": true]).array ?? []).map(BlockGraph.Node.init).filter(\.isPlainFile)
  }
}

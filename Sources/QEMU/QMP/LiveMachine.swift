public import Kernel

/// What a running QEMU says of itself over QMP. Two twins of one VM must agree on all of it but the state.
public struct LiveMachine: Sendable, Equatable {
  /// One block node. Source: `query-named-block-nodes`.
  public struct Node: Sendable, Equatable, Hashable {
    /// nil for a name that QEMU made up (`#block123`): those differ between twins.
    public var name: String?
    public var driver: String
    public var file: String
    public var depth: Int
  }
  /// What a guest's disk or drive holds. Source: `query-block`.
  public struct Drive: Sendable, Equatable, Hashable {
    public var device: String
    public var qdev: String
    /// The active image; nil for an empty drive.
    public var file: String?
    public var nodeName: String?
    public var driver: String?
    /// Throttling and the like, set at start or live, as sorted text.
    public var limits: String
  }

  public struct BlockJob: Sendable, Equatable {
    public var id: String
    /// `mirror`, `commit`, `stream`, `backup`, …
    public var type: String
    /// It copies what is written, and waits to be completed.
    public var isReady: Bool
    /// It has ended, and is kept for whoever started it to read its result (`auto-dismiss=false`).
    public var hasEnded: Bool
    public init(id: String, type: String, isReady: Bool, hasEnded: Bool = false) {
      (self.id, self.type, self.isReady, self.hasEnded) = (id, type, isReady, hasEnded)
    }
  }

  public var status: String
  /// The resolved type such as `pc-q35-7.2`. Source: QOM `/machine`, `type`.
  public var machineType: String
  public var drives: [Drive]
  public var nodes: [Node]
  /// Device id → type. Source: QOM `/machine/peripheral`.
  public var devices: [String: String]
  /// Types of the devices without an id, in order. Source: QOM `/machine/peripheral-anon`.
  public var anonymousDevices: [String]
  /// Their numbers in `/machine/peripheral-anon`, in the same order: one that was unplugged leaves a gap.
  public var anonymousNumbers: [Int] = []
  public var objects: [String: String]
  public var chardevs: [String]
  /// Thread ids of the vCPUs by index. Source: `query-cpus-fast`.
  public var vcpuThreads: [Int32]
  public var iothreads: [String: Int32]
  public var memoryDevices: Int
  /// Jobs on block nodes that have not ended. Source: `query-block-jobs`.
  public var blockJobs: [BlockJob] = []
  public var migrationStatus: String?
  public var migrationBlockers: [String]
  public var migrationCapabilities: [String: Bool]
  public var migrationParameters: [String: JSONValue]
  /// Dirty bitmaps that are in no image: a migration without `dirty-bitmaps` leaves them behind.
  public var volatileBitmaps: [String] = []
  /// Bytes at whose writing QEMU is to report it, by the block node. Source: `block-set-write-threshold`.
  public var writeThresholds: [String: Int64] = [:]
  /// Character devices by label, as QEMU prints what is behind them.
  public var chardevFiles: [String: String] = [:]
  /// Bytes of the memory devices together. Source: `query-memory-devices`.
  public var pluggedMemory: UInt64 = 0
  /// Numbers that QEMU has the descriptors of `/dev/fdset/N` at, by N; lower ones were added earlier. Source: `query-fdsets`.
  public var descriptorSets: [Int: [Int32]] = [:]
  /// All that a migration may send as memory; nil if QEMU gave no table that could be read.
  public var memoryBlocks: [RAMBlock]? = []
  /// What `info network` prints: QMP does not tell of networks.
  public var networkText = ""
  /// Ports of the host that user networks forward, as ``NetworkEndpoint/text`` has them. Source: `info usernet`.
  public var forwards: [String] = []
  /// Block nodes that are offered to others, the last one first.
  public var exports: [BlockExport] = []
  /// What was asked beyond this, because the devices are not those of the arguments.
  public var wanted = LiveParts.Wanted()
  public var parts = LiveParts()
  /// Block nodes with what stands on what. Source: `x-debug-query-block-graph`.
  public var graph = BlockGraph()
}

extension LiveMachine {
  /// Asks a QEMU everything at once: the commands are sent together, so that it costs one round trip.
  public static func query(_ monitor: QMPConnection) throws(Failure) -> LiveMachine {
    let queries: [(String, JSONValue?)] = [
      ("query-status", nil),
      ("qom-get", ["path": "/machine", "property": "type"]),
      ("query-block", nil),
      ("query-named-block-nodes", ["flat": true]),
      ("qom-list", ["path": "/machine/peripheral"]),
      ("qom-list", ["path": "/machine/peripheral-anon"]),
      ("qom-list", ["path": "/objects"]),
      ("query-chardev", nil),
      ("query-cpus-fast", nil),
      ("query-iothreads", nil),
      ("query-memory-devices", nil),
      ("query-block-jobs", nil),
      ("query-migrate", nil),
      ("query-migrate-capabilities", nil),
      ("query-migrate-parameters", nil),
      ("x-debug-query-block-graph", nil),
      ("human-monitor-command", ["command-line": "info network"]),
      ("query-fdsets", nil),
      ("human-monitor-command", ["command-line": "info usernet"]),
      ("human-monitor-command", ["command-line": "info ramblock"]),
    ]
    var pending: [Int64] = []
    for (command, arguments) in queries { pending.append(try monitor.send(command, arguments)) }
    var answers: [JSONValue] = []
    for (identifier, query) in zip(pending, queries) {
      answers.append(try monitor.reply(to: identifier, command: query.0))
    }
    var live = LiveMachine(answers: answers)
    // Not known to versions that are refused for their age.
    if let exports = try monitor.answers(to: [("query-block-exports", nil)])[0] { live.exports = BlockExport.all(exports) }
    return live
  }

  /// - Parameter answers: the return values in the order of `query`'s commands.
  init(answers: [JSONValue]) {
    status = answers[0]["status"]?.string ?? "unknown"
    machineType = Self.typeName(answers[1].string ?? "")
    drives = (answers[2].array ?? []).map(Drive.init)
    nodes = (answers[3].array ?? []).map(Node.init)
    for bitmap in (answers[3].array ?? []).flatMap({ $0["dirty-bitmaps"]?.array ?? [] }) {
      if bitmap["persistent"]?.bool == false, let name = bitmap["name"]?.string { volatileBitmaps.append(name) }
    }
    for node in answers[3].array ?? [] {
      if let name = node["node-name"]?.string, let bytes = node["write_threshold"]?.integer, bytes > 0 { writeThresholds[name] = bytes }
    }
    devices = Self.children(answers[4])
    let anonymous = Self.orderedChildren(answers[5]).compactMap { child in
      Int(child.name.dropFirst("device[".count).prefix { $0 != "]" }).map { (number: $0, type: child.type) }
    }.sorted { $0.number < $1.number }
    anonymousDevices = anonymous.map(\.type)
    anonymousNumbers = anonymous.map(\.number)
    // From 11.0 on monitors are objects, too; they are compared as character devices.
    objects = Self.children(answers[6]).filter { !$0.value.hasPrefix("monitor") }
    // Names that QEMU made up (`#chr026`, gdb's server) differ between twins.
    chardevs = (answers[7].array ?? []).compactMap { $0["label"]?.string }.filter { !$0.hasPrefix("#") }.sorted()
    vcpuThreads = (answers[8].array ?? [])
      .sorted { ($0["cpu-index"]?.integer ?? 0) < ($1["cpu-index"]?.integer ?? 0) }
      .compactMap { $0["thread-id"]?.integer.map(Int32.init) }
    iothreads = [:]
    for thread in answers[9].array ?? [] {
      if let id = thread["id"]?.string, let number = thread["thread-id"]?.integer { iothreads[id] = Int32(number) }
    }
    memoryDevices = answers[10].array?.count ?? 0
    blockJobs = (answers[11].array ?? []).map {
      BlockJob(id: $0["device"]?.string ?? "", type: $0["type"]?.string ?? "", isReady: $0["ready"]?.bool ?? false,
        hasEnded: $0["status"]?.string == "concluded")
    }
    migrationStatus = answers[12]["status"]?.string
    migrationBlockers = (answers[12]["blocked-reasons"]?.array ?? []).compactMap(\.string)
    migrationCapabilities = [:]
    for entry in answers[13].array ?? [] {
      if let name = entry["capability"]?.string, let state = entry["state"]?.bool { migrationCapabilities[name] = state }
    }
    migrationParameters = answers[14].object ?? [:]
    for chardev in answers[7].array ?? [] {
      if let label = chardev["label"]?.string { chardevFiles[label] = chardev["filename"]?.string ?? "" }
    }
    for device in answers[10].array ?? [] {
      pluggedMemory += device["data"]?["size"]?.integer.map { UInt64(clamping: $0) } ?? 0
    }
    networkText = answers[16].string ?? ""
    forwards = Self.forwards(answers[18].string ?? "")
    for set in answers[17].array ?? [] {
      guard let number = set["fdset-id"]?.integer else { continue }
      descriptorSets[Int(number)] = (set["fds"]?.array ?? []).compactMap { $0["fd"]?.integer.flatMap { Int32(exactly: $0) } }.sorted()
    }
    memoryBlocks = answers[19].string.flatMap(RAMBlock.parse)
    graph = BlockGraph(drives: answers[2], nodes: answers[3], edges: answers[15])
  }

  private static func typeName(_ type: String) -> String {
    type.hasSuffix("-machine") ? String(type.dropLast("-machine".count)) : type
  }

  /// QOM children with their types; QOM lists properties such as `type`, too.
  private static func orderedChildren(_ list: JSONValue) -> [(name: String, type: String)] {
    (list.array ?? []).compactMap { entry in
      guard let name = entry["name"]?.string, let type = entry["type"]?.string, type.hasPrefix("child<") else { return nil }
      return (name, String(type.dropFirst("child<".count).dropLast()))
    }
  }

  private static func children(_ list: JSONValue) -> [String: String] {
    Dictionary(orderedChildren(list).map { ($0.name, $0.type) }) { _, last in last }
  }
}

extension LiveMachine {
  /// What can change at another monitor while a VM is migrated.
  public struct Storage: Sendable, Equatable {
    public var drives: [Drive]
    public var nodes: [Node]

    /// In what it differs from `other`, in words; empty when they agree.
    public func differences(from other: Storage) -> [String] {
      var found: [String] = []
      let (mine, theirs) = (drives.map(\.comparable), other.drives.map(\.comparable))
      for drive in mine where !theirs.contains(drive) { found.append("drive here only: \(drive)") }
      for drive in theirs where !mine.contains(drive) { found.append("drive there only: \(drive)") }
      let (nodes, others) = (nodes.map(\.comparable).sorted(), other.nodes.map(\.comparable).sorted())
      for node in nodes where !others.contains(node) { found.append("block node here only: \(node)") }
      for node in others where !nodes.contains(node) { found.append("block node there only: \(node)") }
      if nodes.count != others.count, found.isEmpty { found.append("block nodes: \(nodes.count) here, \(others.count) there") }
      return found
    }
  }

  public var storage: Storage { Storage(drives: drives, nodes: nodes) }

  /// Both queries together: one round trip.
  public static func queryStorage(_ monitor: QMPConnection) throws(Failure) -> Storage {
    let drives = try monitor.send("query-block")
    let nodes = try monitor.send("query-named-block-nodes", ["flat": true])
    return Storage(
      drives: (try monitor.reply(to: drives, command: "query-block").array ?? []).map(Drive.init),
      nodes: (try monitor.reply(to: nodes, command: "query-named-block-nodes").array ?? []).map(Node.init))
  }
}

extension LiveMachine.Node {
  init(_ node: JSONValue) {
    let given = node["node-name"]?.string
    name = given.flatMap { $0.hasPrefix("#") ? nil : $0 }
    driver = node["drv"]?.string ?? ""
    file = node["file"]?.string ?? ""
    depth = Int(node["backing_file_depth"]?.integer ?? 0)
  }
}

extension LiveMachine.Drive {
  private static let limitMembers = [
    "bps", "bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr", "bps_max", "bps_rd_max", "bps_wr_max", "iops_max",
    "iops_rd_max", "iops_wr_max", "iops_size", "group", "detect_zeroes", "cache",
  ]

  init(_ drive: JSONValue) {
    device = drive["device"]?.string ?? ""
    qdev = drive["qdev"]?.string ?? ""
    let inserted = drive["inserted"]
    file = inserted?["file"]?.string
    nodeName = inserted?["node-name"]?.string.flatMap { $0.hasPrefix("#") ? nil : $0 }
    driver = inserted?["drv"]?.string
    var text = ""
    for member in Self.limitMembers {
      if let value = inserted?[member] { text += "\(member)=\(Self.words(value)) " }
    }
    limits = text
  }

  /// The same text for equal values: the members of an object come in no order of their own.
  private static func words(_ value: JSONValue) -> String {
    switch value {
    case .string(let text): text
    case .integer(let number): "\(number)"
    case .bool(let isOn): "\(isOn)"
    case .object(let members):
      // `cache.writeback` is the guest's to switch (a BIOS does so), and migrates with the device.
      members.filter { $0.key != "writeback" }.sorted { $0.key < $1.key }.map { "\($0.key):\(words($0.value))" }
        .joined(separator: ",")
    default: "\(value)"
    }
  }
}

extension LiveMachine {
  /// In what this twin's machine differs from `other`'s, in words; empty when they agree.
  ///
  /// Monitors that moult itself added (`moult-…`) and names that QEMU made up are left out.
  public func differences(from other: LiveMachine) -> [String] {
    var found: [String] = []
    func compare<Value: Equatable>(_ what: String, _ mine: Value, _ theirs: Value) {
      if mine != theirs { found.append("\(what): \(mine) here, \(theirs) there") }
    }
    compare("machine type", machineType, other.machineType)
    compare("vCPUs", vcpuThreads.count, other.vcpuThreads.count)
    compare("I/O threads", iothreads.keys.sorted(), other.iothreads.keys.sorted())
    compare("memory devices", memoryDevices, other.memoryDevices)
    compare(
      "character devices", chardevs.filter { !$0.hasPrefix("moult-") }, other.chardevs.filter { !$0.hasPrefix("moult-") })
    for id in Set(devices.keys).union(other.devices.keys).sorted() where devices[id] != other.devices[id] {
      found.append("device \(id): \(devices[id] ?? "absent") here, \(other.devices[id] ?? "absent") there")
    }
    compare("devices without id", anonymousDevices, other.anonymousDevices)
    compare("objects", objects.keys.sorted(), other.objects.keys.sorted())
    let (settings, others) = (drives.compactMap(\.setting).sorted(), other.drives.compactMap(\.setting).sorted())
    if settings != others { compare("limits and caches of drives", settings, others) }
    compare("memory of memory devices", pluggedMemory, other.pluggedMemory)
    compare("networks", comparableNetworks, other.comparableNetworks)
    compare("hubs", hubPorts.map(\.comparable).sorted(), other.hubPorts.map(\.comparable).sorted())
    found += parts.differences(from: other.parts, places: place, otherPlaces: other.place)
    found += graph.differences(from: other.graph, places: place, otherPlaces: other.place)
    return found
  }
}

extension LiveMachine {
  /// Networks and cards as `info network` tells them; lines that are neither are left out.
  var networks: [Rebuilding.Network] { networkText.split(whereSeparator: \.isNewline).compactMap(Rebuilding.Network.init) }

  /// From lines like `  TCP[HOST_FORWARD]  12       127.0.0.1  5555       10.0.2.15    22     0     0`.
  static func forwards(_ text: String) -> [String] {
    text.split(whereSeparator: \.isNewline).compactMap { line in
      let words = line.split(whereSeparator: \.isWhitespace)
      guard words.count > 3, words[0].hasSuffix("[HOST_FORWARD]"), let port = UInt16(words[3]) else { return nil }
      let name: NetworkEndpoint.Name = words[0].hasPrefix("UDP") ? .datagrams(port) : .port(port, last: port)
      return NetworkEndpoint(option: 0, name: name, purpose: "hostfwd").text
    }
  }

  /// Ports of hubs, which join networks and cards.
  var hubPorts: [Rebuilding.HubPort] { Rebuilding.HubPort.all(in: networkText) }

  /// Names that QEMU made up differ between twins.
  fileprivate var comparableNetworks: [String] {
    networks.map { "\($0.isImplicit || $0.type == "nic" ? "" : $0.name + " ")\($0.type) \($0.comparableSettings)" }.sorted()
  }

  /// Asks a new twin what `other` was asked, so that both can be compared.
  public mutating func queryParts(_ monitor: QMPConnection, like other: LiveMachine) throws(Failure) {
    wanted = LiveParts.Wanted(
      placed: Set(other.wanted.placed.map(other.place)),
      devices: Dictionary(other.wanted.devices.map { (other.place($0.key), $0.value) }) { first, _ in first },
      objects: other.wanted.objects, chardevs: [],
      settable: Dictionary(other.wanted.settable.map { (other.place($0.key), $0.value) }) { first, _ in first })
    if !wanted.isEmpty { parts = try LiveParts.query(monitor, wanted) }
  }

  /// Asks a running VM for what is to be known to rebuild what its arguments do not say.
  /// - Parameter base: where relative paths of the arguments start.
  public mutating func queryParts(_ monitor: QMPConnection, beyond commandLine: CommandLine, base: String) throws(Failure) {
    wanted = Rebuilding(commandLine, live: self, base: base).wanted
    if wanted.isEmpty { return }
    parts = try LiveParts.query(monitor, wanted)
    // One that was plugged in in place of another is told by that alone; all of it has to be asked then.
    let more = Rebuilding(commandLine, live: self, base: base).wanted
    if more == wanted { return }
    wanted = more
    parts = try LiveParts.query(monitor, wanted)
  }

  /// QOM paths and types of the devices that have a place of their own: CPUs aside, which are compared as such.
  var devicePaths: [String: String] {
    var paths: [String: String] = [:]
    for (id, type) in devices { paths[Rebuilding.named + id] = type }
    for (number, type) in zip(anonymousNumbers, anonymousDevices) { paths["\(Rebuilding.anonymous)\(number)]"] = type }
    return paths.filter { !$0.value.hasSuffix("-cpu") }
  }

  /// A device's QOM path as both twins have it: devices without id are numbered anew in a new QEMU, and devices of
  /// the machine's own have numbers that depend on the version.
  func place(_ path: String) -> String {
    let anonymous = "/machine/peripheral-anon/device["
    if path.hasPrefix("/machine/unattached/") { return "" }
    guard path.hasPrefix(anonymous) else { return path }
    let number = path.dropFirst(anonymous.count).prefix { $0 != "]" }
    guard let rank = Int(number).flatMap({ anonymousNumbers.firstIndex(of: $0) }) else { return path }
    return "\(anonymous)\(rank)\(path.dropFirst(anonymous.count + number.count))"
  }
}

extension LiveMachine.Drive {
  fileprivate var setting: String? { file.map { _ in "\(device) \(limits)" } }
  fileprivate var comparable: String {
    "\(device.isEmpty ? qdev : device) \(file.map { $0.hasPrefix("json:") ? "json" : $0 } ?? "empty") \(driver ?? "") \(limits)"
  }
}
extension LiveMachine.Node {
  /// A `json:` file name is QEMU's own rendering and differs between versions: the nodes below it tell the files.
  fileprivate var comparable: String {
    "\(name ?? "") \(driver) \(file.hasPrefix("json:") ? "json" : file)"
  }
}

/// A block node of a running QEMU whose data another program or machine serves.
public struct RemoteNode: Sendable, Hashable {
  public enum Server: Sendable, Hashable {
    /// A unix socket.
    case path(String)
    case port(UInt16, host: String)
  }
  public var driver: String
  /// As QEMU prints it.
  public var file: String
  public var isReadOnly: Bool
  /// Nil where it cannot be told.
  public var server: Server?
  /// Bytes, in whole sectors of 512; nil where QEMU does not tell.
  public var size: Int64?
  /// What the server calls the data.
  public var export: String

  public init(driver: String, file: String, isReadOnly: Bool, size: Int64? = nil) {
    (self.driver, self.file, self.isReadOnly, self.size) = (driver, file, isReadOnly, size)
    (server, export) = driver == "nbd" ? Self.nbd(file) ?? (nil, "") : (Self.authority(file, driver), "")
  }

  /// Its library connects as it needs to, now and then several times: not once and for good, as NBD does.
  public var connectsFreely: Bool { driver != "nbd" }
  /// Why both QEMUs cannot have it open; nil if they can.
  public var whyNot: (reason: String, wayOut: String)? { BlockDriver.refusal(driver).map { ($0.reason, $0.wayOut) } }
}

extension RemoteNode {
  /// The server in a URL, or in the `portal`, `url` or `server` of `json:{…}`.
  private static func authority(_ file: String, _ driver: String) -> Server? {
    var text = file[...]
    if file.hasPrefix("json:") {
      guard let own = BlockGraph.own(file) else { return nil }
      func word(_ key: String) -> String? { own["server"]?[key]?.string ?? own["server." + key]?.string }
      if let host = word("host") { return (word("port").map { UInt16($0) } ?? BlockDriver.defaultPorts[driver]).map { .port($0, host: host) } }
      guard let written = (own["portal"] ?? own["url"])?.string else { return nil }
      text = written[...]
    }
    if let scheme = text.firstRange(of: "://") { text = text[scheme.upperBound...] }
    text = text.prefix { $0 != "/" }
    // Users and passwords come before it.
    if let at = text.lastIndex(of: "@") { text = text[text.index(after: at)...] }
    var host = text
    var port = BlockDriver.defaultPorts[driver]
    if let colon = text.lastIndex(of: ":"), !text.hasSuffix("]") { (host, port) = (text[..<colon], UInt16(text[text.index(after: colon)...])) }
    if host.hasPrefix("["), host.hasSuffix("]") { host = host.dropFirst().dropLast() }
    return port.map { .port($0, host: String(host)) }
  }

  /// An NBD node's name, as a URL or `json:{…}`. Source: `nbd_refresh_filename` in QEMU's block/nbd.c.
  private static func nbd(_ file: String) -> (Server?, String)? {
    if let own = BlockGraph.own(file), file.hasPrefix("json:") {
      let server = own["server"]
      func word(_ key: String) -> String? { server?[key]?.string ?? own["server." + key]?.string }
      let export = own["export"]?.string ?? ""
      if let path = word("path") { return (.path(path), export) }
      return (word("port").flatMap { UInt16($0) }.map { .port($0, host: word("host") ?? "") }, export)
    }
    guard let scheme = file.firstRange(of: "://") else { return nil }
    let rest = file[scheme.upperBound...]
    let kind = file[..<scheme.lowerBound]
    // The path is as it was given: QEMU does not escape it here.
    if kind == "nbd+unix" {
      guard let socket = rest.firstRange(of: "?socket=") else { return nil }
      return (.path(String(rest[socket.upperBound...])), String(rest[..<socket.lowerBound].drop { $0 == "/" }))
    }
    guard kind == "nbd" || kind == "nbd+tcp" else { return nil }
    let authority = rest.prefix { $0 != "/" }
    let export = String(rest.dropFirst(authority.count).dropFirst())
    guard let colon = authority.lastIndex(of: ":"), let port = UInt16(authority[authority.index(after: colon)...]) else { return (nil, export) }
    var host = authority[..<colon]
    if host.hasPrefix("["), host.hasSuffix("]") { host = host.dropFirst().dropLast() }
    return (.port(port, host: String(host)), export)
  }
}

extension BlockGraph {
  /// Nodes at which a remote disk ends, in the order of their names.
  public var remoteNodes: [RemoteNode] {
    nodes.values.filter { $0.children.isEmpty && BlockDriver.isRemote($0.driver) }.sorted { $0.name < $1.name }
      .map { RemoteNode(driver: $0.driver, file: $0.file, isReadOnly: $0.isReadOnly, size: $0.virtualSize) }
  }

  /// Whether what a device reads ends at a remote disk.
  func isRemote(_ node: Node) -> Bool {
    if node.children.isEmpty { return BlockDriver.isRemote(node.driver) }
    return node.children["file"].flatMap { nodes[$0] }.map(isRemote) ?? false
  }
}

extension LiveMachine {
  /// Whether a drive's file name is that of a remote disk.
  public func isRemote(_ drive: Drive) -> Bool {
    let root = graph.backends.first { $0.label == drive.device && $0.device == drive.qdev }?.root
    return root.flatMap { graph.nodes[$0] }.map(graph.isRemote) ?? false
  }
}

/// The NBD server that a running QEMU was told to start over a monitor, and all that it exports: what another QEMU has to be
/// told to serve the same.
///
/// QEMU tells ids and nodes only (`query-block-exports`); names, and who may write, tells the server to any client. Source:
/// qapi/block-export.json, nbd/server.c and block/export/export.c of QEMU.
public struct NBDServer: Sendable, Hashable, Codable {
  public struct Export: Sendable, Hashable, Codable {
    public var id: String
    /// The block node's name; nil if QEMU made one up, which another QEMU does not know.
    public var node: String?
    /// Then the drive's, whose outermost node it is.
    public var drive: String?
    public var name: String
    public var description: String?
    public var isWritable: Bool
    /// It tells how deep in the chain of images each piece lies (`allocation-depth`).
    public var tellsDepth: Bool
  }
  /// In the order in which they were made.
  public var exports: [Export]
  /// It was limited to one client at a time (`max-connections=1`): that shows in what it promises of an export that can be written.
  public var servesOne: Bool

  public var written: [Export] { exports.filter(\.isWritable) }

  /// The first version that promises coherent clients of an export that is written to, unless it has only one.
  private static let servesSeveral = QEMUVersion(major: 7, minor: 1)

  public enum Finding: Sendable, Equatable {
    case server(NBDServer)
    /// Which is which, or what it is, cannot be told: why.
    case untold(String)
  }

  /// Finds out which of the server's offers is which export.
  ///
  /// Both lists are in the order in which the exports were made: the server's from the first, QEMU's from the last (seen on 5.2,
  /// 7.2, 10.0 and 11.1). Sizes must agree with that, and names, which are an export's id or node if nobody has chosen one.
  public static func find(_ listed: [BlockExport], _ offered: [NBDInquiry.Export], _ graph: BlockGraph, version: QEMUVersion) -> Finding {
    if let other = listed.first(where: { $0.type != "nbd" }) { return .untold("export \(other.id) is of type \(other.type), of which QEMU tells no settings") }
    if let ending = listed.first(where: \.isEnding) { return .untold("export \(ending.id) is just being ended") }
    if listed.count != offered.count { return .untold("QEMU has \(listed.count) exports, its server offers \(offered.count)") }
    if Set(offered.map(\.name)).count != offered.count { return .untold("its server offers one name twice") }
    var exports: [Export] = []
    for (export, offer) in zip(listed.reversed(), offered) {
      let what = "export \(export.id)"
      let meant = listed.filter { $0.id == offer.name || $0.node == offer.name }
      if !meant.isEmpty, !meant.contains(export) { return .untold("which of the exports is called \(offer.name) cannot be told") }
      guard let node = graph.nodes[export.node] else { return .untold("\(what) is of an image that QEMU does not tell of") }
      if let size = node.virtualSize, UInt64(clamping: size) / 512 != offer.size / 512 {
        return .untold("\(what) has \(offer.size) bytes, and its disk \(size)")
      }
      if let bitmap = offer.contexts.first(where: { $0.hasPrefix("qemu:dirty-bitmap:") }) {
        return .untold("\(what) shows a dirty bitmap (\(bitmap.dropFirst("qemu:dirty-bitmap:".count))), which is not carried over with it yet")
      }
      if let context = offer.contexts.first(where: { !["base:allocation", "qemu:allocation-depth"].contains($0) }) {
        return .untold("\(what) tells \(context), which is not known here")
      }
      let drive = node.isAnonymous ? graph.backends.first { $0.root == node.name && !$0.label.isEmpty }?.label : nil
      if node.isAnonymous, drive == nil { return .untold("\(what) is of a node without a name (\(node.name)), which another QEMU calls otherwise") }
      exports.append(
        Export(
          id: export.id, node: node.isAnonymous ? nil : node.name, drive: drive, name: offer.name, description: offer.description,
          isWritable: offer.isWritable, tellsDepth: offer.contexts.contains("qemu:allocation-depth")))
    }
    let servesOne = version >= servesSeveral && offered.contains { $0.isWritable && !$0.servesSeveral }
    return .server(NBDServer(exports: exports, servesOne: servesOne))
  }
}

extension NBDServer {
  /// Arguments of `nbd-server-start`, with a listening socket that QEMU was given under a name (`getfd`).
  public func startArguments(socket name: String) -> JSONValue { startArguments(at: ["type": "fd", "data": ["str": .string(name)]]) }

  /// - Parameter address: where it is to listen (`SocketAddressLegacy`).
  public func startArguments(at address: JSONValue) -> JSONValue {
    var arguments: [String: JSONValue] = ["addr": address]
    if servesOne { arguments["max-connections"] = 1 }
    return .object(arguments)
  }
}

extension NBDServer.Export {
  /// Arguments of `block-export-add`.
  /// - Parameter drives: what `query-block` of that QEMU answers; nil if no node's name is made up.
  public func arguments(drives: JSONValue?) -> JSONValue? {
    let there = drives?.array?.first { $0["device"]?.string == drive }?["inserted"]?["node-name"]?.string
    guard let node = node ?? there else { return nil }
    var arguments: [String: JSONValue] = [
      "type": "nbd", "id": .string(id), "node-name": .string(node), "name": .string(name), "writable": .bool(isWritable),
    ]
    if let description { arguments["description"] = .string(description) }
    if tellsDepth { arguments["allocation-depth"] = true }
    return .object(arguments)
  }

  /// The same as a user would give it to QEMU.
  public var command: String { "block-export-add \(arguments(drives: nil)?.text() ?? "of drive \(drive ?? ""), name \(name)")" }
}

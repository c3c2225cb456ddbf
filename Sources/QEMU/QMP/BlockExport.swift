/// A block node that a running QEMU offers to others. Source: `query-block-exports`.
public struct BlockExport: Sendable, Hashable {
  public var id: String
  /// The node's name, QEMU's own (`#block123`) if it was given none.
  public var node: String
  /// `nbd`, `vhost-user-blk`, `fuse`, `vduse-blk`.
  public var type: String
  /// It was ended, and is gone as soon as its last request is.
  public var isEnding: Bool

  public init(id: String, node: String, type: String = "nbd", isEnding: Bool = false) {
    (self.id, self.node, self.type, self.isEnding) = (id, node, type, isEnding)
  }

  init(_ export: JSONValue) {
    self.init(
      id: export["id"]?.string ?? "", node: export["node-name"]?.string ?? "", type: export["type"]?.string ?? "",
      isEnding: export["shutting-down"]?.bool ?? true)
  }

  /// From the answer to `query-block-exports`.
  public static func all(_ answer: JSONValue) -> [BlockExport] { (answer.array ?? []).map(BlockExport.init) }
}

/// The words by which a client learns what a server of the NBD protocol promises of an export, without opening it (`NBD_OPT_INFO`).
public struct NBDHandshake: Sendable, NBDDialogue {
  /// What a server promises of an export.
  public struct Export: Sendable, Hashable {
    /// `NBD_FLAG_…`: the transmission flags.
    public var flags: UInt16
    /// Bytes.
    public var size: UInt64

    /// Every connection sees what was written, and flushed, over any other (`NBD_FLAG_CAN_MULTI_CONN`).
    public var servesSeveral: Bool { flags & 1 << 8 != 0 }

    public init(flags: UInt16, size: UInt64) { (self.flags, self.size) = (flags, size) }
  }

  private let export: String
  private var frames = NBDFrames()
  private var found: Export?

  /// - Parameter export: its name; empty for the server's default.
  public init(export: String) { self.export = export }

  public mutating func hear(_ bytes: [UInt8]) -> (answer: [UInt8], outcome: NBDOutcome<Export>) {
    frames.hear(bytes)
    var answer: [UInt8] = []
    while let frame = frames.next() {
      switch frame {
      case .broken(let why): return (answer, .refused(why))
      case .greeting: answer += NBDFrames.hello + NBDFrames.option(NBDFrames.info, NBDFrames.counted(export) + [0, 0])
      case .reply(NBDFrames.information, let data):
        if let (flags, size) = NBDFrames.export(data) { found = Export(flags: flags, size: size) }
      case .reply(let type, _):
        answer += NBDFrames.option(NBDFrames.abort)
        if type != NBDFrames.acknowledged { return (answer, .refused(NBDFrames.reason(type))) }
        return (answer, found.map(NBDOutcome.found) ?? .refused("it tells nothing of the export"))
      }
    }
    return (answer, .waiting)
  }
}

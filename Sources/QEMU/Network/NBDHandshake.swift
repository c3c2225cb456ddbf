/// The words by which a client learns what a server of the NBD protocol promises of an export, without opening it.
///
/// A state machine: what the server said goes in, what is to be answered comes out.
/// Source: the protocol's document, `doc/proto.md` of NetworkBlockDevice/nbd (fixed newstyle, `NBD_OPT_INFO`).
public struct NBDHandshake: Sendable {
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
  public enum Outcome: Sendable, Hashable {
    /// More is to be heard first.
    case waiting
    case export(Export)
    /// It will not have this client, or not as one that speaks plainly: why.
    case refused(String)
  }

  private enum Stage { case greeting, reply }

  private let export: String
  private var stage = Stage.greeting
  private var heard: [UInt8] = []
  private var found: Export?

  /// - Parameter export: its name; empty for the server's default.
  public init(export: String) { self.export = export }

  private static let greeting = Array("NBDMAGICIHAVEOPT".utf8)
  private static let replyMagic: UInt64 = 0x0003_e889_0455_65a9
  private static let (abort, info): (UInt32, UInt32) = (2, 6)
  /// Longer than any that says something.
  private static let longestReply = 65536

  /// - Returns: what to send now, and what is known by then.
  public mutating func hear(_ bytes: [UInt8]) -> (answer: [UInt8], outcome: Outcome) {
    heard += bytes
    var answer: [UInt8] = []
    while true {
      switch stage {
      case .greeting:
        let known = min(heard.count, Self.greeting.count)
        if heard[..<known] != Self.greeting[..<known] { return (answer, .refused("it does not speak the NBD protocol in its newer form")) }
        guard heard.count >= 18 else { return (answer, .waiting) }
        // NBD_FLAG_FIXED_NEWSTYLE: it answers to options that it does not know.
        guard heard[17] & 1 != 0 else { return (answer, .refused("it does not tell of its exports")) }
        heard.removeFirst(18)
        answer += Self.bytes(UInt32(1)) + option(Self.info, Self.bytes(UInt32(export.utf8.count)) + Array(export.utf8) + [0, 0])
        stage = .reply
      case .reply:
        guard heard.count >= 20 else { return (answer, .waiting) }
        let (type, length) = (Self.number(heard[12..<16]), Int(Self.number(heard[16..<20])))
        guard Self.number(heard[0..<8]) == Self.replyMagic, length <= Self.longestReply else {
          return (answer, .refused("its answer is not understood"))
        }
        guard heard.count >= 20 + length else { return (answer, .waiting) }
        let data = Array(heard[20..<20 + length])
        heard.removeFirst(20 + length)
        switch type {
        case 3 where data.count >= 12 && data[0] == 0 && data[1] == 0: found = Export(flags: UInt16(Self.number(data[10..<12])), size: Self.number(data[2..<10]))
        case 3: break
        case 1:
          answer += option(Self.abort, [])
          return (answer, found.map(Outcome.export) ?? .refused("it tells nothing of the export"))
        default: return (answer + option(Self.abort, []), .refused(Self.reason(UInt32(type), data)))
        }
      }
    }
  }

  private static func reason(_ type: UInt32, _ data: [UInt8]) -> String {
    switch type {
    case 0x8000_0001: "it does not tell of its exports"
    case 0x8000_0002: "it does not allow it"
    case 0x8000_0005: "it wants TLS"
    case 0x8000_0006: "it has no such export"
    case 0x8000_0007: "it is shutting down"
    default: "it answers with error \(String(type, radix: 16))"
    }
  }

  private func option(_ option: UInt32, _ data: [UInt8]) -> [UInt8] {
    Array("IHAVEOPT".utf8) + Self.bytes(option) + Self.bytes(UInt32(data.count)) + data
  }

  private static func bytes(_ number: UInt32) -> [UInt8] { withUnsafeBytes(of: number.bigEndian) { Array($0) } }
  private static func number(_ bytes: ArraySlice<UInt8>) -> UInt64 { bytes.reduce(0) { $0 << 8 | UInt64($1) } }
}

/// What a dialogue with an NBD server has come to.
public enum NBDOutcome<Found: Sendable & Hashable>: Sendable, Hashable {
  /// More is to be heard first.
  case waiting
  case found(Found)
  /// It will not have this client, or not as one that speaks plainly: why.
  case refused(String)
}

/// A client's part in the negotiation with an NBD server: what the server said goes in, what is to be answered comes out.
public protocol NBDDialogue {
  associatedtype Found: Sendable & Hashable
  /// - Returns: what to send now, and what is known by then.
  mutating func hear(_ bytes: [UInt8]) -> (answer: [UInt8], outcome: NBDOutcome<Found>)
}

/// The negotiation's messages among the bytes that a server sends.
///
/// Source: the protocol's document, `doc/proto.md` of NetworkBlockDevice/nbd (fixed newstyle).
struct NBDFrames {
  enum Frame: Equatable {
    case greeting
    case reply(type: UInt32, data: [UInt8])
    /// Not what the protocol knows: why.
    case broken(String)
  }

  private var heard: [UInt8] = []
  private var isGreeted = false

  private static let greeting = Array("NBDMAGICIHAVEOPT".utf8)
  private static let replyMagic: UInt64 = 0x0003_e889_0455_65a9
  /// Longer than any that says something.
  private static let longestReply = 65536
  /// Numbers of options (`NBD_OPT_…`).
  static let (abort, list, info, structuredReply, listMetaContext): (UInt32, UInt32, UInt32, UInt32, UInt32) = (2, 3, 6, 8, 9)
  /// Types of replies (`NBD_REP_…`).
  static let (acknowledged, server, information, metaContext): (UInt32, UInt32, UInt32, UInt32) = (1, 2, 3, 4)
  /// The client's flags: fixed newstyle.
  static let hello = bytes(UInt32(1))

  mutating func hear(_ bytes: [UInt8]) { heard += bytes }

  /// The next message; nil if it has not come whole.
  mutating func next() -> Frame? {
    guard isGreeted else {
      let known = min(heard.count, Self.greeting.count)
      if heard[..<known] != Self.greeting[..<known] { return .broken("it does not speak the NBD protocol in its newer form") }
      guard heard.count >= 18 else { return nil }
      // NBD_FLAG_FIXED_NEWSTYLE: it answers to options that it does not know.
      guard heard[17] & 1 != 0 else { return .broken("it does not tell of its exports") }
      heard.removeFirst(18)
      isGreeted = true
      return .greeting
    }
    guard heard.count >= 20 else { return nil }
    let (type, length) = (UInt32(Self.number(heard[12..<16])), Int(Self.number(heard[16..<20])))
    guard Self.number(heard[0..<8]) == Self.replyMagic, length <= Self.longestReply else { return .broken("its answer is not understood") }
    guard heard.count >= 20 + length else { return nil }
    let data = Array(heard[20..<20 + length])
    heard.removeFirst(20 + length)
    return .reply(type: type, data: data)
  }

  static func reason(_ type: UInt32) -> String {
    switch type {
    case 0x8000_0001: "it does not tell of its exports"
    case 0x8000_0002: "it does not allow it"
    case 0x8000_0005: "it wants TLS"
    case 0x8000_0006: "it has no such export"
    case 0x8000_0007: "it is shutting down"
    default: "it answers with error \(String(type, radix: 16))"
    }
  }

  static func option(_ option: UInt32, _ data: [UInt8] = []) -> [UInt8] {
    Array("IHAVEOPT".utf8) + bytes(option) + bytes(UInt32(data.count)) + data
  }

  /// A string after its length.
  static func counted(_ text: String) -> [UInt8] { bytes(UInt32(text.utf8.count)) + Array(text.utf8) }

  /// Flags and size, of a reply that has them (`NBD_INFO_EXPORT`).
  static func export(_ data: [UInt8]) -> (flags: UInt16, size: UInt64)? {
    guard data.count >= 12, data[0] == 0, data[1] == 0 else { return nil }
    return (UInt16(number(data[10..<12])), number(data[2..<10]))
  }

  static func bytes(_ number: UInt32) -> [UInt8] { withUnsafeBytes(of: number.bigEndian) { Array($0) } }
  static func number(_ bytes: ArraySlice<UInt8>) -> UInt64 { bytes.reduce(0) { $0 << 8 | UInt64($1) } }
}

/// Reading and printing by hand: QEMU's answers are read while a guest stands still, and a decoder that
/// goes by way of `Decodable` takes ten times as long for them. Source: RFC 8259.
extension JSONValue {
  /// A text that is not one JSON value.
  public struct SyntaxError: Error, Equatable, CustomStringConvertible {
    /// Bytes into the text.
    public var offset: Int
    public var description: String { "not JSON at byte \(offset)" }
  }

  /// Parses one JSON text.
  public init(parsing bytes: some Collection<UInt8>) throws(SyntaxError) {
    var reader = Reader(bytes: Array(bytes))
    self = try reader.value(depth: 0)
    reader.skipSpace()
    if reader.index != reader.bytes.count { throw SyntaxError(offset: reader.index) }
  }

  /// The value as one line of JSON, keys sorted so that equal values print alike. Infinite numbers,
  /// which JSON has not, are printed as null.
  public func text() -> String {
    var text = ""
    write(to: &text)
    return text
  }

  private func write(to text: inout String) {
    switch self {
    case .null: text += "null"
    case .bool(let value): text += value ? "true" : "false"
    case .integer(let value): text += String(value)
    case .number(let value): text += value.isFinite ? value.description : "null"
    case .string(let value): text += JSONText.quote(value)
    case .array(let values):
      text += "["
      for (index, value) in values.enumerated() {
        if index > 0 { text += "," }
        value.write(to: &text)
      }
      text += "]"
    case .object(let members):
      text += "{"
      for (index, member) in members.sorted(by: { $0.key < $1.key }).enumerated() {
        if index > 0 { text += "," }
        text += JSONText.quote(member.key) + ":"
        member.value.write(to: &text)
      }
      text += "}"
    }
  }
}

private struct Reader {
  /// As deep as QEMU itself allows.
  static let deepest = 1024

  let bytes: [UInt8]
  var index = 0

  init(bytes: [UInt8]) { self.bytes = bytes }

  private var failure: JSONValue.SyntaxError { JSONValue.SyntaxError(offset: index) }
  private var current: UInt8? { index < bytes.count ? bytes[index] : nil }

  mutating func skipSpace() {
    while let byte = current, byte == 0x20 || byte == 0x0a || byte == 0x0d || byte == 0x09 { index += 1 }
  }

  /// Takes `byte` if it is the next that is not space.
  private mutating func take(_ byte: UInt8) -> Bool {
    skipSpace()
    guard current == byte else { return false }
    index += 1
    return true
  }

  private mutating func expect(_ byte: UInt8) throws(JSONValue.SyntaxError) {
    guard take(byte) else { throw failure }
  }

  mutating func value(depth: Int) throws(JSONValue.SyntaxError) -> JSONValue {
    skipSpace()
    guard depth < Self.deepest, let first = current else { throw failure }
    switch first {
    case UInt8(ascii: "{"): return try object(depth: depth)
    case UInt8(ascii: "["): return try array(depth: depth)
    case UInt8(ascii: "\""): return .string(try string())
    case UInt8(ascii: "t"): return try word("true", .bool(true))
    case UInt8(ascii: "f"): return try word("false", .bool(false))
    case UInt8(ascii: "n"): return try word("null", .null)
    default: return try number()
    }
  }

  private mutating func object(depth: Int) throws(JSONValue.SyntaxError) -> JSONValue {
    index += 1
    var members: [String: JSONValue] = [:]
    if take(UInt8(ascii: "}")) { return .object(members) }
    repeat {
      skipSpace()
      guard current == UInt8(ascii: "\"") else { throw failure }
      let key = try string()
      try expect(UInt8(ascii: ":"))
      members[key] = try value(depth: depth + 1)
    } while take(UInt8(ascii: ","))
    try expect(UInt8(ascii: "}"))
    return .object(members)
  }

  private mutating func array(depth: Int) throws(JSONValue.SyntaxError) -> JSONValue {
    index += 1
    var values: [JSONValue] = []
    if take(UInt8(ascii: "]")) { return .array(values) }
    repeat { values.append(try value(depth: depth + 1)) } while take(UInt8(ascii: ","))
    try expect(UInt8(ascii: "]"))
    return .array(values)
  }

  private mutating func word(_ word: StaticString, _ value: JSONValue) throws(JSONValue.SyntaxError) -> JSONValue {
    let length = word.utf8CodeUnitCount
    guard index + length <= bytes.count else { throw failure }
    for offset in 0..<length where bytes[index + offset] != word.utf8Start[offset] { throw failure }
    index += length
    return value
  }

  private mutating func number() throws(JSONValue.SyntaxError) -> JSONValue {
    let start = index
    while let byte = current, (0x30...0x39).contains(byte) || "+-.eE".utf8.contains(byte) { index += 1 }
    let text = String(decoding: bytes[start..<index], as: UTF8.self)
    // Swift reads more than JSON has: a plus in front, a point at either end.
    let digits = text.utf8.first == UInt8(ascii: "-") ? text.utf8.dropFirst() : text.utf8[...]
    guard let first = digits.first, let last = digits.last, (0x30...0x39).contains(first), (0x30...0x39).contains(last)
    else { throw JSONValue.SyntaxError(offset: start) }
    if let value = Int64(text) { return .integer(value) }
    guard let value = Double(text) else { throw JSONValue.SyntaxError(offset: start) }
    return .number(value)
  }

  private mutating func string() throws(JSONValue.SyntaxError) -> String {
    index += 1
    var start = index
    var text = ""
    while let byte = current {
      switch byte {
      case UInt8(ascii: "\""):
        text += String(decoding: bytes[start..<index], as: UTF8.self)
        index += 1
        return text
      case UInt8(ascii: "\\"):
        text += String(decoding: bytes[start..<index], as: UTF8.self)
        index += 1
        text.unicodeScalars.append(try escaped())
        start = index
      case 0..<0x20: throw failure
      default: index += 1
      }
    }
    throw failure
  }

  private mutating func escaped() throws(JSONValue.SyntaxError) -> Unicode.Scalar {
    guard let byte = current else { throw failure }
    index += 1
    switch byte {
    case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): return Unicode.Scalar(byte)
    case UInt8(ascii: "b"): return "\u{8}"
    case UInt8(ascii: "f"): return "\u{c}"
    case UInt8(ascii: "n"): return "\n"
    case UInt8(ascii: "r"): return "\r"
    case UInt8(ascii: "t"): return "\t"
    case UInt8(ascii: "u"):
      let unit = try hexadecimal()
      if let scalar = Unicode.Scalar(unit) { return scalar }
      // Half of a surrogate pair; one without its other half stands for nothing.
      guard unit < 0xdc00, index + 1 < bytes.count, bytes[index] == UInt8(ascii: "\\"), bytes[index + 1] == UInt8(ascii: "u")
      else { return "\u{fffd}" }
      let before = index
      index += 2
      let low = try hexadecimal()
      guard (0xdc00..<0xe000).contains(low) else {
        index = before
        return "\u{fffd}"
      }
      return Unicode.Scalar(0x10000 + (unit - 0xd800) << 10 + (low - 0xdc00)) ?? "\u{fffd}"
    default: throw failure
    }
  }

  private mutating func hexadecimal() throws(JSONValue.SyntaxError) -> UInt32 {
    guard index + 4 <= bytes.count, let value = UInt32(String(decoding: bytes[index..<index + 4], as: UTF8.self), radix: 16),
      bytes[index] != UInt8(ascii: "+"), bytes[index] != UInt8(ascii: "-")
    else { throw failure }
    index += 4
    return value
  }
}

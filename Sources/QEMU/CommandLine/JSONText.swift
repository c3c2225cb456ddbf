/// A JSON text as a tree that knows where each part stands, so that one member can be changed without
/// printing the others anew. QEMU's own dialect: RFC 8259, and strings in single quotes.
indirect enum JSONText: Sendable, Equatable {
  struct Member: Sendable, Equatable {
    var key: String
    var value: JSONText
    /// From the key's quote to the value's end, in bytes of UTF-8.
    var range: Range<Int>
  }

  case object([Member], Range<Int>)
  case array([JSONText], Range<Int>)
  /// A string without its quotes, a number as written, `on`, `off` or `null`.
  case scalar(String, Range<Int>)

  var range: Range<Int> {
    switch self {
    case .object(_, let range), .array(_, let range), .scalar(_, let range): range
    }
  }

  /// The tree, or nil if the text is not one JSON value or is nested deeper than QEMU allows (1024).
  static func parse(_ text: String) -> JSONText? {
    var parser = Parser(bytes: Array(text.utf8))
    parser.skipSpace()
    guard let value = parser.value(depth: 0) else { return nil }
    parser.skipSpace()
    return parser.index == parser.bytes.count ? value : nil
  }

  /// A string as JSON, in double quotes.
  static func quote(_ text: String) -> String {
    var out = "\""
    for scalar in text.unicodeScalars {
      switch scalar {
      case "\"": out += "\\\""
      case "\\": out += "\\\\"
      case "\n": out += "\\n"
      case "\t": out += "\\t"
      case _ where scalar.value < 0x20:
        let hex = String(scalar.value, radix: 16)
        out += "\\u" + String(repeating: "0", count: 4 - hex.count) + hex
      default: out.unicodeScalars.append(scalar)
      }
    }
    return out + "\""
  }
}

private struct Parser {
  let bytes: [UInt8]
  var index = 0

  init(bytes: [UInt8]) { self.bytes = bytes }

  var current: UInt8? { index < bytes.count ? bytes[index] : nil }

  mutating func skipSpace() {
    while let byte = current, byte == 0x20 || byte == 0x0a || byte == 0x0d || byte == 0x09 {
      index += 1
    }
  }

  mutating func take(_ character: Unicode.Scalar) -> Bool {
    guard current == UInt8(ascii: character) else { return false }
    index += 1
    return true
  }

  mutating func value(depth: Int) -> JSONText? {
    guard depth < 1024, let byte = current else { return nil }
    let start = index
    switch byte {
    case UInt8(ascii: "{"): return object(start, depth)
    case UInt8(ascii: "["): return array(start, depth)
    case UInt8(ascii: "\""), UInt8(ascii: "'"):
      guard let text = string() else { return nil }
      return .scalar(text, start..<index)
    default: return word(start)
    }
  }

  private mutating func object(_ start: Int, _ depth: Int) -> JSONText? {
    index += 1
    var members: [JSONText.Member] = []
    skipSpace()
    if take("}") { return .object([], start..<index) }
    while true {
      skipSpace()
      let memberStart = index
      guard let key = string() else { return nil }
      skipSpace()
      guard take(":") else { return nil }
      skipSpace()
      guard let value = value(depth: depth + 1) else { return nil }
      members.append(.init(key: key, value: value, range: memberStart..<index))
      skipSpace()
      if take("}") { return .object(members, start..<index) }
      guard take(",") else { return nil }
    }
  }

  private mutating func array(_ start: Int, _ depth: Int) -> JSONText? {
    index += 1
    var elements: [JSONText] = []
    skipSpace()
    if take("]") { return .array([], start..<index) }
    while true {
      skipSpace()
      guard let value = value(depth: depth + 1) else { return nil }
      elements.append(value)
      skipSpace()
      if take("]") { return .array(elements, start..<index) }
      guard take(",") else { return nil }
    }
  }

  private mutating func word(_ start: Int) -> JSONText? {
    while let byte = current,
      !([0x20, 0x0a, 0x0d, 0x09] + Array(",]}:\"".utf8)).contains(byte)
    {
      index += 1
    }
    let text = String(decoding: bytes[start..<index], as: UTF8.self)
    switch text {
    case "true": return .scalar("on", start..<index)
    case "false": return .scalar("off", start..<index)
    case "null": return .scalar("null", start..<index)
    default:
      guard let first = text.utf8.first, first == UInt8(ascii: "-") || (0x30...0x39).contains(first),
        text.utf8.allSatisfy({ (0x30...0x39).contains($0) || "+-.eE".utf8.contains($0) })
      else { return nil }
      return .scalar(text, start..<index)
    }
  }

  private mutating func string() -> String? {
    guard let quote = current, quote == UInt8(ascii: "\"") || quote == UInt8(ascii: "'") else {
      return nil
    }
    index += 1
    var out: [UInt8] = []
    while let byte = current {
      index += 1
      if byte == quote { return String(decoding: out, as: UTF8.self) }
      guard byte == UInt8(ascii: "\\") else {
        out.append(byte)
        continue
      }
      guard let escaped = current else { return nil }
      index += 1
      switch escaped {
      case UInt8(ascii: "n"): out.append(0x0a)
      case UInt8(ascii: "t"): out.append(0x09)
      case UInt8(ascii: "r"): out.append(0x0d)
      case UInt8(ascii: "b"): out.append(0x08)
      case UInt8(ascii: "f"): out.append(0x0c)
      case UInt8(ascii: "u"):
        guard let scalar = escapedScalar() else { return nil }
        out.append(contentsOf: String(scalar).utf8)
      case UInt8(ascii: "\""), UInt8(ascii: "'"), UInt8(ascii: "\\"), UInt8(ascii: "/"):
        out.append(escaped)
      default: return nil
      }
    }
    return nil
  }

  private mutating func escapedScalar() -> Unicode.Scalar? {
    guard let high = hex4() else { return nil }
    guard (0xd800..<0xdc00).contains(high) else { return Unicode.Scalar(high) }
    guard take("\\"), take("u"), let low = hex4(), (0xdc00..<0xe000).contains(low) else { return nil }
    return Unicode.Scalar(0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00))
  }

  private mutating func hex4() -> UInt32? {
    guard index + 4 <= bytes.count else { return nil }
    let text = String(decoding: bytes[index..<index + 4], as: UTF8.self)
    guard text.utf8.allSatisfy({ $0 != UInt8(ascii: "+") && $0 != UInt8(ascii: "-") }) else { return nil }
    index += 4
    return UInt32(text, radix: 16)
  }
}

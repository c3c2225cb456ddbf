/// The value of an option: `key=value,…` or a JSON object, as text that can be read by key and edited
/// by key without changing any other byte.
///
/// Comma syntax follows QEMU's `get_opt_name_value`: `,,` is a comma inside a value, the first word
/// without `=` belongs to the implied key, any later one is a flag that is on, or off if it starts
/// with `no` (`nowait`). A JSON object is what starts with `{`.
public struct OptionValue: Sendable, Hashable {
  /// A value to be set, so that JSON stays typed JSON.
  public enum Scalar: Sendable, Hashable {
    case string(String)
    case bool(Bool)
    case number(UInt64)
  }

  /// One key with its value. Booleans of JSON are `on` and `off`, as in comma syntax; members of
  /// nested objects have dotted keys, elements of arrays their index.
  public struct Entry: Sendable, Hashable {
    public var key: String
    public var value: String
    /// Where the entry stands in the text's UTF-8, without the comma around it.
    var range: Range<Int>
    /// Where the value's text stands; empty at the entry's end for a bare flag.
    var valueRange: Range<Int>
    var isFlag = false
    var isImplied = false
  }

  public private(set) var text: String
  public let impliedKey: String?
  private let mayBeJSON: Bool

  /// - Parameter mayBeJSON: false for an option whose value QEMU never reads as JSON.
  public init(_ text: String, impliedKey: String? = nil, mayBeJSON: Bool = true) {
    self.text = text
    self.impliedKey = impliedKey
    self.mayBeJSON = mayBeJSON
  }

  public var isJSON: Bool { mayBeJSON && text.utf8.first == UInt8(ascii: "{") }

  /// All entries in order; a key may occur more than once. Empty if JSON is malformed.
  public var entries: [Entry] {
    if isJSON { return JSONText.parse(text).map { Self.flatten($0) } ?? [] }
    return Self.commaEntries(Array(text.utf8), impliedKey: impliedKey)
  }

  /// True for JSON that does not parse.
  public var isMalformed: Bool { isJSON && JSONText.parse(text) == nil }

  /// The value of a key, dotted for a nested one (`file.filename`). As in QEMU the last one counts.
  public func value(_ key: String) -> String? { entries.last { $0.key == key }?.value }

  public subscript(key: String) -> String? { value(key) }

  /// Whether a key is set and says on.
  public func isOn(_ key: String) -> Bool { value(key).map(Self.isOn) ?? false }

  /// The words QEMU takes for true.
  public static func isOn(_ value: String) -> Bool {
    ["on", "yes", "true", "y"].contains(value)
  }

  /// The words QEMU takes for false.
  public static func isOff(_ value: String) -> Bool {
    ["off", "no", "false", "n"].contains(value)
  }

  /// Sets a key: the last occurrence is changed, a missing key is appended. If it says so already,
  /// not a byte changes.
  public mutating func set(_ key: String, to value: Scalar) {
    let plain = value.plain
    if let old = entries.last(where: { $0.key == key }) {
      if old.value == plain || value.isSaid(by: old.value) { return }
      if isJSON {
        replace(old.valueRange, with: value.json)
      } else if old.isFlag || (old.isImplied && plain.contains("=")) {
        replaceWord(old.range, with: "\(key)=\(Self.escape(plain))")
      } else {
        replaceWord(old.valueRange, with: Self.escape(plain))
      }
      return
    }
    if isJSON {
      guard case .object(let members, let range)? = JSONText.parse(text) else { return }
      let comma = members.isEmpty ? "" : ","
      replace(
        range.upperBound - 1..<range.upperBound - 1,
        with: comma + JSONText.quote(key) + ":" + value.json)
    } else {
      append(key, plain)
    }
  }

  /// Adds `key=value` at the end of comma syntax, where it counts more than any before it.
  mutating func append(_ key: String, _ value: String) {
    // A comma that ends the text would read as one of a value once another follows it.
    let end = entries.last { !$0.range.isEmpty }?.range.upperBound ?? 0
    let kept = String(decoding: Array(text.utf8)[..<end], as: UTF8.self)
    text = (end == 0 ? "" : kept + ",") + "\(key)=\(Self.escape(value))"
  }

  /// Gives another value to one of several entries that have the same key.
  mutating func set(entry place: Int, to value: String) {
    let range = entries[place].valueRange
    if isJSON { replace(range, with: JSONText.quote(value)) } else { replaceWord(range, with: Self.escape(value)) }
  }

  public mutating func set(_ key: String, to value: String) { set(key, to: .string(value)) }
  public mutating func set(_ key: String, to value: Bool) { set(key, to: .bool(value)) }

  /// Removes every occurrence of a key (in JSON: a member of the outermost object), with its comma.
  public mutating func remove(_ key: String) {
    guard isJSON else {
      let all = entries
      if !all.contains(where: { $0.key == key }) { return }
      let kept = all.filter { $0.key != key && !$0.range.isEmpty }
      let bytes = Array(text.utf8)
      text = kept.enumerated().map { index, entry in
        // A flag that comes to stand first must not become the value of the implied key.
        if index == 0, entry.isFlag, impliedKey != nil { return "\(entry.key)=\(entry.value)" }
        return String(decoding: bytes[entry.range], as: UTF8.self)
      }.joined(separator: ",")
      return
    }
    while case .object(let members, _)? = JSONText.parse(text),
      let index = members.firstIndex(where: { $0.key == key })
    {
      let range = members[index].range
      if index > 0 {
        replace(members[index - 1].range.upperBound..<range.upperBound, with: "")
      } else {
        replace(range.lowerBound..<(members.count > 1 ? members[1].range.lowerBound : range.upperBound), with: "")
      }
    }
  }

  /// Replaces what ends where an entry ends. Empty entries behind it go: with the comma before them they
  /// would now read as a comma of the value.
  private mutating func replaceWord(_ range: Range<Int>, with new: String) {
    let comma = UInt8(ascii: ",")
    let rest = Array(text.utf8)[range.upperBound...]
    let commas = rest.prefix { $0 == comma }.count
    replace(range.lowerBound..<range.upperBound + max(0, commas - 1), with: new)
  }

  private mutating func replace(_ range: Range<Int>, with new: String) {
    var bytes = Array(text.utf8)
    bytes.replaceSubrange(range, with: new.utf8)
    text = String(decoding: bytes, as: UTF8.self)
  }

  /// A value as comma syntax needs it: each comma doubled.
  public static func escape(_ value: String) -> String {
    var out = ""
    for character in value.unicodeScalars {
      if character == "," { out.unicodeScalars.append(",") }
      out.unicodeScalars.append(character)
    }
    return out
  }

  private static func commaEntries(_ bytes: [UInt8], impliedKey: String?) -> [Entry] {
    let comma = UInt8(ascii: ","), equals = UInt8(ascii: "=")
    var entries: [Entry] = []
    var index = 0
    while index < bytes.count {
      let start = index
      var end = index
      while end < bytes.count, bytes[end] != comma, bytes[end] != equals { end += 1 }
      let hasValue = end < bytes.count && bytes[end] == equals
      let isImplied = !hasValue && start == 0 && impliedKey != nil
      if hasValue || isImplied {
        let valueStart = hasValue ? end + 1 : start
        var value: [UInt8] = []
        index = valueStart
        while index < bytes.count {
          if bytes[index] == comma {
            guard index + 1 < bytes.count, bytes[index + 1] == comma else { break }
            index += 1
          }
          value.append(bytes[index])
          index += 1
        }
        let key = hasValue ? String(decoding: bytes[start..<end], as: UTF8.self) : impliedKey!
        entries.append(
          Entry(
            key: key, value: String(decoding: value, as: UTF8.self), range: start..<index,
            valueRange: valueStart..<index, isImplied: isImplied))
      } else {
        index = end
        var name = String(decoding: bytes[start..<end], as: UTF8.self)
        var value = "on"
        if name.hasPrefix("no") {
          name.removeFirst(2)
          value = "off"
        }
        entries.append(
          Entry(key: name, value: value, range: start..<end, valueRange: end..<end, isFlag: true))
      }
      index += 1
    }
    return entries
  }

  private static func flatten(_ value: JSONText) -> [Entry] {
    var entries: [Entry] = []
    func walk(_ value: JSONText, _ path: String, _ range: Range<Int>) {
      switch value {
      case .object(let members, _):
        for member in members {
          walk(member.value, path.isEmpty ? member.key : path + "." + member.key, member.range)
        }
      case .array(let elements, _):
        for (index, element) in elements.enumerated() {
          walk(element, path + "." + String(index), element.range)
        }
      case .scalar(let text, let own):
        entries.append(Entry(key: path, value: text, range: range, valueRange: own))
      }
    }
    walk(value, "", 0..<0)
    return entries
  }
}

extension OptionValue.Scalar {
  var plain: String {
    switch self {
    case .string(let text): text
    case .bool(let flag): flag ? "on" : "off"
    case .number(let number): String(number)
    }
  }

  /// `yes` and `true` say on as well.
  func isSaid(by word: String) -> Bool {
    guard case .bool(let flag) = self else { return false }
    return flag ? OptionValue.isOn(word) : OptionValue.isOff(word)
  }

  var json: String {
    switch self {
    case .string(let text): JSONText.quote(text)
    case .bool(let flag): flag ? "true" : "false"
    case .number(let number): String(number)
    }
  }
}

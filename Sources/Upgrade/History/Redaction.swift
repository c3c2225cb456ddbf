import QEMU

/// Takes secrets out of a command line: what it keeps may be shown to anybody.
///
/// Secrets are the `data` of `secret` objects, and everything called a password, in either way of writing options;
/// and what stands between `//` and `@` in an address.
enum Redaction {
  static let mark = "***"

  static func of(_ arguments: [String]) -> [String] { arguments.map(of) }

  static func of(_ argument: String) -> String {
    if argument.hasPrefix("{") || argument.hasPrefix("json:{") {
      let prefix = argument.hasPrefix("json:") ? "json:" : ""
      // What is no JSON after all may hold anything.
      guard let value = try? JSONValue(parsing: Array(argument.dropFirst(prefix.count).utf8)) else { return mark }
      return prefix + redact(value).text()
    }
    let isSecret = argument.hasPrefix("secret") || argument.hasPrefix("qom-type=secret")
    let parts = argument.split(separator: ",", omittingEmptySubsequences: false)
    var shown: [String] = []
    var index = 0
    while index < parts.count {
      let part = parts[index]
      index += 1
      guard let equals = part.firstIndex(of: "="), isHidden(String(part[..<equals]), inSecret: isSecret) else {
        shown.append(withoutUser(String(part)))
        continue
      }
      shown.append(part[...equals] + mark)
      // `,,` is a comma of the value: what follows it belongs to the secret.
      while index + 1 < parts.count, parts[index].isEmpty { index += 2 }
    }
    return shown.joined(separator: ",")
  }

  private static func isHidden(_ key: String, inSecret: Bool) -> Bool {
    let key = key.split(separator: ".").last.map(String.init) ?? key
    return inSecret && key == "data" || ["password", "passwd", "cookie"].contains(key)
  }

  private static func withoutUser(_ text: String) -> String {
    guard let slashes = text.firstRange(of: "//"), let at = text[slashes.upperBound...].firstIndex(of: "@"),
      !text[slashes.upperBound..<at].contains("/")
    else { return text }
    return text[..<slashes.upperBound] + mark + text[at...]
  }

  private static func redact(_ value: JSONValue) -> JSONValue {
    switch value {
    case .object(let members):
      let isSecret = members["qom-type"]?.string?.hasPrefix("secret") ?? false
      return .object(Dictionary(uniqueKeysWithValues: members.map { key, value in
        (key, isHidden(key, inSecret: isSecret) ? .string(mark) : redact(value))
      }))
    case .array(let values): return .array(values.map(redact))
    case .string(let text): return .string(withoutUser(text))
    default: return value
    }
  }
}

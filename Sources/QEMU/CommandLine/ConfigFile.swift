public import Kernel

/// A file for `-readconfig`, as the options that say the same: `[device "d0"]` with `driver = "e1000"` is
/// `-device id=d0,driver=e1000`.
///
/// Read as QEMU's `qemu_config_foreach` (util/qemu-config.c) reads it. Like QEMU it pays no attention to what
/// follows a header (Incus numbers its groups there: `[global][1]`) or a value's second quote. But where QEMU cuts
/// a word or line and says nothing, this fails.
public struct ConfigFile: Sendable, Hashable {
  /// In the file's order.
  public private(set) var options: [CommandOption] = []
  /// The groups of the file, as it names them.
  public private(set) var groups: Set<String> = []

  /// - Parameter path: for failures, which name the line too.
  public init(parsing text: [UInt8], path: String) throws(Failure) {
    guard !text.contains(0), String(validating: text, as: UTF8.self) != nil else {
      throw Failure(step: "read the configuration", subject: path, reason: "it is not text in UTF-8")
    }
    var section: Section?
    for (index, line) in text.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false).enumerated() {
      func fault(_ reason: String) -> Failure {
        Failure(step: "read the configuration", subject: "\(path):\(index + 1)", reason: reason)
      }
      let bytes = Array(line)
      if bytes.isEmpty || bytes[0] == UInt8(ascii: "#") { continue }
      if bytes.count > Self.longestLine { throw fault("the line is longer than the \(Self.longestLine) bytes that QEMU reads") }
      if bytes[0] == UInt8(ascii: "[") {
        finish(section)
        let next: Section
        do { next = try Section(header: bytes, line: index + 1) } catch { throw fault(error.reason) }
        section = next
        continue
      }
      if section == nil { throw fault("a value stands before the first [group]") }
      do { try section?.take(bytes) } catch { throw fault(error.reason) }
    }
    finish(section)
  }

  /// Whether a text looks like such a file: its first line that is no comment opens a group.
  public static func isLikely(_ text: [UInt8]) -> Bool {
    text.split(separator: UInt8(ascii: "\n")).first { $0[$0.startIndex] != UInt8(ascii: "#") && !$0.allSatisfy(Scanner.isSpace) }?
      .first == UInt8(ascii: "[")
  }

  /// QEMU has a buffer of 1024 bytes: one for the line's end, one for C's.
  private static let longestLine = 1022

  /// The option that says the same as a group, by the group's name: those that QEMU acts on wherever they come
  /// from. (`vm_config_groups` has more, which only the option itself gives an effect.)
  private static let optionNames: [String: String] = {
    let same = [
      "accel", "action", "add-fd", "audiodev", "chardev", "device", "drive", "fsdev", "fw_cfg", "global", "icount",
      "iscsi", "machine", "mon", "name", "net", "netdev", "nic", "numa", "object", "sandbox", "spice", "tpmdev", "vnc",
    ]
    var names = Dictionary(uniqueKeysWithValues: same.map { ($0, $0) })
    names["memory"] = "m"
    names["smp-opts"] = "smp"
    names["boot-opts"] = "boot"
    return names
  }()

  private mutating func finish(_ section: Section?) {
    guard let section else { return }
    groups.insert(section.group)
    let value = section.entries.map { "\($0.key)=\(OptionValue.escape($0.value))" }.joined(separator: ",")
    if let name = Self.optionNames[section.group] {
      if !value.isEmpty { options.append(CommandOption(name: name, value: value)) }
    } else {
      // No option has this name: it is reported as it is.
      options.append(CommandOption(name: "[\(section.group)]", value: value.isEmpty ? nil : value))
    }
  }
}

extension ConfigFile {
  private struct SyntaxError: Error { var reason: String }

  private struct Section {
    var group: String
    var line: Int
    var entries: [(key: String, value: String)] = []

    /// `[group]` or `[group "id"]`.
    init(header: [UInt8], line: Int) throws(SyntaxError) {
      self.line = line
      var scanner = Scanner(bytes: header, index: 1)
      group = scanner.text { $0 != UInt8(ascii: "]") && $0 != UInt8(ascii: "\"") && !Scanner.isSpace($0) }
      scanner.skipSpace()
      if scanner.take(UInt8(ascii: "\"")) {
        let id = scanner.text { $0 != UInt8(ascii: "\"") }
        guard scanner.take(UInt8(ascii: "\"")), !id.isEmpty else { throw SyntaxError(reason: "the id of the group is not in quotes") }
        try Self.check(id, "the id")
        entries = [("id", id)]
      }
      guard !group.isEmpty, scanner.take(UInt8(ascii: "]")) else { throw SyntaxError(reason: "[ without the name of a group and ]") }
      try Self.check(group, "the name of the group")
    }

    /// `key = "value"`.
    mutating func take(_ line: [UInt8]) throws(SyntaxError) {
      var scanner = Scanner(bytes: line, index: 0)
      scanner.skipSpace()
      let key = scanner.text { !Scanner.isSpace($0) }
      scanner.skipSpace()
      guard !key.isEmpty, scanner.take(UInt8(ascii: "=")) else {
        throw SyntaxError(reason: "neither a comment, nor a [group], nor a key = \"value\"")
      }
      scanner.skipSpace()
      guard scanner.take(UInt8(ascii: "\"")) else { throw SyntaxError(reason: "the value of \(key) is not in quotes") }
      let value = scanner.text { $0 != UInt8(ascii: "\"") }
      guard scanner.take(UInt8(ascii: "\"")) else { throw SyntaxError(reason: "the quote of \(key) is not closed") }
      try Self.check(key, "the key")
      guard !key.utf8.contains(where: { ",=\"".utf8.contains($0) }) else { throw SyntaxError(reason: "no option has a key \(key)") }
      guard !entries.contains(where: { $0.key == key }) else {
        throw SyntaxError(reason: "\(key) is given twice, which QEMU's versions read differently")
      }
      entries.append((key, value))
    }

    private static func check(_ word: String, _ what: String) throws(SyntaxError) {
      if word.utf8.count > 63 { throw SyntaxError(reason: "\(what) is longer than the 63 bytes that QEMU reads") }
    }
  }

  private struct Scanner {
    let bytes: [UInt8]
    var index: Int

    static func isSpace(_ byte: UInt8) -> Bool { byte == 0x20 || (0x09...0x0d).contains(byte) }

    mutating func skipSpace() {
      while index < bytes.count, Self.isSpace(bytes[index]) { index += 1 }
    }

    mutating func take(_ byte: UInt8) -> Bool {
      guard index < bytes.count, bytes[index] == byte else { return false }
      index += 1
      return true
    }

    mutating func text(while belongs: (UInt8) -> Bool) -> String {
      let start = index
      while index < bytes.count, belongs(bytes[index]) { index += 1 }
      return String(decoding: bytes[start..<index], as: UTF8.self)
    }
  }
}

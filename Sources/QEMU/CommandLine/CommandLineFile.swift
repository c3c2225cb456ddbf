public import Kernel

/// A command line as somebody kept it: typed for a shell, or as the kernel has it.
extension CommandLine {
  /// Reads the words of a `/proc/PID/cmdline` copy (they end in NUL), a file for `-readconfig`, or a command
  /// for a POSIX shell: lines that start with `#` are comments, a backslash at a line's end joins it with the
  /// next, and leading `NAME=value` words are the environment. A text that starts with an option has no program.
  ///
  /// - Parameter subject: what failures call the text: a path.
  public init(reading bytes: [UInt8], subject: String) throws(Failure) {
    func refused(_ reason: String) -> Failure {
      Failure(
        step: "read the command line in", subject: subject, reason: reason,
        hint: "--argv takes a QEMU command as a shell would, or a copy of /proc/PID/cmdline; - is standard input")
    }
    guard let text = String(validating: bytes, as: UTF8.self) else { throw refused("it is not text in UTF-8") }
    if ConfigFile.isLikely(bytes) {
      self.init(argv: [""] + (try ConfigFile(parsing: bytes, path: subject)).options.flatMap(\.words))
      return
    }
    var words: [String]
    if bytes.contains(0) {
      words = text.split(separator: "\0", omittingEmptySubsequences: false).dropLast(bytes.last == 0 ? 1 : 0).map(String.init)
    } else {
      do { words = try Self.shellWords(text) } catch { throw refused(error.reason) }
      // Behind `sudo`, `nohup`, `exec`, `env A=b`, `docker run image`, …
      if let start = words.firstIndex(where: Self.isProgram), start > 0, !Self.isOption(words[0]) {
        words.removeFirst(start)
      }
      if let other = words.dropFirst().firstIndex(where: { Paths.base($0).hasPrefix("qemu-system-") }), !Self.isOption(words[other - 1]) {
        throw refused("it is more than one command: \(words[other]) stands in it, too")
      }
    }
    if words.first?.utf8.first == UInt8(ascii: "-") { words.insert("", at: 0) }
    self.init(argv: words)
    let name = program.split(separator: "/").last ?? ""
    guard name.contains("qemu") || name.contains("kvm") || options.contains(where: { $0.info != nil }) else {
      throw refused(words.isEmpty ? "it is empty" : "it is no command of QEMU")
    }
  }

  private static func isOption(_ word: String) -> Bool { word.utf8.first == UInt8(ascii: "-") }
  private static func isProgram(_ word: String) -> Bool {
    let name = Paths.base(word)
    return name.hasPrefix("qemu-system-") || ["qemu-kvm", "kvm", "qemu"].contains(name)
  }

  struct ShellSyntaxError: Error { var reason: String }

  /// Splits as a POSIX shell would, without expansions.
  static func shellWords(_ text: String) throws(ShellSyntaxError) -> [String] {
    let newline = UInt8(ascii: "\n"), backslash = UInt8(ascii: "\\")
    // Lines are joined before quotes count, and comments stand on lines of their own.
    let lines = text.utf8.split(separator: newline).filter { $0.first != UInt8(ascii: "#") }
    var joined: [UInt8] = []
    for line in lines {
      let line = line.last == UInt8(ascii: "\r") ? line.dropLast() : line
      joined += line.last == backslash ? Array(line.dropLast()) : line + [newline]
    }
    if let last = lines.last, last.last == backslash {
      throw ShellSyntaxError(reason: "the last line ends in a backslash, and no other follows")
    }
    var words: [String] = []
    var word: [UInt8]?
    var quote: UInt8?
    var isEscaped = false
    for byte in joined {
      switch byte {
      case _ where isEscaped:
        isEscaped = false
        if quote != nil, !"\"\\$`".utf8.contains(byte) { word = (word ?? []) + [backslash] }
        word = (word ?? []) + [byte]
      case backslash where quote != UInt8(ascii: "'"): isEscaped = true
      case _ where byte == quote: quote = nil
      case _ where quote != nil: word?.append(byte)
      case UInt8(ascii: "'"), UInt8(ascii: "\""):
        quote = byte
        word = word ?? []
      case UInt8(ascii: " "), UInt8(ascii: "\t"), newline:
        if let done = word { words.append(String(decoding: done, as: UTF8.self)) }
        word = nil
      case UInt8(ascii: "|"), UInt8(ascii: ";"), UInt8(ascii: "&"):
        throw ShellSyntaxError(
          reason: "\(Character(Unicode.Scalar(byte))) stands outside of quotes: that is more than one command (after \(words.last ?? "nothing"))")
      default: word = (word ?? []) + [byte]
      }
    }
    if let quote {
      let start = String(decoding: (word ?? []).prefix(40).prefix { $0 != newline }, as: UTF8.self)
      throw ShellSyntaxError(reason: "the quote \(Character(Unicode.Scalar(quote))) is not closed in the word that starts with \(start)")
    }
    if let done = word { words.append(String(decoding: done, as: UTF8.self)) }
    return Array(words.drop(while: isEnvironment))
  }

  /// `NAME=value` before the program.
  private static func isEnvironment(_ word: String) -> Bool {
    guard let equals = word.utf8.firstIndex(of: UInt8(ascii: "=")), let first = word.utf8.first, !(0x30...0x39).contains(first)
    else { return false }
    return word.utf8[..<equals].allSatisfy {
      (0x30...0x39).contains($0) || (0x41...0x5a).contains($0) || (0x61...0x7a).contains($0) || $0 == UInt8(ascii: "_")
    }
  }
}

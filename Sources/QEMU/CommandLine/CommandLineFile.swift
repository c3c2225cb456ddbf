public import Kernel

/// A command line as somebody kept it: typed for a shell, or as the kernel has it.
extension CommandLine {
  /// Reads the words of a `/proc/PID/cmdline` copy (they end in NUL) or of a command for a POSIX shell:
  /// lines that start with `#` are comments, a backslash at a line's end joins it with the next, and
  /// leading `NAME=value` words are the environment.
  ///
  /// - Parameter subject: what failures call the text: a path.
  public init(reading bytes: [UInt8], subject: String) throws(Failure) {
    func refused(_ reason: String) -> Failure {
      Failure(
        step: "read the command line in", subject: subject, reason: reason,
        hint: "--argv takes a QEMU command as a shell would, or a copy of /proc/PID/cmdline; - is standard input")
    }
    guard let text = String(validating: bytes, as: UTF8.self) else { throw refused("it is not text in UTF-8") }
    let words: [String]
    if bytes.contains(0) {
      words = text.split(separator: "\0", omittingEmptySubsequences: false).dropLast(bytes.last == 0 ? 1 : 0).map(String.init)
    } else {
      guard let split = Self.shellWords(text) else { throw refused("a quote is not closed") }
      words = split
    }
    self.init(argv: words)
    let name = program.split(separator: "/").last ?? ""
    guard name.contains("qemu") || name.contains("kvm") || options.contains(where: { $0.info != nil }) else {
      throw refused(words.isEmpty ? "it is empty" : "it is no command of QEMU")
    }
  }

  /// Splits as a POSIX shell would, without expansions; nil if a quote is not closed.
  static func shellWords(_ text: String) -> [String]? {
    // Lines are joined before quotes count, and comments stand on lines of their own.
    let lines = text.split(separator: "\n").filter { !$0.hasPrefix("#") }
    let joined = lines.map { $0.hasSuffix("\\") ? String($0.dropLast()) : $0 + "\n" }.joined()
    var words: [String] = []
    var word: [UInt8]?
    var quote: UInt8?
    var isEscaped = false
    for byte in joined.utf8 {
      switch byte {
      case _ where isEscaped:
        isEscaped = false
        if byte == UInt8(ascii: "\n") { continue }
        if quote != nil, !"\"\\$`".utf8.contains(byte) { word = (word ?? []) + [UInt8(ascii: "\\")] }
        word = (word ?? []) + [byte]
      case UInt8(ascii: "\\") where quote != UInt8(ascii: "'"): isEscaped = true
      case _ where byte == quote: quote = nil
      case _ where quote != nil: word?.append(byte)
      case UInt8(ascii: "'"), UInt8(ascii: "\""):
        quote = byte
        word = word ?? []
      case UInt8(ascii: " "), UInt8(ascii: "\t"), UInt8(ascii: "\n"):
        if let done = word { words.append(String(decoding: done, as: UTF8.self)) }
        word = nil
      default: word = (word ?? []) + [byte]
      }
    }
    if quote != nil { return nil }
    if let done = word { words.append(String(decoding: done, as: UTF8.self)) }
    let isEnvironment = { (word: String) in
      guard let equals = word.firstIndex(of: "=") else { return false }
      return word.first?.isNumber == false && word[..<equals].allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber || $0 == "_") }
    }
    return Array(words.drop(while: isEnvironment))
  }
}

/// What `query-chardev` prints of what is behind a character device: `unix:/run/vm/c.sock,server=on`, `null`, `mux`, …
struct ChardevText {
  /// `unix`, `tcp`, `file`, …
  var kind: String
  /// What follows the kind.
  var rest: String
  /// QEMU listens.
  var isServer: Bool

  init(_ text: String) {
    let absent = "disconnected:"
    let text = text.hasPrefix(absent) ? text.dropFirst(absent.count) : text[...]
    kind = String(text.prefix { $0 != ":" && $0 != "," })
    rest = String(text.dropFirst(kind.count).drop { $0 == ":" })
    // Before 6.0 it is `,server`.
    isServer = text.contains(",server")
  }

  private static let network: Set<String> = ["tcp", "telnet", "tn3270", "websocket", "wss"]
  /// Backends that are told by another word, or by one of several.
  private static let words: [String: Set<String>] = [
    "tty": ["serial"], "parport": ["parallel"], "memory": ["ringbuf", "memory"], "ringbuf": ["ringbuf", "memory"],
  ]
  private static let plain: Set<String> = ["null", "file", "pty", "udp", "pipe", "stdio", "vc", "serial", "parallel"]

  /// Whether an option that made the character device with this id made what is there now.
  ///
  /// Ports and abstract names are not compared: the kernel tells those.
  func isWhat(_ chardev: Chardev, absolute: (String) -> String) -> Bool {
    guard chardev.backend == "socket" else {
      if let words = Self.words[chardev.backend] { return words.contains(kind) }
      if Self.plain.contains(chardev.backend) { return kind == chardev.backend }
      // How others are told is their own affair; what is told plainly is none of them.
      return kind != "unix" && !Self.plain.union(Self.network).contains(kind)
    }
    if chardev.parameters["fd"] != nil { return kind == "unix" || Self.network.contains(kind) }
    guard let path = chardev.parameters["path"] else { return Self.network.contains(kind) && isServer == chardev.parameters.isOn("server") }
    if kind != "unix" || isServer != chardev.parameters.isOn("server") { return false }
    if chardev.parameters.isOn("abstract") { return true }
    // A connection was made to a stand-in, if it is one that the last upgrade carried over.
    if !isServer, rest.isEmpty || rest.hasPrefix(",") || rest.hasPrefix("moult-") || rest.contains("/moult/") { return true }
    return [path, absolute(path)].contains { rest == $0 || rest.hasPrefix($0 + ",") }
  }
}

/// The command line of virtiofsd, the program behind `vhost-user-fs`.
///
/// It serves one connection and ends with it. For another QEMU another one is started, which takes its listening socket by
/// descriptor. Source: `virtiofsd --help` (1.13).
public struct FileServerArguments: Sendable, Equatable {
  /// The program's name first.
  public let words: [String]

  public init(_ words: [String]) { self.words = words }

  /// What it serves, if that is an absolute path.
  public var directory: String? {
    let key = "--shared-dir"
    let value = words.last { $0.hasPrefix(key + "=") }.map { String($0.dropFirst(key.count + 1)) }
      ?? words.lastIndex(of: key).flatMap { $0 + 1 < words.count ? words[$0 + 1] : nil }
    return value.flatMap { $0.hasPrefix("/") ? $0 : nil }
  }

  /// Where it is told to listen, and what goes with it: of the socket's file.
  private static let listening: Set<String> = ["--socket-path", "--socket-group", "--fd"]

  /// - Returns: what makes it take its connection from a listening socket; nil if it is not told where it listens in a way that
  ///   is known (the virtiofsd of QEMU before 8.0 is not, and has no state to take over).
  public func listening(at descriptor: Int32) -> [String]? {
    var rest = words[...]
    guard let name = rest.popFirst() else { return nil }
    var (result, isTold) = ([name], false)
    while let word = rest.popFirst() {
      let key = word.prefix { $0 != "=" }
      guard Self.listening.contains(String(key)) else {
        result.append(word)
        continue
      }
      if key.count == word.utf8.count, rest.popFirst() == nil { return nil }
      if key != "--socket-group" { isTold = true }
    }
    return isTold ? result + ["--fd=\(descriptor)"] : nil
  }
}

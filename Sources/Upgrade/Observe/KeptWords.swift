import Kernel
import QEMU

/// The VM's command line as its owner knows it, in the environment of a QEMU that was started with stand-ins in it:
/// with other ports, and descriptors for taps. As much to be trusted as the arguments: both are the process's memory.
enum KeptWords {
  static let variable = "MOULT_COMMAND_LINE"
  /// Longest string that execve(2) takes, its end included. Source: MAX_ARG_STRLEN.
  static let longest = 128 << 10

  /// - Parameters:
  ///   - words: the VM's.
  ///   - started: the words that the process is started with, to which these belong.
  static func entry(_ words: [String], started: [String]) -> String {
    variable + "=" + hash(started) + " " + JSONValue.array(words.map(JSONValue.string)).text()
  }

  /// Nil if there are none, or if they are another process's: the variable was inherited.
  /// - Throws: if they are this process's and cannot be read: its own words have stand-ins in them.
  static func words(in environment: [String], started: [String]) throws(Failure) -> [String]? {
    guard let entry = environment.first(where: { $0.hasPrefix(variable + "=") }) else { return nil }
    let parts = entry.dropFirst(variable.count + 1).split(separator: " ", maxSplits: 1)
    guard parts.count == 2, parts[0] == hash(started) else { return nil }
    var values: [JSONValue] = []
    do { values = try JSONValue(parsing: Array(parts[1].utf8)).array ?? [] } catch { /* No word is read then. */ }
    let words = values.compactMap(\.string)
    guard !words.isEmpty, words.count == values.count else {
      throw Failure(
        step: "read the VM's command line in", subject: variable, reason: "the environment of its QEMU is damaged: it is no list of words",
        hint: "the VM runs on; restart it before it is upgraded")
    }
    return words
  }

  static func without(_ environment: [String]) -> [String] { environment.filter { !$0.hasPrefix(variable + "=") } }

  private static func hash(_ words: [String]) -> String {
    var hash: UInt64 = 0xcbf2_9ce4_8422_2325  // FNV-1a
    for word in words {
      for byte in word.utf8 + [0] { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3 }
    }
    return String(hash, radix: 16)
  }
}

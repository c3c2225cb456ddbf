import Kernel
import QEMU

/// What back ends of networks have said, in the environment of a QEMU that has a connection to them from the one before: not
/// every version can be asked (``VhostUserDevice/isTold(by:)``), and nobody else knows.
enum KeptAnswers {
  static let variable = "MOULT_BACK_ENDS"

  /// Each behind the inode of its connection: one that was made since is another.
  static func entry(_ network: ObservedNetwork) -> String? {
    let words = network.outgoing.compactMap { outgoing -> String? in
      guard case .network? = outgoing.backEnd, let inode = outgoing.socket?.inode else { return nil }
      return "\(inode)=\(outgoing.backEnd?.word ?? "")"
    }
    return words.isEmpty ? nil : variable + "=" + words.joined(separator: " ")
  }

  /// By the inodes of connections. What cannot be read is not there.
  static func backEnds(in environment: [String]) -> [UInt64: BackEnd] {
    let entry = environment.first { $0.hasPrefix(variable + "=") }?.dropFirst(variable.count + 1) ?? ""
    let pairs = entry.split(separator: " ").compactMap { pair -> (UInt64, BackEnd)? in
      let parts = pair.split(separator: "=", maxSplits: 1)
      guard parts.count == 2, let inode = UInt64(parts[0]), let backEnd = BackEnd(word: String(parts[1])), case .network = backEnd else { return nil }
      return (inode, backEnd)
    }
    return Dictionary(pairs) { first, _ in first }
  }

  static func without(_ environment: [String]) -> [String] { environment.filter { !$0.hasPrefix(variable + "=") } }
}

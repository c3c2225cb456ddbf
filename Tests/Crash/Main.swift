import Foundation
import Glibc
import Lab

/// The crash matrix and the soak, on real VMs: `make crash-test`, `make soak`.
@main
struct Main {
  static let usage = """
    usage: moult-crash matrix [--jobs N] [--versions OLD,NEW] [--busy] [--list] [CASE…]
           moult-crash soak [--runs N] [--vms N]
    CASE is a case's name, the beginning of names, or a pattern of such: upgrade/shared/switch.begin/after/kill-moult,
    rollback/copy/, 'upgrade/*+setregs'
    """

  static func main() {
    Ending.blockSignals()
    do {
      guard geteuid() == 0 else { throw LabFailure("moult-crash needs root, as moult does") }
      var words = Array(CommandLine.arguments.dropFirst())
      guard !words.isEmpty else { throw Misuse("no command") }
      switch words.removeFirst() {
      case "matrix": exit(try Matrix(words).run() ? 0 : 1)
      case "soak": exit(try Soak(words).run() ? 0 : 1)
      case "worker": try Worker(words).run()
      case let word: throw Misuse("\(word): unknown command")
      }
    } catch let misuse as Misuse {
      complain("\(misuse)\n\(usage)")
      exit(64)
    } catch {
      complain("\(error)")
      exit(1)
    }
  }

  /// Not print(): what goes into a pipe is to come out at once.
  static func say(_ text: String) { FileHandle.standardOutput.write(Data((text + "\n").utf8)) }
  static func complain(_ text: String) { FileHandle.standardError.write(Data((text + "\n").utf8)) }
}

struct Misuse: Error, CustomStringConvertible {
  var description: String
  init(_ description: String) { self.description = description }
}

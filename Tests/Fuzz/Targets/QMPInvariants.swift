import QEMU

/// What holds for whatever a monitor sends: the messages do not depend on the pieces that they come in, and a
/// value's text is read as that value.
enum QMPInvariants {
  static func violation(_ input: [UInt8]) -> String? {
    let whole = outcome(input, pieces: nil)
    for pieces in [1, 7] where outcome(input, pieces: pieces) != whole {
      return "in pieces of \(pieces) bytes it says \(outcome(input, pieces: pieces)), not \(whole)"
    }
    guard let value = try? JSONValue(parsing: input) else { return nil }
    guard let again = try? JSONValue(parsing: value.text().utf8) else { return "does not read its own text: \(value.text())" }
    guard again.text() == value.text() else { return "reads another value from its own text: \(value.text())" }
    return nil
  }

  private struct Outcome: Equatable {
    var messages: [QMPMessage] = []
    var fault: QMPMessage.Fault?
  }

  /// Every message up to the first fault, and the fault.
  private static func outcome(_ input: [UInt8], pieces: Int?) -> Outcome {
    var reader = QMPReader()
    var outcome = Outcome()
    var rest = input[...]
    while !rest.isEmpty {
      // A fault in a piece hides the messages before it in the same piece: no piece has two lines.
      let lineEnd = rest.firstIndex(of: UInt8(ascii: "\n")).map { $0 + 1 } ?? rest.endIndex
      let end = min(lineEnd, pieces.map { rest.startIndex + $0 } ?? lineEnd)
      do { outcome.messages += try reader.read(rest[..<end]) } catch {
        outcome.fault = error
        return outcome
      }
      rest = rest[end...]
    }
    return outcome
  }
}

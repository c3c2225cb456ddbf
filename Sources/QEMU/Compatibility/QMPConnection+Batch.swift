public import Kernel

extension QMPConnection {
  /// A command that may be unknown to the QEMU that is asked, or that it may have no answer to.
  public typealias Query = (command: String, arguments: JSONValue?)

  /// Sends all queries before it reads the first answer: together they cost one round trip.
  /// - Returns: the answers in the same order; nil for each that QEMU answered with an error.
  public func answers(to queries: [Query]) throws(Failure) -> [JSONValue?] {
    var pending: [Int64] = []
    for query in queries { pending.append(try send(query.command, query.arguments)) }
    var answers: [JSONValue?] = []
    for (identifier, query) in zip(pending, queries) {
      do throws(Failure) {
        answers.append(try reply(to: identifier, command: query.command))
      } catch where error.errno == nil && !isClosed {
        answers.append(nil)
      }
    }
    return answers
  }
}

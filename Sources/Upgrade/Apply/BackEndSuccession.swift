import Glibc
import Kernel
import QEMU

/// A connection that a back end is to serve after the running QEMU's (``BackEnd/servesSuccessors``).
///
/// The new QEMU has the socket from its start. It is connected in the pause, and not before: one that is given up stays in the
/// back end's queue until that has ended its service of the running QEMU. There it waits, with what the new QEMU has told its
/// stand-in.
final class BackEndSuccession {
  /// Shared with the new QEMU.
  let socket: DescriptorBox
  private let path: String
  private let answers: VhostUserAnswers
  /// What the new QEMU has sent for the back end's requests.
  private var channel: DescriptorBox?

  /// Nil for an outgoing connection of another kind.
  init?(_ outgoing: ObservedNetwork.Outgoing) throws(Failure) {
    guard case .vhostUser(let answers) = outgoing.backEnd, let path = outgoing.path else { return nil }
    (self.path, self.answers) = (path, answers)
    socket = DescriptorBox(try UnixSocket.unconnected())
    // As QEMU has its own; and the guest does not wait for room in the queue.
    try valueOrErrno("set flags of the connection to", path) { [socket] in fcntl(socket.raw, F_SETFL, O_NONBLOCK) }
  }

  /// - Parameter numbers: of the new QEMU's connections with the stand-in.
  func prepare(_ standIn: BackEndProcess, _ numbers: [CInt], in new: ProcessHandle) throws(Failure) {
    channel = try numbers.dropFirst().first.map { number throws(Failure) in try standIn.end(of: number, in: new) }
  }

  func connect() throws(Failure) {
    do throws(Failure) { try UnixSocket.connect(socket.raw, to: path) } catch {
      var failure = error
      failure.reason = failure.errno == .timedOut ? "too many connections wait in its queue" : failure.reason
      failure.hint = "the back end serves one QEMU at a time, and must listen for the next: is another program connected to it?"
      throw failure
    }
    let introduction = answers.introduction
    try UnixMessage.send(introduction.first, to: socket.raw)
    if let channel { try UnixMessage.send(introduction.withDescriptor, descriptor: channel.raw, to: socket.raw) }
  }
}

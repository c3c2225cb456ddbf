import Glibc
import Kernel
import QEMU
import SystemPackage

/// A connection that a back end is to serve after the running QEMU's (``BackEnd/servesSuccessors``): all that it takes to make
/// it, for whoever has to.
///
/// The new QEMU has the socket from its start. It is connected in the pause, and not before: one that is given up stays in the
/// back end's queue until that has ended its service of the running QEMU. There it waits, with what the new QEMU has told its
/// stand-in.
public struct BackEndSuccession: Sendable, Equatable, Codable {
  public var path: String
  /// The socket that listens there: of the program that serves the running QEMU, which has the same image open. By the
  /// number in `socket:[N]`.
  public var listener: UInt64
  /// Those that the new QEMU has agreed upon with its stand-in.
  public var protocolFeatures: UInt64
  /// The new QEMU's end of what it has sent for the back end's requests, by the same kind of number; nil if it sends none.
  public var channel: UInt64?

  /// Connects the new QEMU's socket, if that has not been done, and repeats what the new QEMU has told its stand-in. Another
  /// time is harmless: nothing of it is answered, and the same words mean the same.
  /// - Parameters:
  ///   - socket: the new QEMU's, or a duplicate.
  ///   - channel: the other end of ``channel``.
  ///   - pid: the new QEMU's, whose network namespace is the back end's.
  func connect(_ socket: CInt, channel: CInt?, networkOf pid: pid_t) throws(Failure) {
    if try !UnixSocket.isConnected(socket) {
      guard let file = try Files.statusIfPresent(path),
        try UnixSocketTable.read(networkOf: pid).contains(where: { $0.inode == listener && $0.state == .listening && $0.isBound(to: file) })
      else {
        throw failure("the program that serves the running QEMU does not listen there any more", "a back end that was started anew serves another VM")
      }
      do throws(Failure) { try UnixSocket.connect(socket, to: path) } catch {
        throw failure(
          error.errno == .timedOut ? "too many connections wait in its queue" : error.reason,
          "the back end serves one QEMU at a time, and must listen for the next: is another program connected to it?", error.errno)
      }
    }
    let introduction = VhostUserAnswers.introduction(protocolFeatures: protocolFeatures)
    try UnixMessage.send(introduction.first, to: socket)
    if let channel { try UnixMessage.send(introduction.withDescriptor, descriptor: channel, to: socket) }
  }

  /// A socket to be connected.
  static func socket() throws(Failure) -> DescriptorBox {
    let socket = DescriptorBox(try UnixSocket.unconnected())
    // As QEMU has its own; and the guest does not wait for room in the queue.
    try valueOrErrno("set flags of socket", "\(socket.raw)") { fcntl(socket.raw, F_SETFL, O_NONBLOCK) }
    return socket
  }

  private func failure(_ reason: String?, _ hint: String, _ errno: Errno? = nil) -> Failure {
    Failure(step: "connect to", subject: path, errno: errno, reason: reason, hint: hint)
  }
}

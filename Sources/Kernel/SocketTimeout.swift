import Glibc

/// How long a call on a socket may wait (socket(7)).
public enum SocketTimeout {
  public enum Direction: Sendable { case sending, receiving }

  /// - Parameter milliseconds: 0: for ever.
  public static func set(_ direction: Direction, of socket: CInt, milliseconds: Int) throws(Failure) {
    var time = timeval(tv_sec: milliseconds / 1000, tv_usec: milliseconds % 1000 * 1000)
    let option = direction == .sending ? SO_SNDTIMEO : SO_RCVTIMEO
    try valueOrErrno("set timeout of", "socket \(socket)") {
      setsockopt(socket, SOL_SOCKET, option, &time, socklen_t(MemoryLayout<timeval>.size))
    }
  }
}

import Glibc

/// The C calls on a unix socket that the lab's clients are made of.
enum UnixSocket {
  /// A sockaddr for `path`, made once and used for many connections.
  static func address(_ path: String) throws -> sockaddr_un {
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    let bytes = Array(path.utf8)
    let room = MemoryLayout.size(ofValue: address.sun_path)
    guard bytes.count < room else { throw LabFailure("\(path): longer than a socket's path can be") }
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: bytes) }
    return address
  }

  /// connect(2); 0 or errno.
  static func connect(
    _ descriptor: CInt, _ address: inout sockaddr_un, _ size: socklen_t = socklen_t(MemoryLayout<sockaddr_un>.size)
  ) -> CInt {
    let result = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        Glibc.connect(descriptor, $0, size)
      }
    }
    return result == 0 ? 0 : errno
  }

  static func make(nonBlocking: Bool = false) -> CInt {
    socket(
      AF_UNIX,
      CInt(SOCK_STREAM.rawValue) | CInt(SOCK_CLOEXEC.rawValue)
        | (nonBlocking ? CInt(SOCK_NONBLOCK.rawValue) : 0), 0)
  }

  /// How long a blocking call on it may take, in seconds.
  static func limit(_ descriptor: CInt, seconds: Double) {
    var time = timeval(tv_sec: Int(seconds), tv_usec: Int(seconds.truncatingRemainder(dividingBy: 1) * 1e6))
    let size = socklen_t(MemoryLayout<timeval>.size)
    setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &time, size)
    setsockopt(descriptor, SOL_SOCKET, SO_SNDTIMEO, &time, size)
  }
}

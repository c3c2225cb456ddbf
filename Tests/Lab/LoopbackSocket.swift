import Glibc

/// TCP on the loopback interface.
public enum LoopbackSocket {
  static func address(_ port: UInt16) -> sockaddr_in {
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = port.bigEndian
    address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
    return address
  }

  /// Ports that nothing listens at just now.
  public static func freePorts(_ count: Int) -> [UInt16] {
    var sockets: [CInt] = []
    defer { for descriptor in sockets { close(descriptor) } }
    return (0..<count).map { _ in
      let descriptor = socket(AF_INET, CInt(SOCK_STREAM.rawValue), 0)
      sockets.append(descriptor)
      var address = address(0)
      var size = socklen_t(MemoryLayout<sockaddr_in>.size)
      withUnsafeMutablePointer(to: &address) {
        $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
          _ = bind(descriptor, $0, size)
          _ = getsockname(descriptor, $0, &size)
        }
      }
      return UInt16(bigEndian: address.sin_port)
    }
  }

  /// Connects once, and ends the connection without leaving a trace of it in the kernel.
  /// - Returns: 0 or errno; EAGAIN if nobody has answered within 5 ms.
  static func attempt(_ port: UInt16) -> CInt {
    let descriptor = socket(AF_INET, CInt(SOCK_STREAM.rawValue) | CInt(SOCK_CLOEXEC.rawValue) | CInt(SOCK_NONBLOCK.rawValue), 0)
    defer { close(descriptor) }
    var reset = linger(l_onoff: 1, l_linger: 0)
    setsockopt(descriptor, SOL_SOCKET, SO_LINGER, &reset, socklen_t(MemoryLayout<linger>.size))
    var address = address(port)
    let result = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) }
    }
    if result == 0 { return 0 }
    if errno != EINPROGRESS { return errno }
    var entry = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
    if poll(&entry, 1, 5) == 0 { return EAGAIN }
    var error: CInt = 0
    var size = socklen_t(MemoryLayout<CInt>.size)
    getsockopt(descriptor, SOL_SOCKET, SO_ERROR, &error, &size)
    return error
  }
}

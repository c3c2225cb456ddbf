import Glibc
import SystemPackage

/// TCP sockets of the calling thread's network namespace.
public enum InternetSocket {
  /// Connects to an address.
  ///
  /// - Parameters:
  ///   - host: an address in digits, IPv4 or IPv6; not a name.
  ///   - timeoutMilliseconds: how long the connection may take to be made; then ETIMEDOUT.
  public static func connect(_ host: String, _ port: UInt16, timeoutMilliseconds: Int) throws(Failure) -> OwnedFD {
    let subject = (host.contains(":") ? "[\(host)]" : host) + ":\(port)"
    let isIPv6 = host.contains(":")
    let socket = OwnedFD(
      try valueOrErrno("connect to", subject) {
        Glibc.socket(isIPv6 ? AF_INET6 : AF_INET, CInt(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
      })
    try SocketTimeout.set(.sending, of: socket.raw, milliseconds: timeoutMilliseconds)
    let raw = socket.raw
    func make<Address>(_ address: Address) throws(Failure) {
      var address = address
      try valueOrErrno("connect to", subject) {
        withUnsafePointer(to: &address) { pointer in
          pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { Glibc.connect(raw, $0, socklen_t(MemoryLayout<Address>.size)) }
        }
      }
    }
    func parse(_ family: CInt, _ room: UnsafeMutableRawPointer) throws(Failure) {
      if inet_pton(family, host, room) != 1 { throw Failure(step: "connect to", subject: subject, reason: "the address is not in digits") }
    }
    do throws(Failure) {
      if isIPv6 {
        var address = sockaddr_in6()
        address.sin6_family = sa_family_t(AF_INET6)
        address.sin6_port = port.bigEndian
        try parse(AF_INET6, &address.sin6_addr)
        try make(address)
      } else {
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = port.bigEndian
        try parse(AF_INET, &address.sin_addr)
        try make(address)
      }
    } catch where error.errno == .nowInProgress {
      var failure = error
      failure.errno = .timedOut
      throw failure
    }
    return socket
  }
}

import CKernel
import Glibc

/// A TCP port of a network namespace that is kept for one program: whoever asks for any port gets another one.
public struct ReservedPort: ~Copyable, Sendable {
  public let port: UInt16
  private let socket: OwnedFD

  /// In the calling thread's network namespace.
  public init() throws(Failure) {
    var port: UInt16 = 0
    socket = OwnedFD(try valueOrErrno("reserve a port", "") { moult_reserve_port(&port) })
    self.port = port
  }
}

/// A listening socket that belongs to another process, here as a duplicate.
public enum ListeningSocket {
  /// Makes a listening socket deaf: attempts to connect get no answer.
  public static func deafen(_ socket: CInt) throws(Failure) {
    try valueOrErrno("deafen a socket", "\(socket)") { moult_drop_incoming(socket) }
  }
}

/// A connection to a port of the loopback interface of the calling thread's network namespace.
public struct LoopbackConnection: ~Copyable, Sendable {
  public let socket: OwnedFD
  /// The port at this end.
  public let localPort: UInt16

  public init(to port: UInt16, isIPv6: Bool) throws(Failure) {
    var local: UInt16 = 0
    socket = OwnedFD(
      try valueOrErrno("connect to port", "\(port)") { moult_connect_loopback(port, isIPv6 ? 1 : 0, &local) })
    localPort = local
  }
}

/// A listening socket at a free port of the loopback interface of the calling thread's network namespace.
public struct LoopbackListener: ~Copyable, Sendable {
  public let socket: OwnedFD
  public let port: UInt16

  public init() throws(Failure) {
    var port: UInt16 = 0
    socket = OwnedFD(try valueOrErrno("listen at a port", "") { moult_listen_loopback(&port) })
    self.port = port
  }
}

extension UnixSocket {
  /// Listens at an abstract name in the calling thread's network namespace.
  public static func listen(abstract name: String) throws(Failure) -> OwnedFD {
    OwnedFD(try valueOrErrno("listen at", "@" + name) { moult_listen_abstract(name) })
  }

  /// Connects to a socket with an abstract name in the calling thread's network namespace.
  public static func connect(abstract name: String) throws(Failure) -> OwnedFD {
    OwnedFD(try valueOrErrno("connect to", "@" + name) { moult_connect_abstract(name) })
  }
}

import CKernel
import Glibc
import SystemPackage

/// A port of a network namespace that is kept for one program: whoever asks for any TCP port gets another one. When it was
/// reserved, nobody had the UDP port of that number.
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

  /// Ends it, which wakes whoever waits for it (shutdown(2)): also of UDP, although the kernel says that it is not connected.
  public static func shut(_ socket: CInt) throws(Failure) {
    if shutdown(socket, CInt(SHUT_RDWR)) != 0, errno != ENOTCONN {
      throw Failure(step: "shut down", subject: "socket \(socket)", errno: Errno(rawValue: errno))
    }
  }
}

/// What is said over a stream socket that nobody waits for. Source: socket(7).
public enum StreamSocket {
  /// Passes on what has arrived at one socket, without waiting.
  ///
  /// All of it gets into the other one's queue, whether its peer reads or not: the limit of that queue (SO_SNDBUF) is
  /// raised for so long, which needs CAP_NET_ADMIN. What the peer of a connection that has ended does not take is dropped.
  /// It leaves the one queue when it is in the other: whoever does this again, because this process was killed or failed
  /// in between, may say it twice, and loses nothing.
  /// - Parameter target: nil to throw it away.
  public static func passOn(from source: CInt, to target: CInt?) throws(Failure) {
    var chunk = [UInt8](repeating: 0, count: 65536)
    while true {
      let count = recv(source, &chunk, chunk.count, CInt(MSG_DONTWAIT) | CInt(MSG_PEEK))
      if count == 0 || count < 0 && (errno == EAGAIN || errno == ECONNRESET) { return }
      if count < 0, errno == EINTR { continue }
      if count < 0 { throw Failure(step: "receive over socket", subject: "\(source)", errno: Errno(rawValue: errno)) }
      if let target { try put(chunk[..<count], into: target) }
      try SocketQueue.drop(count, from: source)
    }
  }

  /// Sends each piece by a call of its own: passt (of 2023) reads a frame at once or not at all. There is room for all.
  public static func put(pieces: [ArraySlice<UInt8>], into target: CInt) throws(Failure) {
    if pieces.isEmpty { return }
    let had = try limit(of: target)
    // A frame takes more of the kernel's memory than it has bytes.
    try raiseLimit(of: target, to: had + CInt(pieces.reduce(0) { $0 + 2 * $1.count + 2048 }))
    defer { setLimit(target, SO_SNDBUF, had) }
    for piece in pieces { try put(piece, into: target) }
  }

  /// What was set: the kernel tells twice that.
  private static func limit(of socket: CInt) throws(Failure) -> CInt {
    var limit: CInt = 0
    var size = socklen_t(MemoryLayout<CInt>.size)
    try valueOrErrno("read the limit of socket", "\(socket)") { getsockopt(socket, SOL_SOCKET, SO_SNDBUF, &limit, &size) }
    return limit / 2
  }

  /// Lets more wait to be read: by default a unix socket holds no more than some 300 writes of a byte.
  public static func raiseLimit(of socket: CInt, to bytes: CInt) throws(Failure) {
    try valueOrErrno("raise the limit of socket", "\(socket)") { setLimit(socket, SO_SNDBUFFORCE, bytes) }
  }

  private static func put(_ bytes: ArraySlice<UInt8>, into target: CInt) throws(Failure) {
    var rest = bytes
    var limit: CInt?
    defer { if let limit { setLimit(target, SO_SNDBUF, limit) } }
    while !rest.isEmpty {
      let sent = rest.withUnsafeBytes { send(target, $0.baseAddress, $0.count, CInt(MSG_DONTWAIT | MSG_NOSIGNAL)) }
      if sent >= 0 {
        rest = rest.dropFirst(sent)
      } else if errno == EAGAIN, limit == nil {
        let had = try self.limit(of: target)
        limit = had
        // More than whatever may be passed on at once: what was put there before is in that queue, too.
        try raiseLimit(of: target, to: had + 16 << 20)
      } else if errno == EPIPE || errno == ECONNRESET {
        return
      } else if errno != EINTR {
        throw Failure(step: "send to", subject: "socket \(target)", errno: Errno(rawValue: errno))
      }
    }
  }

  @discardableResult
  private static func setLimit(_ socket: CInt, _ option: CInt, _ bytes: CInt) -> CInt {
    var bytes = bytes
    return setsockopt(socket, SOL_SOCKET, option, &bytes, socklen_t(MemoryLayout<CInt>.size))
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

  /// The abstract name that a socket was bound to (getsockname(2), unix(7)); nil for any other file.
  public static func abstractName(of socket: CInt) throws(Failure) -> String? {
    var address = sockaddr_un()
    var size = socklen_t(MemoryLayout<sockaddr_un>.size)
    do throws(Failure) {
      try valueOrErrno("read the name of socket", "\(socket)") {
        withUnsafeMutablePointer(to: &address) { getsockname(socket, UnsafeMutableRawPointer($0).assumingMemoryBound(to: sockaddr.self), &size) }
      }
    } catch where error.errno == .notSocket { return nil }
    let bytes = withUnsafeBytes(of: &address) { Array($0.prefix(Int(size)).dropFirst(MemoryLayout<sa_family_t>.size)) }
    guard address.sun_family == sa_family_t(AF_UNIX), bytes.first == 0 else { return nil }
    return String(decoding: bytes.dropFirst(), as: UTF8.self)
  }
}

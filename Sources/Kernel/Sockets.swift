import CKernel
import Glibc
import SystemPackage

/// Who made the socket at the other end (SO_PEERCRED): of a listener, whoever called listen(2).
public struct PeerCredentials: Sendable, Equatable {
  public var pid: pid_t
  public var user: UInt32
  public var group: UInt32
}

/// The two ends of a connection. Take them by consuming the pair.
public struct SocketPair: ~Copyable, Sendable {
  public var first: OwnedFD
  public var second: OwnedFD
}

/// Unix sockets (unix(7)).
public enum UnixSocket {
  /// The longest path that fits in sockaddr_un, without the terminator.
  public static let maximumPathLength = 107

  /// Two connected stream sockets, close-on-exec.
  public static func pair() throws(Failure) -> SocketPair {
    var pair: [CInt] = [-1, -1]
    let kind = CInt(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue)
    try valueOrErrno("make socket pair", "") { socketpair(AF_UNIX, kind, 0, &pair) }
    return SocketPair(first: OwnedFD(pair[0]), second: OwnedFD(pair[1]))
  }

  /// Connects to a listening stream socket, of any path length.
  ///
  /// - Parameter timeoutMilliseconds: how long to wait for room in the listener's queue; then ETIMEDOUT. 0: for ever.
  public static func connect(_ path: String, timeoutMilliseconds: Int = 5000) throws(Failure) -> OwnedFD {
    let socket = try unconnected()
    try connect(socket.raw, to: path, timeoutMilliseconds: timeoutMilliseconds)
    return socket
  }

  /// A stream socket that is not connected yet, close-on-exec.
  public static func unconnected() throws(Failure) -> OwnedFD {
    OwnedFD(try valueOrErrno("make socket", "") { Glibc.socket(AF_UNIX, CInt(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0) })
  }

  /// Connects one that somebody has already.
  public static func connect(_ socket: CInt, to path: String, timeoutMilliseconds: Int = 5000) throws(Failure) {
    if path.utf8.count > maximumPathLength {
      let named = try OwnedFD.naming(path)
      try connect(socket, "/proc/self/fd/\(named.raw)", path, timeoutMilliseconds)
    } else {
      try connect(socket, path, path, timeoutMilliseconds)
    }
  }

  private static func connect(
    _ socket: CInt, _ path: String, _ subject: String, _ timeoutMilliseconds: Int
  ) throws(Failure) {
    try SocketTimeout.set(.sending, of: socket, milliseconds: timeoutMilliseconds)
    do throws(Failure) {
      _ = try withAddress(path) { address, length in
        valueOrErrnoResult("connect to", subject) { Glibc.connect(socket, address, length) }
      }.get()
    } catch where error.errno == .resourceTemporarilyUnavailable {
      var failure = error
      failure.errno = .timedOut
      throw failure
    }
    try SocketTimeout.set(.sending, of: socket, milliseconds: 0)
  }

  /// Whether one was connected; its other end may have been closed since.
  public static func isConnected(_ socket: CInt) throws(Failure) -> Bool {
    var address = sockaddr_un()
    var length = socklen_t(MemoryLayout<sockaddr_un>.size)
    do throws(Failure) {
      try valueOrErrno("read peer of socket", "\(socket)") {
        withUnsafeMutablePointer(to: &address) { $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { getpeername(socket, $0, &length) } }
      }
      return true
    } catch where error.errno == .socketNotConnected { return false }
  }

  /// Whether the other end of a connection has been closed, or either has been shut down.
  public static func hasEnded(_ socket: CInt) throws(Failure) -> Bool {
    var look = pollfd(fd: socket, events: Int16(bitPattern: UInt16(0x2000)) /* POLLRDHUP */, revents: 0)
    return try valueOrErrno("look at socket", "\(socket)") { poll(&look, 1, 0) } > 0
  }

  /// Listens at a path that does not exist yet; at most ``maximumPathLength`` bytes.
  public static func listen(_ path: String, backlog: CInt = 8) throws(Failure) -> OwnedFD {
    guard path.utf8.count <= maximumPathLength else {
      throw Failure(step: "listen at", subject: path, errno: .fileNameTooLong)
    }
    let socket = OwnedFD(
      try valueOrErrno("listen at", path) {
        Glibc.socket(AF_UNIX, CInt(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
      })
    let raw = socket.raw
    _ = try withAddress(path) { address, length in
      valueOrErrnoResult("listen at", path) { bind(raw, address, length) }
    }.get()
    try valueOrErrno("listen at", path) { Glibc.listen(raw, backlog) }
    return socket
  }

  /// Takes the next connection of a listener.
  public static func accept(_ listener: CInt) throws(Failure) -> OwnedFD {
    OwnedFD(
      try valueOrErrno("accept", "descriptor \(listener)") {
        let accepted = Glibc.accept(listener, nil, nil)
        if accepted >= 0 { _ = fcntl(accepted, F_SETFD, FD_CLOEXEC) }
        return accepted
      })
  }

  private static func withAddress<Result>(
    _ path: String, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Result
  ) -> Result {
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    withUnsafeMutableBytes(of: &address.sun_path) { room in
      // The last byte stays 0.
      for (index, byte) in path.utf8.prefix(room.count - 1).enumerated() { room[index] = byte }
    }
    return withUnsafePointer(to: &address) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        body($0, socklen_t(MemoryLayout<sockaddr_un>.size))
      }
    }
  }

  private static func valueOrErrnoResult(
    _ step: String, _ subject: String, _ call: () -> CInt
  ) -> Result<CInt, Failure> {
    do throws(Failure) { return .success(try valueOrErrno(step, subject, call)) } catch { return .failure(error) }
  }

  public static func peerCredentials(_ socket: CInt) throws(Failure) -> PeerCredentials {
    var peer = PeerCredentials(pid: 0, user: 0, group: 0)
    try valueOrErrno("read peer of socket", "\(socket)") {
      moult_peer_credentials(socket, &peer.pid, &peer.user, &peer.group)
    }
    return peer
  }

  /// Receives up to `limit` bytes and the descriptors that came with them, close-on-exec and now the caller's.
  /// No bytes: the other end has closed.
  public static func receive(
    over socket: CInt, limit: Int = 65536, maximumDescriptors: Int = 16
  ) throws(Failure) -> (bytes: [UInt8], descriptors: [CInt]) {
    var bytes = [UInt8](repeating: 0, count: limit)
    var descriptors = [CInt](repeating: -1, count: maximumDescriptors)
    var count = maximumDescriptors
    let size = try valueOrErrno("receive over socket", "\(socket)") {
      count = maximumDescriptors
      return moult_receive_descriptors(socket, &bytes, limit, &descriptors, &count)
    }
    return (Array(bytes[..<size]), Array(descriptors[..<count]))
  }
}

/// What waits to be read from a stream socket.
public enum SocketQueue {
  /// All of it, which stays there.
  public static func peek(_ socket: CInt) throws(Failure) -> [UInt8] {
    var waiting: CInt = 0
    try valueOrErrno("ask for what waits at socket", "\(socket)") { moult_bytes_waiting(socket, &waiting) }
    if waiting == 0 { return [] }
    var bytes = [UInt8](repeating: 0, count: Int(waiting))
    let count = try valueOrErrno("read from socket", "\(socket)") { recv(socket, &bytes, bytes.count, CInt(MSG_PEEK) | CInt(MSG_DONTWAIT)) }
    return Array(bytes[..<count])
  }

  /// Reads so many bytes of what waits, and forgets them.
  public static func drop(_ count: Int, from socket: CInt) throws(Failure) {
    var left = count
    var bytes = [UInt8](repeating: 0, count: count)
    while left > 0 {
      let size = try valueOrErrno("read from socket", "\(socket)") { recv(socket, &bytes, left, CInt(MSG_DONTWAIT)) }
      if size == 0 { return }
      left -= size
    }
  }
}

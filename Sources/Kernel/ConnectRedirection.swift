import Glibc

/// A system call of a program that is led elsewhere while it starts. Pure; see ``TracedStart``.
public enum CallRedirection: Sendable, Equatable {
  case connect(ConnectRedirection)
  case control(ControlRedirection)
}

/// An ioctl(2) of a program that is given another argument. Pure; see ``TracedStart``.
public struct ControlRedirection: Sendable, Equatable {
  public var descriptor: CInt
  public var request: UInt32
  /// What the call's pointer leads to, and what it is to lead to: of the same length.
  public var argument: [UInt8]
  public var replacement: [UInt8]

  /// A vsock device's CID: see ``VhostVsock/setCID``.
  public init(cid: UInt32, of device: CInt, becomes other: UInt32) {
    self.init(descriptor: device, request: VhostVsock.setCID, argument: SocketDump.bytes(UInt64(cid)), replacement: SocketDump.bytes(UInt64(other)))
  }

  init(descriptor: CInt, request: UInt32, argument: [UInt8], replacement: [UInt8]) {
    (self.descriptor, self.request, self.argument, self.replacement) = (descriptor, request, argument, replacement)
  }
}

/// A connection of a program that is led elsewhere: what its connect(2) is given instead. Pure; see ``TracedStart``.
public struct ConnectRedirection: Sendable, Equatable {
  public enum Target: Sendable, Hashable {
    /// A TCP port of a host; nil is any host, as a name may mean every address.
    case port(UInt16, host: String?)
    /// A stream socket with an abstract name.
    case abstract(String)
  }
  /// What listens instead, in the same network namespace.
  public enum StandIn: Sendable, Hashable {
    /// At 127.0.0.1.
    case port(UInt16)
    case abstract(String)
  }
  public var target: Target
  public var standIn: StandIn

  /// - Parameter target: a host that is a number may be written in any way.
  public init(_ target: Target, to standIn: StandIn) {
    self.standIn = standIn
    guard case .port(let port, let host?) = target else {
      self.target = target
      return
    }
    self.target = .port(port, host: Self.number(host))
  }

  /// An address as the kernel would write it; nil of a name, whatever that means.
  public static func number(_ host: String) -> String? {
    for family in [AF_INET, AF_INET6] {
      var bytes = [UInt8](repeating: 0, count: 16)
      if inet_pton(family, host, &bytes) == 1 { return InternetSocketEntry.Endpoint.text(family == AF_INET ? Array(bytes.prefix(4)) : bytes) }
    }
    return nil
  }

  /// - Parameter address: what connect(2) was given: a sockaddr of whatever family (ip(7), ipv6(7), unix(7)).
  /// - Returns: the sockaddr for the same socket that leads to the stand-in; nil if this is not the connection.
  public func replacement(for address: [UInt8]) -> [UInt8]? {
    guard address.count > 2 else { return nil }
    let family = CInt(address.withUnsafeBytes { $0.loadUnaligned(as: sa_family_t.self) })
    switch (target, standIn) {
    case (.port(let port, let host), .port(let standIn)):
      let (offset, count) = family == AF_INET ? (4, 4) : family == AF_INET6 ? (8, 16) : (0, 0)
      guard count > 0, address.count >= offset + count, UInt16(address[2]) << 8 | UInt16(address[3]) == port else { return nil }
      if let host, InternetSocketEntry.Endpoint.text(Array(address[offset..<offset + count])) != host { return nil }
      var result = address
      (result[2], result[3]) = (UInt8(standIn >> 8), UInt8(standIn & 0xff))
      // Of a socket for IPv6, the same one mapped: the stand-in need not listen twice.
      let mapped = [UInt8](repeating: 0, count: 10) + [0xff, 0xff]
      result.replaceSubrange(offset..<offset + count, with: (count == 16 ? mapped : []) + [127, 0, 0, 1])
      // The zone of a link-local address.
      if family == AF_INET6, result.count >= 28 { result.replaceSubrange(24..<28, with: [0, 0, 0, 0]) }
      return result
    case (.abstract(let name), .abstract(let standIn)):
      guard family == AF_UNIX, address[2] == 0, address.count > 3 else { return nil }
      // One that is not written `tight` is filled with zeros.
      let given = address[3...].reversed().drop { $0 == 0 }.reversed()
      return given.elementsEqual(name.utf8) ? Array(address[..<3]) + Array(standIn.utf8) : nil
    default: return nil
    }
  }

  /// Which of several leads a connection: each at first leads one. One that is made again goes where it went.
  /// - Parameter led: those that have led one.
  public static func choose(_ redirections: [CallRedirection], led: Set<Int>, for address: [UInt8]) -> (index: Int, address: [UInt8])? {
    let fitting = redirections.enumerated().compactMap { index, redirection -> (index: Int, address: [UInt8])? in
      guard case .connect(let redirection) = redirection else { return nil }
      return redirection.replacement(for: address).map { (index, $0) }
    }
    return fitting.first { !led.contains($0.index) } ?? fitting.last
  }
}

import CKernel
import Glibc
import SystemPackage

/// What the kernel tells of all sockets of a family (sock_diag(7)).
enum SocketDump {
  /// For the network namespace that the caller is in, wherever it goes then.
  static func open() throws(Failure) -> OwnedFD {
    OwnedFD(
      try valueOrErrno("open socket for", "sock_diag") {
        socket(AF_NETLINK, CInt(SOCK_RAW.rawValue | SOCK_CLOEXEC.rawValue), 4 /* NETLINK_SOCK_DIAG */)
      })
  }

  /// Asks, and reads to the end of the answer.
  /// - Parameters:
  ///   - request: what follows the nlmsghdr, as the family has it.
  ///   - family: in words, and the kernel's module for it.
  /// - Returns: what the family tells of each socket.
  static func read(_ request: [UInt8], from socket: CInt, _ family: (name: String, module: String)) throws(Failure) -> [[UInt8]] {
    let message = header(of: request) + request
    try valueOrErrno("ask for \(family.name)", "") { send(socket, message, message.count, 0) }
    var bodies: [[UInt8]] = []
    var buffer = [UInt8](repeating: 0, count: 65536)
    while true {
      let size = try valueOrErrno("read \(family.name)", "") { recv(socket, &buffer, buffer.count, 0) }
      let (part, done) = try parse(buffer[..<size], family)
      bodies += part.map(Array.init)
      if done || size == 0 { return bodies }
    }
  }

  private static func header(of request: [UInt8]) -> [UInt8] {
    bytes(UInt32(16 + request.count)) + bytes(UInt16(20)) /* SOCK_DIAG_BY_FAMILY */ + bytes(UInt16(0x301)) /* NLM_F_REQUEST | NLM_F_DUMP */
      + bytes(UInt32(1)) + bytes(UInt32(0))  // sequence, port
  }

  static func bytes(_ value: some FixedWidthInteger) -> [UInt8] { withUnsafeBytes(of: value) { Array($0) } }

  /// Parses one datagram of answers. `done` once the dump's end was seen.
  static func parse(_ datagram: ArraySlice<UInt8>, _ family: (name: String, module: String)) throws(Failure) -> (bodies: [ArraySlice<UInt8>], done: Bool) {
    var bodies: [ArraySlice<UInt8>] = []
    var rest = datagram
    while rest.count >= 16 {
      let length = Int(rest.integer(at: 0, as: UInt32.self))
      guard length >= 16, length <= rest.count else { break }
      let body = rest.dropFirst(16).prefix(length - 16)
      switch rest.integer(at: 4, as: UInt16.self) {
      case 3: return (bodies, true)  // NLMSG_DONE
      case 2:  // NLMSG_ERROR
        let code = body.count >= 4 ? -body.integer(at: 0, as: Int32.self) : EIO
        throw Failure(
          step: "ask the kernel for \(family.name)", subject: "", errno: Errno(rawValue: code),
          hint: code == ENOENT ? "the kernel's module \(family.module) is not there: modprobe \(family.module)" : nil)
      case 20: bodies.append(body)
      default: break
      }
      rest = rest.dropFirst((length + 3) & ~3)
    }
    return (bodies, false)
  }
}

extension ArraySlice<UInt8> {
  func byte(at offset: Int) -> UInt8 { self[startIndex + offset] }

  /// A number in the host's byte order, as netlink has them.
  func integer<Value: FixedWidthInteger>(at offset: Int, as type: Value.Type) -> Value {
    var value = Value()
    Swift.withUnsafeMutableBytes(of: &value) { room in
      for index in room.indices { room[index] = self[startIndex + offset + index] }
    }
    return value
  }
}

import CKernel
import Glibc
import SystemPackage

/// One unix socket of a network namespace (sock_diag(7)).
public struct UnixSocketEntry: Sendable, Equatable {
  public enum State: Sendable, Equatable {
    case established, listening, unconnected
    case other(UInt8)

    init(_ raw: UInt8) {
      switch raw {
      case 1: self = .established
      case 10: self = .listening
      case 7: self = .unconnected
      default: self = .other(raw)
      }
    }
  }

  /// The number in `socket:[N]`.
  public var inode: UInt64
  /// 1 stream, 2 datagram, 5 sequenced packets.
  public var type: UInt8
  public var state: State
  /// The path as it was given to bind(2): relative if that was, and unaffected by renames. Abstract names start
  /// with `@`.
  public var path: String?
  /// The bound file's inode, of which the kernel gives only the low 32 bits, and its device as in ``FileStatus``.
  /// These do follow the file when it is renamed.
  public var fileInode: UInt32?
  public var fileDevice: UInt64?
  public var peerInode: UInt64?
  /// Of a listener: connections waiting to be accepted; else bytes waiting to be read.
  public var receiveQueue: UInt32?
  /// Of a listener: how many may wait.
  public var sendQueue: UInt32?

  /// Whether the socket is bound to this file.
  public func isBound(to status: FileStatus) -> Bool {
    fileInode == UInt32(truncatingIfNeeded: status.inode) && fileDevice == status.device
  }
}

/// The unix sockets of a network namespace.
public enum UnixSocketTable {
  /// Reads the table of a process's network namespace; nil stands for the caller's own.
  public static func read(networkOf pid: pid_t? = nil) throws(Failure) -> [UnixSocketEntry] {
    // The socket belongs to the namespace it was made in, wherever its owner goes then.
    let socket: OwnedFD
    if let pid {
      socket = try Namespaces.within(pid, [.network]) { () throws(Failure) in try open() }
    } else {
      socket = try open()
    }
    let raw = socket.raw
    let request = Self.request
    try valueOrErrno("ask for unix sockets", "") { send(raw, request, request.count, 0) }
    var entries: [UnixSocketEntry] = []
    var buffer = [UInt8](repeating: 0, count: 65536)
    while true {
      let size = try valueOrErrno("read unix sockets", "") { recv(raw, &buffer, buffer.count, 0) }
      let (part, done) = try parse(buffer[..<size])
      entries += part
      if done || size == 0 { return entries }
    }
  }

  private static func open() throws(Failure) -> OwnedFD {
    OwnedFD(
      try valueOrErrno("open socket for", "sock_diag") {
        socket(AF_NETLINK, CInt(SOCK_RAW.rawValue | SOCK_CLOEXEC.rawValue), 4 /* NETLINK_SOCK_DIAG */)
      })
  }

  /// A dump request: nlmsghdr and unix_diag_req, asking for name, file, peer and queues of all states.
  static var request: [UInt8] {
    var bytes: [UInt8] = []
    func append(_ value: some FixedWidthInteger) { withUnsafeBytes(of: value) { bytes.append(contentsOf: $0) } }
    append(UInt32(40))  // length
    append(UInt16(20))  // SOCK_DIAG_BY_FAMILY
    append(UInt16(0x301))  // NLM_F_REQUEST | NLM_F_DUMP
    append(UInt32(1))  // sequence
    append(UInt32(0))  // port
    append(UInt8(AF_UNIX))
    append(UInt8(0))
    append(UInt16(0))
    append(UInt32.max)  // every state
    append(UInt32(0))  // every inode
    append(UInt32(0x01 | 0x02 | 0x04 | 0x10))  // UDIAG_SHOW_NAME, _VFS, _PEER, _RQLEN
    append(UInt32.max)  // no cookie
    append(UInt32.max)
    return bytes
  }

  /// Parses one datagram of answers. `done` once the dump's end was seen.
  static func parse(_ datagram: ArraySlice<UInt8>) throws(Failure) -> (entries: [UnixSocketEntry], done: Bool) {
    var entries: [UnixSocketEntry] = []
    var rest = datagram
    while rest.count >= 16 {
      let length = Int(rest.integer(at: 0, as: UInt32.self))
      let type = rest.integer(at: 4, as: UInt16.self)
      guard length >= 16, length <= rest.count else { break }
      let body = rest.dropFirst(16).prefix(length - 16)
      switch type {
      case 3: return (entries, true)  // NLMSG_DONE
      case 2:  // NLMSG_ERROR
        let code = body.count >= 4 ? -body.integer(at: 0, as: Int32.self) : EIO
        throw Failure(
          step: "ask the kernel for unix sockets", subject: "", errno: Errno(rawValue: code),
          hint: code == ENOENT ? "the kernel's module unix_diag is not there: modprobe unix_diag" : nil)
      case 20: if let entry = entry(body) { entries.append(entry) }
      default: break
      }
      rest = rest.dropFirst((length + 3) & ~3)
    }
    return (entries, false)
  }

  private static func entry(_ body: ArraySlice<UInt8>) -> UnixSocketEntry? {
    guard body.count >= 16 else { return nil }
    var entry = UnixSocketEntry(
      inode: UInt64(body.integer(at: 4, as: UInt32.self)), type: body.byte(at: 1), state: .init(body.byte(at: 2)))
    var rest = body.dropFirst(16)
    while rest.count >= 4 {
      let length = Int(rest.integer(at: 0, as: UInt16.self))
      let type = rest.integer(at: 2, as: UInt16.self)
      guard length >= 4, length <= rest.count else { break }
      let value = rest.dropFirst(4).prefix(length - 4)
      switch type {
      case 0:  // UNIX_DIAG_NAME: not always terminated; a leading NUL marks an abstract name
        if value.first == 0 {
          entry.path = "@" + String(decoding: value.dropFirst(), as: UTF8.self)
        } else {
          entry.path = String(decoding: value.prefix { $0 != 0 }, as: UTF8.self)
        }
      case 1 where value.count >= 8:  // UNIX_DIAG_VFS
        entry.fileInode = value.integer(at: 0, as: UInt32.self)
        entry.fileDevice = DeviceNumber.fromKernel(value.integer(at: 4, as: UInt32.self))
      case 2 where value.count >= 4:
        // One that has been closed has no number any more.
        let peer = UInt64(value.integer(at: 0, as: UInt32.self))
        entry.peerInode = peer == 0 ? nil : peer
      case 4 where value.count >= 8:  // UNIX_DIAG_RQLEN
        entry.receiveQueue = value.integer(at: 0, as: UInt32.self)
        entry.sendQueue = value.integer(at: 4, as: UInt32.self)
      default: break
      }
      rest = rest.dropFirst((length + 3) & ~3)
    }
    return entry
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

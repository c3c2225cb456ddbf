import Glibc

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
      socket = try Namespaces.within(pid, [.network]) { () throws(Failure) in try SocketDump.open() }
    } else {
      socket = try SocketDump.open()
    }
    return try SocketDump.read(request, from: socket.raw, family).compactMap { entry($0[...]) }
  }

  private static let family = (name: "unix sockets", module: "unix_diag")

  /// unix_diag_req, asking for name, file, peer and queues of all states.
  static var request: [UInt8] {
    [UInt8(AF_UNIX), 0] + SocketDump.bytes(UInt16(0))
      + SocketDump.bytes(UInt32.max) + SocketDump.bytes(UInt32(0))  // every state, every inode
      + SocketDump.bytes(UInt32(0x01 | 0x02 | 0x04 | 0x10))  // UDIAG_SHOW_NAME, _VFS, _PEER, _RQLEN
      + SocketDump.bytes(UInt64.max)  // no cookie
  }

  /// Parses one datagram of answers. `done` once the dump's end was seen.
  static func parse(_ datagram: ArraySlice<UInt8>) throws(Failure) -> (entries: [UnixSocketEntry], done: Bool) {
    let (bodies, done) = try SocketDump.parse(datagram, family)
    return (bodies.compactMap(entry), done)
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

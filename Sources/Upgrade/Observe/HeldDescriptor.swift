import Glibc
import Kernel
public import QEMU

/// A descriptor of a running QEMU, by what the kernel says it is.
public struct HeldDescriptor: Sendable, Equatable {
  public var number: Int32
  /// `listening unix socket`, `tcp connection`, `eventfd`, `file`, …
  public var type: String
  /// What it would be as a binding; nil for what QEMU makes for itself, and for standard streams.
  public var kind: Binding.Kind?
  /// A path, `host:port`, an interface; what the kernel calls it otherwise.
  public var address: String
  /// Who is at the other end of a connection: a process, or the address of another host.
  public var peer: String?

  // What bindings are matched by.
  var role: Binding.Role = .own
  var file: FileIdentity?
  var localPort: UInt16?
  var remotePort: UInt16?
  /// Of an accepted connection: the number of the descriptor that listens for it.
  var listener: Int32?

  init(number: Int32, type: String, kind: Binding.Kind?, address: String) {
    self.number = number
    self.type = type
    self.kind = kind
    self.address = address
  }
}

/// What the kernel says of the sockets of a host, as far as it concerns one process.
struct SocketTables {
  var unix: [UInt64: UnixSocketEntry]
  var internet: [UInt64: InternetSocketEntry]
  /// The connections' other ends that are in the tables too: loopback.
  var ends: [[InternetSocketEntry.Endpoint]: UInt64]

  init(unix: [UnixSocketEntry], internet: [InternetSocketEntry]) {
    self.unix = Dictionary(unix.map { ($0.inode, $0) }) { first, _ in first }
    self.internet = Dictionary(internet.filter { $0.inode != 0 }.map { ($0.inode, $0) }) { first, _ in first }
    ends = Dictionary(internet.filter { $0.remote.port != 0 && $0.inode != 0 }.map { ([$0.local, $0.remote], $0.inode) }) { first, _ in first }
  }

  /// The socket at the other end of one, if it is on this host.
  func peer(of inode: UInt64) -> UInt64? {
    if let entry = unix[inode] { return entry.peerInode }
    return internet[inode].flatMap { ends[[$0.remote, $0.local]] }
  }
}

extension HeldDescriptor {
  /// Names of the kernel's anonymous inodes that are QEMU's own affair.
  private static let internals = [
    "[eventfd]": "eventfd", "[timerfd]": "timerfd", "[signalfd]": "signalfd", "[io_uring]": "io_uring", "[eventpoll]": "epoll",
    "inotify": "inotify", "kvm-vm": "kvm", "[pidfd]": "pidfd", "[userfaultfd]": "userfaultfd",
  ]
  private static let devices: [(prefix: String, type: String, kind: Binding.Kind?)] = [
    ("/dev/net/tun", "tap", .tap), ("/dev/vhost-net", "vhost-net", .vhostNet), ("/dev/vhost-vsock", "vhost-vsock", .vhostVsock),
    ("/dev/vhost-vdpa", "vhost-vdpa", .vhostVdpa), ("/dev/vfio/", "vfio", .vfio), ("/dev/iommu", "iommufd", .vfio),
    ("/dev/bus/usb/", "usb device", .usbHost), ("/dev/input/", "input device", .inputHost), ("/dev/pts/", "terminal", .pty),
    ("/dev/ptmx", "pseudo terminal", .pty), ("/dev/tpm", "tpm", .tpm), ("/dev/tty", "terminal", .pty), ("/dev/kvm", "kvm", nil),
    ("/dev/null", "null device", nil), ("/dev/zero", "zero device", nil), ("/dev/full", "full device", nil), ("/dev/random", "random numbers", nil),
    ("/dev/urandom", "random numbers", nil),
  ]

  /// What a descriptor is. Who is at the other end of a socket is filled in by ``named(peers:)``.
  /// - Parameter own: inodes of the process's sockets.
  static func classify(_ descriptor: OpenDescriptor, _ tables: SocketTables, own: Set<UInt64> = []) -> HeldDescriptor {
    var held: HeldDescriptor
    let (path, deleted) = descriptor.path
    if let inode = descriptor.socketInode {
      held = socket(descriptor.number, inode, tables, own: own)
    } else if descriptor.target.hasPrefix("anon_inode:") {
      let name = String(descriptor.target.dropFirst("anon_inode:".count))
      let isKVM = name.hasPrefix("kvm-vcpu") || name == "kvm-vm"
      if let type = isKVM ? "kvm" : internals[name] {
        held = HeldDescriptor(number: descriptor.number, type: type, kind: nil, address: name)
      } else {
        let isDevice = name.contains("vfio")
        held = HeldDescriptor(number: descriptor.number, type: isDevice ? "vfio" : name, kind: isDevice ? .vfio : .fd, address: name)
      }
    } else if descriptor.target.hasPrefix("pipe:") || descriptor.status.isFIFO {
      held = HeldDescriptor(number: descriptor.number, type: "pipe", kind: descriptor.status.isFIFO && path.hasPrefix("/") ? .file : nil, address: path)
    } else if descriptor.status.isCharacterDevice {
      let known = devices.first { path.hasPrefix($0.prefix) }
      held = HeldDescriptor(number: descriptor.number, type: known?.type ?? "device", kind: known == nil ? .fd : known?.kind, address: descriptor.interface ?? path)
    } else if descriptor.status.isBlockDevice {
      held = HeldDescriptor(number: descriptor.number, type: "block device", kind: .disk, address: path)
    } else if descriptor.status.isDirectory {
      held = HeldDescriptor(number: descriptor.number, type: "directory", kind: .directory, address: path)
    } else if descriptor.target.hasPrefix("/memfd:") {
      held = HeldDescriptor(number: descriptor.number, type: "memfd", kind: .memory, address: path)
    } else {
      held = HeldDescriptor(number: descriptor.number, type: deleted ? "deleted file" : "file", kind: .file, address: path)
    }
    if held.file == nil, !descriptor.target.hasPrefix("socket:") {
      held.file = descriptor.status.identity
      if [.file, .disk].contains(held.kind), !descriptor.isWritable { held.role = .share }
    }
    // Where standard streams go is part of how it was started, not of the VM.
    if descriptor.number <= 2, held.kind != .pty { held.kind = nil }
    return held
  }

  private static func socket(_ number: Int32, _ inode: UInt64, _ tables: SocketTables, own: Set<UInt64>) -> HeldDescriptor {
    if let entry = tables.unix[inode] {
      var held = HeldDescriptor(number: number, type: "unix socket", kind: .unixSocket, address: entry.path ?? "")
      switch entry.state {
      case .listening:
        held.type = "listening unix socket"
        held.role = .listen
        if let device = entry.fileDevice, let inode = entry.fileInode { held.file = FileIdentity(device: device, inode: UInt64(inode)) }
      case .established:
        held.type = "unix connection"
        held.role = .connect
        guard let peer = entry.peerInode else {
          // A control channel of an earlier upgrade, or a client that has just left.
          held.type = "unix connection whose other end is gone"
          held.kind = nil
          break
        }
        if entry.path == nil { held.address = tables.unix[peer]?.path ?? "" }
        if entry.isInternalPair(of: own) {
          held.type = "socket pair of its own"
          held.kind = nil
        }
      default: if entry.path == nil { held.kind = nil }
      }
      return held
    }
    if let entry = tables.internet[inode] {
      let name = { (end: InternetSocketEntry.Endpoint) in (end.host.contains(":") ? "[\(end.host)]" : end.host) + ":\(end.port)" }
      let isConnected = entry.remote.port != 0
      var held = HeldDescriptor(
        number: number, type: entry.isListening ? "listening tcp socket" : "\(entry.transport.rawValue) \(isConnected ? "connection" : "socket")",
        kind: entry.transport == .tcp ? .tcpSocket : .udpSocket, address: name(entry.local))
      held.role = entry.isListening ? .listen : isConnected ? .connect : .own
      held.localPort = entry.local.port
      if isConnected {
        held.remotePort = entry.remote.port
        held.peer = name(entry.remote)
      }
      return held
    }
    // Packet, netlink and vsock sockets, and those of a namespace that is neither the VM's nor moult's.
    return HeldDescriptor(number: number, type: "socket", kind: .fd, address: "socket:[\(inode)]")
  }

  /// Ties connections to the listeners that accepted them, and says who is at their other ends.
  /// - Parameter peers: by descriptor number.
  static func joined(_ held: [HeldDescriptor], peers: [Int32: String]) -> [HeldDescriptor] {
    held.map { descriptor in
      var descriptor = descriptor
      if let peer = peers[descriptor.number] { descriptor.peer = descriptor.peer.map { "\($0), \(peer)" } ?? peer }
      if descriptor.role == .connect {
        descriptor.listener = held.first { other in
          guard other.role == .listen, other.kind == descriptor.kind else { return false }
          return other.kind == .unixSocket ? other.address == descriptor.address : other.localPort == descriptor.localPort
        }?.number
      }
      return descriptor
    }
  }
}

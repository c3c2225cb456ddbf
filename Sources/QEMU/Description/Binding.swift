/// A name or kernel object of the host that a VM owns or uses, as its command line tells.
public struct Binding: Sendable, Hashable {
  public enum Kind: String, Sendable, CaseIterable {
    case unixSocket = "unix-socket"
    case tcpSocket = "tcp-socket"
    case udpSocket = "udp-socket"
    case pidfile
    case file
    case disk
    case blockRemote = "block-remote"
    case tap
    case netdevUser = "netdev-user"
    case netdevSocket = "netdev-socket"
    case bridgeHelper = "bridge-helper"
    case vhostNet = "vhost-net"
    case vhostUser = "vhost-user"
    case vhostVsock = "vhost-vsock"
    case vhostVdpa = "vhost-vdpa"
    case vfio
    case usbHost = "usb-host"
    case inputHost = "input-host"
    case memory
    case pty
    case tpm
    case fd
    case directory
    case display
  }

  public enum Role: String, Sendable, CaseIterable {
    case listen, connect, own, share
  }

  /// How a binding gets from the old QEMU to the new one.
  public enum Handover: String, Sendable, CaseIterable {
    case swap, duplicate, move, share, reopen, relaunch, refuse
  }

  public var kind: Kind
  public var role: Role
  /// A path, `host:port`, interface name, descriptor number or device address: docs/bindings.md says which.
  public var address: String
  /// The option that makes it, verbatim.
  public var option: String
  public var handover: Handover
  /// Why this handover.
  public var why: String
  /// What it is for: `qmp`, `hmp`, `serial`, `device virtserialport`, `vnc`, … Empty if nothing uses it.
  public var purpose: String

  /// Of a remote disk whose address has none: the port that QEMU takes.
  public var defaultPort: UInt16? {
    kind == .blockRemote ? BlockDriver.split(address).scheme.flatMap { BlockDriver.defaultPorts[$0] } : nil
  }

  /// The purpose of a file for `-readconfig`: a new QEMU does not open it.
  public static let configuration = "configuration"

  public init(
    kind: Kind, role: Role, address: String, option: String, handover: Handover, why: String,
    purpose: String = ""
  ) {
    self.kind = kind
    self.role = role
    self.address = address
    self.option = option
    self.handover = handover
    self.why = why
    self.purpose = purpose
  }
}

/// Why a VM cannot be upgraded, and what its owner can do.
public struct Blocker: Sendable, Hashable {
  /// The option at fault, verbatim; empty if it is one that is missing.
  public var option: String
  public var reason: String
  public var wayOut: String

  public init(option: String, reason: String, wayOut: String) {
    self.option = option
    self.reason = reason
    self.wayOut = wayOut
  }
}

/// Why something cannot be handed over, and what the VM's owner can do.
struct Refusal: Hashable {
  var reason: String
  var wayOut: String
}

/// A file that QEMU opens by path.
public struct FileReference: Sendable, Hashable {
  public enum Use: String, Sendable {
    case image, kernel, initrd, firmware, rom, secret, acpi, log, other
  }

  /// As written: relative paths are relative to QEMU's working directory.
  public var path: String
  public var use: Use
  public var writable: Bool
  /// The option that names it, verbatim.
  public var option: String
  /// True if QEMU looks for it in its data directories when there is no such path (`-bios`,
  /// `romfile=`, …).
  public var isSearched: Bool
  public var isDirectory: Bool

  public init(
    path: String, use: Use, writable: Bool = false, option: String, isSearched: Bool = false,
    isDirectory: Bool = false
  ) {
    self.path = path
    self.use = use
    self.writable = writable
    self.option = option
    self.isSearched = isSearched
    self.isDirectory = isDirectory
  }
}

/// A local disk image or block device that the command line opens.
public struct ImageReference: Sendable, Hashable {
  public var path: String
  /// `id` of `-drive`.
  public var driveID: String?
  /// The node that opens the path, if the command line names it.
  public var nodeName: String?
  /// The outermost node of the same option, if named.
  public var rootNodeName: String?
  public var writable: Bool
  public var option: String
}

/// A memory backend, or the guest's RAM that the machine makes by itself.
public struct MemoryBackend: Sendable, Hashable {
  public enum Kind: String, Sendable {
    /// Private anonymous memory.
    case ram
    case file
    case memfd
    case shm
    /// Huge pages by `hugetlb=on`. (A file below a hugetlbfs mount is `file`: only the host can tell.)
    case hugetlb
    case other
  }

  /// The object's id; empty for RAM that the machine makes by itself.
  public var id: String
  public var kind: Kind
  /// Bytes; 0 if unreadable.
  public var size: UInt64
  /// As given, or the default of the type: on for memfd and shm, off for others.
  public var share: Bool
  public var path: String?
  public var discardData: Bool
  public var readonly: Bool
  /// Part of the guest's RAM: named by `-machine memory-backend=`, `-numa memdev=` or a memory
  /// device's `memdev=`, or made by the machine itself (`-m`, `-mem-path`).
  public var isGuestRAM: Bool
  public var option: String
  /// Behind a virtio-mem device: the bytes that the guest is to have of it. Else it has all.
  public var requestedSize: UInt64? = nil

  /// Made by the machine itself, not by `-object`.
  public var isImplicit: Bool { id.isEmpty }
}

/// A monitor and the unix socket that it listens on.
public struct Monitor: Sendable, Hashable {
  public enum Mode: String, Sendable { case qmp, hmp }
  public var mode: Mode
  /// The chardev's id.
  public var chardev: String
  /// The path of the unix socket it listens on; nil if it is on something else.
  public var socket: String?
}

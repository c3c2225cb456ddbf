import Kernel
public import QEMU
public import Sandbox

/// Which file a path leads to: unchanged by renames, different for any other file alive.
public struct FileIdentity: Sendable, Hashable, Codable {
  public var device: UInt64
  public var inode: UInt64
  public init(device: UInt64, inode: UInt64) {
    self.device = device
    self.inode = inode
  }
}

/// A process that cannot be mistaken for a later one with the same number.
public struct ProcessIdentity: Sendable, Hashable, Codable {
  public var pid: Int32
  /// Clock ticks since boot. Source: proc(5), `starttime`.
  public var startTime: UInt64
  public init(pid: Int32, startTime: UInt64) {
    self.pid = pid
    self.startTime = startTime
  }
}

/// A path that the VM's QEMU made and that the outside knows: a listening socket, the pidfile, a RAM file.
public struct PublicName: Sendable, Equatable {
  public enum Kind: String, Sendable, Codable { case socket, pidfile, memory }
  public var kind: Kind
  /// The path as QEMU was given it, made absolute.
  public var path: String
  /// The directory it lies in, symbolic links resolved.
  public var directory: String
  /// Its last component.
  public var base: String
  /// What lies there now; nil when nothing does.
  public var present: FileIdentity?
  /// What QEMU made there, where it can be told (sockets, the pidfile); nil where it cannot.
  public var owned: FileIdentity?

  public init(
    kind: Kind, path: String, directory: String, base: String, present: FileIdentity?, owned: FileIdentity?
  ) {
    self.kind = kind
    self.path = path
    self.directory = directory
    self.base = base
    self.present = present
    self.owned = owned
  }
}

/// A directory that holds public names.
public struct NameDirectory: Sendable, Equatable {
  public var path: String
  /// Every entry, `.` and `..` left out.
  public var entries: Set<String>
  /// It cannot be renamed: it is a mount point, or the root.
  public var isMountPoint: Bool
  public init(path: String, entries: Set<String>, isMountPoint: Bool) {
    self.path = path
    self.entries = entries
    self.isMountPoint = isMountPoint
  }
}

/// A file that QEMU opens by path, as it is now.
public struct ObservedFile: Sendable, Equatable {
  /// Absolute, as QEMU was given it.
  public var path: String
  /// Symbolic links resolved, on the host.
  public var realPath: String
  /// What the path leads to for moult; nil when it leads nowhere.
  public var onHost: FileIdentity?
  /// What the same path leads to for the running QEMU.
  public var forQEMU: FileIdentity?
  /// The running QEMU has this very file open.
  public var isOpen: Bool
  /// The guest's data: it must be open, or it is not the VM's image any more.
  public var isImage: Bool
  public init(
    path: String, realPath: String, onHost: FileIdentity?, forQEMU: FileIdentity?, isOpen: Bool, isImage: Bool
  ) {
    self.path = path
    self.realPath = realPath
    self.onHost = onHost
    self.forQEMU = forQEMU
    self.isOpen = isOpen
    self.isImage = isImage
  }
}

/// One of the VM's RAM backends, and whether another process can map the same pages.
public struct ObservedMemory: Sendable, Equatable {
  public var id: String
  public var bytes: UInt64
  /// The descriptor of the running QEMU that another process can have duplicated; nil for private memory.
  public var descriptor: CInt?
  /// QEMU regards it as a *named file*: what `x-ignore-shared` needs from 10.0 on.
  public var isNamedFile: Bool
  /// Why another process cannot map it.
  public var whyPrivate: String?
  public init(id: String, bytes: UInt64, descriptor: CInt?, isNamedFile: Bool, whyPrivate: String?) {
    self.id = id
    self.bytes = bytes
    self.descriptor = descriptor
    self.isNamedFile = isNamedFile
    self.whyPrivate = whyPrivate
  }
}

/// A descriptor of the running QEMU that no step carries over.
public struct ForeignDescriptor: Sendable, Equatable {
  public var number: CInt
  public var what: String
  public init(number: CInt, what: String) {
    self.number = number
    self.what = what
  }
}

/// How much a second QEMU could take.
public struct MemoryRoom: Sendable, Equatable, Codable {
  /// `MemAvailable` of the host, bytes. Source: proc(5).
  public var host: UInt64
  /// What the VM's memory cgroups still allow, bytes; nil without a limit.
  public var cgroup: UInt64?
  /// The cgroup with that limit.
  public var cgroupPath: String?
  public init(host: UInt64, cgroup: UInt64?, cgroupPath: String?) {
    self.host = host
    self.cgroup = cgroup
    self.cgroupPath = cgroupPath
  }
}

/// The VM as it is: what argv says, what QEMU says, what the kernel says. Only read, never changed.
public struct Observation: Sendable {
  public var process: ProcessIdentity
  /// With the options of configuration files in place, and the changes of `-set` made.
  public var arguments: [String]
  /// The words with which the VM as it is now would be started: its arguments, and what was changed since.
  public var commandLine: CommandLine
  /// In what it is not what its arguments say.
  public var drift: [Drift]
  /// What may have been set and cannot be read back, as sentences.
  public var unreadable: [String] = []
  /// Where relative paths of the arguments start.
  public var base: String
  /// It has made itself a daemon, and is not in `base` any more.
  public var hasLeftBase = false
  public var binary: String
  public var binaryDeleted: Bool
  /// The root tree that the VM lives in, nil for the host's own.
  public var root: String?
  /// Of `commandLine`.
  public var description: MachineDescription
  public var version: QEMUVersion
  public var live: LiveMachine
  /// Types of all devices, the machine's own included; only read where `-global` makes it matter.
  public var deviceTypes: Set<String> = []
  /// The QMP socket that moult holds, as a host path.
  public var monitor: String
  public var names: [PublicName]
  public var directories: [NameDirectory]
  public var files: [ObservedFile]
  public var memory: [ObservedMemory]
  public var foreign: [ForeignDescriptor]
  public var standardInputIsNull: Bool
  /// What `moult run` started it with; nil for a QEMU without a sandbox.
  public var profile: Profile?
  /// Why the profile that its environment names cannot be had.
  public var profileFailure: String?
  /// The running QEMU has /dev/kvm open.
  public var usesKVM: Bool
  public var room: MemoryRoom
  /// Clients connected to public sockets, by path: they will have to connect again.
  public var clients: [String: Int]
  /// Who waits in the queues of public sockets, by path: cut off, too.
  public var waiting: [String: Int] = [:]
  public var supervision: Supervision
  public var oomScoreAdjustment = 0
  /// Namespaces of the running QEMU that differ from moult's own and that the new one would not be in.
  public var foreignNamespaces: [String] = []
  /// It lives in a root that no new QEMU could be started in.
  public var isInUnknownRoot = false
  /// Taps, listeners and their clients.
  public var network = ObservedNetwork()
  /// Devices of the host for taps, as far as they are there.
  public var networkDevices: [String] = []
  /// What names of hosts are looked up in, as far as it is there.
  public var resolverFiles: [String] = []
}

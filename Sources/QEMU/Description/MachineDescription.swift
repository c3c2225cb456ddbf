import Kernel

/// What a VM is by its command line alone: identity, what it owns on the host, and what stands in the
/// way of an upgrade. The running VM may differ: devices come and go, media change.
public struct MachineDescription: Sendable, Equatable {
  /// `-name`: the guest's name.
  public internal(set) var name: String?
  public internal(set) var uuid: String?
  /// The machine type as asked for; nil if QEMU chose its default.
  public internal(set) var machine: String?
  public internal(set) var pidfile: String?
  public internal(set) var daemonizes = false
  /// The user of `-runas` or `-run-with user=`.
  public internal(set) var runAs: String?
  public internal(set) var chroot: String?
  /// May use `/dev/kvm`.
  public internal(set) var usesKVM = false

  public internal(set) var bindings: [Binding] = []
  public internal(set) var files: [FileReference] = []
  public internal(set) var images: [ImageReference] = []
  public internal(set) var monitors: [Monitor] = []
  public internal(set) var memoryBackends: [MemoryBackend] = []
  /// Bytes of RAM by `-m`; 128 MiB, the default of nearly every machine, if it does not say.
  public internal(set) var ramSize: UInt64 = 128 << 20

  /// Ids of devices that the command line adds (`/machine/peripheral`).
  public internal(set) var deviceIDs: [String] = []
  /// How many devices it adds without an id (`/machine/peripheral-anon`).
  public internal(set) var anonymousDevices = 0
  public internal(set) var objectIDs: [String] = []
  /// Ids of chardevs, with those that QEMU gives itself (`serial0`, `compat_monitor0`).
  public internal(set) var chardevIDs: [String] = []
  public internal(set) var netdevIDs: [String] = []
  public internal(set) var nodeNames: [String] = []
  public internal(set) var driveIDs: [String] = []

  public internal(set) var blockers: [Blocker] = []
  public internal(set) var warnings: [String] = []
  /// Options that no QEMU is known to have, verbatim. Each is a blocker too.
  public internal(set) var unknown: [String] = []
  /// Something reads fd 0 (`stdio`, `-nographic`). Harmless if that is `/dev/null`.
  public internal(set) var usesStandardInput = false
  /// No option says where the display goes: QEMU opened a window, a VNC port, or nothing.
  public internal(set) var usesDefaultDisplay = false

  /// The chardev of a port by which the guest agent is spoken to, if that is a unix socket; relative as in the command line.
  public internal(set) var guestAgent: GuestAgent?

  /// Unix sockets of QMP monitors.
  public var qmpSockets: [String] { monitors.filter { $0.mode == .qmp }.compactMap(\.socket) }
  /// Unix sockets of human monitors.
  public var hmpSockets: [String] { monitors.filter { $0.mode == .hmp }.compactMap(\.socket) }
  /// The backends that make up the guest's RAM.
  public var guestRAM: [MemoryBackend] { memoryBackends.filter(\.isGuestRAM) }
  /// Bytes of RAM that the guest is to have: that of `-m`, and of memory devices (`pc-dimm`, `virtio-mem`) on top.
  public var guestMemory: UInt64 { guestRAM.reduce(0) { $0 &+ ($1.requestedSize ?? $1.size) } }
  /// Nothing in the command line stands against an upgrade.
  public var isUpgradable: Bool { blockers.isEmpty }

  /// Every path of the host that the command line names, as written and without repetition: public
  /// names, files, directories, memory. Relative ones are relative to QEMU's working directory.
  public func paths() -> [String] {
    var seen: Set<String> = []
    let local: Set<Binding.Kind> = [.unixSocket, .pidfile, .file, .disk, .directory]
    let all =
      bindings.filter { local.contains($0.kind) }.map(\.address) + files.map(\.path)
      + memoryBackends.compactMap(\.path)
    return all.filter { seen.insert($0).inserted }
  }

  /// Gives the bindings of a memory backend another address than the one in its option.
  public mutating func setAddress(_ address: String, ofMemory option: String) {
    for index in bindings.indices where bindings[index].kind == .memory && bindings[index].option == option {
      bindings[index].address = address
    }
  }

  /// Gives a tap that its option does not name the name that it has.
  public mutating func setAddress(_ address: String, ofTap option: String) {
    for index in bindings.indices where bindings[index].kind == .tap && bindings[index].option == option && bindings[index].address.contains("%") {
      bindings[index].address = address
    }
  }

  /// QEMU serves the card of a tap by itself, whatever the option says.
  public mutating func removeVhost(ofTap option: String) { bindings.removeAll { $0.kind == .vhostNet && $0.option == option } }

  /// Adds what no option makes, but a command over a monitor.
  public mutating func add(_ binding: Binding) { bindings.append(binding) }

  /// Of a command line whose configuration files have been read.
  /// - Parameter isPart: some options out of a command line: what QEMU adds by itself is left out.
  public init(_ expanded: ExpandedCommandLine, isPart: Bool = false) {
    var describer = Describer(expanded, isPart: isPart)
    self = describer.describe()
  }

  /// Of a command line alone: the options of `-readconfig` files stay unknown, which is a blocker.
  public init(_ commandLine: CommandLine, isPart: Bool = false) {
    var describer = Describer(commandLine, isPart: isPart)
    self = describer.describe()
  }

  init() {}
}

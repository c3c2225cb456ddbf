public import Kernel
public import QEMU

/// A binding, and the descriptors of the running QEMU that hold it.
public struct InspectedBinding: Sendable, Equatable {
  public var binding: Binding
  public var descriptors: [HeldDescriptor]
}

/// What the kernel says of a running QEMU's process.
public struct InspectedProcess: Sendable {
  public var user: UInt32
  public var group: UInt32
  /// SELinux's or AppArmor's label.
  public var label: String?
  /// The control group's path.
  public var cgroup: String?
  /// The systemd unit in whose control group it is.
  public var unit: String?
  /// Namespaces that are not this process's: kind → identity.
  public var namespaces: [String: String]
  /// The root tree that it lives in, if not the host's.
  public var root: String?
  /// The state letter of proc_pid_stat(5).
  public var state: Character
  public var resident: ProcessMemory
  /// Files and memory files that are mapped shared and writable: path → bytes. Guest RAM is among them.
  public var sharedMappings: [String: UInt64]
}

/// What `moult inspect` says of a VM: what its command line tells, and of a running one what the kernel
/// and QEMU say on top.
public struct Inspection: Sendable {
  /// The guest's RAM: all backends that make it up.
  public struct Memory: Sendable, Equatable {
    /// `ram`, `file`, `memfd`, …; several kinds joined by `+`.
    public var backend: String
    /// Another process can map all of it.
    public var shared: Bool
    public var bytes: UInt64
    /// An option says so; else it is what QEMU would take.
    public var isStated = true
  }

  public var name: String?
  public var pid: Int32?
  /// Empty if it is a part of a command line.
  public var binary: String
  /// Some options out of a command line, or a configuration file: what it leaves open is not QEMU's default.
  public var isPart: Bool { binary.isEmpty }
  public var version: QEMUVersion?
  /// The machine type as the command line asks for it; nil if it leaves the choice to QEMU.
  public var requestedMachine: String?
  /// The versioned type that it stands for in the running QEMU.
  public var resolvedMachine: String?
  public var memory: Memory
  public var bindings: [InspectedBinding]
  /// Every descriptor of the running QEMU.
  public var descriptors: [HeldDescriptor] = []
  public var process: InspectedProcess?
  /// Options that no QEMU is known to have, verbatim.
  public var unknown: [String]
  /// Live state that the command line does not say.
  public var drift: [Drift] = []
  public var blockers: [Blocker]
  public var warnings: [String]
  /// What could not be found out, and why.
  public var notes: [String] = []

  /// What a command line alone can tell.
  public init(_ commandLine: QEMU.CommandLine) {
    // Without a program it is a part of a command line: options alone, or a file for -readconfig.
    let isPart = commandLine.program.isEmpty
    let description = MachineDescription(commandLine, isPart: isPart)
    self.init(description, binary: commandLine.program)
    blockers = commandLine.doubts(isPart: isPart) + blockers
    if description.usesStandardInput {
      notes.append("a console or monitor reads standard input, which stands against an upgrade unless that is /dev/null")
    }
    if description.usesDefaultDisplay {
      notes.append("no option says where the display goes: QEMU opens a window, a VNC port or nothing, as it was built")
    }
  }

  init(_ description: MachineDescription, binary: String) {
    name = description.name
    self.binary = binary
    requestedMachine = description.machine
    let ram = description.guestRAM
    var kinds: [String] = []
    for backend in ram where !kinds.contains(backend.kind.rawValue) { kinds.append(backend.kind.rawValue) }
    memory = Memory(
      backend: kinds.joined(separator: "+"), shared: !ram.isEmpty && ram.allSatisfy(\.share),
      bytes: description.guestMemory, isStated: !ram.allSatisfy { $0.isImplicit && $0.option.isEmpty })
    bindings = description.bindings.map { InspectedBinding(binding: $0, descriptors: []) }
    unknown = description.unknown
    blockers = description.blockers
    warnings = description.warnings
  }
}

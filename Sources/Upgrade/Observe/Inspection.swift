public import QEMU

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
  }

  public var name: String?
  public var pid: Int32?
  public var binary: String
  public var version: QEMUVersion?
  /// The machine type as the command line asks for it; nil if it leaves the choice to QEMU.
  public var requestedMachine: String?
  /// The versioned type that it stands for in the running QEMU.
  public var resolvedMachine: String?
  public var memory: Memory
  public var bindings: [Binding]
  /// Options that no QEMU is known to have, verbatim.
  public var unknown: [String]
  /// Live state that the command line does not say.
  public var drift: [Blocker] = []
  public var blockers: [Blocker]
  public var warnings: [String]
  /// What could not be found out, and why.
  public var notes: [String] = []

  /// What a command line alone can tell.
  public init(_ commandLine: QEMU.CommandLine) {
    let description = MachineDescription(commandLine)
    self.init(description, binary: commandLine.program)
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
      bytes: ram.reduce(0) { $0 &+ $1.size })
    bindings = description.bindings
    unknown = description.unknown
    blockers = description.blockers
    warnings = description.warnings
  }
}

public import QEMU

/// How guest RAM gets from the old QEMU to the new one.
public enum MemoryStrategy: String, Sendable, Codable, CaseIterable { case auto, shared, cpr, copy, file }

/// What the user asked for.
public struct UpgradeRequest: Sendable, Equatable {
  /// The new QEMU's binary; with `root`, a path inside that tree.
  public var binary: String
  public var root: String?
  public var memory: MemoryStrategy
  /// Stay in probation until `commit` or `rollback`.
  public var hold: Bool
  /// Seconds to watch the guest before committing; nil for none.
  public var probation: Double?
  /// The kept files to run `binary` with, when it is the way back to a version that is gone from disk.
  public var kept: KeptRuntime?
  /// Directories in which kept files are no longer what lies there.
  public var keptDirectories: [String]
  /// The way back of a held upgrade: open to a guest that is not well, too.
  public var takesBack = false
  /// The binary's, where it is known without asking it: of the way back.
  public var version: QEMUVersion?
  /// CPU features to switch off in the new QEMU: it turned out that it would give the guest more than it has.
  public var maskedFeatures: [String] = []

  public init(
    binary: String, root: String? = nil, memory: MemoryStrategy = .auto, hold: Bool = false,
    probation: Double? = nil, kept: KeptRuntime? = nil, keptDirectories: [String] = []
  ) {
    self.binary = binary
    self.root = root
    self.memory = memory
    self.hold = hold
    self.probation = probation
    self.kept = kept
    self.keptDirectories = keptDirectories
  }
}

/// What a target binary said of itself when it was tried out without a VM.
public struct TargetFacts: Sendable, Equatable {
  public var version: QEMUVersion
  /// What it knows: machine types, devices, properties, options.
  public var catalog: BinaryCatalog
  public init(version: QEMUVersion, catalog: BinaryCatalog) {
    self.version = version
    self.catalog = catalog
  }
}

/// The steps of an upgrade, in order.
public enum StepName: String, Sendable, Codable, CaseIterable {
  case lock, keep, stage, launch, compare, migrate, pause, `switch`, exchange, rewire, verify, resume, retire, probation, commit
}

/// A step that will be taken, and why it is there or how it will be done.
public struct PlannedStep: Sendable, Equatable, Codable {
  public var name: StepName
  public var why: String
}

/// The chosen memory strategy, and why not the others.
public struct MemoryDecision: Sendable, Equatable, Codable {
  public var strategy: MemoryStrategy
  public var why: String
  /// Strategy → why it was not taken.
  public var against: [String: String]
  /// What the upgrade takes on top of the running VM at most, bytes, QEMU's own included.
  public var extraBytes: UInt64
  /// The guest stands still while memory is copied: the running QEMU could miss what it writes meanwhile.
  public var stopsGuest = false
}

/// How one binding gets to the new QEMU.
public struct PlannedBinding: Sendable, Equatable, Codable {
  public var kind: String
  public var address: String
  public var handover: String
  public var why: String
}

/// The private directory behind the public names of one directory.
public struct Stage: Sendable, Equatable, Codable {
  public enum Kind: String, Sendable, Codable {
    /// The VM owns every entry of the directory: the directories themselves are exchanged, in one call.
    case exclusive
    /// Others have entries there: each name is exchanged, the others stay untouched.
    case shared
  }
  public var kind: Kind
  /// The public directory, symbolic links resolved.
  public var directory: String
  /// The stage: beside an exclusive directory, inside a shared one; on the same mount either way.
  public var path: String
  /// The public names in it.
  public var names: [String]
  /// Other entries of `directory` that the new QEMU must see while the stage hides it.
  public var carried: [String]

  public init(kind: Kind, directory: String, path: String, names: [String], carried: [String]) {
    self.kind = kind
    self.directory = directory
    self.path = path
    self.names = names
    self.carried = carried
  }
}

/// A directory that the new QEMU sees only by a descriptor as long as a stage lies over it.
public struct HiddenDirectory: Sendable, Equatable, Codable {
  public var path: String
  /// The number in the new QEMU.
  public var descriptor: CInt
}

/// What an upgrade will do, or why it will not. Pure: made of values, from values, without privilege.
public struct UpgradePlan: Sendable {
  public var id: String
  public var vm: String
  /// Names the VM across upgrades; what is locked, and where its state lies.
  public var key: String
  public var observation: Observation
  public var request: UpgradeRequest
  public var target: TargetFacts?
  public var memory: MemoryDecision
  public var stages: [Stage]
  public var bindings: [PlannedBinding]
  public var steps: [PlannedStep]
  public var warnings: [String]
  public var blockers: [Blocker]
  /// What shows beforehand whether the two QEMUs fit.
  var command: String { "moult plan \(vm) --to \(request.binary)\(request.root.map { " --root \($0)" } ?? "")" }
  /// The new QEMU is only started, to be compared and ended: its names lie in memory that nobody else sees, and
  /// its RAM is its own.
  var isTrial = false

  /// What the new QEMU gets by descriptor when it takes over.
  var rewiring: Rewiring { LaunchPlan.rewiring(self) }
  /// At its start others than the VM's answer it.
  var hasStandIns: Bool { !rewiring.isEmpty || rewiring.vsock != nil || observation.network.outgoing.contains { !$0.peer.reconnects || $0.peer.isLedElsewhere } }
}

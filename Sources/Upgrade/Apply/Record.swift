public import Kernel
public import QEMU

/// An entry of the journal: written before and after every step.
public struct JournalEntry: Sendable, Equatable {
  public enum Phase: String, Sendable { case begin, done, failed, undoing, undone }
  public var step: StepName
  public var phase: Phase
  /// Milliseconds since the upgrade began.
  public var milliseconds: Double
  public var note: String?

  /// What a journal says of the steps that a moult took which was killed: those that it did not end were `interrupted`.
  static func steps(_ entries: [JournalEntry]) -> [UpgradeReport.Step] {
    entries.enumerated().compactMap { index, entry in
      guard entry.phase == .begin else { return nil }
      let end = entries[index...].first { $0.step == entry.step && [.done, .failed].contains($0.phase) }
      return UpgradeReport.Step(
        name: entry.step, start: entry.milliseconds, end: end?.milliseconds ?? entry.milliseconds, outcome: end?.phase.rawValue ?? "interrupted")
    }
  }
}

/// The files that run the old version once the package manager has replaced them.
public struct KeptRuntime: Sendable, Equatable, Codable {
  public struct File: Sendable, Equatable, Codable {
    /// Where the file lies for QEMU.
    public var path: String
    /// What lay there when it was kept: when it still does, the copy is not needed.
    public var original: FileIdentity
    public init(path: String, original: FileIdentity) {
      self.path = path
      self.original = original
    }
  }
  /// The directory of the copies: each at its own path below it.
  public var directory: String
  public var binary: String
  public var root: String?
  public var files: [File]
  public init(directory: String, binary: String, root: String?, files: [File]) {
    self.directory = directory
    self.binary = binary
    self.root = root
    self.files = files
  }
}

/// What a later command must know of an upgrade that is under way or held.
public struct UpgradeRecord: Sendable, Equatable, Codable {
  public enum State: String, Sendable, Codable { case underWay = "under-way", probation, undoing }
  public var id: String
  public var vm: String
  public var key: String
  public var state: State
  public var old: ProcessIdentity
  public var oldVersion: QEMUVersion
  public var oldBinary: String
  public var oldRoot: String?
  /// The new QEMU's process, from the moment it exists.
  public var spawned: ProcessIdentity?
  /// The new QEMU, once it answered.
  public var new: LaunchedTwin?
  public var newBinary: String
  public var newRoot: String?
  /// The QMP socket's public path.
  public var monitor: String
  public var memory: MemoryStrategy
  public var stages: [Stage]
  /// The new QEMU's working directory, if a stage hides it.
  public var workingDirectory: HiddenDirectory?
  /// Paths of other programs that are covered in the new QEMU's mount namespace; nil in records of versions that knew of none.
  public var covered: [String]?
  /// What each exchange makes public, by staged path: tells afterwards whether it was done.
  public var staged: [String: FileIdentity]
  /// What is put in its place in the new QEMU when it takes over; nil in records of versions that knew of none.
  public var rewiring: [WiredMove]?
  /// The guest's vsock; nil in records of versions that knew of none.
  public var vsock: Rewiring.Vsock?
  /// What the old QEMU exports by NBD; nil in records of versions that knew of none.
  public var exports: ExportServer?
  /// The programs that serve directories to the guest (``FileServer``); nil in records of versions that knew of none.
  public var fileServers: FileServerUse?
  /// What the old QEMU had set for migrations of its own.
  public var settings: MigrationSettings
  public var holds: Bool
  /// What the old QEMU's `oom_score_adj` was; nil in records of a moult that did not change it.
  public var oomScoreAdjustment: Int?
  /// The systemd unit that must be told of the new main process before the old one ends.
  public var notifiedUnit: String?
  /// The guest agent, if it is to be looked at in a probation and was there before.
  public var agent: GuestAgent?
  /// The guest has run in the new QEMU: the old one must never run it again.
  public var hasResumed: Bool
  public var kept: KeptRuntime?
  public var pauseMilliseconds: Double?

  /// The upgrade is over but for the commit, and can be taken back: it was asked to be held, or its moult was
  /// killed while it watched the guest.
  public var isHeld: Bool { state == .probation && keepsWayBack }
  mutating func giveUpWayBack() { (holds, kept) = (false, nil) }
  /// Without the old version's files there is no way back, and nothing to wait for.
  var keepsWayBack: Bool { holds || kept != nil }
}

/// What a QEMU has of programs that serve directories to its guest.
public struct FileServerUse: Sendable, Equatable, Codable {
  public var programs = 0
  /// How many eventfds they share: fewer while the guest has not enabled the device, or QEMU does not use them.
  public var events = 0
}

/// The capabilities and parameters of migration that an upgrade changes, as they were before.
public struct MigrationSettings: Sendable, Equatable, Codable {
  public var capabilities: [String: Bool]
  public var parameters: [String: JSONValue]

  public init(_ live: LiveMachine) {
    capabilities = live.migrationCapabilities
    parameters = live.migrationParameters.filter { Self.changed.contains($0.key) }
  }
  static let changed: Set<String> = ["max-bandwidth", "downtime-limit", "tls-creds", "mode"]
}

/// How an upgrade ended.
public struct UpgradeReport: Sendable {
  public enum Outcome: String, Sendable, Codable {
    case committed, held, refused, failed
    case rolledBack = "rolled-back"
    /// Neither QEMU runs the guest, or it cannot be told: somebody has to look.
    case needsPerson = "needs-person"
  }
  public struct Step: Sendable, Codable {
    public var name: StepName
    /// Milliseconds since the upgrade began.
    public var start: Double
    public var end: Double
    public var outcome: String

    enum CodingKeys: String, CodingKey { case name, start = "start_ms", end = "end_ms", outcome }
    /// Histories had these before.
    private enum FormerKeys: String, CodingKey { case start, end }
  }
  public var outcome: Outcome
  public var pauseMilliseconds: Double?
  public var totalMilliseconds: Double
  public var extraMemoryBytes: UInt64?
  public var new: LaunchedTwin?
  public var steps: [Step]
  public var failure: (step: StepName, failure: Failure)?
  /// What could not be undone or tidied up, each in a sentence.
  public var notes: [String]
  /// It was a rollback.
  public var takesBack = false
  /// Why it was refused.
  public var blockers: [Blocker] = []
  /// In what the new QEMU turned out not to be the old one's twin.
  var differences: [String] = []
  /// Why the comparison failed, if it would not with these CPU features switched off.
  var gainedFeatures: [String] = []
}

extension UpgradeReport.Step {
  public init(from decoder: any Decoder) throws {
    let (now, before) = (try decoder.container(keyedBy: CodingKeys.self), try decoder.container(keyedBy: FormerKeys.self))
    self.init(
      name: try now.decode(StepName.self, forKey: .name), start: try now.decodeIfPresent(Double.self, forKey: .start) ?? before.decode(Double.self, forKey: .start),
      end: try now.decodeIfPresent(Double.self, forKey: .end) ?? before.decode(Double.self, forKey: .end), outcome: try now.decode(String.self, forKey: .outcome))
  }
}

public import Kernel

/// Everything a process starts with. A plain value; ``launch(_:_:)`` carries it out.
public struct ProcessPlan: Sendable, Equatable, Codable {
  public enum Executable: Sendable, Equatable, Codable {
    /// As the sandbox's root has it; never looked up in PATH.
    case path(String)
    /// An open descriptor of the launching process (execveat(2)): a deleted binary, for one.
    case descriptor(CInt)
  }

  public enum Stream: Sendable, Equatable, Codable {
    /// The launching process's own.
    case inherit
    case null
    /// A copy of a descriptor of the launching process, which keeps its own.
    case descriptor(CInt)
    case closed
  }

  /// A descriptor of the launching process, which keeps its own, and its number in the child (3 or above).
  public struct Inherited: Sendable, Equatable, Codable {
    public var source: CInt
    public var number: CInt

    public init(source: CInt, number: CInt) {
      self.source = source
      self.number = number
    }
  }

  public var executable: Executable
  /// With the command's name first.
  public var arguments: [String]
  /// Each `NAME=VALUE`.
  public var environment: [String]
  /// In the sandbox; nil: that of the launching process, or `/` in a tree.
  public var workingDirectory: String?
  /// nil: that of the launching process.
  public var umask: UInt32?
  /// nil: those of the launching process. The permitted and effective sets follow from the others at exec.
  public var credentials: Credentials?
  /// Also without ``credentials``.
  public var noNewPrivileges: Bool
  /// Only those that are given are set.
  public var limits: ResourceLimits
  public var scheduling: Scheduling?
  /// -1000…1000; nil: that of the launching process.
  public var oomScoreAdjustment: Int?
  /// Joined in order, before the program starts.
  public var cgroups: [CgroupMembership]
  public var standardInput: Stream
  public var standardOutput: Stream
  public var standardError: Stream
  /// All other descriptors are closed.
  public var inherited: [Inherited]
  public var newSession: Bool
  /// A child of init (or the nearest subreaper, prctl(2)) from the beginning, as a daemon is: it outlives the
  /// launching process, which cannot wait for it, and a service manager can adopt it as a main process of its own.
  public var orphan: Bool
  /// Killed when the launching process ends, however it ends (PR_SET_PDEATHSIG, prctl(2)): what is tried out must not
  /// outlive whoever tries it. Not for an orphan.
  public var endsWithParent: Bool
  /// Bit n-1: signal n is ignored; all others start with their default action.
  public var ignoredSignals: UInt64
  /// Bit n-1: signal n is blocked.
  public var signalMask: UInt64

  public init(
    executable: Executable, arguments: [String], environment: [String], workingDirectory: String? = nil,
    umask: UInt32? = nil, credentials: Credentials? = nil, noNewPrivileges: Bool = false,
    limits: ResourceLimits = ResourceLimits(), scheduling: Scheduling? = nil, oomScoreAdjustment: Int? = nil,
    cgroups: [CgroupMembership] = [], standardInput: Stream = .inherit, standardOutput: Stream = .inherit,
    standardError: Stream = .inherit, inherited: [Inherited] = [], newSession: Bool = false, orphan: Bool = false, endsWithParent: Bool = false,
    ignoredSignals: UInt64 = 0, signalMask: UInt64 = 0
  ) {
    self.executable = executable
    self.arguments = arguments
    self.environment = environment
    self.workingDirectory = workingDirectory
    self.umask = umask
    self.credentials = credentials
    self.noNewPrivileges = noNewPrivileges
    self.limits = limits
    self.scheduling = scheduling
    self.oomScoreAdjustment = oomScoreAdjustment
    self.cgroups = cgroups
    self.standardInput = standardInput
    self.standardOutput = standardOutput
    self.standardError = standardError
    self.inherited = inherited
    self.newSession = newSession
    self.orphan = orphan
    self.endsWithParent = endsWithParent
    self.ignoredSignals = ignoredSignals
    self.signalMask = signalMask
  }
}

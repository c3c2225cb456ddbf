import Glibc

/// The four user or group ids of a process (credentials(7)).
public struct Identities: Sendable, Equatable, Codable {
  public var real: UInt32
  public var effective: UInt32
  public var saved: UInt32
  public var filesystem: UInt32

  public init(real: UInt32, effective: UInt32, saved: UInt32, filesystem: UInt32) {
    self.real = real
    self.effective = effective
    self.saved = saved
    self.filesystem = filesystem
  }

  /// All four the same.
  public init(_ id: UInt32) { self.init(real: id, effective: id, saved: id, filesystem: id) }
}

/// The five capability sets of a thread (capabilities(7)), one bit a capability.
public struct CapabilitySets: Sendable, Equatable, Codable {
  public var inheritable: UInt64
  public var permitted: UInt64
  public var effective: UInt64
  public var bounding: UInt64
  public var ambient: UInt64

  public init(
    inheritable: UInt64 = 0, permitted: UInt64 = 0, effective: UInt64 = 0, bounding: UInt64 = 0,
    ambient: UInt64 = 0
  ) {
    self.inheritable = inheritable
    self.permitted = permitted
    self.effective = effective
    self.bounding = bounding
    self.ambient = ambient
  }
}

/// Who a process is and what it may do.
public struct Credentials: Sendable, Equatable, Codable {
  public var user: Identities
  public var group: Identities
  public var supplementaryGroups: [UInt32]
  public var capabilities: CapabilitySets
  public var noNewPrivileges: Bool

  public init(
    user: Identities, group: Identities, supplementaryGroups: [UInt32], capabilities: CapabilitySets,
    noNewPrivileges: Bool
  ) {
    self.user = user
    self.group = group
    self.supplementaryGroups = supplementaryGroups
    self.capabilities = capabilities
    self.noNewPrivileges = noNewPrivileges
  }
}

/// What /proc/PID/status and /proc/PID/stat say about a process (proc_pid_status(5), proc_pid_stat(5)).
public struct ProcessStatus: Sendable, Equatable {
  public var pid: pid_t
  public var parent: pid_t
  /// The command name: at most 15 bytes, and the process may have changed it.
  public var name: String
  /// One letter: R running, S sleeping, D waiting for a device, T stopped, Z zombie, …
  public var state: Character
  /// When the process started, in clock ticks since boot. With the pid it names a process for good.
  public var startTime: UInt64
  /// The process group and the session.
  public var processGroup: pid_t
  public var session: pid_t
  public var credentials: Credentials
  /// The file mode creation mask; nil on kernels before 4.7.
  public var umask: UInt32?
  /// 0 off, 1 strict, 2 filter.
  public var seccompMode: Int
  /// Bit n-1: signal n is ignored.
  public var ignoredSignals: UInt64
  public var threadCount: Int
  /// Processor time used so far, in user and kernel mode, in clock ticks.
  public var cpuTime: UInt64 = 0

  public var isZombie: Bool { state == "Z" || state == "X" }
  /// Bit n-1: signal n waits to be delivered.
  public var pendingSignals: UInt64 = 0
  /// What the kernel has noted of the thread (PF_* of its sched.h).
  public var flags: UInt64 = 0
  /// It has been killed, or exits: nothing of the program runs any more, and what it has open goes as soon as its memory is given up,
  /// which of a large one takes long.
  public var isEnding: Bool { isZombie || flags & Self.exiting != 0 || pendingSignals >> UInt64(SIGKILL - 1) & 1 != 0 }
  private static let exiting: UInt64 = 4

  /// Reads the status of a process or of a thread.
  public static func read(pid: pid_t) throws(Failure) -> ProcessStatus {
    try parse(
      status: Files.readText("/proc/\(pid)/status"), stat: Files.readText("/proc/\(pid)/stat"), subject: "\(pid)")
  }

  /// Parses the two files' texts.
  public static func parse(status: String, stat: String, subject: String = "") throws(Failure) -> ProcessStatus {
    var fields: [Substring: Substring] = [:]
    for line in status.split(separator: "\n") {
      guard let colon = line.firstIndex(of: ":") else { continue }
      fields[line[..<colon]] = line[line.index(after: colon)...].trimmingSpaces()
    }
    func broken(_ what: String) -> Failure {
      Failure(step: "read status of process", subject: subject, reason: "cannot understand \(what)")
    }
    func numbers(_ key: Substring, radix: Int = 10) -> [UInt64] {
      (fields[key] ?? "").split(whereSeparator: { $0 == " " || $0 == "\t" }).compactMap { UInt64($0, radix: radix) }
    }
    func number(_ key: Substring, radix: Int = 10) throws(Failure) -> UInt64 {
      guard let value = numbers(key, radix: radix).first else { throw broken(String(key)) }
      return value
    }
    func identities(_ key: Substring) throws(Failure) -> Identities {
      let ids = numbers(key).map { UInt32(truncatingIfNeeded: $0) }
      guard ids.count == 4 else { throw broken(String(key)) }
      return Identities(real: ids[0], effective: ids[1], saved: ids[2], filesystem: ids[3])
    }
    // The command name may contain spaces and parentheses: what follows it starts after the last one.
    guard let open = stat.firstIndex(of: "("), let close = stat.lastIndex(of: ")"), open < close else {
      throw broken("stat")
    }
    let rest = stat[stat.index(after: close)...].split(whereSeparator: { $0 == " " || $0 == "\n" })
    guard rest.count >= 20, let state = rest[0].first, let parent = pid_t(rest[1]), let group = pid_t(rest[2]),
      let session = pid_t(rest[3]), let startTime = UInt64(rest[19])
    else { throw broken("stat") }

    return ProcessStatus(
      pid: pid_t(truncatingIfNeeded: try number("Pid")), parent: parent,
      name: String(stat[stat.index(after: open)..<close]), state: state, startTime: startTime,
      processGroup: group, session: session,
      credentials: Credentials(
        user: try identities("Uid"), group: try identities("Gid"),
        supplementaryGroups: numbers("Groups").map { UInt32(truncatingIfNeeded: $0) },
        capabilities: CapabilitySets(
          inheritable: try number("CapInh", radix: 16), permitted: try number("CapPrm", radix: 16),
          effective: try number("CapEff", radix: 16), bounding: try number("CapBnd", radix: 16),
          ambient: numbers("CapAmb", radix: 16).first ?? 0),
        noNewPrivileges: numbers("NoNewPrivs").first == 1),
      umask: numbers("Umask", radix: 8).first.map { UInt32($0) },
      seccompMode: Int(numbers("Seccomp").first ?? 0),
      ignoredSignals: numbers("SigIgn", radix: 16).first ?? 0,
      threadCount: Int(numbers("Threads").first ?? 1), cpuTime: (UInt64(rest[11]) ?? 0) + (UInt64(rest[12]) ?? 0),
      pendingSignals: (numbers("SigPnd", radix: 16).first ?? 0) | (numbers("ShdPnd", radix: 16).first ?? 0), flags: UInt64(rest[6]) ?? 0)
  }
}

extension Substring {
  func trimmingSpaces() -> Substring {
    var text = self
    while let first = text.first, first == " " || first == "\t" { text.removeFirst() }
    while let last = text.last, last == " " || last == "\t" { text.removeLast() }
    return text
  }
}

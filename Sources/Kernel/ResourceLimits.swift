import CKernel
import Glibc

/// What getrlimit(2) can limit; the raw value is the kernel's number.
public enum Resource: CInt, CaseIterable, Sendable, Codable {
  case cpuTime, fileSize, data, stack, coreSize, residentSet, processes, openFiles, lockedMemory, addressSpace
  case fileLocks, pendingSignals, messageQueueBytes, nice, realTimePriority, realTimeTime

  /// What /proc/PID/limits calls it. Source: fs/proc/base.c, `lnames`.
  var title: String {
    switch self {
    case .cpuTime: "Max cpu time"
    case .fileSize: "Max file size"
    case .data: "Max data size"
    case .stack: "Max stack size"
    case .coreSize: "Max core file size"
    case .residentSet: "Max resident set"
    case .processes: "Max processes"
    case .openFiles: "Max open files"
    case .lockedMemory: "Max locked memory"
    case .addressSpace: "Max address space"
    case .fileLocks: "Max file locks"
    case .pendingSignals: "Max pending signals"
    case .messageQueueBytes: "Max msgqueue size"
    case .nice: "Max nice priority"
    case .realTimePriority: "Max realtime priority"
    case .realTimeTime: "Max realtime timeout"
    }
  }
}

/// A soft and a hard limit; `UInt64.max` is none.
public struct ResourceLimit: Sendable, Equatable, Codable {
  public var soft: UInt64
  public var hard: UInt64

  public init(soft: UInt64, hard: UInt64) {
    self.soft = soft
    self.hard = hard
  }
}

/// The resource limits of a process (prlimit(2)).
public struct ResourceLimits: Sendable, Equatable, Codable {
  public var limits: [Resource: ResourceLimit]

  public init(_ limits: [Resource: ResourceLimit] = [:]) { self.limits = limits }

  /// All of them, as /proc/PID/limits has them: prlimit(2) would need CAP_SYS_RESOURCE for another user's
  /// process, which root in a container often lacks.
  public static func read(pid: pid_t) throws(Failure) -> ResourceLimits {
    let path = "/proc/\(pid)/limits"
    return try parse(Files.readText(path), subject: path)
  }

  static func parse(_ text: String, subject: String = "") throws(Failure) -> ResourceLimits {
    var limits: [Resource: ResourceLimit] = [:]
    for line in text.split(separator: "\n") {
      guard let resource = Resource.allCases.first(where: { line.hasPrefix($0.title + " ") }) else { continue }
      let figures = line.dropFirst(resource.title.count).split(separator: " ").prefix(2).compactMap { word in
        word == "unlimited" ? UInt64.max : UInt64(word)
      }
      if figures.count == 2 { limits[resource] = ResourceLimit(soft: figures[0], hard: figures[1]) }
    }
    guard limits.count == Resource.allCases.count else {
      throw Failure(step: "read", subject: subject, reason: "cannot understand it")
    }
    return ResourceLimits(limits)
  }

  /// Sets those that are given.
  public func apply(to pid: pid_t) throws(Failure) {
    for resource in Resource.allCases {
      guard let limit = limits[resource] else { continue }
      try valueOrErrno("set limit \(resource) of process", "\(pid)") {
        moult_prlimit(pid, resource.rawValue, [limit.soft, limit.hard], nil)
      }
    }
  }
}

/// How willingly the kernel kills a process when memory runs out: -1000 never, 1000 first.
public enum OOMScore {
  public static func read(pid: pid_t) throws(Failure) -> Int {
    let path = "/proc/\(pid)/oom_score_adj"
    guard let value = Int(try Files.readText(path).split(separator: "\n").first ?? "") else {
      throw Failure(step: "read", subject: path, reason: "not a number")
    }
    return value
  }

  public static func apply(_ value: Int, to pid: pid_t) throws(Failure) {
    try Files.write("\(value)", to: "/proc/\(pid)/oom_score_adj")
  }
}

import CKernel
import Glibc

/// What getrlimit(2) can limit; the raw value is the kernel's number.
public enum Resource: CInt, CaseIterable, Sendable, Codable {
  case cpuTime, fileSize, data, stack, coreSize, residentSet, processes, openFiles, lockedMemory, addressSpace
  case fileLocks, pendingSignals, messageQueueBytes, nice, realTimePriority, realTimeTime
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

  /// All of them.
  public static func read(pid: pid_t) throws(Failure) -> ResourceLimits {
    var limits: [Resource: ResourceLimit] = [:]
    for resource in Resource.allCases {
      var pair: [UInt64] = [0, 0]
      try valueOrErrno("read limit \(resource) of process", "\(pid)") {
        moult_prlimit(pid, resource.rawValue, nil, &pair)
      }
      limits[resource] = ResourceLimit(soft: pair[0], hard: pair[1])
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

import Glibc
import SystemPackage

/// How much more memory the members of a control group can use before the kernel reclaims hard or kills.
public struct MemoryHeadroom: Sendable, Equatable {
  /// The least over the group and its ancestors of limit − usage + page cache that can be dropped.
  public var bytes: UInt64
  /// The directory of the group that limits most.
  public var cgroup: String
  /// That group's limit, in bytes.
  public var limit: UInt64

  public init(bytes: UInt64, cgroup: String, limit: UInt64) {
    self.bytes = bytes
    self.cgroup = cgroup
    self.limit = limit
  }

  /// The figures of one group, in bytes; `limit` is nil when there is none.
  public struct Level: Sendable, Equatable {
    public var cgroup: String
    public var limit: UInt64?
    public var usage: UInt64
    public var reclaimable: UInt64

    public init(cgroup: String, limit: UInt64?, usage: UInt64, reclaimable: UInt64) {
      self.cgroup = cgroup
      self.limit = limit
      self.usage = usage
      self.reclaimable = reclaimable
    }
  }

  /// The tightest of several groups; nil when none has a limit.
  public static func least(of levels: [Level]) -> MemoryHeadroom? {
    levels.compactMap { level -> MemoryHeadroom? in
      guard let limit = level.limit else { return nil }
      let available = limit &+ min(level.reclaimable, level.usage)
      return MemoryHeadroom(
        bytes: available > level.usage ? available - level.usage : 0, cgroup: level.cgroup, limit: limit)
    }.min { $0.bytes < $1.bytes }
  }

  /// Of a process: nil when no group limits it.
  public static func of(process pid: pid_t) throws(Failure) -> MemoryHeadroom? {
    let mounts = try MountInfo.ofSelf()
    var levels: [Level] = []
    for membership in try CgroupMembership.of(process: pid) {
      guard membership.isUnified || membership.controllers.contains("memory") else { continue }
      var path = membership.path
      while true {
        var ancestor = membership
        ancestor.path = path
        if let directory = ancestor.directory(in: mounts),
          let level = try level(of: directory, unified: membership.isUnified)
        {
          levels.append(level)
        }
        if path == "/" || path.isEmpty { break }
        path = Paths.parent(path)
      }
    }
    return least(of: levels)
  }

  private static func level(of directory: String, unified: Bool) throws(Failure) -> Level? {
    do throws(Failure) {
      if unified {
        return parse(
          cgroup: directory, limits: [
            try Files.readText(directory + "/memory.max"), try Files.readText(directory + "/memory.high"),
          ], usage: try Files.readText(directory + "/memory.current"),
          stat: try Files.readText(directory + "/memory.stat"), unified: true)
      }
      return parse(
        cgroup: directory, limits: [try Files.readText(directory + "/memory.limit_in_bytes")],
        usage: try Files.readText(directory + "/memory.usage_in_bytes"),
        stat: try Files.readText(directory + "/memory.stat"), unified: false)
    } catch where error.errno == .noSuchFileOrDirectory {
      return nil  // The root group, or a group without the memory controller, has no such files.
    }
  }

  /// Parses a group's files. v1 says "no limit" with a number near 2^63, v2 with `max`.
  static func parse(cgroup: String, limits: [String], usage: String, stat: String, unified: Bool) -> Level {
    func number(_ text: String) -> UInt64? { UInt64(text.prefix { $0 != "\n" }) }
    var figures: [Substring: UInt64] = [:]
    for line in stat.split(separator: "\n") {
      let parts = line.split(separator: " ")
      if parts.count == 2, let value = UInt64(parts[1]) { figures[parts[0]] = value }
    }
    func figure(_ v1: Substring, _ v2: Substring) -> UInt64 { figures[unified ? v2 : v1] ?? 0 }
    let cache =
      figure("total_inactive_file", "inactive_file") + figure("total_active_file", "active_file")
    let busy = figure("total_dirty", "file_dirty") + figure("total_writeback", "file_writeback")
    return Level(
      cgroup: cgroup, limit: limits.compactMap(number).filter { $0 < 1 << 60 }.min(), usage: number(usage) ?? 0,
      reclaimable: cache > busy ? cache - busy : 0)
  }
}

/// The host's memory.
public enum HostMemory {
  /// What can be had without swapping, in bytes (MemAvailable of proc_meminfo(5)).
  public static func available() throws(Failure) -> UInt64 {
    guard let value = parseAvailable(try Files.readText("/proc/meminfo")) else {
      throw Failure(step: "read", subject: "/proc/meminfo", reason: "no MemAvailable")
    }
    return value
  }

  static func parseAvailable(_ meminfo: String) -> UInt64? {
    for line in meminfo.split(separator: "\n") where line.hasPrefix("MemAvailable:") {
      let fields = line.split(separator: " ")
      if fields.count == 3, let kibibytes = UInt64(fields[1]) { return kibibytes * 1024 }
    }
    return nil
  }
}

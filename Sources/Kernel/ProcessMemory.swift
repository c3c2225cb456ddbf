import Glibc

/// How much of a process's memory is in RAM, bytes. Source: proc_pid_status(5), which counts without walking
/// page tables.
public struct ProcessMemory: Sendable, Equatable {
  /// Private memory.
  public var anonymous: UInt64
  /// Files that are mapped: programs, and RAM in a file of a disk's filesystem.
  public var file: UInt64
  /// Shared memory: memfd, /dev/shm.
  public var shared: UInt64
  /// Huge pages, which the others do not count.
  public var huge: UInt64

  public init(anonymous: UInt64, file: UInt64, shared: UInt64, huge: UInt64) {
    self.anonymous = anonymous
    self.file = file
    self.shared = shared
    self.huge = huge
  }

  public static func read(pid: pid_t) throws(Failure) -> ProcessMemory { parse(status: try Files.readText("/proc/\(pid)/status")) }

  public static func parse(status: String) -> ProcessMemory {
    var fields: [Substring: UInt64] = [:]
    for line in status.split(separator: "\n") {
      let words = line.split(whereSeparator: { " \t:".contains($0) })
      if words.count == 3, words[2] == "kB", let number = UInt64(words[1]) { fields[words[0]] = number << 10 }
    }
    return ProcessMemory(
      anonymous: fields["RssAnon"] ?? 0, file: fields["RssFile"] ?? 0, shared: fields["RssShmem"] ?? 0, huge: fields["HugetlbPages"] ?? 0)
  }
}

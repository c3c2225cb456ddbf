import Glibc

/// The place of a process or thread in one hierarchy of control groups (cgroups(7)).
public struct CgroupMembership: Sendable, Equatable, Codable {
  /// 0 stands for the unified (v2) hierarchy.
  public var hierarchy: Int
  /// The v1 controllers of the hierarchy, or its `name=`; empty for v2.
  public var controllers: [String]
  /// The group, from the hierarchy's root as this process sees it.
  public var path: String

  public init(hierarchy: Int, controllers: [String], path: String) {
    self.hierarchy = hierarchy
    self.controllers = controllers
    self.path = path
  }

  public var isUnified: Bool { hierarchy == 0 && controllers.isEmpty }

  /// Of a process, in every hierarchy.
  public static func of(process pid: pid_t) throws(Failure) -> [CgroupMembership] {
    parse(try Files.readText("/proc/\(pid)/cgroup"))
  }

  /// Of a single thread, which v1 and threaded v2 groups allow to differ from its process.
  public static func of(thread: pid_t, in pid: pid_t) throws(Failure) -> [CgroupMembership] {
    parse(try Files.readText("/proc/\(pid)/task/\(thread)/cgroup"))
  }

  /// Parses /proc/PID/cgroup.
  public static func parse(_ text: String) -> [CgroupMembership] {
    text.split(separator: "\n").compactMap { line in
      let fields = line.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
      guard fields.count == 3, let hierarchy = Int(fields[0]) else { return nil }
      var path = String(fields[2])
      let (kept, deleted) = ProcFS.splitDeleted(path)
      if deleted { path = kept }
      return CgroupMembership(
        hierarchy: hierarchy, controllers: fields[1].split(separator: ",").map(String.init), path: path)
    }
  }

  /// The group's directory, found among `mounts`; nil if no mount shows it.
  public func directory(in mounts: [MountInfo]) -> String? {
    for mount in mounts.reversed() {
      if isUnified {
        guard mount.filesystem == "cgroup2" else { continue }
      } else {
        guard mount.filesystem == "cgroup", controllers.allSatisfy(mount.superOptions.contains) else { continue }
      }
      // In a container the mount's root is a group below the hierarchy's root.
      if mount.root == "/" { return Paths.join(mount.mountPoint, path) }
      if Paths.contains(mount.root, path) {
        return Paths.join(mount.mountPoint, String(path.dropFirst(mount.root.count)))
      }
    }
    return nil
  }

  /// The group's directory, or why there is none.
  public func directory() throws(Failure) -> String {
    guard let directory = directory(in: try MountInfo.ofSelf()) else {
      throw Failure(step: "find control group", subject: description, reason: "its hierarchy is not mounted here")
    }
    return directory
  }

  /// Moves a process with all its threads into the group.
  public func join(process pid: pid_t) throws(Failure) {
    if try Self.of(process: pid).contains(self) { return }
    try Files.write("\(pid)", to: try directory() + "/cgroup.procs")
  }

  /// Moves one thread into the group; in v2 the group must be threaded.
  public func join(thread: pid_t, of pid: pid_t) throws(Failure) {
    if try Self.of(thread: thread, in: pid).contains(self) { return }
    try Files.write("\(thread)", to: try directory() + (isUnified ? "/cgroup.threads" : "/tasks"))
  }
}

extension CgroupMembership: CustomStringConvertible {
  public var description: String { "\(isUnified ? "unified" : controllers.joined(separator: ",")):\(path)" }
}

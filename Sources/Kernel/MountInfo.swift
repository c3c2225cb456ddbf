import Glibc

/// One mount of a mount namespace (proc_pid_mountinfo(5)).
public struct MountInfo: Sendable, Equatable {
  public var id: Int
  public var parent: Int
  /// As in ``FileStatus/device``.
  public var device: UInt64
  /// The directory of the filesystem that is the mount's root.
  public var root: String
  /// As seen from the process's root.
  public var mountPoint: String
  /// The mount's own options: `rw,nosuid,relatime`.
  public var options: [String]
  /// `shared:1`, `master:2`, … ; empty when private.
  public var propagation: [String]
  public var filesystem: String
  public var source: String
  /// The filesystem's options, which all its mounts share.
  public var superOptions: [String]

  /// The mounts that a process sees.
  public static func read(pid: pid_t) throws(Failure) -> [MountInfo] {
    parse(try Files.readText("/proc/\(pid)/mountinfo"))
  }

  /// Of this process.
  public static func ofSelf() throws(Failure) -> [MountInfo] {
    parse(try Files.readText("/proc/self/mountinfo"))
  }

  /// Parses the file; lines that are not understood are left out.
  public static func parse(_ text: String) -> [MountInfo] {
    text.split(separator: "\n").compactMap { line in
      let fields = line.split(separator: " ", omittingEmptySubsequences: false)
      guard let dash = fields.dropFirst(6).firstIndex(of: "-"), fields.count >= dash + 4,
        let id = Int(fields[0]), let parent = Int(fields[1])
      else { return nil }
      let device = fields[2].split(separator: ":").compactMap { UInt32($0) }
      guard device.count == 2 else { return nil }
      return MountInfo(
        id: id, parent: parent, device: DeviceNumber.make(major: device[0], minor: device[1]),
        root: Octal.unescape(fields[3]), mountPoint: Octal.unescape(fields[4]),
        options: fields[5].split(separator: ",").map(String.init),
        propagation: fields[6..<dash].map(String.init), filesystem: String(fields[dash + 1]),
        source: Octal.unescape(fields[dash + 2]),
        superOptions: fields[dash + 3].split(separator: ",").map(String.init))
    }
  }

  public var isReadOnly: Bool { options.contains("ro") || superOptions.contains("ro") }

  /// The mount that `path` (absolute, no symbolic links) lies on: the deepest, and of several on one mount
  /// point the last.
  public static func containing(_ path: String, in mounts: [MountInfo]) -> MountInfo? {
    var best: MountInfo?
    for mount in mounts where Paths.contains(mount.mountPoint, path) {
      if let current = best, current.mountPoint.utf8.count > mount.mountPoint.utf8.count { continue }
      best = mount
    }
    return best
  }

  /// What a process sees of the host's files in a directory: the mount that it lies on, and those below it.
  public struct View: Sendable, Hashable {
    /// Below the directory; empty for itself.
    var place: String
    var device: UInt64
    /// Of the file system.
    var directory: String
    var restrictions: Set<String>
  }

  /// - Parameter directory: absolute, without symbolic links, as the process has it.
  public static func view(of directory: String, in mounts: [MountInfo]) -> Set<View> {
    func view(_ mount: MountInfo, _ place: String, _ inner: String) -> View {
      View(
        place: place, device: mount.device, directory: mount.root == "/" && !inner.isEmpty ? inner : mount.root + inner,
        restrictions: Set(mount.options).intersection(["ro", "nosuid", "nodev", "noexec"]))
    }
    guard let own = containing(directory, in: mounts) else { return [] }
    let prefix = directory == "/" ? "" : directory
    let inner = own.mountPoint == "/" ? prefix : String(prefix.dropFirst(own.mountPoint.utf8.count))
    // Of several on one place the last is seen.
    var below: [String: View] = [:]
    for mount in mounts where mount.mountPoint.hasPrefix(prefix + "/") && mount.mountPoint != "/" {
      let place = String(mount.mountPoint.dropFirst(prefix.utf8.count))
      below[place] = view(mount, place, "")
    }
    return Set([view(own, "", inner)] + below.values)
  }

  /// Whether a mount's root is exactly `path`.
  public static func isMountPoint(_ path: String, in mounts: [MountInfo]) -> Bool {
    mounts.contains { $0.mountPoint == path }
  }
}

/// Arithmetic on absolute paths, without looking at any filesystem.
public enum Paths {
  /// Whether `path` is `directory` or below it.
  public static func contains(_ directory: String, _ path: String) -> Bool {
    directory == "/" || path == directory || path.hasPrefix(directory + "/")
  }

  /// The directory part; `/` for names directly below the root, `.` for a name without a slash.
  public static func parent(_ path: String) -> String {
    guard let slash = path.lastIndex(of: "/") else { return "." }
    let parent = path[..<slash]
    return parent.isEmpty ? "/" : String(parent)
  }

  /// The last component.
  public static func base(_ path: String) -> String {
    guard let slash = path.lastIndex(of: "/") else { return path }
    return String(path[path.index(after: slash)...])
  }

  /// `directory` and `name` joined; an absolute `name` is put below `directory` too.
  public static func join(_ directory: String, _ name: String) -> String {
    let tail = name.drop { $0 == "/" }
    if tail.isEmpty { return directory }
    return directory.hasSuffix("/") ? directory + tail : directory + "/" + tail
  }

  /// Without empty components and `.`; `..` is kept, as its meaning depends on symbolic links.
  public static func components(_ path: String) -> [String] {
    path.split(separator: "/").filter { $0 != "." }.map(String.init)
  }
}

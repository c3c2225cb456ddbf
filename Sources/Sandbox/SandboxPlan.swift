public import Kernel

/// One step in building the file system that a process sees. Targets are paths in the sandbox; sources are paths
/// of the host as it was before any step.
public enum MountOperation: Sendable, Equatable, Codable {
  /// Shows a file or directory of the host. In a tree the mount point is made where missing; on the host's root it
  /// must exist.
  case bind(source: String, target: String, recursive: Bool = false, readOnly: Bool = false)
  /// Shows a device file of the host; anything else at `source` is refused (CVE-2025-31133).
  case device(source: String, target: String)
  /// Shows several directories of the host as one, read-only: a name in the first hides the same name in the others
  /// (overlayfs without an upper layer).
  case layers([String], target: String)
  /// An empty file system in memory, with tmpfs(5) options: `mode=0755,size=64m`.
  case tmpfs(target: String, options: String)
  /// procfs of the pid namespace.
  case proc(target: String)
  /// sysfs of the network namespace, read-only.
  case sysfs(target: String)
  /// A devpts instance of its own.
  case devpts(target: String)
  /// Makes a directory, and its parents, where missing.
  case directory(path: String, mode: UInt32)
  /// Makes an empty file where missing: a mount point for a later bind.
  case emptyFile(path: String)
  /// Makes a symbolic link where nothing has its name.
  case symbolicLink(path: String, target: String)
  /// Makes what is there read-only, mounts below it included. What does not exist is skipped.
  case readOnly(path: String)
  /// Covers a directory with an empty one, a file with nothing. What does not exist is skipped.
  case hide(path: String)
}

/// The world a process gets: its namespaces and file system. A plain value; ``launch(_:_:)`` carries it out.
public struct SandboxPlan: Sendable, Equatable, Codable {
  public enum Root: Sendable, Equatable, Codable {
    /// The host's own tree.
    case host
    /// A directory with another distribution's tree. It is not changed: what the process writes there is kept in
    /// memory (overlayfs over a tmpfs) and goes when it ends.
    case tree(String)
  }

  public var namespaces: NamespaceKinds
  public var root: Root
  /// In order; needs a mount namespace.
  public var operations: [MountOperation]
  /// How symbolic links in sources and in targets are treated.
  public var sourceResolution: PathResolution
  public var targetResolution: PathResolution
  /// Mount points of binds are made where missing on the host's root, too: only where a file system of the sandbox's
  /// own lies there by then.
  public var makesMountPoints = false

  /// On the host's root, targets are real paths by default: a symbolic link on the way is an error.
  public init(
    namespaces: NamespaceKinds = [], root: Root = .host, operations: [MountOperation] = [],
    sourceResolution: PathResolution = .inRoot, targetResolution: PathResolution? = nil
  ) {
    self.namespaces = namespaces
    self.root = root
    self.operations = operations
    self.sourceResolution = sourceResolution
    self.targetResolution = targetResolution ?? (root == .host ? .noSymlinks : .inRoot)
  }

  /// The devices every tree gets.
  public static let standardDevices = [
    "/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty",
  ]

  /// A process from another root tree: private /dev, /proc, read-only /sys, empty /tmp, /run and /dev/shm, the given
  /// devices, and then `files`, in order.
  ///
  /// - Parameters:
  ///   - directory: the tree, a path of the host.
  ///   - devices: device files besides ``standardDevices``, at the same path in the tree: `/dev/kvm`.
  ///   - files: what else of the host the process sees; mount points are made as needed, and symbolic links on the
  ///     way are resolved inside the tree (`/var/run` → `/run`).
  public static func tree(
    _ directory: String, namespaces: NamespaceKinds = .all, devices: [String] = [], files: [MountOperation] = []
  ) -> SandboxPlan {
    var operations: [MountOperation] = [.tmpfs(target: "/dev", options: "mode=0755")]
    var seen: Set<String> = []
    for device in standardDevices + devices where seen.insert(device).inserted {
      operations.append(.device(source: device, target: device))
    }
    operations += [
      .devpts(target: "/dev/pts"),
      .symbolicLink(path: "/dev/ptmx", target: "pts/ptmx"),
      .symbolicLink(path: "/dev/fd", target: "/proc/self/fd"),
      .symbolicLink(path: "/dev/stdin", target: "/proc/self/fd/0"),
      .symbolicLink(path: "/dev/stdout", target: "/proc/self/fd/1"),
      .symbolicLink(path: "/dev/stderr", target: "/proc/self/fd/2"),
      .tmpfs(target: "/dev/shm", options: "mode=1777"),
      .proc(target: "/proc"),
      .sysfs(target: "/sys"),
      .tmpfs(target: "/tmp", options: "mode=1777"),
      .tmpfs(target: "/run", options: "mode=0755"),
    ]
    return SandboxPlan(namespaces: namespaces.union(.mount), root: .tree(directory), operations: operations + files)
  }
}

import Glibc
import Kernel
import SystemPackage

/// Carries out a plan's mounts in the current mount namespace, which must be a new one.
struct MountExecution: ~Copyable {
  private let plan: SandboxPlan
  /// The host's root as the new namespace shows it.
  private let hostRoot: OwnedFD
  /// Sources of binds, opened before the first mount: a later mount may cover their paths.
  private let sources: DescriptorList

  static func run(_ plan: SandboxPlan) throws(Failure) {
    let hostRoot = try OwnedFD.naming("/")
    let sources = try Self.openSources(of: plan, in: hostRoot.raw)
    let execution = MountExecution(plan: plan, hostRoot: hostRoot, sources: sources)
    switch plan.root {
    case .host:
      try execution.apply(in: execution.hostRoot.raw)
    case .tree(let directory):
      let root = try execution.overlay(directory)
      try execution.apply(in: root.raw)
      try Mount.pivot(to: root.raw, subject: directory)
    }
  }

  private init(plan: SandboxPlan, hostRoot: consuming OwnedFD, sources: consuming DescriptorList) {
    self.plan = plan
    self.hostRoot = hostRoot
    self.sources = sources
  }

  private static func openSources(of plan: SandboxPlan, in hostRoot: CInt) throws(Failure) -> DescriptorList {
    var list = DescriptorList()
    for operation in plan.operations {
      switch operation {
      case .bind(let source, _, _, _):
        list.append(
          try MountPoint.open(source, in: hostRoot, plan.sourceResolution, step: "open source of bind mount"))
      case .layers(let directories, _):
        for directory in directories {
          list.append(
            try MountPoint.open(directory, in: hostRoot, plan.sourceResolution, step: "open layer"))
        }
      case .device(let source, _):
        let file = try MountPoint.open(source, in: hostRoot, plan.sourceResolution, step: "open device")
        let status = try Files.status(of: file.raw)
        guard status.isCharacterDevice || status.isBlockDevice else {
          throw Failure(step: "open device", subject: source, reason: "not a device file")
        }
        list.append(file)
      default: break
      }
    }
    return list
  }

  /// The root of an overlay of `directory` and an empty file system in memory.
  private borrowing func overlay(_ directory: String) throws(Failure) -> OwnedFD {
    let step = "open root tree"
    guard Paths.components(directory).count > 0 else {
      throw Failure(step: step, subject: directory, reason: "the host's own root is not a root tree")
    }
    let lower = try MountPoint.open(directory, in: hostRoot.raw, .inRoot, step: step)
    guard try Files.status(of: lower.raw).isDirectory else {
      throw Failure(step: step, subject: directory, errno: .notDirectory)
    }
    // The memory file system covers the tree in this namespace; `lower` still stands for the tree below it.
    // Descriptors instead of paths spare all escaping in the options.
    try Mount.filesystem("tmpfs", at: lower.procPath, options: "mode=0755")
    let memory = try MountPoint.open(directory, in: hostRoot.raw, .inRoot, step: step)
    for name in ["upper", "work", "root"] {
      try valueOrErrno("make directory", name) { mkdirat(memory.raw, name, 0o755) }
    }
    let target = try MountPoint.open("/root", in: memory.raw, .noSymlinks)
    // The root directory itself keeps the tree's mode.
    let upper = try MountPoint.open("/upper", in: memory.raw, .noSymlinks)
    let mode = try Files.status(of: lower.raw).mode & 0o7777
    try valueOrErrno("set mode of", directory) { chmod("/proc/self/fd/\(upper.raw)", mode) }
    do throws(Failure) {
      try Mount.filesystem(
        // The source means nothing to overlayfs; it is what tells later which tree this is.
        "overlay", at: target.procPath, source: directory,
        options: "lowerdir=\(lower.procPath),upperdir=\(memory.procPath)/upper,workdir=\(memory.procPath)/work")
    } catch {
      var failure = error
      failure.subject = directory
      failure.hint = "The tree must lie on a file system that overlayfs accepts as a lower layer."
      throw failure
    }
    return try MountPoint.open("/root", in: memory.raw, .noSymlinks)
  }

  private borrowing func apply(in root: CInt) throws(Failure) {
    let isTree = plan.root != .host
    let resolution = plan.targetResolution
    var nextSource = 0

    /// The mount point; in a tree made where missing.
    func point(_ path: String, directory: Bool) throws(Failure) -> OwnedFD {
      if !isTree, !plan.makesMountPoints { return try MountPoint.open(path, in: root, resolution, step: "open mount point") }
      return directory
        ? try MountPoint.directory(path, in: root, resolution) : try MountPoint.file(path, in: root, resolution)
    }
    func new(_ type: String, _ target: String, options: String = "", flags: UInt) throws(Failure) {
      let mountPoint = try point(target, directory: true)
      do throws(Failure) {
        try Mount.filesystem(type, at: mountPoint.procPath, options: options, flags: flags)
      } catch {
        var failure = error
        failure.subject = target
        throw failure
      }
    }
    let restricted = UInt(MS_NOSUID | MS_NODEV | MS_NOEXEC)

    for operation in plan.operations {
      switch operation {
      case .bind(let source, let target, let recursive, let readOnly):
        let from = sources[nextSource]
        nextSource += 1
        let to = try point(target, directory: try Files.status(of: from).isDirectory)
        try bind(from, source, to.procPath, target, recursive: recursive)
        if readOnly {
          let mounted = try MountPoint.open(target, in: root, resolution, step: "open mount point")
          try Mount.makeReadOnly(mounted.raw, subject: target, recursive: recursive)
        }
      case .device(let source, let target):
        let from = sources[nextSource]
        nextSource += 1
        let to = try point(target, directory: false)
        try bind(from, source, to.procPath, target, recursive: false)
      case .layers(let directories, let target):
        let lower = directories.indices.map { "/proc/self/fd/\(sources[nextSource + $0])" }
        nextSource += directories.count
        try new("overlay", target, options: "lowerdir=" + lower.joined(separator: ":"), flags: UInt(MS_RDONLY))
      case .tmpfs(let target, let options):
        try new("tmpfs", target, options: options, flags: UInt(MS_NOSUID | MS_NODEV))
      case .proc(let target):
        try new("proc", target, flags: restricted)
      case .sysfs(let target):
        try new("sysfs", target, flags: restricted | UInt(MS_RDONLY))
      case .devpts(let target):
        try new(
          "devpts", target, options: "newinstance,ptmxmode=0666,mode=0620", flags: UInt(MS_NOSUID | MS_NOEXEC))
      case .directory(let path, let mode):
        _ = try MountPoint.directory(path, in: root, resolution, mode: mode)
      case .emptyFile(let path):
        _ = try MountPoint.file(path, in: root, resolution)
      case .symbolicLink(let path, let target):
        try MountPoint.symbolicLink(path, to: target, in: root, resolution)
      case .readOnly(let path):
        guard let there = try existing(path, in: root) else { continue }
        try bind(there.raw, path, there.procPath, path, recursive: true)
        let mounted = try MountPoint.open(path, in: root, resolution, step: "open mount point")
        try Mount.makeReadOnly(mounted.raw, subject: path, recursive: true)
      case .hide(let path):
        guard let there = try existing(path, in: root) else { continue }
        if try Files.status(of: there.raw).isDirectory {
          try Mount.filesystem("tmpfs", at: there.procPath, options: "mode=0000", flags: restricted | UInt(MS_RDONLY))
        } else {
          let null = try Devices.openNull(O_RDONLY)
          try bind(null.raw, "/dev/null", there.procPath, path, recursive: false)
        }
      }
    }
  }

  private borrowing func existing(_ path: String, in root: CInt) throws(Failure) -> OwnedFD? {
    do throws(Failure) {
      return try MountPoint.open(path, in: root, plan.targetResolution, step: "open mount point")
    } catch where error.errno == .noSuchFileOrDirectory { return nil }
  }

  /// Binds descriptor to descriptor; a failure names the paths.
  private borrowing func bind(
    _ source: CInt, _ sourcePath: String, _ target: String, _ targetPath: String, recursive: Bool
  ) throws(Failure) {
    do throws(Failure) {
      try Mount.bind("/proc/self/fd/\(source)", at: target, recursive: recursive)
    } catch {
      var failure = error
      failure.subject = "\(sourcePath) at \(targetPath)"
      throw failure
    }
  }
}

/// Descriptors that are closed together.
struct DescriptorList: ~Copyable {
  private var raw: [CInt] = []

  subscript(index: Int) -> CInt { raw[index] }

  @discardableResult
  mutating func append(_ descriptor: consuming OwnedFD) -> CInt {
    let number = descriptor.release()
    raw.append(number)
    return number
  }

  deinit { for descriptor in raw { close(descriptor) } }
}

enum Devices {
  /// /dev/null, if that is what it is: a planted file would be read or written instead.
  static func openNull(_ flags: CInt) throws(Failure) -> OwnedFD {
    let null = try OwnedFD.open("/dev/null", flags | O_NOFOLLOW)
    let status = try Files.status(of: null.raw)
    guard status.isCharacterDevice, status.specialDevice == DeviceNumber.make(major: 1, minor: 3) else {
      throw Failure(step: "open", subject: "/dev/null", reason: "not the null device")
    }
    return null
  }
}

import Glibc
import Kernel

/// A file that a process runs and that its path does not lead to any more.
struct ReplacedFile: Equatable {
  /// What lies at the path now.
  enum Successor: Equatable {
    /// Nothing.
    case none
    /// Another file of the same build: a package that was installed again.
    case sameBuild
    case other
  }
  var path: String
  var successor: Successor
  /// Where the successor lies: under another name if the library's soname leads there.
  var successorPath: String
}

extension ReplacedFile {
  /// Why a process that runs these is stale; nil if there are none.
  static func sentence(_ files: [ReplacedFile], binary: String) -> String? {
    var parts: [String] = []
    for (successor, what) in [
      (Successor.other, "replaced"), (.none, "deleted"), (.sameBuild, "replaced by the same build"),
    ] {
      let those = files.filter { $0.successor == successor }
      if those.contains(where: { $0.path == binary }) { parts.append("the binary was \(what)") }
      let libraries = those.filter { $0.path != binary }.map { Paths.base($0.path) }
      switch libraries.count {
      case 0: continue
      case 1...2: parts.append("\(libraries.joined(separator: " and ")) \(libraries.count == 1 ? "was" : "were") \(what)")
      default: parts.append("\(libraries[0]) and \(libraries.count - 1) more libraries were \(what)")
      }
    }
    return parts.isEmpty ? nil : parts.joined(separator: ", ")
  }
}

/// Where the kernel's paths of a process's files lead. They are told from the reader's root directory in its own
/// mount namespace, whatever root the process has; and from its root in another one.
struct FileView: Hashable {
  let namespace: String
  let root: FileIdentity
  /// The root tree that the process lives in: what an upgrade would start, and what a package manager changes.
  let tree: String?
  /// The paths mean the same here.
  let isOurs: Bool

  /// - Parameter tree: as ``Observer/root(of:)`` has it.
  static func of(_ pid: pid_t, tree: String?) throws(Failure) -> FileView {
    let (namespace, ours) = (try ProcFS.namespace("mnt", of: pid), try ProcFS.namespace("mnt", of: getpid()))
    let root = try Files.status(namespace == ours ? "/" : tree ?? "/proc/\(pid)/root/")
    return FileView(namespace: namespace, root: root.identity, tree: tree, isOurs: namespace == ours)
  }

  /// The directory where paths of this view start, by way of one of its processes.
  func directory(of pid: pid_t) -> String { isOurs ? "/" : tree ?? "/proc/\(pid)/root" }

  /// Names what a path leads to; nil when it leads nowhere.
  func file(_ path: String, pid: pid_t) throws(Failure) -> DescriptorBox? {
    do throws(Failure) { return DescriptorBox(try OwnedFD.resolving(path, inRoot: directory(of: pid))) } catch
      where error.errno == .noSuchFileOrDirectory || error.errno == .notDirectory
    { return nil }
  }

  func status(_ path: String, pid: pid_t) throws(Failure) -> FileStatus? {
    if isOurs { return try Files.statusIfPresent(path) }
    return try file(path, pid: pid).map { (file: DescriptorBox) throws(Failure) in try Files.status(of: file.raw) }
  }
}

/// Compares what processes run with what their paths lead to, each file of a view once.
struct ReplacementCheck {
  private struct Place: Hashable {
    var view: FileView
    var path: String
  }
  private var present: [Place: FileStatus?] = [:]
  private var builds: [FileIdentity: [UInt8]?] = [:]
  private var sonames: [FileIdentity: String?] = [:]

  /// - Parameter binary: its path, which comes first if it was replaced.
  mutating func replaced(_ pid: pid_t, binary: String, view: FileView) throws(Failure) -> [ReplacedFile] {
    var found: [ReplacedFile] = []
    var seen: Set<String> = []
    for file in try ProcFS.mappedFiles(of: pid) where file.permissions.contains("x") && !file.isShared && file.path.hasPrefix("/") {
      guard seen.insert(file.path).inserted else { continue }
      let place = Place(view: view, path: file.path)
      if present[place] == nil { present[place] = .some(try view.status(file.path, pid: pid)) }
      if let there = present[place] ?? nil, !file.isDeleted {
        if there.inode == file.inode, there.device == file.device || view.tree != nil { continue }
        // Where the filesystem's devices are anonymous, only the open file tells.
        if try Files.statusIfPresent(file.linkPath(pid: pid))?.isSameFile(as: there) ?? true { continue }
      }
      let entry = try replaced(file, by: present[place] ?? nil, pid: pid, view: view)
      // An overlay may give a tree's file another number.
      if view.tree != nil, entry.successor == .sameBuild { continue }
      found.append(entry)
    }
    if let index = found.firstIndex(where: { $0.path == binary }) { found.insert(found.remove(at: index), at: 0) }
    return found
  }

  private mutating func replaced(
    _ file: MappedFile, by there: FileStatus?, pid: pid_t, view: FileView
  ) throws(Failure) -> ReplacedFile {
    let running = FileIdentity(device: file.device, inode: file.inode)
    var (path, successor) = (file.path, there)
    if successor == nil, let soname = try soname(of: file, running, pid) {
      // A library's new version has another name, to which its soname's link leads.
      path = Paths.join(Paths.parent(file.path), soname)
      successor = try view.status(path, pid: pid)
    }
    guard let successor else { return ReplacedFile(path: file.path, successor: .none, successorPath: file.path) }
    let old = try build(running, file.linkPath(pid: pid))
    var new: [UInt8]?
    // What lies in somebody else's root may be a FIFO by now.
    if successor.isRegularFile, let named = try view.file(path, pid: pid) {
      new = try build(successor.identity, "/proc/self/fd/\(named.raw)")
      withExtendedLifetime(named) {}
    }
    return ReplacedFile(path: file.path, successor: old != nil && old == new ? .sameBuild : .other, successorPath: path)
  }

  private mutating func build(_ file: FileIdentity, _ path: String) throws(Failure) -> [UInt8]? {
    if let known = builds[file] { return known }
    let build = try ELF.buildID(of: path)
    builds[file] = .some(build)
    return build
  }

  private mutating func soname(of file: MappedFile, _ identity: FileIdentity, _ pid: pid_t) throws(Failure) -> String? {
    if let known = sonames[identity] { return known }
    let name = try ELF.soname(of: file.linkPath(pid: pid))
    sonames[identity] = .some(name)
    return name
  }
}

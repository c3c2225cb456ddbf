import CKernel
import Glibc
import SystemPackage

/// Kinds of namespaces (namespaces(7)) that a process can have of its own.
public struct NamespaceKinds: OptionSet, Sendable, Equatable, Codable {
  public let rawValue: Int
  public init(rawValue: Int) { self.rawValue = rawValue }

  public static let mount = NamespaceKinds(rawValue: 1)
  public static let network = NamespaceKinds(rawValue: 2)
  public static let ipc = NamespaceKinds(rawValue: 4)
  public static let uts = NamespaceKinds(rawValue: 8)
  public static let all: NamespaceKinds = [.mount, .network, .ipc, .uts]

  /// Each kind with its clone flag and its name in /proc/PID/ns.
  private static var table: [(kind: NamespaceKinds, flag: CInt, name: String)] {
    [
      (.mount, moult_clone_newns, "mnt"), (.network, moult_clone_newnet, "net"), (.ipc, moult_clone_newipc, "ipc"),
      (.uts, moult_clone_newuts, "uts"),
    ]
  }

  var members: [(kind: NamespaceKinds, flag: CInt, name: String)] { Self.table.filter { contains($0.kind) } }
  var cloneFlags: CInt { members.reduce(0) { $0 | $1.flag } }
}

/// Going into other namespaces and coming back.
///
/// The process must have one thread: namespaces belong to threads. If the way back fails the process aborts,
/// because whatever it did next would happen in the wrong place.
public enum Namespaces {
  /// Runs `body` in new namespaces and comes back. They live on as long as a process that `body` started, or a
  /// descriptor it opened, does. A new mount namespace starts as a recursive slave of the old one: mounts made in
  /// it are not seen outside, unmounts outside reach it. `body` may change root and working directory.
  public static func withNew<Result: ~Copyable>(
    _ kinds: NamespaceKinds, _ body: () throws(Failure) -> Result
  ) throws(Failure) -> Result {
    let saved = try SavedNamespaces(kinds)
    let flags = kinds.cloneFlags
    try valueOrErrno(
      "make namespaces", "", hint: "Moult needs to run as root (CAP_SYS_ADMIN)."
    ) { moult_unshare(flags) }
    defer { saved.restore() }
    if kinds.contains(.mount) { try Mount.setPropagation(of: "/", .slave, recursive: true) }
    return try body()
  }

  /// Runs `body` in namespaces of another process and comes back. In its mount namespace, paths start at that
  /// namespace's root directory, not at a root the process changed to by chroot(2).
  public static func within<Result: ~Copyable>(
    _ pid: pid_t, _ kinds: NamespaceKinds, _ body: () throws(Failure) -> Result
  ) throws(Failure) -> Result {
    // Only those that differ: entering one's own mount namespace would reset root and working directory.
    var foreign: NamespaceKinds = []
    for member in kinds.members
    where try ProcFS.namespace(member.name, of: pid) != Files.link("/proc/thread-self/ns/\(member.name)") {
      foreign.insert(member.kind)
    }
    if foreign.isEmpty { return try body() }

    let saved = try SavedNamespaces(foreign)
    let targets = try NamespaceDescriptors("\(pid)", foreign)
    defer { saved.restore() }
    // setns(2) refuses a mount namespace to a thread that shares root and working directory with another.
    try valueOrErrno("enter namespace of process", "\(pid)") { moult_unshare(moult_clone_fs) }
    for target in targets.all {
      try valueOrErrno("enter namespace of process", "\(pid)") { moult_setns(target.descriptor, target.flag) }
    }
    return try body()
  }

  /// Runs `body` in a network namespace and comes back.
  static func within<Result: ~Copyable>(
    network namespace: borrowing OwnedFD, _ body: () throws(Failure) -> Result
  ) throws(Failure) -> Result {
    let saved = try SavedNamespaces([.network])
    defer { saved.restore() }
    let raw = namespace.raw
    try valueOrErrno("enter network namespace", "") { moult_setns(raw, moult_clone_newnet) }
    return try body()
  }

  /// Brings the loopback interface of the current network namespace up.
  public static func bringLoopbackUp() throws(Failure) {
    try valueOrErrno("bring up interface", "lo") { moult_interface_up("lo") }
  }
}

/// Where the process was: descriptors of its namespaces, root and working directory.
private struct SavedNamespaces: ~Copyable {
  private let namespaces: NamespaceDescriptors
  private let root: OwnedFD
  private let workingDirectory: OwnedFD

  init(_ kinds: NamespaceKinds) throws(Failure) {
    let root = try OwnedFD.open("/", moult_o_path | O_DIRECTORY, step: "remember root")
    let workingDirectory = try OwnedFD.open(".", moult_o_path | O_DIRECTORY, step: "remember working directory")
    let namespaces = try NamespaceDescriptors("thread-self", kinds)
    self.root = root
    self.workingDirectory = workingDirectory
    self.namespaces = namespaces
  }

  /// Goes back, or ends the process.
  borrowing func restore() {
    for namespace in namespaces.all where moult_setns(namespace.descriptor, namespace.flag) != 0 {
      Self.die("namespace")
    }
    // Entering a mount namespace sets root and working directory to its root.
    if fchdir(root.raw) != 0 || chroot(".") != 0 { Self.die("root directory") }
    if fchdir(workingDirectory.raw) != 0 { Self.die("working directory") }
  }

  private static func die(_ what: StaticString) -> Never {
    let code = errno
    let message = "moult: cannot return to the host's \(what) (errno \(code)); ending, to do no harm in a wrong place\n"
    _ = message.withCString { write(2, $0, strlen($0)) }
    abort()
  }
}

/// Open descriptors of namespaces of one process, each with its clone flag.
private struct NamespaceDescriptors: ~Copyable {
  private(set) var all: [(descriptor: CInt, flag: CInt)] = []

  init(_ process: String, _ kinds: NamespaceKinds) throws(Failure) {
    var all: [(descriptor: CInt, flag: CInt)] = []
    do throws(Failure) {
      for member in kinds.members {
        let path = "/proc/\(process)/ns/\(member.name)"
        all.append((try OwnedFD.open(path, O_RDONLY, step: "open namespace").release(), member.flag))
      }
    } catch {
      for entry in all { close(entry.descriptor) }
      throw error
    }
    self.all = all
  }

  deinit { for entry in all { close(entry.descriptor) } }
}

import Glibc
public import Kernel
public import QEMU
import Sandbox

/// One QEMU of this host, as `moult list` shows it: read from procfs, disturbing no monitor.
public struct InventoryEntry: Sendable {
  public var name: String?
  public var pid: Int32
  public var binary: String
  public var root: String?
  /// Of the running QEMU; nil if it could not be asked.
  public var version: QEMUVersion?
  /// Of the binary that lies at that path now; nil if there is none or it could not be asked.
  public var installed: QEMUVersion?
  /// The binary, or a library it has mapped, has been replaced on disk.
  public var isStale: Bool
  public var whyStale: String?
  /// As the command line asks for it.
  public var machine: String?
  /// What `upgrade --memory auto` would take.
  public var memory: MemoryStrategy
  /// The cgroup's unit, if a service manager runs it.
  public var manager: String?
}

extension Session {
  public func inventory() throws(Failure) -> [InventoryEntry] {
    var versions = VersionCache()
    var entries: [InventoryEntry] = []
    for pid in try Locator.all() {
      // A process that ends while it is read is no VM any more.
      do { entries.append(try entry(pid, &versions)) } catch where error.errno == .noSuchFileOrDirectory || error.errno == .noSuchProcess {}
    }
    return entries
  }

  private func entry(_ pid: Int32, _ versions: inout VersionCache) throws(Failure) -> InventoryEntry {
    let arguments = try ProcFS.arguments(of: pid)
    let description = MachineDescription(CommandLine(argv: arguments))
    let root = try Observer.root(of: pid)
    let executable = try Observer.executable(of: pid, root: root)
    let base = try ProcFS.workingDirectory(of: pid)
    var why: String?
    if executable.deleted {
      why = "the binary was replaced"
    } else if let library = try ProcFS.mappedFiles(of: pid).first(where: { $0.isDeleted && $0.permissions.contains("x") && $0.path.hasPrefix("/") }) {
      why = "\(Paths.base(library.path)) was replaced"
    }
    let running = versions.version(of: "/proc/\(pid)/exe", root: root, as: executable.path, pid: pid)
    let installed = executable.deleted && root == nil ? versions.version(of: executable.path, root: nil, as: executable.path, pid: pid) : running
    let memory = try Observer.memory(
      description, pid: pid, absolute: { $0.hasPrefix("/") ? $0 : Stage.join(base, $0) }, descriptors: try ProcFS.openDescriptors(of: pid))
    // Room is the planner's concern: here only what the memory is.
    let (decision, _) = MemoryDecision.decide(
      asked: .auto, memory: memory, ramBytes: 0, sender: running ?? QEMUVersion(major: 99, minor: 0),
      room: MemoryRoom(host: .max, cgroup: nil, cgroupPath: nil))
    let units = try CgroupMembership.of(process: pid).flatMap { Paths.components($0.path) }
    return InventoryEntry(
      name: description.name, pid: pid, binary: executable.path, root: root, version: running, installed: installed,
      isStale: why != nil, whyStale: why, machine: description.machine, memory: decision.strategy,
      manager: units.last { $0.hasSuffix(".service") || $0.hasSuffix(".scope") })
  }
}

/// Versions by file: many VMs share one binary, and asking it costs a start.
private struct VersionCache {
  private var known: [FileIdentity: QEMUVersion?] = [:]

  /// What `binary --version` says; nil if it cannot be run here: libraries gone, or another root tree's.
  mutating func version(of path: String, root: String?, as name: String, pid: Int32) -> QEMUVersion? {
    guard let status = try? Files.status(path) else { return nil }
    if let found = known[status.identity] { return found }
    var version: QEMUVersion?
    if let text = try? Self.banner(of: root == nil ? path : name, root: root, pid: pid) {
      version = QEMUVersion(banner: text)
    }
    known[status.identity] = .some(version)
    return version
  }

  /// What `binary --version` prints. Anybody can call a program qemu-system-…: it runs as the user whose
  /// process this is, with no capability, no environment and none of the host's networks.
  private static func banner(of binary: String, root: String?, pid: Int32) throws(Failure) -> String {
    let output = DescriptorBox(try OwnedFD.memory(named: "version"))
    var credentials = try ProcessStatus.read(pid: pid).credentials
    credentials.capabilities = CapabilitySets()
    credentials.noNewPrivileges = true
    let process = ProcessPlan(
      executable: .path(binary), arguments: [binary, "--version"], environment: [], workingDirectory: "/",
      credentials: credentials, standardInput: .null, standardOutput: .descriptor(output.raw), standardError: .null,
      newSession: true)
    let child = try Sandbox.launch(root.map { SandboxPlan.tree($0) } ?? SandboxPlan(namespaces: .all), process)
    guard try child.pidfd.waitForExit(timeoutMilliseconds: 5000) else {
      try child.kill()
      throw Failure(step: "ask for the version of", subject: binary, errno: .timedOut)
    }
    _ = try child.wait()
    var bytes = [UInt8](repeating: 0, count: 4096)
    let count = try valueOrErrno("read the version of", binary) { pread(output.raw, &bytes, bytes.count, 0) }
    return String(decoding: bytes[..<count], as: UTF8.self)
  }
}

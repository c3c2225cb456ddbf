import Glibc
public import Kernel
public import QEMU
import Sandbox

/// One QEMU of this host, as `moult list` shows it.
public struct InventoryEntry: Sendable {
  public enum VersionSource: String, Sendable {
    /// Its monitor's greeting.
    case qmp
    /// The file that it runs, started once with `--version`.
    case binary
  }
  public var name: String?
  public var pid: Int32
  public var binary: String
  public var root: String?
  /// Of the running QEMU; nil if it could not be asked.
  public var version: QEMUVersion?
  public var versionSource: VersionSource?
  /// Of the binary that lies at that path now; nil if there is none or it could not be asked.
  public var installed: QEMUVersion?
  /// The binary, or a library it has mapped, has been replaced on disk.
  public var isStale: Bool { whyStale != nil }
  public var whyStale: String?
  /// What is newer on disk than what it runs on; nothing for files that were replaced by the same build.
  public var pending: [PendingUpdate]
  /// As the command line asks for it.
  public var machine: String?
  /// What `upgrade --memory auto` would take.
  public var memory: MemoryStrategy
  /// The cgroup's unit, if a service manager runs it.
  public var manager: String?
  /// The upgrade that it is part of, if that is under way, held or interrupted.
  public var upgrade: InventoryUpgrade?
}

/// A QEMU's part in an upgrade: while there are two, they are one VM.
public struct InventoryUpgrade: Sendable {
  public var record: UpgradeRecord
  public var standing: UpgradeStanding
  public var hasGuest: Bool
}

extension Session {
  /// What has no guest is left out: a QEMU that only says what it knows, as when another moult asks it.
  public func inventory() throws(Failure) -> [InventoryEntry] {
    var upgrades: [(record: UpgradeRecord, standing: UpgradeStanding)] = []
    for record in try state.records() { upgrades.append((record, try state.standing(of: record))) }
    var census = Census(reactor: reactor, upgrades: upgrades)
    for pid in try Locator.all() {
      // A process that ends while it is read is no VM any more.
      do { try census.read(pid) } catch where error.errno == .noSuchFileOrDirectory || error.errno == .noSuchProcess {}
    }
    return try census.entries()
  }
}

/// Reads all VMs of a host: first each by itself, then what is asked once for all of them.
private struct Census {
  private struct Subject {
    var pid: Int32
    var startTime: UInt64
    var description: MachineDescription
    var root: String?
    var view: FileView
    var binary: String
    var replaced: [ReplacedFile]
    var memory: [ObservedMemory]
    var usesKVM: Bool
    var manager: String?
  }
  private var subjects: [Subject] = []
  private var check = ReplacementCheck()
  private var versions = VersionCache()
  private var survey: MonitorSurvey
  private let upgrades: [(record: UpgradeRecord, standing: UpgradeStanding)]
  /// Unix sockets by network namespace.
  private var sockets: [String: [UnixSocketEntry]] = [:]

  init(reactor: Reactor, upgrades: [(record: UpgradeRecord, standing: UpgradeStanding)]) {
    survey = MonitorSurvey(reactor: reactor)
    self.upgrades = upgrades
  }

  private func upgrade(of process: ProcessIdentity) -> InventoryUpgrade? {
    let found = upgrades.first { [$0.record.old, $0.record.new?.process, $0.record.spawned].contains(process) }
    return found.map { InventoryUpgrade(record: $0.record, standing: $0.standing, hasGuest: $0.record.guestProcess == process) }
  }

  mutating func read(_ pid: Int32) throws(Failure) {
    let status = try ProcessStatus.read(pid: pid)
    let expanded = try Observer.commandLine(of: pid, startTime: status.startTime)
    let description = MachineDescription(expanded)
    if TargetProbe.isProbe(expanded.commandLine) { return }
    let root = try Observer.root(of: pid)
    let binary = try ProcFS.executable(of: pid).path
    let base = try ProcFS.workingDirectory(of: pid)
    let absolute = { (path: String) in path.hasPrefix("/") ? path : Stage.join(base, path) }
    let descriptors = try ProcFS.openDescriptors(of: pid)
    let view = try FileView.of(pid, tree: root)
    subjects.append(
      Subject(
        pid: pid, startTime: status.startTime, description: description, root: root, view: view, binary: binary,
        replaced: try check.replaced(pid, binary: binary, view: view),
        memory: try Observer.memory(description, pid: pid, absolute: absolute, descriptors: descriptors),
        usesKVM: descriptors.contains { $0.target == "/dev/kvm" },
        manager: CgroupMembership.unit(in: try CgroupMembership.of(process: pid))))
    // A stopped process would not answer, and an upgrade under way, or its recovery, must meet no other client.
    let standing = upgrade(of: ProcessIdentity(pid: pid, startTime: status.startTime))?.standing ?? .held
    guard standing == .held, !["T", "t", "Z"].contains(status.state) else { return }
    try survey.ask(
      pid, at: description.qmpSockets.map(absolute), own: Set(descriptors.compactMap(\.socketInode)), sockets: try sockets(of: pid))
  }

  /// Those of the process's network namespace, and of ours: a connection is in its client's.
  private mutating func sockets(of pid: Int32) throws(Failure) -> [UnixSocketEntry] {
    let (theirs, ours) = (try ProcFS.namespace("net", of: pid), try ProcFS.namespace("net", of: getpid()))
    if sockets[ours] == nil { sockets[ours] = try UnixSocketTable.read() }
    if sockets[theirs] == nil { sockets[theirs] = try UnixSocketTable.read(networkOf: pid) }
    return (sockets[theirs] ?? []) + (theirs == ours ? [] : sockets[ours] ?? [])
  }

  mutating func entries() throws(Failure) -> [InventoryEntry] {
    let greeted = try survey.answers()
    let host = subjects.isEmpty ? [] : try HostUpdates.pending()
    let virtualization = subjects.contains(where: \.usesKVM) ? try HostUpdates.virtualization() : nil
    let packages = try packages()
    let log = packages.isEmpty ? "" : try PackageDatabase.log()
    var entries: [InventoryEntry] = []
    for subject in subjects {
      let isReplaced = subject.replaced.first?.path == subject.binary
      let greeting = greeted[subject.pid]
      // In a root tree only the tree's own binary can be started, which is not what runs once it was replaced.
      let version = greeting
        ?? (subject.root != nil && isReplaced ? nil : versions.version(of: "/proc/\(subject.pid)/exe", root: subject.root, as: subject.binary, pid: subject.pid))
      var installed = version
      if isReplaced {
        installed = subject.root == nil && !subject.view.isOurs
          ? nil : versions.version(of: (subject.root ?? "") + subject.binary, root: subject.root, as: subject.binary, pid: subject.pid)
      }
      let (decision, _) = MemoryDecision.decide(
        asked: .auto, memory: subject.memory, ramBytes: 0, sender: version ?? QEMUVersion(major: 99, minor: 0),
        room: MemoryRoom(host: .max, cgroup: nil, cgroupPath: nil))
      var pending = PendingUpdate.ofFiles(
        subject.replaced, binary: subject.binary, packages: packages[subject.view] ?? [:], version: version, installed: installed,
        before: try PackageDatabase.replaced(since: Self.moment(subject.startTime), log: log))
      pending += host + (subject.usesKVM ? [virtualization].compactMap { $0 } : [])
      entries.append(
        InventoryEntry(
          name: subject.description.name, pid: subject.pid, binary: subject.binary, root: subject.root, version: version,
          versionSource: greeting != nil ? .qmp : version != nil ? .binary : nil, installed: installed,
          whyStale: ReplacedFile.sentence(subject.replaced, binary: subject.binary), pending: pending,
          machine: subject.description.machine, memory: decision.strategy, manager: subject.manager,
          upgrade: upgrade(of: ProcessIdentity(pid: subject.pid, startTime: subject.startTime))))
    }
    return entries
  }

  /// The packages of what has taken the place of replaced files, asked once for each view.
  private func packages() throws(Failure) -> [FileView: [String: InstalledPackage]] {
    var found: [FileView: [String: InstalledPackage]] = [:]
    for (view, subjects) in Dictionary(grouping: subjects, by: \.view) {
      let paths = Set(subjects.flatMap { $0.replaced.filter { $0.successor == .other }.map(\.successorPath) })
      let owners = try PackageDatabase.owners(of: paths, inRoot: view.directory(of: subjects[0].pid))
      if !owners.isEmpty { found[view] = owners }
    }
    return found
  }

  /// A process's start as dpkg's log writes times.
  /// - Parameter startTime: clock ticks since boot.
  private static func moment(_ startTime: UInt64) throws(Failure) -> String {
    let boot = try Files.readText("/proc/stat").split(separator: "\n").first { $0.hasPrefix("btime ") }
    var time = time_t(boot.flatMap { Int($0.dropFirst("btime ".count)) } ?? 0) + time_t(startTime) / sysconf(CInt(_SC_CLK_TCK))
    var parts = tm()
    localtime_r(&time, &parts)
    func two(_ value: CInt) -> String { value < 10 ? "0\(value)" : "\(value)" }
    return "\(parts.tm_year + 1900)-\(two(parts.tm_mon + 1))-\(two(parts.tm_mday)) \(two(parts.tm_hour)):\(two(parts.tm_min)):\(two(parts.tm_sec))"
  }
}

/// Versions by file: many VMs share one binary, and asking it costs a start.
struct VersionCache {
  private var known: [FileIdentity: QEMUVersion?] = [:]

  /// What `binary --version` says; nil if it cannot be run here: libraries gone, or another root tree's.
  mutating func version(of path: String, root: String?, as name: String, pid: Int32) -> QEMUVersion? {
    do throws(Failure) {
      guard let status = try unlessGone({ () throws(Failure) in try Files.status(path) }) else { return nil }
      if let found = known[status.identity] { return found }
      known[status.identity] = .some(nil)
      known[status.identity] = QEMUVersion(banner: try Self.banner(of: root == nil ? path : name, root: root, pid: pid))
      return known[status.identity] ?? nil
    } catch { return nil }  // What it cannot say of itself is shown as unknown; the VM is listed all the same.
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
      newSession: true, endsWithParent: true)
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

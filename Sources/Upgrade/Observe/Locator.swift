public import Glibc
public import Kernel
import QEMU

/// Finds the QEMU process that the user means.
public enum Locator {
  /// - Parameter selector: a guest's name, a pid, a pidfile or a QMP socket path.
  public static func find(_ selector: String, state: StateDirectory) throws(Failure) -> pid_t {
    // A guest may be called what looks like a pid or a path.
    if let pid = pid_t(selector) {
      if try candidates(selector, state: state).found.isEmpty { return try process(pid, selector) }
      let named = try named(selector, state: state)
      if named != pid, try isQEMU(pid) {
        throw Failure(
          step: "find the VM", subject: selector, reason: "it is the name of one VM (pid \(named)) and the pid of another",
          hint: "name it by pidfile or QMP socket")
      }
      return named
    }
    if selector.contains("/") {
      if try Files.statusIfPresent(selector) == nil, try !candidates(selector, state: state).found.isEmpty {
        return try named(selector, state: state)
      }
      let status: FileStatus
      do { status = try Files.status(selector) } catch {
        throw Failure(
          step: "find the VM", subject: selector, errno: error.errno,
          hint: "name it by guest name, pid, pidfile or QMP socket; moult list shows them")
      }
      return status.isSocket ? try listener(selector) : try pidfile(selector)
    }
    return try named(selector, state: state)
  }

  /// Every QEMU of this host.
  public static func all() throws(Failure) -> [pid_t] {
    var found: [pid_t] = []
    for pid in try ProcFS.allPids() where try isQEMU(pid) { found.append(pid) }
    return found.sorted()
  }

  /// By the file's name, with what a distribution puts around it: `.qemu-system-x86_64-wrapped`.
  static func isQEMU(_ path: String) -> Bool {
    let base = Paths.base(path)
    return base.contains("qemu-system-") || base == "qemu-kvm" || base == "kvm"
  }

  /// A process that has ended is none. Of one that may not be looked at, its name tells whether that matters.
  private static func isQEMU(_ pid: pid_t) throws(Failure) -> Bool {
    do throws(Failure) { return isQEMU(try ProcFS.executable(of: pid).path) } catch {
      if error.meansGone { return false }
      guard let name = try unlessGone({ () throws(Failure) in try ProcFS.threadName(pid, of: pid) }), isQEMU(name) else { return false }
      throw error
    }
  }

  private static func process(_ pid: pid_t, _ selector: String) throws(Failure) -> pid_t {
    let executable: (path: String, deleted: Bool)
    do { executable = try ProcFS.executable(of: pid) } catch {
      // What is called otherwise need not be looked at.
      if error.meansForbidden, let name = try unlessGone({ () throws(Failure) in try ProcFS.threadName(pid, of: pid) }), !isQEMU(name) {
        throw Failure(step: "find the VM", subject: selector, reason: "process \(pid) is \(name), not QEMU", hint: "moult list shows the VMs")
      }
      throw Failure(
        step: "find the VM", subject: selector, errno: error.errno,
        reason: error.errno == .noSuchFileOrDirectory ? "there is no such process" : nil, hint: "moult list shows the VMs")
    }
    if !isQEMU(executable.path) {
      throw Failure(
        step: "find the VM", subject: selector, reason: "process \(pid) is \(executable.path), not QEMU", hint: "moult list shows the VMs")
    }
    return pid
  }

  private static func pidfile(_ path: String) throws(Failure) -> pid_t {
    let text = try Files.readText(path)
    guard let pid = pid_t(text.trimmingWhitespace), pid > 0 else {
      throw Failure(step: "find the VM", subject: path, reason: "the file holds no pid")
    }
    return try process(pid, path)
  }

  /// The QEMU that listens at a socket: told by the socket's inode, so that its one client is not disturbed.
  private static func listener(_ path: String) throws(Failure) -> pid_t {
    let status = try Files.status(path)
    for pid in try all() {
      guard let table = try unlessGone({ () throws(Failure) in try UnixSocketTable.read(networkOf: pid) }) else { continue }
      let inodes = Set(table.filter { $0.state == .listening && $0.isBound(to: status) }.map(\.inode))
      if inodes.isEmpty { continue }
      guard let descriptors = try unlessGone({ () throws(Failure) in try ProcFS.openDescriptors(of: pid) }) else { continue }
      if descriptors.contains(where: { $0.socketInode.map(inodes.contains) ?? false }) { return pid }
    }
    throw Failure(
      step: "find the VM", subject: path, reason: "no QEMU listens there", hint: "moult list shows the VMs")
  }

  /// Every QEMU of this name, and why one whose name could not be told was left out.
  private static func candidates(_ name: String, state: StateDirectory) throws(Failure) -> (found: [pid_t], unreadable: Failure?) {
    var matches: [pid_t] = []
    var unreadable: Failure?
    for pid in try all() {
      do throws(Failure) {
        let expanded = try Observer.commandLine(of: pid, startTime: try ProcessStatus.read(pid: pid).startTime)
        if MachineDescription(expanded).name == name { matches.append(pid) }
      } catch {
        if !error.meansGone { unreadable = error }
      }
    }
    // During an upgrade two processes are one VM: the one that does not run the guest does not count.
    let others = Set(try state.records().map { $0.hasResumed ? $0.old.pid : $0.spawned?.pid ?? 0 })
    if matches.count > 1 { matches.removeAll { others.contains($0) } }
    return (matches, unreadable)
  }

  private static func named(_ name: String, state: StateDirectory) throws(Failure) -> pid_t {
    let (matches, unreadable) = try candidates(name, state: state)
    // It may be the one that is meant.
    if matches.isEmpty, let unreadable { throw unreadable }
    switch matches.count {
    case 1: return matches[0]
    case 0:
      throw Failure(step: "find the VM", subject: name, reason: "no running QEMU has this name", hint: "moult list shows the VMs")
    default:
      throw Failure(
        step: "find the VM", subject: name, reason: "\(matches.count) VMs have this name: pids \(matches.map(String.init).joined(separator: ", "))",
        hint: "name it by pid, pidfile or QMP socket")
    }
  }
}

extension String {
  var trimmingWhitespace: String {
    let scalars = unicodeScalars.drop { $0.properties.isWhitespace }
    return String(String.UnicodeScalarView(scalars.reversed().drop { $0.properties.isWhitespace }.reversed()))
  }
}

import Foundation
import Glibc
import Kernel

/// Where moult keeps the state of a VM, and who works on it.
struct VMState {
  let directory: String
  private let name: String

  /// Its name, and FNV-1a of the monitor's path.
  init(_ configuration: VMConfiguration) {
    var hash: UInt64 = 0xcbf2_9ce4_8422_2325
    for byte in configuration.qmpSocket.utf8 { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3 }
    name = configuration.name
    let readable = name.prefix(40).map { $0.isASCII && ($0.isLetter || $0.isNumber || "-_.".contains($0)) ? $0 : "_" }
    directory = "/run/moult/" + String(readable) + "-" + String(hash, radix: 16)
  }

  var journal: String { directory + "/journal" }

  /// Processes of the program under test that have this VM's lock open and were told of this VM: those that
  /// are told of another look whether it is taken.
  var watchers: [pid_t] {
    let program = Processes.realPath(Lab.paths.moult)
    return Processes.all().filter { $0.arguments.contains { $0.hasPrefix(name) } }.map(\.pid).filter { pid in
      Processes.executable(pid) == program
        && Processes.list("/proc/\(pid)/fd").contains { Processes.link("/proc/\(pid)/fd/\($0)").hasPrefix(directory + "/") }
    }
  }

  /// Who watches over a run of the program.
  func guardian(of moult: pid_t) -> pid_t? { watchers.first { $0 != moult } }
}

/// What an upgrade could leave of one VM, at one moment; things that it has anyhow left out.
struct Remains {
  private var things: Set<String> = []

  init(_ configuration: VMConfiguration) {
    let state = VMState(configuration)
    let own = [configuration.home + "/qemu.log", configuration.diskImage, configuration.qmpSocket, configuration.serialSocket, configuration.pidfile]
    tree(configuration.home, without: Set(own))
    for path in Self.stages(configuration) { things.insert("file \(path)") }
    tree("/dev/shm", without: []) { $0.hasPrefix("moult-lab-\(getpid())-\(configuration.name)") }
    if FileManager.default.fileExists(atPath: state.directory) { things.insert("file \(state.directory)") }
    tree(state.directory, without: [])
    for pid in state.watchers { things.insert("process \(pid)") }
    let mounts = Processes.text("/proc/self/mountinfo")
    for line in mounts.split(separator: "\n") where line.contains(configuration.home) { things.insert("mount \(line)") }
  }

  /// What is there now and was not in `before`, sorted.
  func difference(from before: Remains) -> [String] { things.subtracting(before.things).sorted().map { "left behind: \($0)" } }

  /// Staging directories beside and inside the VM's own.
  static func stages(_ configuration: VMConfiguration) -> [String] {
    [configuration.home, (configuration.home as NSString).deletingLastPathComponent].flatMap { directory in
      Processes.list(directory).filter { $0.hasPrefix(".moult-") && (directory == configuration.home || $0.hasSuffix("-" + configuration.name)) }
        .map { directory + "/" + $0 }
    }
  }

  private mutating func tree(_ directory: String, without own: Set<String>, where condition: (String) -> Bool = { _ in true }) {
    // What ends meanwhile is not left.
    guard let paths = FileManager.default.enumerator(atPath: directory) else { return }
    for case let path as String in paths where condition(path) && !own.contains(directory + "/" + path) {
      things.insert("file \(directory)/\(path)")
    }
  }
}

extension Processes {
  /// Where a symbolic link leads; empty if there is none.
  static func link(_ path: String) -> String {
    do { return try FileManager.default.destinationOfSymbolicLink(atPath: path) } catch { return "" }
  }
  /// Kills it, and waits until it is gone.
  static func end(_ pid: pid_t?) throws {
    guard let pid else { return }
    kill(pid, SIGKILL)
    try eventually("the end of \(pid)", within: 10) { hasEnded(pid) }
  }
  static func executable(_ pid: pid_t) -> String { link("/proc/\(pid)/exe") }
  static func realPath(_ path: String) -> String {
    guard let real = realpath(path, nil) else { return path }
    defer { free(real) }
    return String(cString: real)
  }
  /// A field of proc_pid_status(5); empty if it has ended.
  static func status(_ field: String, of pid: pid_t) -> String {
    Processes.text("/proc/\(pid)/status")
      .split(separator: "\n").first { $0.hasPrefix(field + ":") }.map { $0.dropFirst(field.count + 1).trimmingCharacters(in: .whitespaces) } ?? ""
  }
  /// How many descriptors a process has.
  public static func descriptors(_ pid: pid_t) -> Int { list("/proc/\(pid)/fd").count }
}

extension Processes {
  /// Whether a process listens at the socket that lies at a path. Not tried by connecting: QEMU's consoles serve
  /// one client at a time, and those that have gone again keep their places until it has gone, too.
  static func listens(_ pid: pid_t, at path: String) throws -> Bool {
    guard FileManager.default.fileExists(atPath: path) else { return false }
    let file = try Files.status(path)
    return try sockets(of: pid).contains { $0.state == .listening && $0.isBound(to: file) }
  }

  /// Whether a process has a client at that socket.
  static func hasClient(_ pid: pid_t, at path: String) throws -> Bool {
    try sockets(of: pid).contains { $0.state == .established && $0.path == path }
  }

  private static func sockets(of pid: pid_t) throws -> [UnixSocketEntry] {
    let own = Set(list("/proc/\(pid)/fd").map { link("/proc/\(pid)/fd/\($0)") })
    return try UnixSocketTable.read(networkOf: pid).filter { own.contains("socket:[\($0.inode)]") }
  }
}

import Foundation
import Lab

/// A directory for what a test makes up, removed with all that is in it.
final class Scratch {
  let path: String

  init(_ name: String) throws {
    path = VMConfiguration(name).home
    if FileManager.default.fileExists(atPath: path) { try FileManager.default.removeItem(atPath: path) }
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
  }

  deinit {
    do { try FileManager.default.removeItem(atPath: path) } catch { print("could not remove \(path): \(error)") }
  }

  func write(_ name: String, _ text: String, mode: mode_t = 0o644) throws {
    try parent(name)
    try text.write(toFile: path + "/" + name, atomically: false, encoding: .utf8)
    chmod(path + "/" + name, mode)
  }

  func copy(_ source: String, to name: String) throws {
    try parent(name)
    try FileManager.default.copyItem(atPath: (source as NSString).resolvingSymlinksInPath, toPath: path + "/" + name)
  }

  /// A socket that somebody bound, and does not listen at any more.
  func deadSocket(_ name: String) throws -> String {
    let target = path + "/" + name
    try succeed(["python3", "-c", "import socket,sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])", target])
    return target
  }

  private func parent(_ name: String) throws {
    let directory = ((path + "/" + name) as NSString).deletingLastPathComponent
    try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
  }
}

/// A QEMU without a guest system: its firmware runs, which is enough to be refused, or moved.
final class Firmware: @unchecked Sendable {
  private let child: ChildProcess
  let monitor: String
  var pid: pid_t { child.pid }
  var isRunning: Bool { child.isRunning }
  private let name: String

  /// - Parameters:
  ///   - socket: of its monitor; nil for none.
  ///   - launcher: put before the command.
  init(_ name: String, log: String, socket: String?, launcher: [String] = [], _ arguments: [String] = []) throws {
    self.name = name
    monitor = socket ?? ""
    func escaped(_ text: String) -> String { text.replacingOccurrences(of: ",", with: ",,") }
    var argv = launcher + [QEMUVersion.v7_2.binary, "-name", escaped(name), "-M", "pc-q35-5.2", "-accel", "tcg", "-m", "32", "-display", "none", "-nodefaults"]
    if let socket { argv += ["-qmp", "unix:\(escaped(socket)),server=on,wait=off"] }
    child = try ChildProcess(argv + arguments, log: log)
    try eventually("\(name) runs", within: 20) { [child] in
      if !child.isRunning {
        throw LabFailure("\(name): \(String(decoding: FileManager.default.contents(atPath: log) ?? Data(), as: UTF8.self))")
      }
      return socket.map { FileManager.default.fileExists(atPath: $0) } ?? !processes.isEmpty
    }
    // The name is there a moment before anybody listens.
    if let socket {
      try eventually("\(name) answers") { () -> Bool in
        do { _ = try QMPConnection(socket) } catch { return false }
        return true
      }
    }
  }

  convenience init(_ name: String, in scratch: Scratch, monitor: Bool = true, launcher: [String] = [], _ arguments: [String] = []) throws {
    try self.init(
      name, log: scratch.path + "/\(name).log", socket: monitor ? scratch.path + "/qmp-\(name).sock" : nil, launcher: launcher, arguments)
  }

  /// All processes of this name.
  var processes: [pid_t] {
    let written = name.replacingOccurrences(of: ",", with: ",,")
    return Processes.all().filter { process in
      process.arguments.contains("-name") && process.arguments.contains(written)
        && (process.arguments.first ?? "").contains("qemu-system")
    }.map(\.pid)
  }

  func end() {
    for pid in processes { kill(pid, SIGKILL) }
    do {
      try eventually("the end of \(name)") { processes.isEmpty }
      _ = try child.wait(seconds: 10)
    } catch { print("\(error)") }
  }
}

/// A memory cgroup with a limit, of either version.
struct MemoryCgroup {
  private let directory: String
  private let isLegacy: Bool

  init(_ name: String, bytes: Int) throws {
    isLegacy = FileManager.default.fileExists(atPath: "/sys/fs/cgroup/memory/memory.limit_in_bytes")
    directory = (isLegacy ? "/sys/fs/cgroup/memory/" : "/sys/fs/cgroup/") + name
    if !isLegacy {
      try "+memory".write(toFile: "/sys/fs/cgroup/cgroup.subtree_control", atomically: false, encoding: .utf8)
    }
    if mkdir(directory, 0o755) != 0, errno != EEXIST { throw LabFailure("\(directory): \(String(cString: strerror(errno)))") }
    try limit(bytes: bytes)
  }

  func limit(bytes: Int) throws {
    try "\(bytes)".write(
      toFile: directory + (isLegacy ? "/memory.limit_in_bytes" : "/memory.max"), atomically: false, encoding: .utf8)
  }

  /// Bytes.
  func usage() throws -> Int {
    let text = try String(contentsOfFile: directory + (isLegacy ? "/memory.usage_in_bytes" : "/memory.current"), encoding: .utf8)
    return Int(text.trimmingCharacters(in: .whitespacesAndNewlines)) ?? 0
  }

  /// Puts a command into it.
  var launcher: [String] { ["sh", "-c", "echo $$ >'\(directory)/cgroup.procs' && exec \"$@\"", "sh"] }

  func remove() { rmdir(directory) }
}

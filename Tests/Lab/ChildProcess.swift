public import Foundation
import Glibc

/// A command that runs, its output in files: whatever it leaves running may keep them open without
/// anybody waiting for it, as happens with pipes.
public final class ChildProcess: @unchecked Sendable {
  public let pid: pid_t
  public let arguments: [String]
  private let output: String
  private let errors: String
  private let ownsFiles: Bool
  private let started = monotonicNanoseconds()
  private let lock = NSLock()
  private var status: CInt?

  public struct Outcome: Sendable {
    /// The exit code, or 128 + the signal's number.
    public var code: Int
    public var stdout: String
    public var stderr: String
    public var seconds: Double
    /// stdout as JSON.
    public func json() throws -> JSON {
      do { return try JSON(parsing: Data(stdout.utf8)) } catch {
        throw LabFailure("not JSON (exit \(code)): \(stdout)\n\(stderr)")
      }
    }
  }

  /// - Parameters:
  ///   - log: a file both outputs are appended to; nil keeps them for ``Outcome``.
  ///   - environment: added to this process's own.
  public init(
    _ arguments: [String], log: String? = nil, environment: [String: String] = [:]
  ) throws {
    self.arguments = arguments
    ownsFiles = log == nil
    let base = NSTemporaryDirectory() + "/moult-lab-\(getpid())-\(UUID().uuidString)"
    output = log ?? base + ".out"
    errors = log ?? base + ".err"

    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    let flags = O_WRONLY | O_CREAT | O_APPEND
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
    posix_spawn_file_actions_addopen(&actions, 1, output, flags, 0o600)
    posix_spawn_file_actions_addopen(&actions, 2, errors, flags, 0o600)
    // Not everybody in this process sets close-on-exec. One that is not open is no error.
    for descriptor in 3..<256 { posix_spawn_file_actions_addclose(&actions, CInt(descriptor)) }

    // A child starts with no signal blocked or ignored, whatever the test runner does with its own;
    // and in a process group of its own, so that a terminal's Ctrl-C is not everybody's.
    var attributes = posix_spawnattr_t()
    posix_spawnattr_init(&attributes)
    defer { posix_spawnattr_destroy(&attributes) }
    var none = sigset_t(), all = sigset_t()
    sigemptyset(&none)
    sigfillset(&all)
    posix_spawnattr_setsigmask(&attributes, &none)
    posix_spawnattr_setsigdefault(&attributes, &all)
    posix_spawnattr_setpgroup(&attributes, 0)
    posix_spawnattr_setflags(
      &attributes, Int16(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP))

    let merged = ProcessInfo.processInfo.environment.merging(environment) { $1 }
    var argv = arguments.map { strdup($0) } + [nil]
    var envp = merged.map { strdup("\($0.key)=\($0.value)") } + [nil]
    defer { for pointer in argv + envp { free(pointer) } }
    var pid: pid_t = 0
    let error = posix_spawnp(&pid, arguments[0], &actions, &attributes, &argv, &envp)
    guard error == 0 else { throw LabFailure.system("start \(arguments[0])", error) }
    self.pid = pid
  }

  deinit {
    if ownsFiles {
      unlink(output)
      unlink(errors)
    }
  }

  /// Whether it has not ended yet.
  public var isRunning: Bool { reap(WNOHANG) == nil }

  /// Takes its status from the kernel, if it has ended: no zombie is left.
  public func reap() { _ = reap(WNOHANG) }

  private func reap(_ options: CInt) -> CInt? {
    lock.lock()
    defer { lock.unlock() }
    if let status { return status }
    var value: CInt = 0
    let result = waitpid(pid, &value, options)
    if result == pid { status = value }
    precondition(result >= 0 || errno == EINTR, "somebody else has waited for process \(pid)")
    return status
  }

  public func signal(_ number: CInt) { if isRunning { kill(pid, number) } }

  /// Waits for its end; kills it when that takes longer than `seconds`, and says so.
  public func wait(seconds: Double = 120) throws -> Outcome {
    let deadline = monotonicNanoseconds() + Int64(seconds * 1e9)
    while reap(WNOHANG) == nil {
      if monotonicNanoseconds() > deadline {
        kill(pid, SIGKILL)
        _ = reap(0)
        throw LabFailure(
          "\(arguments.joined(separator: " ")): not done in \(seconds) s\n\(text(output))\n\(text(errors))")
      }
      usleep(1000)
    }
    let status = reap(0) ?? 0
    let signal = status & 0x7f
    return Outcome(
      code: Int(signal == 0 ? (status >> 8) & 0xff : 128 + signal),
      stdout: text(output), stderr: text(errors),
      seconds: Double(monotonicNanoseconds() - started) / 1e9)
  }

  private func text(_ path: String) -> String {
    String(decoding: FileManager.default.contents(atPath: path) ?? Data(), as: UTF8.self)
  }
}

extension ChildProcess {
  /// Starts a command that gets a pid which nobody has now.
  public static func started(as pid: pid_t, _ arguments: [String]) throws -> ChildProcess {
    for _ in 0..<1000 {
      // Others start processes, too: then another attempt.
      try "\(pid - 1)".write(toFile: "/proc/sys/kernel/ns_last_pid", atomically: false, encoding: .utf8)
      let child = try ChildProcess(arguments)
      if child.pid == pid { return child }
      child.signal(SIGKILL)
      _ = try child.wait()
    }
    throw LabFailure("no process got the pid \(pid): it is not free")
  }
}

/// Runs a command to its end.
@discardableResult
public func run(_ arguments: [String], seconds: Double = 120) throws -> ChildProcess.Outcome {
  try ChildProcess(arguments).wait(seconds: seconds)
}

/// Runs a command that has to succeed; gives its stdout.
@discardableResult
public func succeed(_ arguments: [String], seconds: Double = 120) throws -> String {
  let outcome = try run(arguments, seconds: seconds)
  guard outcome.code == 0 else {
    throw LabFailure(
      "\(arguments.joined(separator: " ")): exit \(outcome.code)\n\(outcome.stdout)\(outcome.stderr)")
  }
  return outcome.stdout
}

/// Runs the program under test to its end.
@discardableResult
public func run(moult arguments: [String], seconds: Double = 120) throws -> ChildProcess.Outcome {
  try start(moult: arguments).wait(seconds: seconds)
}

/// Starts the program under test: for what is done to it on its way.
public func start(moult arguments: [String], environment: [String: String] = [:]) throws -> ChildProcess {
  try ChildProcess([Lab.paths.moult] + arguments, environment: environment)
}

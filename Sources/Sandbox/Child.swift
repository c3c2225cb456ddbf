import CKernel
import Glibc
public import Kernel

/// How a process ended.
public enum ProcessExit: Sendable, Equatable {
  case exited(CInt)
  case signalled(CInt)
}

/// A process that ``launch(_:_:)`` started. It goes on when this value goes away; whoever wants to know how it ended
/// has to wait for it.
public struct Child: ~Copyable {
  public let pid: pid_t
  public let pidfd: Pidfd

  init(pid: pid_t, pidfd: consuming Pidfd) {
    self.pid = pid
    self.pidfd = pidfd
  }

  /// Waits for the end and takes the exit status; nil if `block` is false and it still runs.
  public borrowing func wait(block: Bool = true) throws(Failure) -> ProcessExit? {
    var code: CInt = 0
    var signalled: CInt = 0
    let result = try valueOrErrno("wait for process", "\(pid)") { moult_wait(pid, block ? 1 : 0, &code, &signalled) }
    if result == 0 { return nil }
    return signalled != 0 ? .signalled(code) : .exited(code)
  }

  /// Kills the process if it still runs, and takes its exit status, so that no zombie stays.
  @discardableResult
  public borrowing func kill() throws(Failure) -> ProcessExit? {
    try pidfd.send(signal: SIGKILL)
    return try wait()
  }

  /// Kills a process that is not our child, and returns once it is gone.
  borrowing func endOrphan() throws(Failure) {
    do throws(Failure) { try pidfd.send(signal: SIGKILL) } catch where error.errno == .noSuchProcess { return }
    if try !pidfd.waitForExit(timeoutMilliseconds: 10_000) {
      throw Failure(step: "end process", subject: "\(pid)", errno: .timedOut)
    }
  }
}

import CKernel
import Glibc

/// A process that can be signalled and asked for without mistaking it for a later one of the same number
/// (pidfd_open(2)).
public struct Pidfd: ~Copyable, Sendable {
  private let owned: OwnedFD
  public let pid: pid_t

  public var raw: CInt { owned.raw }

  public init(pid: pid_t) throws(Failure) {
    owned = OwnedFD(try valueOrErrno("open process", "\(pid)") { moult_pidfd_open(pid, 0) })
    self.pid = pid
  }

  /// Takes ownership of a descriptor that the kernel made (CLONE_PIDFD).
  package init(owning descriptor: consuming OwnedFD, pid: pid_t) {
    owned = descriptor
    self.pid = pid
  }

  /// A descriptor of this process for the same open file as the other process's (pidfd_getfd(2)); close-on-exec.
  /// Needs the right to trace the other process.
  public borrowing func duplicate(descriptor: CInt) throws(Failure) -> OwnedFD {
    let raw = self.raw
    return OwnedFD(
      try valueOrErrno("duplicate descriptor \(descriptor) of process", "\(pid)") {
        moult_pidfd_getfd(raw, descriptor)
      })
  }

  /// Sends a signal (pidfd_send_signal(2)); 0 only checks that it may be sent.
  public borrowing func send(signal: CInt) throws(Failure) {
    let raw = self.raw
    try valueOrErrno("signal process", "\(pid)") { moult_pidfd_send_signal(raw, signal) }
  }

  /// Whether the process has ended; a zombie has.
  public var hasExited: Bool {
    var entry = pollfd(fd: raw, events: Int16(POLLIN), revents: 0)
    return poll(&entry, 1, 0) > 0
  }

  /// Waits until the process ends. Answers whether it did within the time; -1 waits for ever.
  public borrowing func waitForExit(timeoutMilliseconds: CInt) throws(Failure) -> Bool {
    var entry = pollfd(fd: raw, events: Int16(POLLIN), revents: 0)
    return try valueOrErrno("wait for process", "\(pid)") { poll(&entry, 1, timeoutMilliseconds) } > 0
  }
}

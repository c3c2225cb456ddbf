import Glibc

/// Memory of another process, as it is at each moment. Source: proc_pid_mem(5).
public struct ForeignMemory: ~Copyable {
  private let file: OwnedFD
  private let pid: pid_t

  public init(of pid: pid_t) throws(Failure) {
    self.pid = pid
    file = try OwnedFD.open("/proc/\(pid)/mem", O_RDONLY, step: "read memory of process")
  }

  /// A number of 16 bits.
  public func number(at address: UInt64) throws(Failure) -> UInt16 {
    var number: UInt16 = 0
    let size = try valueOrErrno("read memory of process", "\(pid)") { pread(file.raw, &number, 2, off_t(address)) }
    if size == 2 { return number }
    throw Failure(step: "read memory of process", subject: "\(pid)", reason: "nothing is at \(address)")
  }
}

import CKernel
import Glibc
import SystemPackage

/// Threads of another process that stand still wherever they were (ptrace(2), PTRACE_SEIZE), until this lets go of them. If
/// this process ends, the kernel does.
public final class FrozenThreads {
  private var threads: [pid_t] = []

  /// - Throws: if one cannot be stopped; then none is.
  public init(_ threads: [pid_t]) throws(Failure) {
    for thread in threads {
      do throws(Failure) {
        try valueOrErrno("stop thread", "\(thread)", hint: "is a debugger at work? Tracing must be allowed (Yama's ptrace_scope, seccomp)") {
          moult_trace_seize(thread, 0)
        }
        self.threads.append(thread)
        try valueOrErrno("stop thread", "\(thread)") { moult_trace_interrupt(thread) }
        try Self.awaitStop(thread)
      } catch {
        release()
        throw error
      }
    }
  }

  private static func awaitStop(_ thread: pid_t) throws(Failure) {
    while true {
      var detail: CInt = 0
      let event = try valueOrErrno("stop thread", "\(thread)", retryOnInterrupt: false) {
        moult_trace_wait(thread, Transplant.patienceMilliseconds, &detail)
      }
      switch UInt32(event) {
      case moult_trace_interrupted.rawValue: return
      // A signal that is on its way first gets to where it was going.
      case moult_trace_signal.rawValue: try valueOrErrno("give signal \(detail) to thread", "\(thread)") { moult_trace_continue(thread, detail) }
      default: throw Failure(step: "stop thread", subject: "\(thread)", reason: "it has ended, or the kernel reports \(detail)")
      }
    }
  }

  /// Lets them go on.
  public func release() {
    // One that has ended meanwhile needs nothing.
    for thread in threads { _ = moult_trace_detach(thread) }
    threads = []
  }

  deinit { release() }
}

extension ProcFS {
  /// Whether the thread waits for another one (futex(2)). Source: proc_pid_syscall(5).
  public static func waitsForThread(_ pid: pid_t) throws(Failure) -> Bool {
    // Its number on x86-64, where this is used.
    try Files.readText("/proc/\(pid)/syscall").hasPrefix("202 ")
  }
}

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

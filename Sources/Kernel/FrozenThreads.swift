import CKernel
import Glibc
import SystemPackage

/// Threads of another process that stand still wherever they were (ptrace(2), PTRACE_SEIZE), until this lets go of them. If
/// this process ends, the kernel does.
public final class FrozenThreads {
  private(set) var threads: [pid_t] = []
  /// One that has been let go on and has not come to where it was to stop.
  var running: pid_t?
  /// What came for them while they were followed: kept from them here, and not by their masks, which would stay if this
  /// process were killed.
  var signals: [(thread: pid_t, number: CInt)] = []

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
    if let running, moult_trace_interrupt(running) == 0 {
      // Only one that stands still can be let go of.
      var detail: CInt = 0
      if moult_trace_wait(running, Transplant.patienceMilliseconds, &detail) == CInt(moult_trace_signal.rawValue) { signals.append((running, detail)) }
    }
    // One that has ended meanwhile needs nothing.
    for thread in threads { _ = moult_trace_detach(thread) }
    for (thread, number) in signals { kill(thread, number) }
    (threads, signals, running) = ([], [], nil)
  }

  deinit { release() }
}

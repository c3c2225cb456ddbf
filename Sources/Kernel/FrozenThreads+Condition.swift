import CKernel
import Glibc

extension FrozenThreads {
  /// Lets them go on, until each is about to wait for others at a condition variable (pthread_cond_wait(3)): whatever it had to
  /// tell them it has told, and the mutex is free. There they stand still again.
  ///
  /// They are followed from one system call to the next, so nothing is asked again and again. By what futex(2) is told the wait is
  /// known from one for a mutex: FUTEX_WAIT_BITSET, or in glibc before 2.34 FUTEX_WAIT for a number that is 0, which no
  /// mutex waits for.
  /// - Parameter milliseconds: how long it may take in all: a thread that goes round and round makes calls for ever.
  /// - Throws: if one does not come to it; whether it waits for something else cannot be told.
  public func goOnToCondition(withinMilliseconds milliseconds: CInt) throws(Failure) {
    let deadline = Instant.now().adding(seconds: Double(milliseconds) / 1000)
    for thread in threads {
      var isThere = false
      while !isThere {
        let left = deadline - Instant.now()
        if left <= 0 { throw Failure(step: "follow thread", subject: "\(thread)", errno: .timedOut, hint: Self.elsewhere) }
        try valueOrErrno("let thread go on", "\(thread)") { moult_trace_to_syscall(thread) }
        running = thread
        var detail: CInt = 0
        let event = try valueOrErrno("follow thread", "\(thread)", hint: Self.elsewhere, retryOnInterrupt: false) {
          moult_trace_wait(thread, CInt(left.rounded(.up)), &detail)
        }
        running = nil
        switch UInt32(event) {
        case moult_trace_syscall.rawValue: isThere = try beginsCondition(thread)
        case moult_trace_signal.rawValue: signals.append((thread, detail))
        case moult_trace_interrupted.rawValue: break
        default: throw Failure(step: "follow thread", subject: "\(thread)", reason: "it has ended, or the kernel reports \(detail)")
        }
      }
    }
  }

  private func beginsCondition(_ thread: pid_t) throws(Failure) -> Bool {
    #if arch(x86_64)
      var registers = moult_registers()
      try valueOrErrno("read registers of thread", "\(thread)") { moult_trace_get_registers(thread, &registers) }
      // Before a call the kernel has its answer say that there is no such.
      guard registers.orig_rax == Self.futex, Int64(bitPattern: registers.rax) == -Int64(ENOSYS) else { return false }
      let operation = registers.rsi & 0x7f
      return operation == Self.waitBitset || operation == Self.wait && UInt32(truncatingIfNeeded: registers.rdx) == 0
    #else
      throw Failure(step: "follow thread", subject: "\(thread)", reason: "its system calls are known on x86-64 only")
    #endif
  }

  private static let elsewhere = "it waits for something else, or for nothing"
  private static var futex: UInt64 { 202 }
  private static var wait: UInt64 { 0 }
  private static var waitBitset: UInt64 { 9 }
}

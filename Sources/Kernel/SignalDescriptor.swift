import CKernel
import Glibc

/// Signals read from a descriptor instead of handled (signalfd(2)). They are blocked while it lives, and the
/// former mask is restored when it goes away.
public struct SignalDescriptor: ~Copyable {
  private let owned: OwnedFD
  /// The mask as it was before (bit n-1 = signal n): what a child has to start with.
  public let formerMask: UInt64

  public var raw: CInt { owned.raw }

  /// Blocks `signals` for the calling thread. Reading never blocks: poll ``raw``.
  public init(_ signals: [CInt]) throws(Failure) {
    var former: UInt64 = 0
    let mask = signals.reduce(0) { $0 | UInt64(1) << UInt64($1 - 1) }
    owned = OwnedFD(try valueOrErrno("block signals", "") { moult_signalfd(mask, &former) })
    formerMask = former
  }

  /// The next pending signal and who sent it (0: the kernel); nil if there is none.
  public borrowing func next() throws(Failure) -> (signal: CInt, sender: pid_t)? {
    let raw = self.raw
    var sender: pid_t = 0
    let signal = try valueOrErrno("read signal", "") { moult_read_signal(raw, &sender) }
    return signal == 0 ? nil : (signal, sender)
  }

  /// The calling thread's signal mask.
  public static func currentMask() -> UInt64 {
    var set = sigset_t()
    sigprocmask(SIG_BLOCK, nil, &set)
    return (1...64).reduce(0) { sigismember(&set, $1) == 1 ? $0 | UInt64(1) << UInt64($1 - 1) : $0 }
  }

  deinit { _ = moult_set_signal_mask(formerMask, nil) }
}

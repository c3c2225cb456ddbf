import Foundation
import Glibc
import Synchronization

/// What a Ctrl-C, or a SIGTERM, does to a program that has guests: it ends them, too.
public enum Ending {
  private static let hasBegun = Atomic(false)

  private static var signals: sigset_t {
    var signals = sigset_t()
    sigemptyset(&signals)
    for signal in [SIGINT, SIGTERM, SIGHUP] { sigaddset(&signals, signal) }
    return signals
  }

  /// Blocks the signals. To be called before there is a second thread: only then none but the one that waits for them
  /// gets them.
  public static func blockSignals() {
    var signals = signals
    pthread_sigmask(SIG_BLOCK, &signals, nil)
  }

  /// Calls `end` upon a signal, and ends the process.
  public static func onSignals(_ end: @escaping @Sendable () -> Void) {
    blockSignals()
    Thread {
      var (signals, signal) = (signals, CInt(0))
      sigwait(&signals, &signal)
      hasBegun.store(true, ordering: .sequentiallyConsistent)
      end()
      // Not exit(3): other threads are in the middle of something.
      _exit(128 + signal)
    }.start()
  }

  /// Nothing is started any more: whoever would start something waits for the end.
  public static func waitIfBegun() { while hasBegun.load(ordering: .sequentiallyConsistent) { pause() } }
}

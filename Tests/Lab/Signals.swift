import Foundation
import Glibc

/// Ctrl-C ends the guests, too. The signals are blocked before there is a second thread, so that only the
/// one that waits for them gets them.
public func endOnSignals(_ end: @escaping @Sendable () -> Void) {
  var signals = sigset_t()
  sigemptyset(&signals)
  for signal in [SIGINT, SIGTERM, SIGHUP] { sigaddset(&signals, signal) }
  pthread_sigmask(SIG_BLOCK, &signals, nil)
  let waited = signals
  Thread {
    var waited = waited
    var signal: CInt = 0
    sigwait(&waited, &signal)
    end()
    exit(128 + signal)
  }.start()
}

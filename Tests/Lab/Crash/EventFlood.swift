import Foundation
import Glibc
import Kernel
import Synchronization

/// Wakes a QEMU's main loop all the time: it finds something ready whenever it looks, and is hardly ever found waiting.
/// Who is woken for nothing does nothing.
final class EventFlood: Sendable {
  private let isOver = Mutex(false)
  private let done = DispatchSemaphore(value: 0)

  /// - Parameter pid: QEMU's. Its eventfd(2)s are written to until ``end()``.
  init(_ pid: pid_t) throws {
    let process = try Pidfd(pid: pid)
    let events = Processes.list("/proc/\(pid)/fd").compactMap { CInt($0) }.filter { Processes.link("/proc/\(pid)/fd/\($0)") == "anon_inode:[eventfd]" }
    let own = try events.map { number in
      let event = try process.duplicate(descriptor: number)
      let copy = fcntl(event.raw, F_DUPFD_CLOEXEC, 3)
      if copy < 0 { throw LabFailure.system("duplicate a descriptor of \(pid)") }
      return copy
    }
    Thread { [self] in
      var one: UInt64 = 1
      while !isOver.withLock({ $0 }) {
        for event in own { _ = write(event, &one, 8) }
        usleep(10)
      }
      for event in own { close(event) }
      done.signal()
    }.start()
  }

  func end() {
    let wasOver = isOver.withLock { flag in
      defer { flag = true }
      return flag
    }
    if !wasOver { done.wait() }
  }
}

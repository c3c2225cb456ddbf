import Glibc
import SystemPackage

/// A point on the monotonic clock, in nanoseconds. Source: clock_gettime(2), `CLOCK_MONOTONIC`.
public struct Instant: Comparable, Sendable, Codable {
  public var nanoseconds: Int64
  public init(nanoseconds: Int64) { self.nanoseconds = nanoseconds }

  public static func now() -> Instant {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)  // cannot fail with a valid clock and a valid pointer
    return Instant(nanoseconds: Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec))
  }
  public static func < (a: Instant, b: Instant) -> Bool { a.nanoseconds < b.nanoseconds }
  public static func - (a: Instant, b: Instant) -> Double { Double(a.nanoseconds - b.nanoseconds) / 1e6 }
  public func adding(seconds: Double) -> Instant {
    Instant(nanoseconds: nanoseconds + Int64(seconds * 1e9))
  }
}

/// Waits for whichever of several descriptors has something to say. The only place that blocks.
///
/// Everything an upgrade waits for is a descriptor: a QMP socket, a pidfd (readable once the process
/// has ended), a signalfd. Whoever waits for one of them hears the others at once, so a QEMU that
/// dies or a Ctrl-C is noticed while a reply is awaited. Source: poll(2), pidfd_open(2), signalfd(2).
public final class Reactor {
  /// What to do when a descriptor is readable. Throwing ends the wait under way with that failure.
  public typealias Handler = () throws(Failure) -> Void

  private var handlers: [(descriptor: CInt, handler: Handler)] = []

  public init() {}

  /// Calls `handler` whenever `descriptor` is readable, has hung up or failed. The descriptor stays
  /// its owner's; it must be removed before it is closed.
  public func add(_ descriptor: CInt, handler: @escaping Handler) {
    handlers.append((descriptor, handler))
  }

  public func remove(_ descriptor: CInt) {
    handlers.removeAll { $0.descriptor == descriptor }
  }

  /// Waits until `condition` gives a value, handling descriptors as they become readable.
  /// - Parameters:
  ///   - seconds: how long to wait at most; nil waits for ever.
  ///   - step, subject: what a time-out's failure says was being waited for.
  public func wait<Value>(
    seconds: Double?, step: String, subject: String, hint: String? = nil,
    until condition: () throws(Failure) -> Value?
  ) throws(Failure) -> Value {
    let deadline = seconds.map { Instant.now().adding(seconds: $0) }
    while true {
      if let value = try condition() { return value }
      var timeout: CInt = -1
      if let deadline {
        let left = deadline - Instant.now()
        if left <= 0 {
          let asked = seconds ?? 0
          let time = asked < 1 ? "\(Int(asked * 1000)) ms" : "\(Int(asked.rounded())) s"
          throw Failure(step: step, subject: subject, errno: .timedOut, reason: "no answer for \(time)", hint: hint)
        }
        timeout = CInt(left.rounded(.up))
      }
      try turn(timeout: timeout)
    }
  }

  /// One poll(2) and the handlers of what it found; `timeout` in milliseconds, −1 for ever.
  private func turn(timeout: CInt) throws(Failure) {
    var polled = handlers.map { pollfd(fd: $0.descriptor, events: Int16(POLLIN), revents: 0) }
    let count = Glibc.poll(&polled, nfds_t(polled.count), timeout)
    if count < 0 {
      let error = Errno(rawValue: errno)
      if error == .interrupted { return }
      throw Failure(step: "poll", subject: "", errno: error)
    }
    for entry in polled where entry.revents != 0 {
      // A handler may have removed a later one; only those still present are called.
      if let found = handlers.first(where: { $0.descriptor == entry.fd }) { try found.handler() }
    }
  }
}

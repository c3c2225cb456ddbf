import Foundation
import Glibc
import Synchronization

/// Connects in a tight loop: whether there is a moment in which nobody answers.
public final class ConnectionProber: Sendable {
  public struct Counts: Sendable, CustomStringConvertible {
    public var connected = 0
    /// EAGAIN: somebody listens, and has as many waiting as it takes.
    public var busy = 0
    /// ENOENT: there was no such name.
    public var missing = 0
    /// ECONNREFUSED: the name was there, and nobody listened.
    public var refused = 0
    /// Other errors, by errno.
    public var others: [CInt: Int] = [:]
    public init() {}

    public var failed: Int { missing + refused + others.values.reduce(0, +) }
    public var attempts: Int { connected + busy + failed }
    public var description: String {
      "\(attempts) attempts: \(connected) connected, \(busy) busy, \(missing) missing, \(refused) refused"
        + others.map { ", \($0.value) × \(String(cString: strerror($0.key)))" }.joined()
    }
    public static func + (a: Counts, b: Counts) -> Counts {
      var sum = a
      sum.connected += b.connected
      sum.busy += b.busy
      sum.missing += b.missing
      sum.refused += b.refused
      sum.others.merge(b.others, uniquingKeysWith: +)
      return sum
    }
  }

  private let stopped = Atomic<Bool>(false)
  private let result = Mutex<Counts?>(nil)
  private let progress = Atomic<Int>(0)

  /// Starts at once.
  /// - Parameters:
  ///   - blocking: wait in connect(2) (50 ms at most, then it counts as busy) while the listener has
  ///     as many waiting as it takes; otherwise be told so and try again.
  ///   - pause: microseconds between two attempts. 0 takes a processor for itself, and the sockets'
  ///     owner another.
  public init(path: String, blocking: Bool = false, pause: UInt32 = 0) throws {
    let target = try UnixSocket.address(path)
    start(pause: pause) {
      var address = target
      let descriptor = UnixSocket.make(nonBlocking: !blocking)
      if blocking { UnixSocket.limit(descriptor, seconds: 0.05) }
      defer { close(descriptor) }
      return UnixSocket.connect(descriptor, &address)
    }
  }

  /// To an abstract unix socket.
  public init(abstract name: String, pause: UInt32 = 0) throws {
    var target = try UnixSocket.address("@" + name)
    target.sun_path.0 = 0
    let size = socklen_t(MemoryLayout<sa_family_t>.size + 1 + name.utf8.count)
    start(pause: pause) { [target] in
      var address = target
      let descriptor = UnixSocket.make(nonBlocking: true)
      defer { close(descriptor) }
      return UnixSocket.connect(descriptor, &address, size)
    }
  }

  /// To a TCP port of the loopback interface. A kernel whose queue is full does not answer: after 5 ms that counts
  /// as busy.
  public init(port: UInt16, pause: UInt32 = 0) {
    start(pause: pause) { LoopbackSocket.attempt(port) }
  }

  private func start(pause: UInt32, _ attempt: @escaping @Sendable () -> CInt) {
    let thread = Thread { [self] in
      let counts = probe(pause: pause, attempt)
      result.withLock { $0 = counts }
    }
    thread.name = "probe"
    thread.start()
  }

  /// Attempts so far.
  public var attempts: Int { progress.load(ordering: .relaxed) }

  /// Ends the loop and gives what it counted.
  public func stop() -> Counts {
    stopped.store(true, ordering: .relaxed)
    while true {
      if let counts = result.withLock({ $0 }) { return counts }
      usleep(1000)
    }
  }

  /// - Parameter attempt: 0 or errno.
  private func probe(pause: UInt32, _ attempt: () -> CInt) -> Counts {
    var counts = Counts()
    while !stopped.load(ordering: .relaxed) {
      switch attempt() {
      case 0: counts.connected += 1
      case EAGAIN: counts.busy += 1
      case ENOENT: counts.missing += 1
      case ECONNREFUSED: counts.refused += 1
      case let error: counts.others[error, default: 0] += 1
      }
      progress.add(1, ordering: .relaxed)
      if pause > 0 { usleep(pause) }
    }
    return counts
  }
}

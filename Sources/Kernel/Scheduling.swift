import CKernel
import Glibc

/// Where and how a thread is scheduled (sched(7)).
public struct Scheduling: Sendable, Equatable, Codable {
  /// The kernel's number: 0 other, 1 FIFO, 2 round robin, 3 batch, 5 idle, 6 deadline.
  public var policy: UInt32
  /// 1…99 for FIFO and round robin, 0 for the others.
  public var priority: UInt32
  /// -20…19.
  public var nice: Int32
  /// Children start with the default policy (SCHED_FLAG_RESET_ON_FORK).
  public var resetOnFork: Bool
  /// The deadline policy's parameters in nanoseconds; 0 for the others.
  public var runtime: UInt64
  public var deadline: UInt64
  public var period: UInt64
  /// The CPUs the thread may run on: bit n of byte n/8 stands for CPU n.
  public var affinity: [UInt8]

  public init(
    policy: UInt32 = 0, priority: UInt32 = 0, nice: Int32 = 0, resetOnFork: Bool = false, runtime: UInt64 = 0,
    deadline: UInt64 = 0, period: UInt64 = 0, affinity: [UInt8] = []
  ) {
    self.policy = policy
    self.priority = priority
    self.nice = nice
    self.resetOnFork = resetOnFork
    self.runtime = runtime
    self.deadline = deadline
    self.period = period
    self.affinity = affinity
  }

  /// The numbers of the CPUs in ``affinity``.
  public var cpus: [Int] {
    affinity.indices.flatMap { byte in (0..<8).filter { affinity[byte] >> $0 & 1 == 1 }.map { byte * 8 + $0 } }
  }

  private static let resetOnForkFlag: UInt64 = 1

  /// Of a thread; a pid stands for its first thread.
  public static func read(thread: pid_t) throws(Failure) -> Scheduling {
    var attributes = moult_sched_attr()
    try valueOrErrno("read scheduling of thread", "\(thread)") { moult_sched_getattr(thread, &attributes) }
    // The kernel refuses a mask shorter than its own: 8192 CPUs is its greatest configuration.
    var mask = [UInt8](repeating: 0, count: 1024)
    let size = try valueOrErrno("read affinity of thread", "\(thread)") {
      moult_sched_getaffinity(thread, mask.count, &mask)
    }
    mask.removeLast(mask.count - Int(size))
    return Scheduling(
      policy: attributes.policy, priority: attributes.priority, nice: attributes.nice,
      resetOnFork: attributes.flags & resetOnForkFlag != 0, runtime: attributes.runtime,
      deadline: attributes.deadline, period: attributes.period, affinity: mask)
  }

  /// To a thread. An empty affinity leaves it as it is.
  public func apply(to thread: pid_t) throws(Failure) {
    if !affinity.isEmpty {
      try valueOrErrno("set affinity of thread", "\(thread)") {
        moult_sched_setaffinity(thread, affinity.count, affinity)
      }
    }
    var attributes = moult_sched_attr()
    attributes.size = UInt32(MemoryLayout<moult_sched_attr>.size)
    attributes.policy = policy
    attributes.flags = resetOnFork ? Self.resetOnForkFlag : 0
    attributes.nice = nice
    attributes.priority = priority
    attributes.runtime = runtime
    attributes.deadline = deadline
    attributes.period = period
    try valueOrErrno("set scheduling of thread", "\(thread)") { moult_sched_setattr(thread, &attributes) }
  }
}

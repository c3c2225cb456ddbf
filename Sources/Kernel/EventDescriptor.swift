import Glibc

/// Eventfds (eventfd(2)): counters that wake whoever waits for them.
public enum EventDescriptor {
  /// Those of a process: its descriptors, by the number that is the same wherever one is open (`eventfd-id`, proc_pid_fdinfo(5), since
  /// Linux 5.2).
  public static func all(of pid: pid_t) throws(Failure) -> [UInt64: CInt] {
    var found: [UInt64: CInt] = [:]
    for number in try Files.names(in: "/proc/\(pid)/fd").compactMap({ CInt($0) }) {
      guard let info = try unlessGone({ () throws(Failure) in try Files.readText("/proc/\(pid)/fdinfo/\(number)") }), let id = id(info: info) else { continue }
      found[id] = number
    }
    return found
  }

  static func id(info: String) -> UInt64? {
    let key = "eventfd-id:"
    return info.split(separator: "\n").first { $0.hasPrefix(key) }.flatMap { UInt64($0.dropFirst(key.count).trimmingSpaces()) }
  }

  /// Wakes whoever waits for it.
  public static func signal(_ descriptor: CInt) throws(Failure) {
    var one: UInt64 = 1
    try valueOrErrno("signal eventfd", "\(descriptor)") { write(descriptor, &one, MemoryLayout.size(ofValue: one)) }
  }
}

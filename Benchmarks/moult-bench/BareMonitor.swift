import Glibc
import Lab

/// The QMP client of the rows that moult is compared with: as little between QEMU's word and the next
/// command as can be. It blocks in recv(2) and looks for words; nothing is parsed before it is asked for.
final class BareMonitor {
  private let descriptor: CInt
  private var unread: [UInt8] = []
  /// Lines nobody has waited for yet: events.
  private var events: [String] = []

  /// Connects, trying again until somebody listens: a QEMU that is just starting has no socket yet.
  init(_ path: String, within seconds: Double = 60) throws {
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8.prefix(107)) }
    let deadline = monotonicNanoseconds() + Int64(seconds * 1e9)
    while true {
      let descriptor = socket(AF_UNIX, CInt(SOCK_STREAM.rawValue) | CInt(SOCK_CLOEXEC.rawValue), 0)
      let result = withUnsafePointer(to: &address) {
        $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
          connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
        }
      }
      if result == 0 {
        self.descriptor = descriptor
        break
      }
      close(descriptor)
      guard monotonicNanoseconds() < deadline else { throw LabFailure("\(path): nobody listens") }
      usleep(100)
    }
    var limit = timeval(tv_sec: 120, tv_usec: 0)
    setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
    _ = try line { $0.contains("\"QMP\"") }
  }

  deinit { close(descriptor) }

  func execute(_ command: String, _ arguments: String = "{}") throws {
    try send(command, arguments)
    try reply(command)
  }

  /// Sends without waiting for the reply.
  func send(_ command: String, _ arguments: String = "{}") throws {
    let text = "{\"execute\":\"\(command)\",\"arguments\":\(arguments)}\n"
    let count = text.utf8.count
    guard Glibc.send(descriptor, text, count, CInt(MSG_NOSIGNAL)) == count else {
      throw LabFailure("QMP \(command): \(String(cString: strerror(errno)))")
    }
  }

  func reply(_ command: String) throws {
    let answer = try line { $0.hasPrefix("{\"return\"") || $0.hasPrefix("{\"error\"") }
    if answer.hasPrefix("{\"error\"") { throw LabFailure("QMP \(command): \(answer)") }
  }

  /// Waits for the event of that name which says `words`, too; gives QEMU's own time of it, microseconds
  /// of the host's real-time clock.
  @discardableResult
  func event(_ name: String, _ words: String = "") throws -> Int64 {
    let name = "\"event\": \"\(name)\""
    func matches(_ line: String) -> Bool { line.contains(name) && (words.isEmpty || line.contains(words)) }
    if let index = events.firstIndex(where: matches) { return BareMonitor.time(events.remove(at: index)) }
    return BareMonitor.time(
      try line {
        if $0.contains("\"MIGRATION\""), $0.contains("\"failed\"") { throw LabFailure("migration: \($0)") }
        return matches($0)
      })
  }

  private func line(where condition: (String) throws -> Bool) throws -> String {
    while true {
      while let end = unread.firstIndex(of: 10) {
        let line = String(decoding: unread[..<end], as: UTF8.self)
        unread.removeSubrange(...end)
        if try condition(line) { return line }
        if line.contains("\"event\"") { events.append(line) }
      }
      let count = withUnsafeTemporaryAllocation(byteCount: 65536, alignment: 1) { chunk in
        let count = recv(descriptor, chunk.baseAddress, chunk.count, 0)
        if count > 0 { unread += chunk[..<count] }
        return count
      }
      if count < 0 && errno == EINTR { continue }
      guard count > 0 else {
        throw LabFailure(count == 0 ? "QMP: QEMU has ended" : "QMP: \(String(cString: strerror(errno)))")
      }
    }
  }

  private static func time(_ line: String) -> Int64 {
    func number(after key: String) -> Int64 {
      guard let start = line.firstRange(of: "\"\(key)\": ") else { return 0 }
      return Int64(line[start.upperBound...].prefix { $0.isNumber }) ?? 0
    }
    return number(after: "seconds") * 1_000_000 + number(after: "microseconds")
  }
}

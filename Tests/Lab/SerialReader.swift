import Foundation
import Glibc
import Synchronization

/// What the guest said on its serial console, read at the public path, connecting again and again:
/// a reader as a user's is, which knows nothing of an upgrade.
public final class SerialReader: Sendable {
  public struct Line: Sendable {
    public var text: String
    /// When it was read: nanoseconds on the host's monotonic clock.
    public var time: Int64
    /// Which connection it came over, from 1. QEMU drops what a guest says while nobody is connected.
    public var connection: Int
  }

  private struct State: Sendable {
    var lines: [Line] = []
    // Kept as lines come: who waits for a tick asks hundreds of times a second.
    var pulse = Pulse()
    var connections = 0
    var failed: [CInt: Int] = [:]
    var socket: CInt = -1
    var stopped = false
    var running = true
  }

  public let path: String
  private let state = Mutex(State())

  public init(path: String) throws {
    self.path = path
    let address = try UnixSocket.address(path)
    let thread = Thread { [self] in read(address) }
    thread.name = "serial"
    thread.start()
  }

  public var lines: [Line] { state.withLock { $0.lines } }
  /// How many lines there are: unlike ``lines``, this copies none.
  public var count: Int { state.withLock { $0.lines.count } }
  public func lines(from start: Int) -> [Line] { state.withLock { Array($0.lines.dropFirst(start)) } }
  /// What those lines say.
  public var pulse: Pulse { state.withLock { $0.pulse } }
  public var connections: Int { state.withLock { $0.connections } }
  /// How many attempts to connect failed, by errno. Some are there before QEMU listens.
  public var failedAttempts: [CInt: Int] { state.withLock { $0.failed } }

  /// Waits for a line that `condition` likes; looks at those from `start` on.
  @discardableResult
  public func line(
    _ what: String, from start: Int = 0, within seconds: Double = 30,
    where condition: (String) -> Bool
  ) throws -> Line {
    var next = start
    return try eventually("\(path): \(what)", within: seconds) {
      let lines = lines(from: next)
      next += lines.count
      return lines.first { condition($0.text) }
    }
  }

  /// Writes a line to the guest.
  public func send(_ text: String) throws {
    let bytes = Array((text + "\n").utf8)
    let result = state.withLock { state in
      Glibc.send(state.socket, bytes, bytes.count, CInt(MSG_NOSIGNAL))
    }
    guard result == bytes.count else { throw LabFailure.system("send to \(path)") }
  }

  /// Closes the connection and ends the thread.
  public func stop() {
    state.withLock {
      $0.stopped = true
      if $0.socket >= 0 { shutdown($0.socket, CInt(SHUT_RDWR)) }
    }
    while state.withLock({ $0.running }) { usleep(1000) }
  }

  private func read(_ target: sockaddr_un) {
    var address = target
    var chunk = [UInt8](repeating: 0, count: 65536)
    while !state.withLock({ $0.stopped }) {
      let descriptor = UnixSocket.make()
      let error = UnixSocket.connect(descriptor, &address)
      guard error == 0 else {
        close(descriptor)
        state.withLock { $0.failed[error, default: 0] += 1 }
        usleep(1000)
        continue
      }
      let connection = state.withLock { state in
        state.connections += 1
        state.socket = descriptor
        if state.stopped { shutdown(descriptor, CInt(SHUT_RDWR)) }
        return state.connections
      }
      var rest: [UInt8] = []
      while true {
        let count = recv(descriptor, &chunk, chunk.count, 0)
        if count < 0 && errno == EINTR { continue }
        if count <= 0 { break }
        let time = monotonicNanoseconds()
        rest += chunk[..<count]
        var lines: [Line] = []
        var begin = rest.startIndex
        while let end = rest[begin...].firstIndex(of: 10) {
          var text = rest[begin..<end]
          if text.last == 13 { text.removeLast() }
          lines.append(
            Line(text: String(decoding: text, as: UTF8.self), time: time, connection: connection))
          begin = end + 1
        }
        rest.removeSubrange(..<begin)
        state.withLock { [lines] state in
          state.lines += lines
          for line in lines { state.pulse.note(line) }
        }
      }
      state.withLock {
        $0.socket = -1
        close(descriptor)
      }
    }
    state.withLock { $0.running = false }
  }
}

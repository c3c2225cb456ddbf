import Foundation
import Glibc

/// A QMP client of the lab's own: a test of the product must not trust the product's client.
public final class QMPConnection {
  public struct Event: Sendable {
    public var name: String
    public var data: JSON
    /// QEMU's own time stamp, microseconds since 1970.
    public var microseconds: Int64
  }

  private let descriptor: CInt
  private var buffer: [UInt8] = []
  /// What QEMU said of itself.
  public let greeting: JSON
  /// All events so far, oldest first.
  public private(set) var events: [Event] = []

  /// Connects, waiting up to `seconds` for the greeting (a monitor serves one client at a time).
  public init(_ path: String, seconds: Double = 10) throws {
    descriptor = UnixSocket.make()
    UnixSocket.limit(descriptor, seconds: seconds)
    var address = try UnixSocket.address(path)
    let error = UnixSocket.connect(descriptor, &address)
    guard error == 0 else {
      close(descriptor)
      throw LabFailure.system("connect to \(path)", error)
    }
    do {
      var buffer: [UInt8] = []
      greeting = try QMPConnection.message(descriptor, &buffer)
      self.buffer = buffer
    } catch {
      close(descriptor)
      throw error
    }
    try execute("qmp_capabilities")
  }

  deinit { close(descriptor) }

  public var version: String {
    let version = greeting["QMP"]["version"]["qemu"]
    return ["major", "minor", "micro"].map { String(version[$0].int ?? -1) }.joined(separator: ".")
  }

  @discardableResult
  public func execute(_ command: String, _ arguments: JSON = [:]) throws -> JSON {
    let request: JSON = .object(["execute": .text(command), "arguments": arguments])
    let bytes = Array(try JSONSerialization.data(withJSONObject: request.foundation)) + [10]
    guard send(descriptor, bytes, bytes.count, CInt(MSG_NOSIGNAL)) == bytes.count else {
      throw LabFailure.system("QMP \(command)")
    }
    while true {
      let message = try QMPConnection.message(descriptor, &buffer)
      if note(message) { continue }
      if let text = message["error"]["desc"].string { throw LabFailure("QMP \(command): \(text)") }
      return message["return"]
    }
  }

  /// Waits for an event of one of these names.
  public func event(_ names: Set<String>) throws -> Event {
    while true {
      let count = events.count
      _ = note(try QMPConnection.message(descriptor, &buffer))
      if events.count > count, let last = events.last, names.contains(last.name) { return last }
    }
  }

  private func note(_ message: JSON) -> Bool {
    guard let name = message["event"].string else { return false }
    let stamp = message["timestamp"]
    let time = Int64(stamp["seconds"].double ?? 0) * 1_000_000 + Int64(stamp["microseconds"].double ?? 0)
    events.append(Event(name: name, data: message["data"], microseconds: time))
    return true
  }

  private static func message(_ descriptor: CInt, _ buffer: inout [UInt8]) throws -> JSON {
    while true {
      if let end = buffer.firstIndex(of: 10) {
        let line = Data(buffer[..<end])
        buffer.removeSubrange(...end)
        if line.allSatisfy({ $0 <= 32 }) { continue }
        return try JSON(parsing: line)
      }
      var chunk = [UInt8](repeating: 0, count: 65536)
      let count = recv(descriptor, &chunk, chunk.count, 0)
      if count < 0 && errno == EINTR { continue }
      guard count > 0 else {
        throw count == 0 ? LabFailure("QMP: connection closed") : LabFailure.system("QMP")
      }
      buffer += chunk[..<count]
    }
  }
}

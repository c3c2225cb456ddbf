import Glibc
public import Kernel

/// The agent in the guest, as one asks it whether it is there. Source: QEMU's docs/interop/qemu-ga.rst.
public struct GuestAgent: Sendable, Equatable, Codable {
  /// The chardev of its port.
  public var chardev: String
  /// The unix socket that QEMU listens at for whoever wants to speak to the agent, absolute.
  public var path: String

  public init(chardev: String, path: String) {
    self.chardev = chardev
    self.path = path
  }

  public enum State: Sendable, Equatable {
    /// Nobody in the guest has the port open, or whoever has does not answer.
    case silent
    case answers
    /// Another program speaks to it: its socket takes one client at a time.
    case busy
  }

  /// - Parameters:
  ///   - monitor: of the QEMU that runs the guest.
  ///   - seconds: how long the agent may take.
  public func state(_ monitor: QMPConnection, reactor: Reactor, seconds: Double) throws(Failure) -> State {
    let chardevs = try monitor.execute("query-chardev", seconds: seconds).array ?? []
    guard let entry = chardevs.first(where: { $0["label"]?.string == chardev }), entry["frontend-open"]?.bool == true else { return .silent }
    guard entry["filename"]?.string?.hasPrefix("disconnected:") == true else { return .busy }
    return try ask(reactor, seconds: seconds) ? .answers : .silent
  }

  /// `guest-sync-delimited`: the byte 0xFF in front makes both sides forget what another client left half said.
  private func ask(_ reactor: Reactor, seconds: Double) throws(Failure) -> Bool {
    let connection = try UnixSocket.connect(path, timeoutMilliseconds: Int(seconds * 1000))
    let socket = connection.raw
    let number = Int64.random(in: 1...Int64(Int32.max))
    try UnixMessage.send([0xFF] + Array(#"{"execute":"guest-sync-delimited","arguments":{"id":\#(number)}}"#.utf8) + [UInt8(ascii: "\n")], to: socket)
    var answer: [UInt8] = []
    var hasEnded = false
    reactor.add(socket) { () throws(Failure) in
      var chunk = [UInt8](repeating: 0, count: 4096)
      let count = recv(socket, &chunk, chunk.count, Int32(MSG_DONTWAIT))
      if count > 0 { answer += chunk[..<count] } else if count == 0 || errno != EAGAIN && errno != EINTR { hasEnded = true }
    }
    // Removed before it is closed, which happens at the end of this scope.
    defer {
      reactor.remove(socket)
      _ = connection.raw
    }
    do throws(Failure) {
      return try reactor.wait(seconds: seconds, step: "await the guest agent at", subject: path) { () throws(Failure) -> Bool? in
        if Self.isAnswered(answer, by: number) { return true }
        return hasEnded ? false : nil
      }
    } catch where error.errno == .timedOut { return false }
  }

  /// Whether what came holds the answer to this call, after whatever the agent still had to tell another.
  static func isAnswered(_ bytes: [UInt8], by number: Int64) -> Bool {
    guard let start = bytes.lastIndex(of: 0xFF), let end = bytes[start...].firstIndex(of: UInt8(ascii: "\n")) else { return false }
    do { return try JSONValue(parsing: bytes[(start + 1)..<end])["return"]?.integer == number } catch { return false }
  }
}

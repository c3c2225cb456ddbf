import Glibc

/// One message of a QMP server. Source: QEMU's docs/interop/qmp-spec.
public enum QMPMessage: Sendable, Equatable {
  case greeting(QEMUVersion)
  case event(QMPEvent)
  /// `return` or `error`, with the id of the command that it answers.
  case reply(to: Int64, JSONValue)
  /// An error without an id: QEMU could not parse what it was sent, and no reply will ever come.
  case protocolError(String)
  /// None of these, such as a reply to a command that somebody else sent.
  case other

  /// Why a line is no message.
  public enum Fault: Error, Equatable {
    case notJSON(start: String)
    case noVersion
    case tooLong
  }

  init(line: ArraySlice<UInt8>) throws(Fault) {
    let message: JSONValue
    do { message = try JSONValue(parsing: line) } catch {
      throw .notJSON(start: String(decoding: line.prefix(80), as: UTF8.self))
    }
    if let greeting = message["QMP"] {
      let qemu = greeting["version"]?["qemu"]
      guard let major = qemu?["major"]?.integer, let minor = qemu?["minor"]?.integer else { throw .noVersion }
      self = .greeting(
        QEMUVersion(
          major: Int(major), minor: Int(minor), micro: Int(qemu?["micro"]?.integer ?? 0),
          package: greeting["version"]?["package"]?.string ?? ""))
    } else if let name = message["event"]?.string {
      let time = message["timestamp"]
      // Wrapping: a time that no clock shows must not end the program.
      let microseconds = (time?["seconds"]?.integer ?? 0) &* 1_000_000 &+ (time?["microseconds"]?.integer ?? 0)
      self = .event(QMPEvent(name: name, data: message["data"] ?? .null, microseconds: microseconds))
    } else if let identifier = message["id"]?.integer {
      self = .reply(to: identifier, message)
    } else if let error = message["error"] {
      self = .protocolError(error["desc"]?.string ?? "a protocol error")
    } else {
      self = .other
    }
  }
}

/// Cuts what a monitor sends into messages: one a line, whatever pieces it comes in.
public struct QMPReader: Sendable {
  /// Bytes that a message may have.
  public static let longest = 64 << 20

  private var unread: [UInt8] = []
  /// How many of them are known to hold no line end.
  private var searched = 0

  private var startsInside: Bool

  /// - Parameter startsInside: the first line may be the end of a message whose beginning somebody else has read.
  public init(startsInside: Bool = false) { self.startsInside = startsInside }

  /// Takes the next piece. After a fault the stream is of no more use.
  /// - Returns: the messages that it completes.
  public mutating func read(_ piece: some Collection<UInt8>) throws(QMPMessage.Fault) -> [QMPMessage] {
    unread += piece
    var messages: [QMPMessage] = []
    var start = 0
    while let end = lineEnd(from: max(start, searched)) {
      let line = unread[start..<end]
      start = end + 1
      if !Self.tellsOfClients(line), line.contains(where: { $0 != UInt8(ascii: "\r") && $0 != UInt8(ascii: " ") }) {
        do throws(QMPMessage.Fault) { messages.append(try QMPMessage(line: line)) } catch where startsInside {}
      }
      startsInside = false
    }
    unread.removeSubrange(..<start)
    searched = unread.count
    if unread.count > Self.longest { throw .tooLong }
    return messages
  }

  private func lineEnd(from start: Int) -> Int? {
    unread.withUnsafeBytes { bytes in
      guard start < bytes.count, let base = bytes.baseAddress else { return nil }
      return memchr(base + start, CInt(UInt8(ascii: "\n")), bytes.count - start).map { UnsafeRawPointer($0) - base }
    }
  }

  private static let timestamp = Array(#"{"timestamp": {"#.utf8)
  private static let clients = [#", "event": "SPICE_"#, #", "event": "VNC_"#].map { Array($0.utf8) }

  /// Displays tell of each client that comes and goes, thousands a second if somebody knocks at the port that fast, and
  /// nobody here asks for it. Parsing and keeping all that would take longer than it takes to come.
  private static func tellsOfClients(_ line: ArraySlice<UInt8>) -> Bool {
    line.withUnsafeBytes { line in
      func has(_ text: [UInt8], at place: Int) -> Bool {
        guard let base = line.baseAddress, place + text.count <= line.count else { return false }
        return memcmp(base + place, text, text.count) == 0
      }
      guard has(timestamp, at: 0), let base = line.baseAddress, let end = memchr(base, CInt(UInt8(ascii: "}")), line.count) else { return false }
      return clients.contains { has($0, at: UnsafeRawPointer(end) - base + 1) }
    }
  }
}

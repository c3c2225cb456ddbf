import Glibc
public import Kernel
import SystemPackage

/// A version of QEMU as its QMP greeting gives it.
public struct QEMUVersion: Sendable, Hashable, Comparable, Codable, CustomStringConvertible {
  public var major: Int
  public var minor: Int
  public var micro: Int
  /// What the packager added, such as `Debian 1:7.2+dfsg-7+deb12u16`; may be empty.
  public var package: String

  public init(major: Int, minor: Int, micro: Int = 0, package: String = "") {
    self.major = major
    self.minor = minor
    self.micro = micro
    self.package = package
  }
  public var description: String { "\(major).\(minor).\(micro)" }
  public static func < (a: QEMUVersion, b: QEMUVersion) -> Bool {
    (a.major, a.minor, a.micro) < (b.major, b.minor, b.micro)
  }
}

/// An asynchronous message from QEMU.
public struct QMPEvent: Sendable, Equatable {
  public var name: String
  public var data: JSONValue
  /// When QEMU emitted it, in microseconds of the host's real-time clock. Source: QMP's `timestamp`.
  public var microseconds: Int64
  /// Its place among the events of its connection. Unlike their times it is in the order in which they happened,
  /// even if somebody sets the clock.
  public var order = 0
  /// When it was read from the connection.
  public var heard = Instant(nanoseconds: 0)

  public init(name: String, data: JSONValue, microseconds: Int64) {
    self.name = name
    self.data = data
    self.microseconds = microseconds
  }
}

/// One client connection to a QEMU's QMP monitor.
///
/// Replies are awaited through a `Reactor`, so whoever waits for one also hears of everything else
/// the reactor watches. Source: QEMU's docs/interop/qmp-spec.
public final class QMPConnection {
  /// What failures call this connection: `the old QEMU`, a socket path.
  public let subject: String
  /// Events in the order they came and nobody has taken yet.
  public private(set) var events: [QMPEvent] = []
  public private(set) var version: QEMUVersion?
  /// QEMU has closed the connection.
  public private(set) var isClosed = false

  private let socket: OwnedFD
  private let reactor: Reactor
  private var reader = QMPReader()
  private var replies: [Int64: JSONValue] = [:]
  private var nextIdentifier: Int64 = 1
  private var isTakenOver = false
  private var eventCount = 0

  /// Takes ownership of a connected stream socket. Nothing is sent until `negotiate`.
  public init(_ socket: consuming OwnedFD, subject: String, reactor: Reactor) {
    self.socket = socket
    self.subject = subject
    self.reactor = reactor
    reactor.add(self.socket.raw) { [unowned self] () throws(Failure) in try self.receive() }
  }

  /// Takes up a connection that another process had, in the middle of whatever it was doing: it is past its
  /// greeting, the other's replies may still come, and the first message may lack its beginning.
  public convenience init(takingOver socket: consuming OwnedFD, subject: String, reactor: Reactor) {
    self.init(socket, subject: subject, reactor: reactor)
    isTakenOver = true
    reader = QMPReader(startsInside: true)
    // Beyond all that the other can have used.
    nextIdentifier = 1 << 40
  }

  deinit { reactor.remove(socket.raw) }

  /// The socket; stays the connection's own.
  public var descriptor: CInt { socket.raw }

  /// Waits for the greeting and leaves capabilities negotiation mode.
  /// - Parameter seconds: for the greeting; a monitor that another client holds never sends one.
  public func negotiate(seconds: Double) throws(Failure) -> QEMUVersion {
    let version = try reactor.wait(
      seconds: seconds, step: "await QMP greeting of", subject: subject,
      hint: "a QMP monitor serves one client at a time: is another program connected to it?"
    ) { () throws(Failure) -> QEMUVersion? in
      if let version = self.version { return version }
      if self.isClosed { throw self.closed(step: "await QMP greeting of") }
      return nil
    }
    _ = try execute("qmp_capabilities")
    return version
  }

  /// Executes a command and waits for its return value.
  /// - Parameter descriptor: passed along with SCM_RIGHTS (for `getfd`); stays the caller's.
  public func execute(
    _ command: String, _ arguments: JSONValue? = nil, descriptor: CInt? = nil, seconds: Double = 30
  ) throws(Failure) -> JSONValue {
    let identifier = try send(command, arguments, descriptor: descriptor)
    return try reply(to: identifier, command: command, seconds: seconds)
  }

  /// Sends a command without waiting; its reply is to be collected with `reply(to:)`.
  public func send(
    _ command: String, _ arguments: JSONValue? = nil, descriptor: CInt? = nil
  ) throws(Failure) -> Int64 {
    if isClosed { throw closed(step: "QMP \(command) to") }
    let identifier = nextIdentifier
    nextIdentifier += 1
    var message: [String: JSONValue] = ["execute": .string(command), "id": .integer(identifier)]
    if let arguments { message["arguments"] = arguments }
    let text = JSONValue.object(message).text()
    do {
      try UnixMessage.send(Array(text.utf8) + [UInt8(ascii: "\n")], descriptor: descriptor, to: socket.raw)
    } catch {
      throw Failure(step: "QMP \(command) to", subject: subject, errno: error.errno, reason: error.reason)
    }
    return identifier
  }

  public func reply(to identifier: Int64, command: String, seconds: Double = 30) throws(Failure) -> JSONValue {
    let reply = try reactor.wait(
      seconds: seconds, step: "await reply to QMP \(command) of", subject: subject
    ) { () throws(Failure) -> JSONValue? in
      if let reply = self.replies.removeValue(forKey: identifier) { return reply }
      if self.isClosed { throw self.closed(step: "QMP \(command) to") }
      return nil
    }
    if let value = reply["return"] { return value }
    let reason = reply["error"]?["desc"]?.string ?? "an error without a description"
    throw Failure(step: "QMP \(command) to", subject: subject, reason: reason)
  }

  /// Takes the oldest event that `matches`, waiting for it if there is none yet.
  public func awaitEvent(
    step: String, seconds: Double?, where matches: (QMPEvent) throws(Failure) -> Bool
  ) throws(Failure) -> QMPEvent {
    try reactor.wait(seconds: seconds, step: step, subject: subject) { () throws(Failure) -> QMPEvent? in
      if let event = try self.takeEvent(where: matches) { return event }
      if self.isClosed { throw self.closed(step: step) }
      return nil
    }
  }

  /// Takes the oldest event that `matches`, if it has come already.
  public func takeEvent(where matches: (QMPEvent) throws(Failure) -> Bool) throws(Failure) -> QMPEvent? {
    for index in events.indices where try matches(events[index]) { return events.remove(at: index) }
    return nil
  }

  /// Takes in what QEMU has sent already, without waiting.
  public func receiveWhatIsThere() throws(Failure) {
    var entry = pollfd(fd: socket.raw, events: Int16(POLLIN), revents: 0)
    while !isClosed, poll(&entry, 1, 0) > 0 { try receive() }
  }

  private func closed(step: String) -> Failure {
    Failure(step: step, subject: subject, errno: .connectionReset, reason: "QEMU closed the connection")
  }

  private func receive() throws(Failure) {
    var chunk = [UInt8](repeating: 0, count: 65536)
    let count = chunk.withUnsafeMutableBytes { recv(socket.raw, $0.baseAddress, $0.count, Int32(MSG_DONTWAIT)) }
    if count <= 0 {
      if count < 0, errno == EAGAIN || errno == EINTR { return }
      isClosed = true
      reactor.remove(socket.raw)
      return
    }
    let messages: [QMPMessage]
    do { messages = try reader.read(chunk[..<count]) } catch {
      let reason =
        switch error {
        case .notJSON(let start): "not JSON: \(start)"
        case .noVersion: "its greeting names no version"
        case .tooLong: "a message of over \(QMPReader.longest >> 20) MiB"
        }
      throw Failure(step: "read QMP of", subject: subject, reason: reason)
    }
    for message in messages {
      switch message {
      case .greeting(let version): self.version = version
      case .event(var event):
        eventCount += 1
        (event.order, event.heard) = (eventCount, Instant.now())
        events.append(event)
      case .reply(let identifier, let reply): replies[identifier] = reply
      // Not about what was sent here, if another sent something before.
      case .protocolError where isTakenOver: break
      case .protocolError(let reason): throw Failure(step: "QMP to", subject: subject, reason: reason)
      case .other: break
      }
    }
  }
}

extension QEMUVersion {
  /// From what `--version` prints: `QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)`.
  public init?(banner: String) {
    let words = banner.split(whereSeparator: \.isWhitespace)
    guard let marker = words.firstIndex(of: "version"), marker + 1 < words.endIndex else { return nil }
    let numbers = words[marker + 1].split(separator: ".").map { Int($0) }
    guard numbers.count >= 2, let major = numbers[0], let minor = numbers[1] else { return nil }
    var package = ""
    if let start = banner.firstIndex(of: "("), let end = banner[start...].firstIndex(of: ")") {
      package = String(banner[banner.index(after: start)..<end])
    }
    self.init(major: major, minor: minor, micro: numbers.count > 2 ? numbers[2] ?? 0 : 0, package: package)
  }
}

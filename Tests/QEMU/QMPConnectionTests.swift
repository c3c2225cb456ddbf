import Glibc
import Kernel
import SystemPackage
import Testing

@testable import QEMU

/// A monitor that says what a test tells it to, without a process: what it says is in the socket before it is read.
final class ScriptedMonitor {
  static let greeting = #"{"QMP":{"version":{"qemu":{"micro":22,"minor":2,"major":7},"package":"Debian"},"capabilities":["oob"]}}"#

  let connection: QMPConnection
  private let peer: Box

  final class Box {
    var socket: OwnedFD?
    init(_ socket: consuming OwnedFD) { self.socket = consume socket }
  }

  init(_ lines: [String]) throws {
    let pair = try UnixSocket.pair()
    peer = Box(try pair.second.duplicate())
    connection = QMPConnection(try pair.first.duplicate(), subject: "the monitor", reactor: Reactor())
    try say(lines.map { $0 + "\r\n" }.joined())
  }

  func say(_ text: String) throws {
    guard case .some(let raw) = peer.socket?.raw else { return }
    if !text.isEmpty { try UnixMessage.send(Array(text.utf8), descriptor: nil, to: raw) }
  }

  func close() { peer.socket = nil }

  /// Everything that was sent to it.
  func heard() -> String {
    var bytes = [UInt8](repeating: 0, count: 65536)
    guard case .some(let raw) = peer.socket?.raw else { return "" }
    let count = recv(raw, &bytes, bytes.count, Int32(MSG_DONTWAIT))
    return String(decoding: bytes.prefix(max(0, count)), as: UTF8.self)
  }
}

@Suite struct QMPConnectionTests {
  static let greeting = ScriptedMonitor.greeting

  @Test func theGreetingTellsTheVersion() throws {
    let monitor = try ScriptedMonitor([Self.greeting, #"{"return":{},"id":1}"#])
    let version = try monitor.connection.negotiate(seconds: 1)
    #expect(version == QEMUVersion(major: 7, minor: 2, micro: 22, package: "Debian"))
    #expect(monitor.heard() == "{\"execute\":\"qmp_capabilities\",\"id\":1}\n")
  }

  struct Refusal: Sendable, CustomTestStringConvertible {
    var what: String
    var lines: [String]
    var reason: String?
    var errno: Errno?
    /// The monitor hangs up after what it said.
    var closes = false
    var testDescription: String { what }
  }

  static let greetings: [Refusal] = [
    .init(what: "silence: another client holds the monitor", lines: [], errno: .timedOut),
    .init(what: "closed at once", lines: [], reason: "closed the connection", errno: .connectionReset, closes: true),
    .init(what: "a human monitor", lines: ["QEMU 7.2.22 monitor - type 'help' for more information"], reason: "not JSON: QEMU 7.2.22 monitor"),
    .init(what: "no version", lines: [#"{"QMP":{}}"#], reason: "names no version"),
    .init(what: "a version that is no number", lines: [#"{"QMP":{"version":{"qemu":{"major":"7","minor":2}}}}"#], reason: "names no version"),
    .init(what: "capabilities are refused", lines: [greeting, #"{"id":1,"error":{"class":"GenericError","desc":"no"}}"#], reason: "no"),
    .init(what: "an event only", lines: [#"{"event":"RESUME","timestamp":{"seconds":1,"microseconds":2}}"#], errno: .timedOut),
    .init(what: "closed after the greeting", lines: [greeting], errno: .brokenPipe, closes: true),
    .init(what: "something else altogether", lines: [#"{"hello":1}"#, "[]", "1", "null"], errno: .timedOut),
  ]

  @Test(arguments: greetings) func aMonitorThatDoesNotGreetIsRefused(_ test: Refusal) throws {
    let monitor = try ScriptedMonitor(test.lines)
    if test.closes { monitor.close() }
    let failure = #expect(throws: Failure.self) { _ = try monitor.connection.negotiate(seconds: 0.05) }
    if let reason = test.reason { #expect(failure?.reason?.contains(reason) == true, "\(String(describing: failure))") }
    if let errno = test.errno { #expect(failure?.errno == errno, "\(String(describing: failure))") }
  }

  static let replies: [Refusal] = [
    .init(what: "an error", lines: [#"{"id":1,"error":{"class":"GenericError","desc":"it is not there"}}"#], reason: "it is not there"),
    .init(what: "an error without description", lines: [#"{"id":1,"error":{}}"#], reason: "without a description"),
    .init(what: "neither return nor error", lines: [#"{"id":1}"#], reason: "without a description"),
    .init(what: "an error without id", lines: [#"{"error":{"class":"GenericError","desc":"JSON parse error"}}"#], reason: "JSON parse error"),
    .init(what: "another's reply", lines: [#"{"return":{},"id":2}"#, #"{"return":{},"id":"1"}"#, #"{"return":{}}"#], errno: .timedOut),
    .init(what: "garbage", lines: ["}{"], reason: "not JSON: }{"),
    .init(what: "half a line, then the end", lines: [], reason: "closed the connection", errno: .connectionReset, closes: true),
    .init(what: "nothing", lines: [], errno: .timedOut),
    .init(what: "deep nesting", lines: [String(repeating: "[", count: 100_000)], reason: "not JSON"),
  ]

  @Test(arguments: replies) func aReplyThatIsNoneIsAFailure(_ test: Refusal) throws {
    let monitor = try ScriptedMonitor(test.lines)
    if test.closes {
      try monitor.say(#"{"return":{"#)
      monitor.close()
    }
    let failure = #expect(throws: Failure.self) { _ = try monitor.connection.reply(to: 1, command: "stop", seconds: 0.05) }
    if let reason = test.reason { #expect(failure?.reason?.contains(reason) == true, "\(String(describing: failure))") }
    if let errno = test.errno { #expect(failure?.errno == errno, "\(String(describing: failure))") }
  }

  @Test func eventsBeforeAReplyAreKeptInOrder() throws {
    let event = #"{"event":"%","data":{"n":1},"timestamp":{"seconds":2,"microseconds":5}}"#
    func named(_ name: String) -> String { event.replacing("%", with: name) }
    let monitor = try ScriptedMonitor([named("STOP"), named("MIGRATION"), #"{"return":{"status":"running"},"id":1}"#, named("RESUME")])
    #expect(try monitor.connection.execute("query-status", seconds: 1)["status"] == "running")
    #expect(monitor.connection.events.map(\.name) == ["STOP", "MIGRATION", "RESUME"])
    #expect(monitor.connection.events[0].microseconds == 2_000_005)
    // Taken by name, the others stay.
    #expect(try monitor.connection.awaitEvent(step: "await", seconds: 0) { $0.name == "RESUME" }.data["n"] == 1)
    #expect(try monitor.connection.takeEvent { $0.name == "RESUME" } == nil)
    #expect(monitor.connection.events.map(\.name) == ["STOP", "MIGRATION"])
    let failure = #expect(throws: Failure.self) { _ = try monitor.connection.awaitEvent(step: "await", seconds: 0.01) { $0.name == "RESUME" } }
    #expect(failure?.errno == .timedOut)
  }

  /// A line as QEMU writes it, and whether it is read.
  static let tales: [(line: String, isRead: Bool)] = [
    (#"{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "SPICE_CONNECTED", "data": {"client": {"port": "1"}}}"#, false),
    (#"{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "VNC_DISCONNECTED"}"#, false),
    (#"{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "STOP"}"#, true),
    (#"{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "GUEST_PANICKED", "data": {"why": ", \"event\": \"SPICE_"}}"#, true),
    // In another order it is read; nothing is guessed.
    (#"{"event": "SPICE_CONNECTED", "timestamp": {"seconds": 1, "microseconds": 2}}"#, true),
    (#"{"return": "}, \"event\": \"SPICE_CONNECTED\"", "id": 7}"#, true),
    (#"{"timestamp": {"seconds": 1}, "id": 7, "return": {"event": "SPICE_CONNECTED"}}"#, true),
  ]

  @Test(arguments: tales) func whatDisplaysTellOfTheirClientsIsPassedOver(line: String, isRead: Bool) throws {
    var reader = QMPReader()
    #expect(try reader.read(Array((line + "\r\n").utf8)).count == (isRead ? 1 : 0))
  }

  @Test func repliesComeInAnyOrder() throws {
    let monitor = try ScriptedMonitor([#"{"return":"b","id":2}"#, #"{"return":"a","id":1}"#])
    let first = try monitor.connection.send("a")
    let second = try monitor.connection.send("b", ["x": 1])
    #expect(try monitor.connection.reply(to: first, command: "a", seconds: 1) == "a")
    #expect(try monitor.connection.reply(to: second, command: "b", seconds: 1) == "b")
    #expect(monitor.heard() == "{\"execute\":\"a\",\"id\":1}\n{\"arguments\":{\"x\":1},\"execute\":\"b\",\"id\":2}\n")
  }

  /// What was said before the end is still heard: a QEMU's last event tells why it went.
  @Test func theLastWordsOfAQEMUAreHeard() throws {
    let monitor = try ScriptedMonitor([#"{"event":"SHUTDOWN"}"#, #"{"return":{},"id":1}"#])
    let identifier = try monitor.connection.send("quit")
    monitor.close()
    #expect(try monitor.connection.reply(to: identifier, command: "quit", seconds: 1) == .object([:]))
    let failure = #expect(throws: Failure.self) { _ = try monitor.connection.awaitEvent(step: "await", seconds: 1) { $0.name == "RESUME" } }
    #expect(failure?.errno == .connectionReset)
    #expect(monitor.connection.events.map(\.name) == ["SHUTDOWN"])
    #expect(monitor.connection.isClosed)
    #expect(throws: Failure.self) { _ = try monitor.connection.execute("stop") }
  }

  @Test(arguments: [1, 100, 65535, 65536, 100_000]) func linesOfAnyLengthArePutTogether(length: Int) throws {
    let text = String(repeating: "x", count: length)
    let monitor = try ScriptedMonitor([])
    try monitor.say(#"{"return":"\#(text)","#)
    try monitor.say("\"id\":1}\n\n \r\n")
    #expect(try monitor.connection.reply(to: 1, command: "x", seconds: 5).string?.count == length)
  }
}

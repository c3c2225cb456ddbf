import Glibc
import Testing

@testable import Kernel

@Suite struct ConnectRedirectionTests {
  typealias Redirection = ConnectRedirection

  static func ipv4(_ host: [UInt8], _ port: UInt16) -> [UInt8] {
    [2, 0, UInt8(port >> 8), UInt8(port & 0xff)] + host + [UInt8](repeating: 0, count: 8)
  }
  static func ipv6(_ host: [UInt8], _ port: UInt16, zone: UInt8 = 0) -> [UInt8] {
    [10, 0, UInt8(port >> 8), UInt8(port & 0xff), 0, 0, 0, 0] + host + [zone, 0, 0, 0]
  }
  static func name(_ name: String, padding: Int = 0) -> [UInt8] { [1, 0, 0] + Array(name.utf8) + [UInt8](repeating: 0, count: padding) }
  static let mapped = [UInt8](repeating: 0, count: 10) + [0xff, 0xff]
  static let local: [UInt8] = [127, 0, 0, 1]
  static let other = [UInt8](repeating: 0x20, count: 16)

  static let cases: [(given: [UInt8], target: Redirection.Target, standIn: Redirection.StandIn, becomes: [UInt8]?)] = [
    (ipv4([192, 0, 2, 1], 4444), .port(4444, host: "192.0.2.1"), .port(700), ipv4(local, 700)),
    (ipv4([192, 0, 2, 1], 4444), .port(4444, host: "example.org"), .port(700), ipv4(local, 700)),
    (ipv4([192, 0, 2, 1], 4444), .port(4444, host: ""), .port(700), ipv4(local, 700)),
    // Another port, another host.
    (ipv4([192, 0, 2, 1], 4445), .port(4444, host: "192.0.2.1"), .port(700), nil),
    (ipv4([192, 0, 2, 2], 4444), .port(4444, host: "192.0.2.1"), .port(700), nil),
    (ipv4([192, 0, 2, 2], 4445), .port(4444, host: "localhost"), .port(700), nil),
    // A socket for IPv6 stays one. An address may be written in several ways.
    (ipv6(other, 1), .port(1, host: "2020:2020:2020:2020:2020:2020:2020:2020"), .port(700), ipv6(mapped + local, 700)),
    (ipv6(other, 1, zone: 3), .port(1, host: "h"), .port(700), ipv6(mapped + local, 700)),
    (ipv6([UInt8](repeating: 0, count: 15) + [1], 1), .port(1, host: "0:0:0:0:0:0:0:1"), .port(700), ipv6(mapped + local, 700)),
    (ipv6(mapped + [192, 0, 2, 1], 1), .port(1, host: "192.0.2.1"), .port(700), ipv6(mapped + local, 700)),
    (ipv6(other, 1), .port(1, host: "::1"), .port(700), nil),
    // Abstract names, short or filled up; not paths, nor what begins alike.
    (name("peer"), .abstract("peer"), .abstract("moult"), name("moult")),
    (name("peer", padding: 103), .abstract("peer"), .abstract("moult"), name("moult")),
    (name("peers"), .abstract("peer"), .abstract("moult"), nil),
    (name("pee"), .abstract("peer"), .abstract("moult"), nil),
    ([1, 0] + Array("peer".utf8), .abstract("peer"), .abstract("moult"), nil),
    ([1, 0], .abstract(""), .abstract("moult"), nil),
    // What connect(2) itself would refuse, or is of another family.
    (Array(ipv4(local, 1).prefix(7)), .port(1, host: nil), .port(700), nil),
    (Array(ipv6(other, 1).prefix(23)), .port(1, host: nil), .port(700), nil),
    ([0, 0] + ipv4(local, 1).dropFirst(2), .port(1, host: nil), .port(700), nil),
    ([], .port(1, host: nil), .port(700), nil),
  ]

  @Test(arguments: cases)
  func anAddressIsReplacedIfItIsTheOne(given: [UInt8], target: Redirection.Target, standIn: Redirection.StandIn, becomes: [UInt8]?) {
    #expect(Redirection(target, to: standIn).replacement(for: given) == becomes)
  }

  @Test func eachLeadsOneConnectionFirst() {
    let all = [Redirection(.port(1, host: "h"), to: .port(700)), Redirection(.port(2, host: nil), to: .port(701)), Redirection(.port(1, host: "h"), to: .port(702))].map(CallRedirection.connect)
    func choice(_ led: Set<Int>, _ port: UInt16 = 1) -> Int? { Redirection.choose(all, led: led, for: Self.ipv4(Self.local, port))?.index }
    #expect(choice([]) == 0 && choice([0]) == 2 && choice([2]) == 0)
    // One that is made again is not let through.
    #expect(choice([0, 2]) == 2 && choice([], 2) == 1 && choice([1], 2) == 1)
    #expect(choice([], 3) == nil)
  }
}

/// Real processes, whose tracer needs no privilege.
@Suite(.serialized) struct TracedStartTests {
  /// A process whose program begins traced.
  private final class Start {
    let tracee: Tracee
    let start: TracedStart
    let reactor = Reactor()
    init(_ words: [String], _ redirections: [ConnectRedirection], _ controls: [ControlRedirection] = []) throws {
      tracee = try Tracee("begin", words)
      try tracee.settles()
      start = try TracedStart(tracee.pid, redirections.map(CallRedirection.connect) + controls.map(CallRedirection.control))
      tracee.say(".", on: .first)
    }
    func run(seconds: Double = 20) throws { try start.run(reactor, seconds: seconds) { "number \($0)" } }

    /// It goes on without a tracer.
    func isFree() throws -> Bool {
      let tasks = try Files.names(in: "/proc/\(tracee.pid)/task")
      return try tasks.compactMap { pid_t($0) }.allSatisfy { try ProcFS.tracer(of: $0) == nil }
    }
  }
  /// A port that nobody listens at.
  private static func closedPort() throws -> UInt16 { try LoopbackListener().port }

  static let surroundings: [[String]] = [[], ["alarms"], ["threads"], ["alarms", "threads"]]

  @Test(arguments: surroundings) func connectionsAreLedElsewhereAndTheProcessGoesOn(words: [String]) throws {
    let standIn = try LoopbackListener()
    let stranger = try LoopbackListener()
    let name = "moult-test-\(getpid())"
    let listener = try UnixSocket.listen(abstract: name)
    defer { withExtendedLifetime(listener) {} }
    let closed = try Self.closedPort()
    let connections = ["u:\(closed)", "4:\(stranger.port)", "4:\(closed)", "t6:\(closed)", "t@peer-of-nobody"]
    let start = try Start(
      words + connections,
      [
        .init(.port(closed, host: "127.0.0.1"), to: .port(standIn.port)), .init(.port(closed, host: "a name"), to: .port(standIn.port)),
        .init(.abstract("peer-of-nobody"), to: .abstract(name)),
      ])
    try start.run()
    // Datagrams, and what has another address, go where they went.
    let expected = ["u:\(closed) is \(closed)", "4:\(stranger.port) is \(stranger.port)", "4:\(closed) is \(standIn.port)", "6:\(closed) is \(standIn.port)", "@peer-of-nobody is @\(name)"]
    for line in expected { #expect(start.tracee.line() == line) }
    #expect(try start.isFree())
    start.tracee.say("it", on: .first)
    #expect(start.tracee.line() == "got it")
  }

  static let descriptor: CInt = 5
  static func control(_ value: UInt8, becomes other: UInt8, of descriptor: CInt = descriptor, request: UInt32 = 0x5421 /* FIONBIO */) -> ControlRedirection {
    ControlRedirection(descriptor: descriptor, request: request, argument: [value, 0, 0, 0], replacement: [other, 0, 0, 0])
  }

  @Test(arguments: surroundings) func anIoctlGetsAnotherArgument(words: [String]) throws {
    let start = try Start(words + ["i2", "i0", "i1"], [], [Self.control(1, becomes: 0)])
    try start.run()
    // Another value is not the one.
    for line in ["i2 is 1", "i0 is 0", "i1 is 0"] { #expect(start.tracee.line() == line) }
    #expect(try start.isFree())
    start.tracee.say("it", on: .first)
    #expect(start.tracee.line() == "got it")
  }

  @Test(arguments: [control(1, becomes: 0, of: 4), control(1, becomes: 0, request: 0x5422)])
  func anIoctlOfAnotherDescriptorOrKindIsLetThrough(control: ControlRedirection) throws {
    let closed = try Self.closedPort()
    let standIn = try LoopbackListener()
    let start = try Start(["i1", "4:\(closed)"], [.init(.port(closed, host: nil), to: .port(standIn.port))], [control])
    // Its connection is led, that it never does.
    #expect { try start.run(seconds: 2) } throws: { ($0 as? Failure)?.subject == "number 1" }
    #expect(start.tracee.line() == "i1 is 1")
  }

  @Test func theCIDOfAVsockDevice() {
    let control = ControlRedirection(cid: 3, of: 9, becomes: 0x8000_0001)
    #expect(control.descriptor == 9 && control.request == 0x4008_AF60)
    #expect(control.argument == [3, 0, 0, 0, 0, 0, 0, 0] && control.replacement == [1, 0, 0, 0x80, 0, 0, 0, 0])
  }

  @Test func oneThatEndsBeforeIsCollected() throws {
    let start = try Start([], [.init(.port(1, host: nil), to: .port(2))])
    start.tracee.say("it", on: .first)
    #expect { try start.run() } throws: { ($0 as? Failure)?.errno == .noSuchProcess }
  }

  @Test(arguments: [[], ["threads"]]) func oneThatDoesNotConnectIsKilledAndSaidSo(words: [String]) throws {
    let standIn = try LoopbackListener()
    let start = try Start(words + ["4:\(standIn.port)"], [.init(.port(standIn.port, host: nil), to: .port(standIn.port)), .init(.abstract("nobody"), to: .abstract("none"))])
    #expect { try start.run(seconds: 2) } throws: { error in
      guard let failure = error as? Failure else { return false }
      return failure.errno == .timedOut && failure.subject == "number 1"
    }
    #expect(kill(start.tracee.pid, 0) != 0)
  }

  @Test func aStandInThatIsGoneIsAFailure() throws {
    let wanted = try LoopbackListener()
    let gone = try Self.closedPort()
    let start = try Start(["4:\(wanted.port)"], [.init(.port(wanted.port, host: nil), to: .port(gone))])
    #expect { try start.run() } throws: { ($0 as? Failure)?.errno == .connectionRefused }
  }

  /// Whoever gives up before, or is killed, leaves no process that stands still.
  @Test func aStartThatIsGivenUpEndsTheProcess() throws {
    var start: Start? = try Start([], [.init(.port(1, host: nil), to: .port(2))])
    let tracee = try #require(start?.tracee)
    start = nil
    #expect(tracee.line() == "")
  }

  @Test func whatIsTracedAlreadyIsNotStarted() throws {
    let tracee = try Tracee("begin")
    let first = try TracedStart(tracee.pid, [])
    defer { withExtendedLifetime(first) {} }
    #expect { _ = try TracedStart(tracee.pid, []) } throws: { ($0 as? Failure)?.hint?.contains("tracing is forbidden") ?? false }
  }
}

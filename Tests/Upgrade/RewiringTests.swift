@testable import Kernel
import Testing

@testable import QEMU
@testable import Upgrade

/// How a VM's taps, ports and live connections get to the new QEMU: as values, without any.
@Suite struct RewiringTests {
  static let plan = Fixture.plan(Fixture.networked())

  @Test func everySocketAndQueueGetsANumber() {
    #expect(Self.plan.blockers == [])
    let rewiring = Self.plan.rewiring
    // 3 and 4 are the monitor and the stream, 5 is the guest's RAM, 6 would be a working directory.
    #expect(rewiring.queues.map { [$0.source, $0.standIn, $0.given] } == [[16, 7, 8], [17, 9, 10]])
    #expect(rewiring.sockets.map { [$0.source, $0.given] } == [[11, 11], [12, 12], [14, 13], [15, 14]])
    #expect(rewiring.sockets.map(\.isConnection) == [false, false, false, true])
    #expect(Self.plan.steps.map(\.name).firstIndex(of: .rewire) == Self.plan.steps.map(\.name).firstIndex(of: .verify).map { $0 - 1 })
    #expect(Self.plan.steps.first { $0.name == .rewire }?.why == "1 tap, 3 listening sockets, 1 live connection: the new QEMU gets the very ones")
  }

  @Test func theTwinIsStartedWithStandIns() throws {
    let network = Self.plan.rewiring.substitution(Self.plan.observation.network, id: "u1", ports: [40001, 40002])
    let words = LaunchPlan.arguments(Self.plan, network: network)
    for expected in [":34101", "tap,id=n0,fds=7:9", "tcp:127.0.0.1:40002,server=on,wait=off"] { #expect(words.contains(expected), "\(words)") }
    // The VM's own words are what the next upgrade starts from.
    let own = LaunchPlan.arguments(Self.plan)
    let entry = KeptWords.entry(own, started: words)
    #expect(try KeptWords.words(in: ["A=b", entry], started: words) == own)
    #expect(try KeptWords.words(in: ["A=b", entry], started: own) == nil, "another process's")
    #expect(try KeptWords.words(in: ["MOULT_COMMAND_LINE=x", "MOULT_COMMAND_LINE="], started: words) == nil)
    for damaged in [String(entry.dropLast()), String(entry.prefix { $0 != "[" }) + "[]", String(entry.prefix { $0 != "[" }) + "[1]"] {
      #expect(throws: Failure.self, "its own, and damaged") { try KeptWords.words(in: [damaged], started: words) }
    }
    #expect(KeptWords.without(["A=b", entry]) == ["A=b"])
  }

  @Test func theTwinLivesInTheNetworkOfTheVM() {
    #expect(LaunchPlan.sandbox(Self.plan).namespaces == [.mount, .ipc, .uts])
    #expect(LaunchPlan.sandbox(Fixture.plan(Fixture.networked(), Fixture.request(root: "/tree"))).namespaces == [.mount, .ipc, .uts])
  }

  static let refused: [(String, String)] = [
    ("tcp:127.0.0.1:0,server=on,wait=off", "which socket of the running QEMU this is cannot be told"),
    ("tcp:127.0.0.1:telnet,server=on,wait=off", "which socket of the running QEMU this is cannot be told"),
  ]

  @Test(arguments: refused) func aPortThatCannotBeFoundIsRefused(value: String, reason: String) {
    var observation = Fixture.observation(Fixture.arguments + ["-debugcon", value])
    observation.live.chardevs.append("debugcon")
    #expect(Fixture.plan(observation).blockers.map(\.reason) == [reason])
  }

  // MARK: Finding them

  struct Process {
    var descriptors: [OpenDescriptor] = []
    var interfaces: [Int32: (name: String, flags: Tap.Flags)] = [:]
    mutating func add(socket inode: UInt64, as number: Int32) {
      let status = try! Files.status("/dev/null")
      descriptors.append(OpenDescriptor(number: number, target: "socket:[\(inode)]", flags: 0, position: 0, status: status))
    }
    func network(_ words: String, started: String? = nil, internet: [InternetSocketEntry] = [], unix: [UnixSocketEntry] = []) -> ObservedNetwork {
      func line(_ words: String) -> CommandLine { CommandLine(argv: ["qemu"] + words.split(separator: " ").map(String.init)) }
      return ObservedNetwork(
        line(words), started: line(started ?? words), descriptors: descriptors, internet: internet, unix: unix, interfaces: interfaces)
    }
  }

  static func tcp(_ local: String, _ port: UInt16, inode: UInt64, to remote: UInt16 = 0) -> InternetSocketEntry {
    InternetSocketEntry(
      transport: .tcp, local: .init(host: local, port: port), remote: .init(host: "", port: remote), isListening: remote == 0, inode: inode)
  }

  @Test func listenersAreFoundByTheirPort() {
    var process = Process()
    for inode in UInt64(1)...4 { process.add(socket: inode, as: 20 + Int32(inode)) }
    let internet = [
      Self.tcp("0.0.0.0", 5901, inode: 1), Self.tcp("::", 5901, inode: 2), Self.tcp("10.0.0.1", 5901, inode: 3, to: 999),
      // Another process's, and a socket that nobody has accepted yet.
      Self.tcp("127.0.0.1", 5901, inode: 77), Self.tcp("10.0.0.1", 5901, inode: 0, to: 998),
      Self.tcp("127.0.0.1", 4445, inode: 4),
    ]
    let network = process.network("-vnc :1 -serial tcp:127.0.0.1:4444,server=on,to=4450", internet: internet)
    #expect(network.unresolved.isEmpty)
    #expect(network.listeners.map { $0.sockets.map(\.descriptor) } == [[21, 22], [24]])
    #expect(network.listeners.map { $0.connections.map(\.descriptor) } == [[23], []])
    #expect(network.listeners[0].carried == nil, "VNC negotiates")
    #expect(network.inodes == [1, 2, 3, 4])
  }

  @Test func aPortAtWhichNothingListensIsUnresolved() {
    let network = Process().network("-vnc :1", internet: [Self.tcp("0.0.0.0", 5901, inode: 1)])
    #expect(network.unresolved.map(\.why) == ["QEMU does not listen at port 5901"])
  }

  /// Words, those that the process was started with, its taps by descriptor; the queues that are found.
  static let taps: [(String, String?, [Int32: String], [[Int32]])] = [
    ("-netdev tap,id=a,ifname=t0 -netdev tap,id=b,ifname=t1", nil, [9: "t1", 8: "t0"], [[8], [9]]),
    ("-netdev tap,id=a,ifname=t0,queues=2", nil, [9: "t0", 8: "t0"], [[8, 9]]),
    ("-netdev tap,id=a,fd=9 -netdev tap,id=b", nil, [8: "tap1", 9: "tap0"], [[9], [8]]),
    ("-netdev bridge,id=a,br=br0", nil, [8: "tap0"], [[8]]),
    // After an upgrade: by the numbers of the upgrade, whatever the VM's own words say.
    ("-netdev tap,id=a,fd=33 -netdev bridge,id=b", "-netdev tap,id=a,fd=6 -netdev tap,id=b,fd=8", [6: "x", 8: "y"], [[6], [8]]),
    // Two without a name cannot be told apart; a tap that is gone is not found.
    ("-netdev tap,id=a -netdev tap,id=b", nil, [8: "tap0", 9: "tap1"], []),
    ("-netdev tap,id=a,ifname=t0", nil, [:], []),
  ]

  @Test(arguments: taps) func tapsAreFound(words: String, started: String?, open: [Int32: String], found: [[Int32]]) {
    var process = Process()
    process.interfaces = open.mapValues { ($0, [.tap]) }
    let network = process.network(words, started: started)
    #expect(network.taps.map(\.descriptors) == found)
    #expect(network.unresolved.isEmpty == !found.isEmpty)
  }
}

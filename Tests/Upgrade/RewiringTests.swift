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
    observation.foreign = [ForeignDescriptor(number: 20, what: "a network socket")]
    #expect(Fixture.plan(observation).blockers.map(\.reason) == [reason], "said once")
  }

  // MARK: Finding them

  struct Process {
    var descriptors: [OpenDescriptor] = []
    var interfaces: [Int32: (name: String, flags: Tap.Flags)] = [:]
    mutating func add(socket inode: UInt64, as number: Int32) {
      let status = try! Files.status("/dev/null")
      descriptors.append(OpenDescriptor(number: number, target: "socket:[\(inode)]", flags: 0, position: 0, status: status))
    }
    func network(_ words: String, started: String? = nil, internet: [InternetSocketEntry] = [], unix: [UnixSocketEntry] = []) throws -> ObservedNetwork {
      func line(_ words: String) -> CommandLine { CommandLine(argv: ["qemu"] + words.split(separator: " ").map(String.init)) }
      return try ObservedNetwork(
        line(words), started: line(started ?? words), descriptors: descriptors, internet: internet, unix: unix, interfaces: interfaces
      ) { path in (path, try! Files.status("/dev/null")) }
    }
  }

  static func tcp(_ local: String, _ port: UInt16, inode: UInt64, to remote: UInt16 = 0) -> InternetSocketEntry {
    InternetSocketEntry(
      transport: .tcp, local: .init(host: local, port: port), remote: .init(host: "", port: remote), isListening: remote == 0, inode: inode)
  }

  @Test func listenersAreFoundByTheirPort() throws {
    var process = Process()
    for inode in UInt64(1)...4 { process.add(socket: inode, as: 20 + Int32(inode)) }
    let internet = [
      Self.tcp("0.0.0.0", 5901, inode: 1), Self.tcp("::", 5901, inode: 2), Self.tcp("10.0.0.1", 5901, inode: 3, to: 999),
      // Another process's, and a socket that nobody has accepted yet.
      Self.tcp("127.0.0.1", 5901, inode: 77), Self.tcp("10.0.0.1", 5901, inode: 0, to: 998),
      Self.tcp("127.0.0.1", 4445, inode: 4),
    ]
    let network = try process.network("-vnc :1 -serial tcp:127.0.0.1:4444,server=on,to=4450", internet: internet)
    #expect(network.unresolved.isEmpty)
    #expect(network.listeners.map { $0.sockets.map(\.descriptor) } == [[21, 22], [24]])
    #expect(network.listeners.map { $0.connections.map(\.descriptor) } == [[23], []])
    #expect(network.listeners[0].carried == nil, "VNC negotiates")
    #expect(network.inodes == [1, 2, 3, 4])
  }

  static func udp(_ local: String, _ port: UInt16, inode: UInt64, from remote: UInt16 = 0) -> InternetSocketEntry {
    InternetSocketEntry(transport: .udp, local: .init(host: local, port: port), remote: .init(host: "", port: remote), isListening: false, inode: inode)
  }

  @Test func datagramsAreFoundByEitherPort() throws {
    var process = Process()
    for inode in UInt64(1)...4 { process.add(socket: inode, as: 20 + Int32(inode)) }
    let internet = [
      Self.udp("127.0.0.1", 6, inode: 1), Self.udp("127.0.0.1", 40000, inode: 2, from: 5), Self.udp("230.0.0.1", 7, inode: 3),
      // Of another process.
      Self.udp("230.0.0.1", 7, inode: 9), Self.udp("127.0.0.1", 40001, inode: 8, from: 5),
    ]
    let words = "-serial udp:h:1@:6 -serial udp:h:5 -netdev socket,id=n,mcast=230.0.0.1:7"
    #expect(try process.network(words, internet: internet).listeners.map { $0.sockets.map(\.descriptor) } == [[21], [22], [23]])
    let two = internet + [Self.udp("127.0.0.1", 40002, inode: 4, from: 5)]
    #expect(try process.network(words, internet: two).unresolved.map(\.why) == ["QEMU does not listen at UDP from port 5"])
  }

  /// Given to the wrong one, the guest's frames would go out elsewhere.
  @Test(arguments: [
    ("-netdev socket,id=a,mcast=230.0.0.1:7,localaddr=127.0.0.1 -netdev socket,id=b,mcast=230.0.0.1:7,localaddr=192.0.2.2", udp("230.0.0.1", 7, inode: 1), udp("230.0.0.1", 7, inode: 2)),
    ("-chardev udp,id=a,host=h,port=1,localaddr=127.0.0.1,localport=7 -chardev udp,id=b,host=h,port=1,localaddr=127.0.0.2,localport=7", udp("127.0.0.1", 7, inode: 1), udp("127.0.0.2", 7, inode: 2)),
  ])
  func whatTwoCouldOwnIsNobodys(words: String, first: InternetSocketEntry, second: InternetSocketEntry) throws {
    var process = Process()
    for inode in UInt64(1)...2 { process.add(socket: inode, as: 20 + Int32(inode)) }
    let network = try process.network(words, internet: [first, second])
    #expect(network.unresolved.map(\.words) == words.split(separator: " -").map { $0.hasPrefix("-") ? String($0) : "-" + $0 })
    #expect(Rewiring(network, from: 100).isEmpty)
  }

  @Test func socketsOfAUserNetworkAreFound() throws {
    var process = Process()
    for inode in UInt64(1)...8 { process.add(socket: inode, as: 20 + Int32(inode)) }
    let internet = [
      Self.tcp("127.0.0.1", 80, inode: 1), Self.tcp("10.0.0.1", 80, inode: 2), Self.udp("0.0.0.0", 53, inode: 3),
      // A client, two connections of the guest, and a port that is forwarded by nobody's words.
      Self.tcp("127.0.0.1", 80, inode: 4, to: 999), Self.tcp("10.0.0.9", 33000, inode: 5, to: 443), Self.udp("0.0.0.0", 40000, inode: 6),
      Self.tcp("0.0.0.0", 8080, inode: 7),
    ]
    let rules = "hostfwd=tcp:127.0.0.1:80-:80,hostfwd=udp::53-:53"
    let network = try process.network("-netdev user,id=u,\(rules)", internet: internet)
    #expect(network.unresolved.isEmpty)
    #expect(network.listeners.map { $0.sockets.map(\.descriptor) } == [[21], [23]])
    #expect(network.listeners.map { $0.connections.map(\.descriptor) } == [[24], []])
    // Number 8 is in no table: libslirp pings, too.
    #expect(network.passing == [5, 6, 8])
    #expect(try process.network("-netdev user,id=u,restrict=on", internet: internet).passing == [])
    #expect(try process.network("-vga std", internet: internet).passing == [4, 5, 6, 3, 8], "QEMU adds a card by itself")
  }

  @Test func whatIsForwardedMustBeWhatTheArgumentsSay() {
    var observation = Fixture.observation()
    observation.live.forwards = ["port 2222"]
    #expect(Fixture.plan(observation).blockers.map(\.reason) == ["the ports that are forwarded now (port 2222) are not those of the arguments"])
  }

  @Test func aPortAtWhichNothingListensIsUnresolved() throws {
    let network = try Process().network("-vnc :1", internet: [Self.tcp("0.0.0.0", 5901, inode: 1)])
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

  @Test(arguments: taps) func tapsAreFound(words: String, started: String?, open: [Int32: String], found: [[Int32]]) throws {
    var process = Process()
    process.interfaces = open.mapValues { ($0, [.tap]) }
    let network = try process.network(words, started: started)
    #expect(network.taps.map(\.descriptors) == found)
    #expect(network.unresolved.isEmpty == !found.isEmpty)
  }

  /// Words, descriptors of /dev/vhost-net; the taps whose cards the kernel serves, or nil if that cannot be told.
  static let vhosts: [(String, Int, [Bool]?)] = [
    ("-netdev tap,id=a,ifname=t0,vhost=on -netdev tap,id=b,ifname=t1", 1, [true, false]),
    ("-netdev tap,id=a,ifname=t0,vhostfd=9 -netdev tap,id=b,ifname=t1,vhostforce=on", 2, [true, true]),
    // QEMU could open none, and has only warned.
    ("-netdev tap,id=a,ifname=t0,vhost=on -netdev tap,id=b,ifname=t1", 0, [false, false]),
    ("-netdev tap,id=a,ifname=t0 -netdev tap,id=b,ifname=t1", 1, nil),
    ("-netdev tap,id=a,ifname=t0,vhost=on -netdev tap,id=b,ifname=t1,vhost=on", 1, nil),
  ]

  @Test(arguments: vhosts) func cardsThatTheKernelServesAreFound(words: String, count: Int, served: [Bool]?) throws {
    var process = Process()
    process.interfaces = [8: ("t0", [.tap]), 9: ("t1", [.tap])]
    for number in 0..<count {
      var status = try Files.status("/dev/null")
      status.specialDevice = DeviceNumber.make(major: 10, minor: 238)
      process.descriptors.append(OpenDescriptor(number: 30 + Int32(number), target: "/dev/vhost-net", flags: 0, position: 0, status: status))
    }
    let network = try process.network(words)
    #expect(network.unresolved.isEmpty == (served != nil))
    #expect(network.vhosts == Set((0..<count).map { 30 + Int32($0) }), "accounted for: what cannot be told is said once")
    if let served { #expect(network.taps.map(\.hasVhost) == served) }
    let queues = Rewiring(network, from: 50).queues
    if count == 1, served != nil { #expect(queues.map { [$0.standIn, $0.given, $0.vhost] } == [[50, 51, 52], [53, 54, nil]]) }
  }

  // MARK: What QEMU connects to

  static func unix(_ inode: UInt64, _ path: String? = nil, to peer: UInt64) -> UnixSocketEntry {
    UnixSocketEntry(inode: inode, type: 1, state: .established, path: path, peerInode: peer)
  }

  @Test func connectionsAreFoundByTheirPeer() throws {
    var process = Process()
    for inode in UInt64(1)...5 { process.add(socket: inode, as: 20 + Int32(inode)) }
    let unix = [
      Self.unix(1, to: 11), Self.unix(11, "/run/a", to: 1), Self.unix(2, to: 12), Self.unix(12, "@b", to: 2),
      // One that QEMU has accepted, another process's, and one whose other end is gone.
      Self.unix(3, "/run/a", to: 13), Self.unix(13, to: 3), Self.unix(14, to: 15), Self.unix(15, "/run/a", to: 14),
    ]
    let internet = [Self.tcp("10.0.0.1", 4000, inode: 4, to: 44), Self.tcp("10.0.0.1", 44, inode: 5, to: 4001)]
    let words = "-nodefaults -chardev socket,id=a,path=/run/a -chardev socket,id=b,path=b,abstract=on -serial tcp:h:44 -monitor unix:/run/c,reconnect=1 -vnc :1"
    let network = try process.network(words, internet: internet + [Self.tcp("0.0.0.0", 5901, inode: 9)], unix: unix)
    #expect(network.outgoing.map { $0.socket?.descriptor } == [21, 22, 24, nil])
    #expect(network.outgoing.map(\.path) == ["/run/a", nil, nil, "/run/c"])
    #expect(network.inodes.isSuperset(of: [1, 2, 4]) && network.inodes.isDisjoint(with: [3, 5]))
  }

  @Test(arguments: [("", 1), (",reconnect=1", 1), (" -mon chardev=a,mode=control", 1), (" -mon chardev=a,mode=control -mon chardev=b,mode=control", 0)])
  func whichOfTwoToOnePeerCannotBeTold(end: String, unresolved: Int) throws {
    var process = Process()
    for inode in UInt64(1)...2 { process.add(socket: inode, as: 20 + Int32(inode)) }
    let unix = [Self.unix(1, to: 11), Self.unix(11, "/p", to: 1), Self.unix(2, to: 12), Self.unix(12, "/p", to: 2)]
    let network = try process.network("-chardev socket,id=a,path=/p -chardev socket,id=b,path=/p\(end)", unix: unix)
    #expect(network.unresolved.count == unresolved)
  }

  /// A VM with a connection that is carried over, one that begins anew, and one that is not made again.
  static func connected(root: String? = nil) -> UpgradePlan {
    let words = [
      "-chardev", "socket,id=a,path=/run/vm1/a.sock,reconnect=1", "-chardev", "socket,id=ev,path=/var/run/ev.sock,reconnect=5",
      "-mon", "chardev=ev,mode=control", "-chardev", "socket,id=b,path=/run/b.sock",
    ]
    var observation = Fixture.observation(Fixture.arguments + words)
    observation.live.chardevs += ["a", "ev", "b"]
    observation.directories[0].entries.insert("a.sock")
    let ids = ["a", "ev", "b"]
    let paths = ["a": "/run/vm1/a.sock", "ev": "/run/ev.sock", "b": "/run/b.sock"]
    for (index, peer) in observation.commandLine.outgoingConnections.enumerated() {
      let number = CInt(40 + index)
      observation.network.outgoing.append(.init(peer: peer, socket: .init(descriptor: number, inode: UInt64(number)), path: paths[ids[index]]))
    }
    return Fixture.plan(observation, Fixture.request(root: root))
  }

  @Test func peersThatAreConnectedToAgainAreCoveredForAWhile() {
    let plan = Self.connected()
    #expect(plan.blockers == [])
    #expect(plan.rewiring.peers.map { [$0.source, $0.given] } == [[40, 7], [42, 8]])
    #expect(plan.warnings.contains("QEMU's connection to /var/run/ev.sock (the chardev ev) ends with the old QEMU; the new one makes another within 5.0 s"))
    #expect(plan.stages.first { $0.directory == "/run/vm1" }?.carried == ["a.sock"])
    let operations = LaunchPlan.sandbox(plan) { $0 == 0 ? "/run/moult/k/peer0" : nil }.operations
    #expect(operations.suffix(2) == [.bind(source: "/run/moult/k/peer0", target: "/run/vm1/a.sock"), .hide(path: "/run/ev.sock")])
    // The third is told another address: nobody connects there again.
    #expect(LaunchPlan.covers(plan).map(\.path) == ["/run/vm1/a.sock", "/run/ev.sock"])
    // In a tree, what is connected to again must be there when it is another socket by then.
    let tree = LaunchPlan.sandbox(Self.connected(root: "/tree")).operations
    #expect(tree.contains(.bind(source: "/run", target: "/run", recursive: true, readOnly: true)))
    #expect(tree.contains(.symbolicLink(path: "/var/run", target: "/run")))
    #expect(!tree.contains(.bind(source: "/run/vm1", target: "/run/vm1")))
  }
}

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

  // MARK: Back ends

  /// The sockets of QEMU are 1 to 3, with the descriptors 21 to 23; the emulator's 11 to 13; 1 is the connection.
  static let emulators: [(sockets: [UnixSocketEntry], version: TPMStandIn.Version?, channels: [CInt])] = [
    ([unix(1, to: 11), unix(11, "/run/tpm", to: 1), unix(2, to: 12), unix(12, to: 2)], .v2_0, [22]),
    // One of the VM's that goes elsewhere, and one that has a name.
    ([unix(1, to: 11), unix(11, "/run/tpm", to: 1), unix(2, to: 12), unix(3, to: 99), unix(12, to: 2)], .v1_2, [22]),
    ([unix(1, to: 11), unix(11, "/run/tpm", to: 1), unix(2, to: 12), unix(3, "/run/x", to: 13)], .v2_0, [22]),
    // None, two, and a TPM of which the version is not known.
    ([unix(1, to: 11), unix(11, "/run/tpm", to: 1), unix(2, to: 99)], .v2_0, []),
    ([unix(1, to: 11), unix(11, "/run/tpm", to: 1), unix(2, to: 12), unix(3, to: 13)], .v2_0, []),
    ([unix(1, to: 11), unix(11, "/run/tpm", to: 1), unix(2, to: 12)], nil, [22]),
    // The emulator has ended.
    ([unix(2, to: 12)], .v2_0, []),
  ]

  @Test(arguments: emulators) func theConnectionsOfATPMAreFound(sockets: [UnixSocketEntry], version: TPMStandIn.Version?, channels: [CInt]) throws {
    var process = Process()
    for inode in UInt64(1)...3 { process.add(socket: inode, as: 20 + Int32(inode)) }
    let words = "-chardev socket,id=c,path=/run/tpm -tpmdev emulator,id=t,chardev=c -device tpm-tis,tpmdev=t"
    var network = try process.network(words, unix: sockets)
    try network.findBackEnds(
      CommandLine(argv: ["qemu"] + words.split(separator: " ").map(String.init)), ObservedNetwork.numbers(process.descriptors), unix: sockets,
      holder: { ("swtpm", $0 == 11 ? [11, 12, 13] : [], false) }, version: { $0 == "tpm-tis" ? version : nil }, devices: { [] })
    #expect(network.outgoing.map { $0.channels.map(\.descriptor) } == [channels])
    #expect(network.unresolved.isEmpty == (network.outgoing[0].backEnd != nil))
    #expect(network.outgoing[0].backEnd == (channels.isEmpty ? nil : version.map { .tpm($0) }))
  }

  @Test func anEmulatorThatIsStoppedIsRefused() throws {
    var process = Process()
    for inode in UInt64(1)...2 { process.add(socket: inode, as: 20 + Int32(inode)) }
    let unix = [Self.unix(1, to: 11), Self.unix(11, "/run/tpm", to: 1), Self.unix(2, to: 12)]
    let words = "-chardev socket,id=c,path=/run/tpm -tpmdev emulator,id=t,chardev=c -device tpm-crb,tpmdev=t"
    var network = try process.network(words, unix: unix)
    try network.findBackEnds(
      CommandLine(argv: ["qemu"] + words.split(separator: " ").map(String.init)), ObservedNetwork.numbers(process.descriptors), unix: unix,
      holder: { _ in ("swtpm", [11, 12], true) }, version: { _ in .v2_0 }, devices: { [] })
    #expect(network.outgoing[0].backEnd == nil && network.inodes.contains(2))
    #expect(network.unresolved.map(\.why) == ["the emulator of the TPM is stopped (SIGSTOP, or by a debugger): kill -CONT lets it go on"])
  }

  /// Both go to the new QEMU, and neither is taken from the old one before: that asks the emulator for its state.
  @Test func theConnectionsOfATPMGoAlongUndiverted() throws {
    let words = ["-chardev", "socket,id=c,path=/run/tpm", "-tpmdev", "emulator,id=t,chardev=c", "-device", "tpm-crb,tpmdev=t"]
    var observation = Fixture.observation(Fixture.arguments + words)
    observation.live.chardevs.append("c")
    observation.live.anonymousDevices.append("tpm-crb")
    let peer = try #require(observation.commandLine.outgoingConnections.first)
    var tpm = ObservedNetwork.Outgoing(peer: peer, socket: .init(descriptor: 40, inode: 40), path: "/run/tpm")
    (tpm.backEnd, tpm.channels) = (.tpm(.v2_0), [.init(descriptor: 41, inode: 41)])
    observation.network.outgoing = [tpm]
    let plan = Fixture.plan(observation)
    #expect(plan.blockers == [])
    #expect(plan.rewiring.peers.map { [$0.source, CInt($0.channel)] } == [[40, 0], [41, 1]])
    #expect(!plan.rewiring.hasConnections && plan.observation.network.inodes.isSuperset(of: [40, 41]))
    #expect(plan.steps.first { $0.name == .rewire }?.why == "2 live connections: the new QEMU gets the very ones")
  }

  /// The answers of the human monitor to the question after `tpm-crb`'s register.
  @Test(arguments: [
    ("00000000fed4004c: 0x00000000\r\n", false), ("00000000fed4004c: 0x00000001\r\n", true), ("", true), ("Cannot access memory\r\n", true),
  ])
  func aCommandOfTheTPMIsUnderWayUnlessItIsKnownNotToBe(answer: String, isUnderWay: Bool) { #expect(TPMStart.isUnderWay(answer) == isUnderWay) }

  @Test func theWayOutBesideABackEndIsToLookAfterThat() throws {
    var observation = Fixture.served()
    observation.network.outgoing[0].backEnd = nil
    let words = observation.commandLine.options[observation.network.outgoing[0].peer.option].text
    observation.network.unresolved = [(words, "its back end is stopped"), ("-netdev x", "it is not there")]
    let wayOuts = Fixture.plan(observation).blockers.filter { [words, "-netdev x"].contains($0.option) }.map(\.wayOut)
    #expect(wayOuts.map { $0.contains("see that the program behind it runs") } == [true, false], "\(wayOuts)")
  }

  private static let disk = Fixture.servedDisk
  private static let diskWords = "-chardev socket,id=c,path=/run/disk -device vhost-user-blk-pci,chardev=c"

  static let servers: [(program: String, listener: UInt64?, disks: [VhostUserDevice], isFound: Bool)] = [
    ("qemu-storage-daemon", 14, [disk], true), ("vhost", 14, [disk], false), ("qemu-storage-daemon", 14, [], false),
    // It listens no more; or another program does, which may serve another image.
    ("qemu-storage-daemon", nil, [disk], false), ("qemu-storage-daemon", 99, [disk], false),
    ("qemu-storage-daemon", 14, [VhostUserDevice(path: "", chardev: "c", answers: disk.answers, queues: 1, obstacle: "its rings are packed")], false),
  ]
  @Test(arguments: servers) func aServedDiskIsFound(program: String, listener: UInt64?, disks: [VhostUserDevice], isFound: Bool) throws {
    var process = Process()
    for inode in UInt64(1)...3 { process.add(socket: inode, as: 20 + Int32(inode)) }
    var sockets = [Self.unix(1, to: 11), Self.unix(11, "/run/disk", to: 1), Self.unix(2, to: 12), Self.unix(12, to: 2), Self.unix(3, to: 13)]
    if let listener { sockets.append(UnixSocketEntry(inode: listener, type: 1, state: .listening, path: "/run/disk")) }
    var network = try process.network(Self.diskWords, unix: sockets)
    network.outgoing[0].path = "/run/disk"
    try network.findBackEnds(
      CommandLine(argv: ["qemu"] + Self.diskWords.split(separator: " ").map(String.init)), ObservedNetwork.numbers(process.descriptors), unix: sockets,
      holder: { (program, $0 == 11 ? [11, 12, 13, 14] : [], false) }, version: { _ in nil }, devices: { disks })
    #expect((network.outgoing[0].backEnd == .vhostUser(Self.disk.answers)) == isFound && network.unresolved.isEmpty == isFound)
    // Of another disk of the same program, too: all are accounted for.
    if isFound { #expect(network.inodes.isSuperset(of: [1, 2, 3])) }
  }

  /// The new QEMU gets a connection of its own, and the guest is stopped by moult itself, at the right moment.
  @Test(arguments: [(QEMUVersion(major: 10, minor: 0), false), (QEMUVersion(major: 11, minor: 1), true)])
  func aServedDiskGetsASuccessor(version: QEMUVersion, isRefused: Bool) throws {
    let plan = Fixture.plan(Fixture.served())
    #expect(plan.blockers == [] && plan.memory.stopsGuest && !plan.rewiring.hasConnections)
    #expect(plan.rewiring.peers.map { [$0.source, $0.isSuccessor ? 1 : 0] } == [[40, 1]])
    var moved = plan
    moved.target = TargetFacts(version: version, catalog: .init())
    #expect(moved.servedDiskBlockers.isEmpty != isRefused)
  }

  private static let card = VhostUserDevice(
    path: "", chardev: "c", answers: .init(features: 7, protocolFeatures: 0x20, queues: 1, configuration: []), queues: 3, isNetwork: true)
  private static let refusedCard = VhostUserDevice(path: "", chardev: "c", answers: card.answers, queues: 3, obstacle: "its rings are packed", isNetwork: true)
  private static let remembered = BackEnd.network(.init(features: 9, protocolFeatures: 0, queues: 2, configuration: []))

  static let switches: [(program: String, devices: [VhostUserDevice], kept: BackEnd?, found: BackEnd?)] = [
    ("ovs-vswitchd", [card], nil, .network(card.answers)), ("ovs-vswitchd-dpdk", [card], nil, .network(card.answers)),
    ("dpdk-testpmd", [card], nil, .network(card.answers)), ("passt", [card], nil, nil), ("vpp_main", [card], nil, nil),
    ("ovs-vswitchd", [], nil, nil), ("ovs-vswitchd", [disk], nil, nil), ("ovs-vswitchd", [refusedCard], nil, nil),
    // A QEMU that cannot be asked, behind one that could.
    ("ovs-vswitchd", [], remembered, remembered), ("passt", [], remembered, nil),
  ]
  /// Whether QEMU has made the connection or the switch.
  @Test(arguments: switches, [false, true]) func aServedNetworkIsFound(
    _ it: (program: String, devices: [VhostUserDevice], kept: BackEnd?, found: BackEnd?), isAccepted: Bool
  ) throws {
    var process = Process()
    for inode in UInt64(1)...2 { process.add(socket: inode, as: 20 + Int32(inode)) }
    let words = "-chardev socket,id=c,path=/run/net\(isAccepted ? ",server=on" : "") -netdev vhost-user,id=n,chardev=c"
    var sockets = isAccepted ? [Self.unix(1, "/run/net", to: 11), Self.unix(11, to: 1)] : [Self.unix(1, to: 11), Self.unix(11, "/run/net", to: 1)]
    sockets += [Self.unix(2, to: 12), Self.unix(12, to: 2)]
    var network = try process.network(words, unix: sockets)
    #expect(network.outgoing.map { $0.socket?.descriptor } == [21] && network.listeners.allSatisfy { $0.connections.isEmpty })
    try network.findBackEnds(
      CommandLine(argv: ["qemu"] + words.split(separator: " ").map(String.init)), ObservedNetwork.numbers(process.descriptors), unix: sockets,
      holder: { (it.program, $0 == 11 ? [11, 12] : [], false) }, version: { _ in nil }, devices: { it.devices }, kept: { $0 == 1 ? it.kept : nil })
    #expect(network.outgoing[0].backEnd == it.found && network.unresolved.isEmpty == (it.found != nil))
    #expect(network.inodes.isSuperset(of: [1, 2]) && network.servedDisks.allSatisfy { !$0.isNetwork })
  }

  /// The connection itself goes to the new QEMU, nothing that was opened over it, and the guest needs no stop of moult's own.
  @Test(arguments: [false, true]) func aServedNetworkKeepsItsConnection(isAccepted: Bool) throws {
    var observation = Fixture.observation(
      Fixture.arguments + ["-chardev", "socket,id=c,path=/run/vm1/net\(isAccepted ? ",server=on" : "")", "-netdev", "vhost-user,id=n,chardev=c", "-device", "virtio-net-pci,netdev=n"])
    observation.live.chardevs.append("c")
    observation.live.anonymousDevices.append("virtio-net-pci")
    let peer = try #require(observation.commandLine.outgoingConnections.first)
    #expect(peer.isAccepted == isAccepted && peer.backEnd == .network)
    var outgoing = ObservedNetwork.Outgoing(peer: peer, socket: .init(descriptor: 40, inode: 40))
    (outgoing.backEnd, outgoing.channels) = (.network(Self.card.answers), [.init(descriptor: 41, inode: 41)])
    observation.network.outgoing = [outgoing]
    let plan = Fixture.plan(observation)
    #expect(plan.rewiring.peers.map { [$0.source, $0.isSuccessor ? 1 : 0, $0.isRaw ? 1 : 0] } == [[40, 0, 0]])
    #expect(!plan.rewiring.hasConnections && plan.servedDiskBlockers.isEmpty)
    #expect(plan.steps.first { $0.name == .rewire }?.why == "1 live connection: the new QEMU gets the very one")
    let entry = try #require(KeptAnswers.entry(observation.network))
    #expect(KeptAnswers.backEnds(in: ["A=b", entry]) == [40: .network(Self.card.answers)])
    #expect(KeptAnswers.without(["A=b", entry]) == ["A=b"])
  }

  @Test(arguments: ["", "40", "40=", "x=network-1-2-3-", "40=vhost-user-1-2-3-00", "40=network-1-2"])
  func answersThatCannotBeReadAreNone(words: String) { #expect(KeptAnswers.backEnds(in: ["MOULT_BACK_ENDS=" + words]).isEmpty) }

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

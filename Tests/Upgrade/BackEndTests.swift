@testable import Kernel
import Testing

@testable import QEMU
@testable import Upgrade

/// What answers a new QEMU in the place of programs that serve its devices, and how it gets to these.
@Suite struct BackEndTests {
  private typealias Process = RewiringTests.Process
  private static func unix(_ inode: UInt64, _ path: String? = nil, to peer: UInt64) -> UnixSocketEntry { RewiringTests.unix(inode, path, to: peer) }

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
}

import Testing

@testable import Kernel
@testable import QEMU
@testable import Upgrade

@Suite struct RemoteDiskTests {
  static func node(_ file: String, isReadOnly: Bool = false) -> RemoteNode { RemoteNode(driver: "nbd", file: file, isReadOnly: isReadOnly) }

  static func tcp(_ remote: String, _ port: UInt16, inode: UInt64) -> InternetSocketEntry {
    InternetSocketEntry(
      transport: .tcp, local: .init(host: "10.0.0.9", port: 40000), remote: .init(host: remote, port: port), isListening: false, inode: inode)
  }

  @Test(arguments: [
    // By its address, a connection for each node, and nobody else's.
    (["nbd://10.0.0.1:10809/a", "nbd://10.0.0.1:10809/b"], [tcp("10.0.0.1", 10809, inode: 1), tcp("10.0.0.1", 10809, inode: 2)], [1, 2]),
    (["nbd://10.0.0.1:10809/a", "nbd://10.0.0.1:10809/b"], [tcp("10.0.0.1", 10809, inode: 1), tcp("10.0.0.1", 10809, inode: 9)], [1, nil]),
    (["nbd://10.0.0.1:10809/a"], [tcp("10.0.0.2", 10809, inode: 1), tcp("10.0.0.1", 10809, inode: 2)], [2]),
    (["nbd://10.0.0.1:10809/a"], [tcp("10.0.0.1", 10810, inode: 1)], [nil]),
    // A name: wherever the connection leads, if there is but one such place.
    (["nbd://server:10809/a"], [tcp("10.0.0.1", 10809, inode: 1)], [1]),
    (["nbd://server:10809/a"], [tcp("10.0.0.1", 10809, inode: 1), tcp("10.0.0.2", 10809, inode: 2)], [nil]),
    (["json:{}"], [tcp("10.0.0.1", 10809, inode: 1)], [nil]),
  ] as [([String], [InternetSocketEntry], [UInt64?])])
  func connectionsAreFound(_ files: [String], _ internet: [InternetSocketEntry], _ sockets: [UInt64?]) throws {
    let status = try Files.status("/dev/null")
    let descriptors = [1, 2].map { OpenDescriptor(number: 20 + $0, target: "socket:[\($0)]", flags: 0, position: 0, status: status) }
    let line = CommandLine(argv: ["qemu", "-netdev", "user,id=n"])
    let network = try ObservedNetwork(
      line, started: line, remote: files.map { Self.node($0) }, descriptors: descriptors, internet: internet, unix: [], interfaces: [:])
    #expect(network.disks.map(\.socket) == sockets)
    #expect(network.passing.isDisjoint(with: sockets.compactMap { $0 }), "not the user network's")
  }

  /// As many as the library has made, and none of another port's.
  @Test func connectionsOfALibraryAreItsServers() throws {
    let status = try Files.status("/dev/null")
    let descriptors = [1, 2, 3].map { OpenDescriptor(number: 20 + $0, target: "socket:[\($0)]", flags: 0, position: 0, status: status) }
    let line = CommandLine(argv: ["qemu", "-nodefaults"])
    let internet = [Self.tcp("10.0.0.1", 3260, inode: 1), Self.tcp("10.0.0.2", 3260, inode: 2), Self.tcp("10.0.0.1", 3261, inode: 3)]
    let disk = RemoteNode(driver: "iscsi", file: "iscsi://10.0.0.1/t/0", isReadOnly: false)
    let network = try ObservedNetwork(
      line, started: line, remote: [disk], descriptors: descriptors, internet: internet, unix: [], interfaces: [:])
    #expect(network.inodes == [1, 2])
  }

  @Test(arguments: [("iscsi", nil), ("rbd", "exclusive-lock"), ("nfs", "not been tried")] as [(String, String?)])
  func whatIsBelowAnImageIsLookedAtToo(_ driver: String, _ reason: String?) {
    var observation = Fixture.observation()
    observation.network.disks = [RemoteDisk(node: RemoteNode(driver: driver, file: "\(driver)://h/x", isReadOnly: true))]
    let blockers = Fixture.plan(observation).blockers
    #expect(blockers.count == (reason == nil ? 0 : 1) && reason.map { blockers[0].reason.contains($0) } ?? true)
  }

  struct Case: Sendable, CustomTestStringConvertible {
    var answer: RemoteDisk.Answer
    var isReadOnly = false
    var file = "nbd://10.0.0.1:10809/a"
    var socket: UInt64? = 1
    /// Part of the reason; nil if it goes.
    var reason: String?
    var testDescription: String { "\(answer) \(reason ?? "")" }
  }

  private static let (several, one) = (NBDHandshake.Export(flags: 0xd6d, size: 5000), NBDHandshake.Export(flags: 0xc6d, size: 5000))
  private static func sized(_ size: UInt64) -> RemoteDisk.Answer { .export(.init(flags: 0xd6d, size: size)) }

  @Test(arguments: [
    Case(answer: .export(several)), Case(answer: sized(5120)), Case(answer: sized(4608), reason: "4608 bytes, and 5120"),
    Case(answer: sized(10240), reason: "another disk"), Case(answer: sized(.max), reason: "another disk"), Case(answer: .export(one), isReadOnly: true),
    Case(answer: .export(one), reason: "NBD_FLAG_CAN_MULTI_CONN"),
    Case(answer: .silence, reason: "answers no second client"), Case(answer: .silence, isReadOnly: true, reason: "answers no second client"),
    Case(answer: .none, reason: "wait"), Case(answer: .refusal("it wants TLS"), reason: "it wants TLS"),
    Case(answer: .none, socket: nil, reason: "no connection"), Case(answer: .none, file: "json:{}", socket: nil, reason: "cannot be told"),
  ])
  func itGoesIfTheServerServesBoth(_ example: Case) {
    var observation = Fixture.observation(Fixture.arguments + ["-blockdev", "driver=nbd,node-name=r,server.type=inet,server.host=10.0.0.1,server.port=10809,export=a"])
    var disk = RemoteDisk(node: Self.node(example.file, isReadOnly: example.isReadOnly))
    disk.node.size = 5120  // QEMU counts sectors.
    (disk.socket, disk.answer) = (example.socket, example.answer)
    observation.network.disks = [disk]
    let blockers = Fixture.plan(observation).blockers
    #expect(blockers.count == (example.reason == nil ? 0 : 1), "\(blockers)")
    if let reason = example.reason { #expect(blockers.first?.reason.contains(reason) ?? false, "\(blockers)") }
  }

  /// In a stage or a root tree the server's socket must still be where it is.
  @Test func theServersSocketIsReached() {
    var observation = Fixture.observation()
    var disk = RemoteDisk(node: Self.node("nbd+unix:///?socket=/run/shared/nbd.sock"))
    (disk.path, disk.socket, disk.answer) = ("/run/shared/nbd.sock", 1, .export(Self.several))
    observation.network.disks = [disk]
    #expect(Fixture.plan(observation).stages.flatMap(\.carried) == ["nbd.sock"])
  }
}

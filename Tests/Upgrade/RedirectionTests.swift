import Kernel
import QEMU
import Testing

@testable import Upgrade

/// Which connections of the new QEMU are led elsewhere while it starts.
@Suite struct RedirectionTests {
  private static func outgoing(_ words: String) -> [OutgoingConnection] {
    CommandLine(argv: ["qemu", "-nodefaults"] + words.split(separator: " ").map(String.init)).outgoingConnections
  }

  static let connections: [(words: String, standIn: NetworkSubstitution.Peer, target: ConnectRedirection.Target?)] = [
    ("-chardev socket,id=a,host=192.0.2.1,port=44,reconnect=1", .port(700), .port(44, host: "192.0.2.1")),
    ("-serial tcp:h:44,reconnect=1", .port(700), .port(44, host: nil)),
    ("-qmp tcp:0:44,reconnect=1", .port(700), .port(44, host: nil)),
    ("-netdev stream,id=n,addr.type=inet,addr.host=0:0::1,addr.port=5,reconnect-ms=50", .port(700), .port(5, host: "::1")),
    ("-chardev socket,id=a,path=p,abstract=on,reconnect=1", .abstract("s"), .abstract("p")),
    // Another address stands in the arguments, or a mount lies over the path.
    ("-chardev socket,id=a,host=192.0.2.1,port=44", .port(700), nil), ("-chardev socket,id=a,path=/p,reconnect=1", .abstract("s"), nil),
    ("-chardev socket,id=a,path=p,abstract=on", .abstract("s"), nil), ("-chardev socket,id=a,host=h,port=44,reconnect=0", .port(700), nil),
  ]

  @Test(arguments: connections)
  func thoseThatAreMadeAgainToAPortOrAName(words: String, standIn: NetworkSubstitution.Peer, target: ConnectRedirection.Target?) throws {
    let connection = try #require(Self.outgoing(words).first)
    #expect(connection.redirection(to: standIn)?.target == target)
    #expect(connection.isLedElsewhere == (target != nil))
  }

  private static func plan(_ words: String, disk: RemoteNode.Server? = nil) -> UpgradePlan {
    var observation = Fixture.observation(Fixture.arguments + words.split(separator: " ").map(String.init))
    for (index, peer) in observation.commandLine.outgoingConnections.enumerated() {
      let number = CInt(40 + index)
      observation.network.outgoing.append(.init(peer: peer, socket: .init(descriptor: number, inode: UInt64(number))))
      if case .chardev(let id) = peer.user { observation.live.chardevs.append(id) }
    }
    if let disk {
      var node = RemoteNode(driver: "nbd", file: "nbd://h", isReadOnly: false)
      node.server = disk
      observation.network.disks.append(RemoteDisk(node: node))
    }
    return Fixture.plan(observation)
  }

  static let ambiguous: [(words: String, disk: RemoteNode.Server?, reason: String?)] = [
    ("-serial tcp:h:44,reconnect=1", nil, nil), ("-serial tcp:h:44,reconnect=1 -serial tcp:i:45,reconnect=1", .port(46, host: "h"), nil),
    ("-serial tcp:192.0.2.1:44,reconnect=1 -serial tcp:192.0.2.2:44,reconnect=1", .port(44, host: "h"), nil),
    // One that is not made again connects to its stand-in's own address; two to the same do not differ.
    ("-serial tcp:h:44,reconnect=1 -serial tcp:i:44", nil, nil),
    ("-qmp tcp:h:44,reconnect=1 -qmp tcp:h:44,reconnect=1", nil, nil),
    ("-serial tcp:h:44,reconnect=1 -serial tcp:i:44,reconnect=1", nil, "i:44"), ("-serial tcp:h:44,reconnect=1 -serial tcp:192.0.2.2:44,reconnect=1", nil, "192.0.2.2:44"),
    ("-serial tcp:h:44,reconnect=1", .port(44, host: "192.0.2.9"), "192.0.2.9:44"),
  ]

  @Test(arguments: ambiguous) func aNameIsToldFromOthersByItsPort(words: String, disk: RemoteNode.Server?, reason: String?) {
    let blockers = Self.plan(words, disk: disk).redirectionBlockers
    #expect(blockers.isEmpty == (reason == nil))
    if let reason { #expect(blockers[0].reason.contains(reason) && blockers[0].wayOut.contains("number")) }
  }

  /// A connection that has not been answered is not handed over: whoever made it waits for the answer.
  @Test(arguments: [false, true]) func onlyAConnectionThatIsThereGoesAlong(isConnecting: Bool) throws {
    let plan = Self.plan("-serial tcp:192.0.2.1:44,reconnect=1")
    #expect(plan.blockers == [] && plan.hasStandIns)
    var network = plan.observation.network
    network.outgoing[0].isConnecting = isConnecting
    #expect(Rewiring(network, from: 5).peers.count == (isConnecting ? 0 : 1))
  }
}

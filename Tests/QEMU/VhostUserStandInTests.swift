import Kernel
import Testing

@testable import QEMU

/// What a new QEMU hears in the place of a back end of vhost-user. The dialogue is that of 7.2 and 10.0 with qemu-storage-daemon.
@Suite struct VhostUserStandInTests {
  static let answers = VhostUserAnswers(features: 0x1_7500_6e46, protocolFeatures: 0x8f2b, queues: 1, configuration: Array(0..<57))

  static func message(_ request: UInt32, _ flags: UInt32, _ body: [UInt8] = []) -> [UInt8] {
    [request, flags, UInt32(body.count)].flatMap { VhostUserStandIn.bytes($0) } + body
  }
  static func word(_ value: UInt64) -> [UInt8] { VhostUserStandIn.bytes(value) }
  private static let vring = word(0)
  private static let space: [UInt8] = [8, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]

  /// What is said, with how many descriptors, and what is answered: 1 is the version, 4 a reply, 8 that one is wanted.
  static let start: [(said: [UInt8], descriptors: Int, answer: [UInt8])] = [
    (message(21, 9), 1, message(21, 5, word(0))),
    (message(1, 1), 0, message(1, 5, word(0x1_7500_6e46))),
    // But for the memory slots.
    (message(15, 1), 0, message(15, 5, word(0x0f2b))),
    (message(16, 1, word(0x0f2b)), 0, []),
    (message(17, 1), 0, message(17, 5, word(1))),
    (message(3, 1), 0, []),
    (message(13, 1, vring), 1, []),
    (message(14, 9, vring), 1, message(14, 5, word(0))),
    (message(24, 1, space), 0, message(24, 5, space[..<12] + [8, 9, 10, 11])),
  ]

  @Test func aStartIsAnswered() throws {
    var backEnd = VhostUserStandIn(Self.answers)
    for (index, line) in Self.start.enumerated() {
      let reply = try backEnd.receive(line.said, descriptors: line.descriptors, on: 0)
      #expect(reply == BackEndReply(line.answer, opensChannel: index == 0), "line \(index)")
    }
  }

  @Test func howTheBytesArriveDoesNotMatter() throws {
    let dialogue = Self.start.dropFirst()
    let (said, answers) = (dialogue.flatMap(\.said), dialogue.flatMap(\.answer))
    for size in [1, 3, said.count] {
      var backEnd = VhostUserStandIn(Self.answers)
      var heard: [UInt8] = []
      for from in stride(from: 0, to: said.count, by: size) {
        heard += try backEnd.receive(Array(said[from..<min(from + size, said.count)]), descriptors: 0, on: 0).bytes
      }
      #expect(heard == answers, "\(size) at once")
    }
  }

  @Test(arguments: [
    // Features that the running QEMU has agreed upon and the new one does not know, or the other way round.
    message(16, 1, word(0x0b2b)), message(16, 1, word(0x8f2b)),
    // Memory and rings, and what asks for them.
    message(5, 1), message(37, 9), message(11, 1, vring), message(2, 1, word(0)), message(36, 1), message(39, 1, word(0)),
    // More than there is.
    message(24, 1, [50, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0]), message(24, 1, [1]),
    // No vhost-user at all.
    message(1, 2), message(99, 1), [0x47, 0x45, 0x54, 0x20, 0x2f, 0x20, 0x48, 0x54, 0x54, 0x50, 0x2f, 0x31],
    // No descriptor.
    message(21, 1),
  ])
  func onlyTheRealOneIsTold(said: [UInt8]) {
    var backEnd = VhostUserStandIn(Self.answers)
    #expect(throws: Failure.self) { try backEnd.receive(said, descriptors: 0, on: 0) }
  }

  @Test func theBackEndsOwnChannelIsSilent() {
    var backEnd = VhostUserStandIn(Self.answers)
    #expect(throws: Failure.self) { try backEnd.receive([0], descriptors: 0, on: 1) }
  }

  @Test(arguments: [answers, VhostUserAnswers(features: .max, protocolFeatures: 0, queues: 0, configuration: [])])
  func itIsAnArgument(answers: VhostUserAnswers) {
    for backEnd in [BackEnd.vhostUser(answers), .network(answers)] { #expect(BackEnd(word: backEnd.word) == backEnd) }
  }

  /// What 7.2 and 10.0 say to Open vSwitch 3.1 at the start of a network with one pair of queues, and what is answered.
  @Test func aStartOfANetworkIsAnswered() throws {
    let (features, chosen): (UInt64, UInt64) = (0x5_7462_87cb, 0x10cbf)
    var backEnd = BackEnd.network(VhostUserAnswers(features: features, protocolFeatures: chosen, queues: 128, configuration: [])).standIn()
    let enabled = VhostUserStandIn.bytes(UInt32(0)) + VhostUserStandIn.bytes(UInt32(1))
    let dialogue: [(said: [UInt8], descriptors: Int, answer: [UInt8])] = [
      (Self.message(1, 1), 0, Self.message(1, 5, Self.word(features))), (Self.message(15, 1), 0, Self.message(15, 5, Self.word(chosen))),
      (Self.message(16, 1, Self.word(chosen)), 0, []), (Self.message(17, 1), 0, Self.message(17, 5, Self.word(128))),
      (Self.message(21, 9), 1, Self.message(21, 5, Self.word(0))), (Self.message(3, 1), 0, []),
      (Self.message(1, 1), 0, Self.message(1, 5, Self.word(features))), (Self.message(13, 1, Self.vring), 1, []),
      (Self.message(14, 9, Self.vring), 1, Self.message(14, 5, Self.word(0))), (Self.message(18, 9, enabled), 0, Self.message(18, 5, Self.word(0))),
    ]
    for (index, line) in dialogue.enumerated() {
      #expect(try backEnd.receive(line.said, descriptors: line.descriptors, on: 0) == BackEndReply(line.answer, opensChannel: index == 4), "line \(index)")
    }
  }

  @Test(arguments: ["", "vhost-user-", "vhost-user-1-2-3", "vhost-user-1-2-3-0", "vhost-user-1-2-3-0g", "vhost-user-x-2-3-00", "vhost-user-1-2-3-00-4", "network-", "network-1-2-3", "vhost-user-network-1-2-3-00"])
  func otherWordsAreNot(word: String) { #expect(BackEnd(word: word) == nil) }

  /// Nothing of it asks for an answer, which a QEMU that gets the connection would take for its own.
  @Test func anIntroductionIsNotAnswered() {
    let introduction = VhostUserAnswers.introduction(protocolFeatures: Self.answers.offered)
    #expect(introduction.first == Self.message(16, 1, Self.word(0x0f2b)) + Self.message(3, 1))
    #expect(introduction.withDescriptor == Self.message(21, 1))
  }

  // MARK: What QEMU tells

  static func status(
    features: [JSONValue] = ["VHOST_USER_F_PROTOCOL_FEATURES: x", "VIRTIO_BLK_F_FLUSH: Flush command supported"], protocols: [JSONValue] = ["VHOST_USER_PROTOCOL_F_MQ: x"],
    guest: [JSONValue] = [], sections: Int64 = 1, more: [String: JSONValue] = [:]
  ) -> JSONValue {
    [
      "num-vqs": 2, "guest-features": ["transports": .array(guest), "dev-features": []],
      "vhost-dev": [
        "max-queues": 4, "n-mem-sections": .integer(sections), "features": .object(["transports": ["VIRTIO_F_VERSION_1: x"], "dev-features": .array(features)].merging(more) { $1 }),
        "protocol-features": ["protocols": .array(protocols)],
      ],
    ]
  }

  @Test func featuresAreToldByName() {
    let device = VhostUserDevice(path: "/p", chardev: "c", status: Self.status(protocols: ["VHOST_USER_PROTOCOL_F_SLAVE_REQ: x", "VHOST_USER_PROTOCOL_F_STATUS: x"], more: ["unknown-dev-features": 0x40_0000_0000]))
    #expect(device.obstacle == nil && device.queues == 2)
    #expect(device.answers == VhostUserAnswers(features: 0x41_4000_0200, protocolFeatures: 0x1_0020, queues: 4, configuration: []))
    let newer = VhostUserDevice(path: "/p", chardev: "c", status: Self.status(protocols: ["VHOST_USER_PROTOCOL_F_BACKEND_REQ: x"]))
    #expect(newer.answers.hasChannel && newer.answers.protocolFeatures == 0x20)
  }

  static let obstacles: [(status: JSONValue, said: String)] = [
    (status(features: ["VIRTIO_BLK_F_FUTURE: x"]), "names"), (status(protocols: ["VHOST_USER_PROTOCOL_F_FUTURE: x"]), "names"),
    (status(more: ["unknown-dev-features": .number(1.8e19)]), "names"), (["num-vqs": 1], "names"),
    (status(guest: ["VIRTIO_F_RING_PACKED: x"]), "packed"), (status(sections: 9), "pieces"),
  ]
  @Test(arguments: obstacles) func whatCannotBeToldIsAnObstacle(status: JSONValue, said: String) {
    #expect(VhostUserDevice(path: "/p", chardev: "c", status: status).obstacle?.contains(said) ?? false)
  }

  /// Of a network card: the answer of 10.0 with Open vSwitch, shortened.
  @Test func aNetworkIsTold() {
    let status = Self.status(
      features: ["VHOST_USER_F_PROTOCOL_FEATURES: x", "VHOST_F_LOG_ALL: x", "VIRTIO_NET_F_MQ: x", "VIRTIO_NET_F_MRG_RXBUF: x", "VIRTIO_NET_F_MTU: x", "VIRTIO_NET_F_GUEST_USO4: x"],
      protocols: ["VHOST_USER_PROTOCOL_F_BACKEND_REQ: x", "VHOST_USER_PROTOCOL_F_RARP: x", "VHOST_USER_PROTOCOL_F_MQ: x"])
    let card = VhostUserDevice(network: "/p", chardev: "c", status: status)
    #expect(card.obstacle == nil && card.isNetwork && card.answers.hasChannel)
    #expect(card.answers == VhostUserAnswers(features: 0x40_0001_4440_8008, protocolFeatures: 0x25, queues: 4, configuration: []))
  }

  static let networkObstacles: [(status: JSONValue, said: String)] = [
    (["num-vqs": 3, "vhost-started": false], "not enabled"), (status(guest: ["VIRTIO_F_ACCESS_PLATFORM: x"]), "iommu_platform"),
    (status(guest: ["VIRTIO_F_IOMMU_PLATFORM: x"]), "iommu_platform"), (status(guest: ["VIRTIO_F_RING_PACKED: x"]), "packed"),
    (status(protocols: ["VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS: x"]), "piece by piece"), (status(sections: 9), "pieces"),
    (status(features: ["VIRTIO_NET_F_FUTURE: x"]), "names"),
  ]
  @Test(arguments: networkObstacles) func whatIsAnObstacleToANetwork(status: JSONValue, said: String) {
    #expect(VhostUserDevice(network: "/p", chardev: "c", status: status).obstacle?.contains(said) ?? false)
  }

  /// 11.1 ends itself when it is asked of a device that a back end serves, and the guest with it.
  @Test(arguments: [((6, 2), false), ((7, 1), false), ((7, 2), true), ((10, 0), true), ((10, 1), false), ((11, 1), false)])
  func whoMayEndItselfIsNotAsked(version: (major: Int, minor: Int), isTold: Bool) {
    #expect(VhostUserDevice.isTold(by: QEMUVersion(major: version.major, minor: version.minor, micro: 3)) == isTold)
  }
}

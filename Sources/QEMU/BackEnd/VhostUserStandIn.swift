public import Kernel

/// What a back end of vhost-user has told the running QEMU, as far as a new one asks for it.
public struct VhostUserAnswers: Sendable, Hashable {
  /// Of GET_FEATURES.
  public var features: UInt64
  /// The protocol features that the running QEMU has chosen: another choice would have to be told to the back end, which
  /// serves on as it is.
  public var protocolFeatures: UInt64
  /// Of GET_QUEUE_NUM.
  public var queues: UInt64
  /// The device's configuration space, from its beginning.
  public var configuration: [UInt8]

  public init(features: UInt64, protocolFeatures: UInt64, queues: UInt64, configuration: [UInt8]) {
    (self.features, self.protocolFeatures, self.queues, self.configuration) = (features, protocolFeatures, queues, configuration)
  }

  /// VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS. Without it a QEMU does not ask how many pieces the back end can keep, which the
  /// running one does not tell.
  static let memorySlots: UInt64 = 1 << 15
  /// VHOST_USER_PROTOCOL_F_BACKEND_REQ: QEMU has sent the back end one end of a socket pair, over which that asks in turn.
  public var hasChannel: Bool { protocolFeatures & 1 << 5 != 0 }
  /// What a new QEMU is offered.
  public var offered: UInt64 { protocolFeatures & ~Self.memorySlots }

  /// What a new QEMU has told its stand-in, for the back end: over a connection of its own, it has not been told yet. None of
  /// it is answered.
  /// - Parameter protocolFeatures: ``offered``.
  /// - Returns: two messages; with the second one goes the descriptor that the new QEMU has sent. Without ``hasChannel`` there is none.
  public static func introduction(protocolFeatures: UInt64) -> (first: [UInt8], withDescriptor: [UInt8]) {
    func message(_ request: VhostUserStandIn.Request, _ body: [UInt8] = []) -> [UInt8] { VhostUserStandIn.message(request, flags: [], body) }
    return (message(.setProtocolFeatures, VhostUserStandIn.bytes(protocolFeatures)) + message(.setOwner), channelMessage)
  }

  /// With it goes the descriptor that a new QEMU has sent its stand-in for the back end's requests. It is not answered, and the
  /// back end closes what it has had.
  public static var channelMessage: [UInt8] { VhostUserStandIn.message(.setBackEndRequestDescriptor, flags: [], []) }

  /// As an argument of a command, and back.
  var word: String {
    let configuration = configuration.map { String($0 >> 4, radix: 16) + String($0 & 15, radix: 16) }.joined()
    return [features, protocolFeatures, queues].map { String($0, radix: 16) }.joined(separator: "-") + "-" + configuration
  }

  init?(word: some StringProtocol) {
    let parts = word.split(separator: "-", omittingEmptySubsequences: false)
    let digits = parts.last.map { $0.compactMap(\.hexDigitValue) } ?? []
    guard parts.count == 4, let features = UInt64(parts[0], radix: 16), let chosen = UInt64(parts[1], radix: 16),
      let queues = UInt64(parts[2], radix: 16), digits.count == parts[3].count, digits.count % 2 == 0
    else { return nil }
    self.init(
      features: features, protocolFeatures: chosen, queues: queues,
      configuration: stride(from: 0, to: digits.count, by: 2).map { UInt8(digits[$0] << 4 | digits[$0 + 1]) })
  }
}

/// Stands in for a back end of vhost-user: see ``BackEnd``. It says what the real one has said, and forgets what it is told:
/// that concerns rings, of which a new QEMU tells the real one all when it starts them.
///
/// Source: docs/interop/vhost-user.rst of QEMU; `vhost_user_backend_init` and `vhost_virtqueue_init` are what asks.
public struct VhostUserStandIn: BackEndStandIn {
  private let answers: VhostUserAnswers
  private var pending: [UInt8] = []

  public init(_ answers: VhostUserAnswers) { self.answers = answers }

  struct Flags: OptionSet {
    var rawValue: UInt32
    static let isReply = Flags(rawValue: 4), needsReply = Flags(rawValue: 8)
  }
  /// The lowest two bits beside the flags.
  private static let version: UInt32 = 1

  /// Those that ask, and those that may be said before the guest runs. What is left sets memory and rings up, or waits for an
  /// answer that only the real one has.
  enum Request: UInt32 {
    case getFeatures = 1, setOwner = 3, setVringCall = 13, setVringError = 14, getProtocolFeatures = 15, setProtocolFeatures = 16
    case getQueueNumber = 17, setVringEnable = 18, setMTU = 20, setBackEndRequestDescriptor = 21, getConfiguration = 24
  }

  public mutating func receive(_ bytes: [UInt8], descriptors: Int, on channel: Int) throws(Failure) -> BackEndReply {
    // The back end asks here, and QEMU answers: nothing has been asked.
    guard channel == 0 else { throw Self.failure("QEMU answers what was not asked") }
    pending += bytes
    var reply = BackEndReply()
    while pending.count >= 12 {
      let (number, flags, size) = (Self.number(pending, 0), Self.number(pending, 4), Int(Self.number(pending, 8)))
      guard flags & 3 == Self.version, size <= 4096 else { throw Self.failure("what QEMU says is not vhost-user") }
      guard pending.count >= 12 + size else { break }
      let body = Array(pending[12..<12 + size])
      pending.removeFirst(12 + size)
      guard let request = Request(rawValue: number) else { throw Self.failure("QEMU says what only the real one should hear (message \(number))") }
      if request == .setBackEndRequestDescriptor {
        // Descriptors end what one read takes: they came with the last message.
        guard descriptors > 0, pending.isEmpty, !reply.opensChannel else { throw Self.failure("QEMU sends no descriptor for the back end's requests") }
        reply.opensChannel = true
      }
      if let answer = try answer(to: request, body, isAwaited: Flags(rawValue: flags).contains(.needsReply)) {
        reply.bytes += Self.message(request, flags: .isReply, answer)
      }
    }
    return reply
  }

  private func answer(to request: Request, _ body: [UInt8], isAwaited: Bool) throws(Failure) -> [UInt8]? {
    switch request {
    case .getFeatures: return Self.bytes(answers.features)
    case .getProtocolFeatures: return Self.bytes(answers.offered)
    case .getQueueNumber: return Self.bytes(answers.queues)
    case .getConfiguration: return try configuration(body)
    case .setProtocolFeatures where body != Self.bytes(answers.offered):
      throw Self.failure("the new QEMU does not know a feature of the protocol that the running one has agreed upon with it")
    case .setProtocolFeatures, .setOwner, .setVringCall, .setVringError, .setVringEnable, .setMTU, .setBackEndRequestDescriptor:
      return isAwaited ? Self.bytes(UInt64(0)) : nil
    }
  }

  /// Offset, size and flags come back before what was asked for.
  private func configuration(_ body: [UInt8]) throws(Failure) -> [UInt8] {
    guard body.count >= 12 else { throw Self.failure("what QEMU says is not vhost-user") }
    let (offset, size) = (Int(Self.number(body, 0)), Int(Self.number(body, 4)))
    guard offset + size <= answers.configuration.count else {
      throw Self.failure("the new QEMU's device has a longer configuration than the running one's")
    }
    return Array(body[..<12]) + answers.configuration[offset..<offset + size]
  }

  // MARK: Numbers, in the host's byte order, which is little-endian wherever moult can hand a connection over

  static func message(_ request: Request, flags: Flags, _ body: [UInt8]) -> [UInt8] {
    [request.rawValue, version | flags.rawValue, UInt32(body.count)].flatMap { bytes($0) } + body
  }
  private static func number(_ bytes: [UInt8], _ offset: Int) -> UInt32 { bytes[offset..<offset + 4].reversed().reduce(0) { $0 << 8 | UInt32($1) } }
  static func bytes(_ number: some FixedWidthInteger) -> [UInt8] { withUnsafeBytes(of: number.littleEndian) { Array($0) } }

  private static func failure(_ reason: String) -> Failure {
    Failure(step: "stand in for", subject: "the back end of vhost-user", reason: reason, hint: "restart the VM in the new QEMU")
  }
}

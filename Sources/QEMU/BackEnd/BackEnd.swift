public import Kernel

/// A program that does a device's work for QEMU, over a connection that QEMU makes (or accepts) at its start.
///
/// What they say to each other is a protocol of which the program keeps the state: two QEMUs cannot speak to it at once. A
/// new one is started with a stand-in in its place, and is given the running one's connection when it takes the guest over.
public enum BackEnd: Sendable, Hashable {
  public enum Kind: Sendable, Hashable {
    case tpm, vhostUser, network
    /// It is not stood in for: the new QEMU has one of its own from the start (``FileServerArguments``).
    case fileSystem
  }

  /// swtpm and its like, behind `-tpmdev emulator`.
  case tpm(TPMStandIn.Version)
  /// Who serves the rings of a disk: qemu-storage-daemon. Of others it is not known whether they serve a next connection.
  case vhostUser(VhostUserAnswers)
  /// Who serves the rings of a network: a switch. It takes the memory of another QEMU over the connection that it has.
  case network(VhostUserAnswers)

  /// As an argument of a command, and back.
  public var word: String {
    switch self {
    case .tpm(let version): Self.tpmPrefix + version.rawValue
    case .vhostUser(let answers): Self.vhostUserPrefix + answers.word
    case .network(let answers): Self.networkPrefix + answers.word
    }
  }

  public init?(word: String) {
    if word.hasPrefix(Self.tpmPrefix), let version = TPMStandIn.Version(rawValue: String(word.dropFirst(Self.tpmPrefix.count))) {
      self = .tpm(version)
    } else if word.hasPrefix(Self.vhostUserPrefix), let answers = VhostUserAnswers(word: word.dropFirst(Self.vhostUserPrefix.count)) {
      self = .vhostUser(answers)
    } else if word.hasPrefix(Self.networkPrefix), let answers = VhostUserAnswers(word: word.dropFirst(Self.networkPrefix.count)) {
      self = .network(answers)
    } else {
      return nil
    }
  }

  private static let tpmPrefix = "tpm-"
  private static let vhostUserPrefix = "vhost-user-"
  private static let networkPrefix = "network-"

  /// Its memory of a connection cannot be taken over by another QEMU, but it begins anew with the next one when that has
  /// ended: to the same address, and with what the stand-in was told.
  public var servesSuccessors: Bool { if case .vhostUser = self { true } else { false } }

  /// How many a QEMU has to it.
  public var connections: Int {
    switch self {
    case .tpm: 2
    case .vhostUser(let answers), .network(let answers): answers.hasChannel ? 2 : 1
    }
  }

  /// What answers a new QEMU, for one connection.
  public func standIn() -> any BackEndStandIn {
    switch self {
    case .tpm(let version): TPMStandIn(version)
    case .vhostUser(let answers), .network(let answers): VhostUserStandIn(answers)
    }
  }
}

/// What answers a new QEMU in the place of a back end until it gets the real one's connection. Pure: bytes in, bytes out.
///
/// It says what a start and the loading of a state need, and throws at all that only the real one could answer: the
/// connection ends then, the new QEMU fails, and the upgrade is undone before the guest has moved.
public protocol BackEndStandIn {
  /// Takes what has arrived. What is not whole yet it keeps.
  /// - Parameters:
  ///   - descriptors: how many came with these bytes.
  ///   - channel: 0: the connection; N: the Nth descriptor that became a channel.
  mutating func receive(_ bytes: [UInt8], descriptors: Int, on channel: Int) throws(Failure) -> BackEndReply
}

/// What goes back by the same channel.
public struct BackEndReply: Sendable, Equatable {
  public var bytes: [UInt8]
  /// The first of the descriptors that came is a socket to be listened to as well. All others are closed.
  public var opensChannel: Bool

  public init(_ bytes: [UInt8] = [], opensChannel: Bool = false) { (self.bytes, self.opensChannel) = (bytes, opensChannel) }
}

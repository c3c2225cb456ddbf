public import Kernel

/// Stands in for a TPM emulator: see ``BackEnd``. It answers what QEMU asks at its start and when it loads a state, and
/// forgets the state: the running emulator has it.
///
/// Source: the control channel as swtpm's manual page swtpm_ioctls(3) describes it, and what QEMU does with it
/// (`backends/tpm/tpm_emulator.c`, `tpm_util_test_tpmdev` in `backends/tpm/tpm_util.c`; seen on 5.2, 7.2, 10.0 and 11.1).
public struct TPMStandIn: BackEndStandIn {
  public enum Version: String, Sendable { case v1_2 = "1.2", v2_0 = "2.0" }

  private let version: Version
  private var control: [UInt8] = []
  private var data: [UInt8] = []
  /// Bytes of a command or an answer: what libtpms has unless QEMU wants less, which the running QEMU did as the new one does.
  private var bufferSize = mostBytes
  private static let mostBytes: UInt32 = 4096

  /// Whoever can connect could fill the memory.
  private static let longestBlob = 4 << 20

  public init(_ version: Version) { self.version = version }

  public mutating func receive(_ bytes: [UInt8], descriptors: Int, on channel: Int) throws(Failure) -> BackEndReply {
    if channel > 0 {
      data += bytes
      return BackEndReply(answersToProbes())
    }
    control += bytes
    var reply = BackEndReply()
    while let (command, body) = try nextCommand() {
      if command == .setDataDescriptor {
        guard descriptors > 0, !reply.opensChannel else { throw Self.failure("QEMU sends no descriptor for the TPM's commands") }
        reply.opensChannel = true
      }
      reply.bytes += answer(to: command, body)
    }
    return reply
  }

  // MARK: Control

  /// Those of a start (`tpm_emulator_handle_device_opts`, `_startup_tpm`), of a state being loaded (`_post_load`) and of an
  /// end. All others are about what the guest does with its TPM.
  private enum Command: UInt32 {
    case getCapability = 1, initialize = 2, shutdown = 3, setStateBlob = 13, stop = 14, setDataDescriptor = 16, setBufferSize = 17

    /// Bytes of its body, but for a blob.
    var size: Int {
      switch self {
      case .getCapability, .shutdown, .stop, .setDataDescriptor: 0
      case .initialize, .setBufferSize: 4
      case .setStateBlob: 12
      }
    }
  }

  private mutating func nextCommand() throws(Failure) -> (Command, body: ArraySlice<UInt8>)? {
    guard control.count >= 4 else { return nil }
    let number = Self.number(control, 0)
    guard let command = Command(rawValue: number) else {
      throw Self.failure("QEMU asks for what only the running TPM could answer (command \(number))")
    }
    var end = 4 + command.size
    guard control.count >= end else { return nil }
    if command == .setStateBlob {
      let size = Int(Self.number(control, 12))
      if size > Self.longestBlob { throw Self.failure("a state of \(size) bytes is none of a TPM") }
      end += size
    }
    guard control.count >= end else { return nil }
    let body = control[4..<end]
    control.removeFirst(end)
    return (command, body)
  }

  /// Without those that a TPM need not have, but for two: that a running QEMU lets itself be migrated tells that its TPM
  /// has them. Init, shutdown, established, locality, reset of established, get and set blob, stop, descriptor, buffer size;
  /// and to cancel a command, which is an error in QEMU's log if the TPM does not know it. Locking the storage is left
  /// out: an emulator that has given its lock up takes it again with the next command.
  private static let capabilities: UInt32 = 0x1 | 0x2 | 0x4 | 0x8 | 0x20 | 0x80 | 0x100 | 0x200 | 0x400 | 0x1000 | 0x2000

  private mutating func answer(to command: Command, _ body: ArraySlice<UInt8>) -> [UInt8] {
    let success = Self.bytes(0)
    switch command {
    case .getCapability: return success + Self.bytes(Self.capabilities)
    case .setBufferSize:
      let wanted = Self.number(Array(body), 0)
      if wanted > 0 { bufferSize = min(wanted, Self.mostBytes) }
      // And between which sizes one may choose, which QEMU only traces.
      return success + Self.bytes(bufferSize) + Self.bytes(bufferSize) + Self.bytes(Self.mostBytes)
    case .initialize, .shutdown, .setStateBlob, .stop, .setDataDescriptor: return success
    }
  }

  // MARK: Commands of the TPM

  /// QEMU tells the version by the tag of an answer, whatever that says; the guest's own commands follow one that sets the
  /// locality, and get nowhere.
  private mutating func answersToProbes() -> [UInt8] {
    var answers: [UInt8] = []
    while data.count >= 10 {
      let size = max(Int(Self.number(data, 2)), 10)
      guard data.count >= size else { break }
      let isOfVersion2 = data[0] == 0x80
      data.removeFirst(size)
      let (tag, code): ([UInt8], UInt32) =
        switch (version, isOfVersion2) {
        case (.v2_0, true): ([0x80, 0x01], 0x100)  // TPM_RC_INITIALIZE
        case (.v1_2, false): ([0, 0xc4], 0x26)  // TPM_INVALID_POSTINIT
        default: ([0, 0xc4], 0x1e)  // TPM_BADTAG
        }
      answers += tag + Self.bytes(10) + Self.bytes(code)
    }
    return answers
  }

  // MARK: Numbers, in the network's byte order

  private static func number(_ bytes: [UInt8], _ offset: Int) -> UInt32 { bytes[offset..<offset + 4].reduce(0) { $0 << 8 | UInt32($1) } }
  private static func bytes(_ number: UInt32) -> [UInt8] { stride(from: 24, through: 0, by: -8).map { UInt8(truncatingIfNeeded: number >> $0) } }

  private static func failure(_ reason: String) -> Failure {
    Failure(step: "stand in for", subject: "the TPM", reason: reason, hint: "is another program using the new QEMU's monitor?")
  }
}

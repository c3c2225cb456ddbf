import Kernel
import Testing

@testable import QEMU

/// What a new QEMU hears in the place of a TPM emulator. The dialogues are those of 5.2, 7.2, 10.0 and 11.1.
@Suite struct TPMStandInTests {
  static func bytes(_ hex: String) -> [UInt8] { hex.split(separator: " ").compactMap { UInt8($0, radix: 16) } }

  /// What is said, with how many descriptors, and what is answered.
  static let start: [(said: String, descriptors: Int, answer: String)] = [
    ("00 00 00 10", 1, "00 00 00 00"),
    ("00 00 00 01", 0, "00 00 00 00 00 00 37 AF"),
    ("00 00 00 0E", 0, "00 00 00 00"),
    ("00 00 00 11 00 00 00 00", 0, "00 00 00 00 00 00 10 00 00 00 10 00 00 00 10 00"),
    ("00 00 00 0E", 0, "00 00 00 00"),
    // tpm-crb has less room, and a TPM not more.
    ("00 00 00 11 00 00 0F 80", 0, "00 00 00 00 00 00 0F 80 00 00 0F 80 00 00 10 00"),
    ("00 00 00 11 00 00 00 00", 0, "00 00 00 00 00 00 0F 80 00 00 0F 80 00 00 10 00"),
    ("00 00 00 11 00 01 00 00", 0, "00 00 00 00 00 00 10 00 00 00 10 00 00 00 10 00"),
    // A state: the head of a blob, then its body, which begins like a command.
    ("00 00 00 0D 00 00 00 00 00 00 00 02 00 00 00 05", 0, ""),
    ("00 00 00 04", 0, ""),
    ("FF", 0, "00 00 00 00"),
    ("00 00 00 02 00 00 00 01", 0, "00 00 00 00"),
    ("00 00 00 03", 0, "00 00 00 00"),
  ]

  @Test func aStartAndAStateAreAnswered() throws {
    var tpm = TPMStandIn(.v2_0)
    for (index, line) in Self.start.enumerated() {
      let reply = try tpm.receive(Self.bytes(line.said), descriptors: line.descriptors, on: 0)
      #expect(reply == BackEndReply(Self.bytes(line.answer), opensChannel: index == 0), "\(line.said)")
    }
  }

  @Test func howTheBytesArriveDoesNotMatter() throws {
    let dialogue = Self.start.dropFirst()
    let (said, answers) = (dialogue.flatMap { Self.bytes($0.said) }, dialogue.flatMap { Self.bytes($0.answer) })
    for size in [1, 3, said.count] {
      var tpm = TPMStandIn(.v2_0)
      var heard: [UInt8] = []
      for start in stride(from: 0, to: said.count, by: size) {
        heard += try tpm.receive(Array(said[start..<min(start + size, said.count)]), descriptors: 0, on: 0).bytes
      }
      #expect(heard == answers, "by \(size)")
    }
  }

  /// They would be the guest's doing, or be lost: established, locality, a state to be saved, a cancel, one there is not.
  @Test(arguments: ["00 00 00 04", "00 00 00 05 00 00 00 00", "00 00 00 0C 00 00 00 01", "00 00 00 09", "00 00 00 00", "FF FF FF FF", "00 00 00 10"])
  func whatOnlyTheRealOneCouldAnswerEndsIt(said: String) {
    var tpm = TPMStandIn(.v2_0)
    #expect(throws: Failure.self) { try tpm.receive(Self.bytes(said), descriptors: 0, on: 0) }
  }

  @Test func twoDescriptorsForTheCommandsEndIt() {
    var tpm = TPMStandIn(.v2_0)
    #expect(throws: Failure.self) { try tpm.receive(Self.bytes("00 00 00 10 00 00 00 10"), descriptors: 2, on: 0) }
  }

  /// QEMU asks first as one asks a TPM 2.0, then as one asks a 1.2, and takes the tag for the version.
  static let probes: [(version: TPMStandIn.Version, said: String, answer: String)] = [
    (.v2_0, "80 01 00 00 00 0A 00 00 01 81", "80 01 00 00 00 0A 00 00 01 00"),
    (.v2_0, "00 C1 00 00 00 0A 00 00 00 F1", "00 C4 00 00 00 0A 00 00 00 1E"),
    (.v1_2, "80 01 00 00 00 0A 00 00 01 81", "00 C4 00 00 00 0A 00 00 00 1E"),
    (.v1_2, "00 C1 00 00 00 0A 00 00 00 F1", "00 C4 00 00 00 0A 00 00 00 26"),
    (.v2_0, "80 01 00 00 00 0A 00 00 01", ""),
    (.v2_0, "80 01 00 00 00 0C 00 00 01 44 00", ""),
    (.v2_0, "80 01 00 00 00 00 00 00 01 44", "80 01 00 00 00 0A 00 00 01 00"),
  ]

  @Test(arguments: probes) func theVersionIsToldByTheTag(version: TPMStandIn.Version, said: String, answer: String) throws {
    var tpm = TPMStandIn(version)
    #expect(try tpm.receive(Self.bytes(said), descriptors: 0, on: 1) == BackEndReply(Self.bytes(answer)))
  }

  @Test func aBackEndIsAWord() {
    for word in ["tpm-2.0", "tpm-1.2"] { #expect(BackEnd(word: word)?.word == word) }
    for word in ["", "tpm", "tpm-", "tpm-3.0", "2.0"] { #expect(BackEnd(word: word) == nil) }
  }
}

import Testing

@testable import Upgrade

/// Kernels and microcode: what is newer on the disk than what runs.
@Suite struct HostUpdatesTests {
  static let debian = "Linux version 6.1.0-18-amd64 (debian-kernel@lists.debian.org) (gcc-12 (Debian 12.2.0-14) 12.2.0) #1 SMP Debian 6.1.76-1 (2024-02-01)\n"

  struct Kernel: Sendable {
    var what: String
    var release = "6.1.0-18-amd64"
    var banner = HostUpdatesTests.debian
    var releases: [String] = []
    var packages: [String: String] = [:]
    var installed: String?
    var package: String?
  }

  @Test(arguments: [
    Kernel(what: "nothing is installed: a kernel from elsewhere"),
    Kernel(what: "the same", releases: ["6.1.0-18-amd64"], packages: ["6.1.0-18-amd64": "6.1.76-1", "amd64": "6.1.76-1"]),
    Kernel(what: "a newer one is booted already", releases: ["6.1.0-9-amd64", "6.1.0-18-amd64"]),
    Kernel(what: "newer, by its package", packages: ["6.1.0-18-amd64": "6.1.76-1", "6.1.0-21-amd64": "6.1.90-1"], installed: "6.1.0-21-amd64", package: "linux-image-6.1.0-21-amd64"),
    Kernel(what: "newer, by its image alone", releases: ["6.1.0-18-amd64", "6.10.1"], installed: "6.10.1"),
    Kernel(what: "another flavour of the same", releases: ["6.1.0-18-cloud-amd64", "6.1.0-18-rt-amd64"]),
    Kernel(what: "a rescue image is none", releases: ["0-rescue-5f3a", "linux", "6.1.0-18-amd64"]),
    Kernel(
      what: "the same release, built anew", packages: ["6.1.0-18-amd64": "6.1.80-1"],
      installed: "6.1.0-18-amd64 (6.1.80-1)", package: "linux-image-6.1.0-18-amd64"),
    Kernel(what: "a banner without a package's version", banner: "Linux version 6.1.0-18-amd64 (x@y) #1 SMP", packages: ["6.1.0-18-amd64": "6.1.80-1"]),
    Kernel(what: "Fedora", release: "6.8.5-301.fc40.x86_64", banner: "Linux version 6.8.5-301.fc40.x86_64", releases: ["6.8.5-301.fc40.x86_64", "6.8.10-300.fc40.x86_64"], installed: "6.8.10-300.fc40.x86_64"),
  ])
  func kernel(kernel: Kernel) {
    let update = HostUpdates.kernel(release: kernel.release, banner: kernel.banner, releases: kernel.releases, packages: kernel.packages)
    #expect(update?.installed == kernel.installed, "\(kernel.what)")
    #expect(update?.package == kernel.package, "\(kernel.what)")
    #expect(update.map { $0.resolution == .reboot } ?? true)
  }

  @Test(arguments: [
    ("GenuineIntel", 6, 85, 4, "0x2006e05", 0x50654, "/lib/firmware/intel-ucode/06-55-04"),
    ("AuthenticAMD", 25, 1, 1, "0xa0011d1", 0xa0_0f11, "/lib/firmware/amd-ucode/microcode_amd_fam19h.bin"),
    ("AuthenticAMD", 16, 4, 3, "0x10000c8", 0x10_0f43, "/lib/firmware/amd-ucode/microcode_amd.bin"),
  ] as [(String, Int, Int, Int, String, UInt32, String)])
  func processor(vendor: String, family: Int, model: Int, stepping: Int, microcode: String, signature: UInt32, file: String) throws {
    let processor = try #require(
      Processor(
        cpuinfo: "processor\t: 0\nvendor_id\t: \(vendor)\ncpu family\t: \(family)\nmodel\t\t: \(model)\nmodel name\t: X: Y\nstepping\t: \(stepping)\nmicrocode\t: \(microcode)\nflags\t\t: fpu vme\n\nprocessor\t: 1\nflags\t\t: hypervisor\n"))
    #expect(processor.signature == signature && processor.microcodeFiles.first == file)
    #expect(processor.microcode == UInt32(microcode.dropFirst(2), radix: 16) && !processor.isVirtual)
  }

  @Test func `a virtual machine's microcode is not its own, and other architectures have none`() {
    #expect(Processor(cpuinfo: "vendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t: 1\nstepping\t: 1\nflags\t: fpu hypervisor\n")?.isVirtual == true)
    #expect(Processor(cpuinfo: "processor\t: 0\nBogoMIPS\t: 50\nCPU implementer\t: 0x41\n") == nil)
  }

  private static func bytes(_ words: [UInt32]) -> [UInt8] { words.flatMap { word in (0..<4).map { UInt8(truncatingIfNeeded: word >> (8 * $0)) } } }

  /// One update of Intel's: header, 8 bytes of data, and a table of more processors if there are any.
  private static func intel(_ revision: UInt32, _ signature: UInt32, flags: UInt32, more: [(UInt32, UInt32)] = []) -> [UInt8] {
    let table: [UInt32] = more.isEmpty ? [] : [UInt32(more.count), 0, 0, 0, 0] + more.flatMap { [$0.0, $0.1, 0] }
    return bytes([1, revision, 0x0211_2026, signature, 0, 1, flags, 8, UInt32(56 + table.count * 4), 0, 0, 0, 7, 7] + table)
  }

  @Test func `Intel's newest update for this processor and platform`() {
    let file = Self.intel(3, 0x50654, flags: 0x80) + Self.intel(9, 0x50654, flags: 0x01) + Self.intel(5, 0x50653, flags: 1, more: [(0x50654, 0x80)])
    func newest(_ signature: UInt32, _ flags: UInt32?) -> Microcode? { Microcode.intel(in: file, signature: signature, flags: flags) }
    #expect(newest(0x50654, 0x80) == Microcode(revision: 5, date: "2026-02-11"))
    #expect(newest(0x50654, 0x01)?.revision == 9)
    #expect(newest(0x50654, nil)?.revision == 9)
    #expect(newest(0x50653, 1)?.revision == 5)
    #expect(newest(0x50655, 1) == nil)
    #expect(Microcode.intel(in: Array(file.prefix(90)), signature: 0x50654, flags: nil)?.revision == 3, "what is cut off does not count")
    #expect(Microcode.intel(in: [], signature: 1, flags: nil) == nil)
  }

  @Test func `AMD's newest patch for the processors that share it`() {
    func patch(_ revision: UInt32, _ processor: UInt32) -> [UInt8] {
      Self.bytes([1, 64, 0, revision, 0, 0, 0, 0, processor] + [UInt32](repeating: 0, count: 9))
    }
    let table = Self.bytes([0x0041_4d44, 0, 48, 0xa0_0f11, 0, 0, 0xa011, 0xa0_0f12, 0, 0, 0xa012, 0, 0, 0, 0])
    let file = table + patch(7, 0xa011) + patch(9, 0xa012) + patch(8, 0xa011)
    #expect(Microcode.amd(in: file, signature: 0xa0_0f11)?.revision == 8)
    #expect(Microcode.amd(in: file, signature: 0xa0_0f12)?.revision == 9)
    #expect(Microcode.amd(in: file, signature: 0xa0_0f13) == nil)
    #expect(Microcode.amd(in: Array(file.dropLast()), signature: 0xa0_0f11)?.revision == 7)
    #expect(Microcode.amd(in: [1, 2, 3], signature: 1) == nil)
  }
}

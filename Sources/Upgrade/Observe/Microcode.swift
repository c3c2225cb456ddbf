/// The host's processor, as far as its microcode depends on it. Source: /proc/cpuinfo of an x86 host.
struct Processor: Equatable {
  var isIntel: Bool
  var family: UInt32
  var model: UInt32
  var stepping: UInt32
  /// The revision that runs.
  var microcode: UInt32?
  /// It is a virtual machine's: its microcode is the business of the host below.
  var isVirtual: Bool

  init?(cpuinfo: String) {
    var fields: [Substring: String] = [:]
    for line in cpuinfo.split(separator: "\n", omittingEmptySubsequences: false) {
      if line.isEmpty { break }
      let parts = line.split(separator: ":", maxSplits: 1)
      if parts.count == 2 { fields[parts[0].prefix { $0 != "\t" }] = String(parts[1]).trimmingWhitespace }
    }
    guard let vendor = fields["vendor_id"], ["GenuineIntel", "AuthenticAMD"].contains(vendor),
      let family = fields["cpu family"].flatMap({ UInt32($0) }), let model = fields["model"].flatMap({ UInt32($0) }),
      let stepping = fields["stepping"].flatMap({ UInt32($0) })
    else { return nil }
    isIntel = vendor == "GenuineIntel"
    (self.family, self.model, self.stepping) = (family, model, stepping)
    microcode = fields["microcode"].flatMap { UInt32($0.dropFirst(2), radix: 16) }
    isVirtual = fields["flags"]?.split(separator: " ").contains("hypervisor") ?? false
  }

  /// EAX of CPUID leaf 1, as microcode files name processors.
  var signature: UInt32 {
    let base = min(family, 15)
    return (family - base) << 20 | (model >> 4) << 16 | base << 8 | (model & 15) << 4 | stepping
  }

  /// Where the processor's vendor's package has it.
  var microcodeFiles: [String] {
    if isIntel {
      let name = [family, model, stepping].map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined(separator: "-")
      return ["/lib/firmware/intel-ucode/" + name, "/lib/firmware/intel-ucode/\(name).initramfs"]
    }
    let directory = "/lib/firmware/amd-ucode/"
    return [directory + (family < 0x15 ? "microcode_amd.bin" : "microcode_amd_fam\(String(family, radix: 16))h.bin")]
  }
}

/// The newest microcode for a processor in a file of its vendor's.
struct Microcode: Equatable {
  var revision: UInt32
  /// `2026-02-11`; AMD's files have none that means anything.
  var date: String?

  /// Updates one after the other, each with a header of 48 bytes and perhaps a table of more processors.
  /// Source: Intel SDM volume 3, "Microcode Update Facilities".
  /// - Parameter flags: the processor's platform, one bit; nil if not known: then any will do.
  static func intel(in bytes: [UInt8], signature: UInt32, flags: UInt32?) -> Microcode? {
    var newest: Microcode?
    var start = 0
    while start + 48 <= bytes.count, word(bytes, start) == 1 {
      let dataSize = word(bytes, start + 28) == 0 ? 2000 : Int(word(bytes, start + 28))
      let totalSize = word(bytes, start + 32) == 0 ? 2048 : Int(word(bytes, start + 32))
      guard totalSize >= 48 + dataSize, start + totalSize <= bytes.count else { break }
      var processors = [(signature: word(bytes, start + 12), flags: word(bytes, start + 24))]
      let table = start + 48 + dataSize
      if totalSize >= 48 + dataSize + 20 {
        let count = min(Int(word(bytes, table)), (totalSize - 48 - dataSize - 20) / 12)
        for index in 0..<count { processors.append((word(bytes, table + 20 + index * 12), word(bytes, table + 24 + index * 12))) }
      }
      let revision = word(bytes, start + 4)
      if revision > newest?.revision ?? 0, processors.contains(where: { $0.signature == signature && (flags.map { [mask = $0.flags] in $0 & mask != 0 } ?? true) }) {
        newest = Microcode(revision: revision, date: date(word(bytes, start + 8)))
      }
      start += totalSize
    }
    return newest
  }

  /// A container: a table of the processors that share patches, then the patches.
  /// Source: Linux, arch/x86/kernel/cpu/microcode/amd.c.
  static func amd(in bytes: [UInt8], signature: UInt32) -> Microcode? {
    guard bytes.count >= 12, word(bytes, 0) == 0x0041_4d44, word(bytes, 4) == 0 else { return nil }
    let tableEnd = 12 + Int(word(bytes, 8))
    guard tableEnd <= bytes.count else { return nil }
    var equivalent: UInt16?
    for entry in stride(from: 12, to: tableEnd - 15, by: 16) where word(bytes, entry) == signature && equivalent == nil {
      equivalent = UInt16(truncatingIfNeeded: word(bytes, entry + 12))
    }
    guard let equivalent else { return nil }
    var newest: Microcode?
    var start = tableEnd
    while start + 8 <= bytes.count, word(bytes, start) == 1 {
      let size = Int(word(bytes, start + 4))
      guard size >= 64, start + 8 + size <= bytes.count else { break }
      let processor = UInt16(truncatingIfNeeded: word(bytes, start + 8 + 24))
      let revision = word(bytes, start + 8 + 4)
      if processor == equivalent, revision > newest?.revision ?? 0 { newest = Microcode(revision: revision) }
      start += 8 + size
    }
    return newest
  }

  private static func word(_ bytes: [UInt8], _ offset: Int) -> UInt32 {
    bytes.withUnsafeBytes { UInt32(littleEndian: $0.loadUnaligned(fromByteOffset: offset, as: UInt32.self)) }
  }

  /// Decimal digits in a word, month first: 0x02112026.
  private static func date(_ word: UInt32) -> String? {
    let text = String(word, radix: 16)
    let digits = String(repeating: "0", count: 8 - text.count) + text
    guard digits.allSatisfy(\.isNumber) else { return nil }
    return "\(digits.suffix(4))-\(digits.prefix(2))-\(digits.dropFirst(2).prefix(2))"
  }
}

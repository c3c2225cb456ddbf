import Glibc
import Kernel

/// What is needed of the Executable and Linkable Format: a shared library's name. Source: elf(5).
enum ELF {
  /// The DT_SONAME of a 64-bit little-endian library; nil for any other file.
  static func soname(of path: String) throws(Failure) -> String? { soname(in: try Files.read(path)) }

  static func soname(in bytes: [UInt8]) -> String? {
    func number<Value: FixedWidthInteger>(_ offset: Int, _: Value.Type) -> Value? {
      guard offset >= 0, offset + MemoryLayout<Value>.size <= bytes.count else { return nil }
      return bytes.withUnsafeBytes { Value(littleEndian: $0.loadUnaligned(fromByteOffset: offset, as: Value.self)) }
    }
    guard bytes.starts(with: [0x7f, 0x45, 0x4c, 0x46, 2, 1]), let headers = number(32, UInt64.self),
      let size = number(54, UInt16.self), let count = number(56, UInt16.self)
    else { return nil }
    var segments: [(address: UInt64, offset: UInt64, size: UInt64)] = []
    var dynamic: (offset: Int, size: Int)?
    for index in 0..<Int(count) {
      guard let start = Int(exactly: headers), let type = number(start + index * Int(size), UInt32.self),
        let offset = number(start + index * Int(size) + 8, UInt64.self),
        let address = number(start + index * Int(size) + 16, UInt64.self),
        let length = number(start + index * Int(size) + 32, UInt64.self)
      else { return nil }
      if type == 1 { segments.append((address, offset, length)) }
      if type == 2, let offset = Int(exactly: offset), let length = Int(exactly: length) { dynamic = (offset, length) }
    }
    guard let dynamic else { return nil }
    var name: UInt64?
    var strings: UInt64?
    for entry in 0..<(dynamic.size / 16) {
      guard let tag = number(dynamic.offset + entry * 16, UInt64.self),
        let value = number(dynamic.offset + entry * 16 + 8, UInt64.self)
      else { break }
      if tag == 0 { break }
      if tag == 14 { name = value }
      if tag == 5 { strings = value }
    }
    // The string table is given by its address in memory: the segment that holds it tells the offset in the file.
    guard let name, let strings,
      let segment = segments.first(where: { strings >= $0.address && strings - $0.address < $0.size }),
      let start = Int(exactly: segment.offset &+ (strings - segment.address) &+ name), start >= 0, start < bytes.count
    else { return nil }
    return String(decoding: bytes[start...].prefix { $0 != 0 }, as: UTF8.self)
  }
}

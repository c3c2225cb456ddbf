import Glibc
import Kernel

/// What is needed of the Executable and Linkable Format. Source: elf(5).
enum ELF {
  /// The build id that the linker left in a note: equal for files of one build, whatever their names or inodes.
  /// Nil for a file without one.
  static func buildID(of path: String) throws(Failure) -> [UInt8]? {
    // Linkers put it right behind the headers: programs need not be read whole.
    buildID(in: try Files.read(path, limit: 1 << 16))
  }

  static func buildID(in bytes: [UInt8]) -> [UInt8]? {
    for segment in segments(in: bytes) where segment.type == 4 {  // PT_NOTE
      var offset = segment.offset
      while offset < segment.offset + segment.size {
        guard let nameSize = number(bytes, offset, UInt32.self), let size = number(bytes, offset + 4, UInt32.self),
          let type = number(bytes, offset + 8, UInt32.self)
        else { break }
        let name = offset + 12
        let start = name + (Int(nameSize) + 3) & ~3
        guard start + Int(size) <= bytes.count else { break }
        if type == 3, nameSize == 4, bytes[name..<name + 4].elementsEqual("GNU\0".utf8) {  // NT_GNU_BUILD_ID
          return Array(bytes[start..<start + Int(size)])
        }
        offset = start + (Int(size) + 3) & ~3
      }
    }
    return nil
  }

  /// A value of a kernel module's `.modinfo`, such as `srcversion`: `key=value` between NULs.
  static func moduleInfo(_ key: String, in bytes: [UInt8]) -> String? {
    let wanted = [0] + Array((key + "=").utf8)
    var index = 0
    while let zero = bytes[index...].firstIndex(of: 0) {
      index = zero + 1
      if bytes[zero...].starts(with: wanted) {
        return String(decoding: bytes[(zero + wanted.count)...].prefix { $0 != 0 }, as: UTF8.self)
      }
    }
    return nil
  }

  private static func number<Value: FixedWidthInteger>(_ bytes: [UInt8], _ offset: Int, _: Value.Type) -> Value? {
    guard offset >= 0, offset <= bytes.count - MemoryLayout<Value>.size else { return nil }
    return bytes.withUnsafeBytes { Value(littleEndian: $0.loadUnaligned(fromByteOffset: offset, as: Value.self)) }
  }

  /// The program headers of a 64-bit little-endian file; none of any other.
  private static func segments(in bytes: [UInt8]) -> [(type: UInt32, address: UInt64, offset: Int, size: Int)] {
    guard bytes.starts(with: [0x7f, 0x45, 0x4c, 0x46, 2, 1]), let headers = number(bytes, 32, UInt64.self).flatMap({ Int(exactly: $0) }),
      let size = number(bytes, 54, UInt16.self), let count = number(bytes, 56, UInt16.self), headers < bytes.count
    else { return [] }
    return (0..<Int(count)).compactMap { index in
      let start = headers + index * Int(size)
      guard let type = number(bytes, start, UInt32.self), let offset = number(bytes, start + 8, UInt64.self),
        let address = number(bytes, start + 16, UInt64.self), let length = number(bytes, start + 32, UInt64.self),
        let offset = Int(exactly: offset), let length = Int(exactly: length), offset <= bytes.count, length <= bytes.count
      else { return nil }
      return (type, address, offset, length)
    }
  }

  /// The DT_SONAME of a 64-bit little-endian library; nil for any other file.
  static func soname(of path: String) throws(Failure) -> String? { soname(in: try Files.read(path)) }

  static func soname(in bytes: [UInt8]) -> String? {
    let segments = segments(in: bytes)
    guard let dynamic = segments.first(where: { $0.type == 2 }) else { return nil }
    var name: UInt64?
    var strings: UInt64?
    for entry in 0..<(dynamic.size / 16) {
      guard let tag = number(bytes, dynamic.offset + entry * 16, UInt64.self),
        let value = number(bytes, dynamic.offset + entry * 16 + 8, UInt64.self)
      else { break }
      if tag == 0 { break }
      if tag == 14 { name = value }
      if tag == 5 { strings = value }
    }
    // The string table is given by its address in memory: the segment that holds it tells the offset in the file.
    guard let name, let strings,
      let segment = segments.first(where: { $0.type == 1 && strings >= $0.address && strings - $0.address < UInt64($0.size) }),
      let start = Int(exactly: UInt64(segment.offset) &+ (strings - segment.address) &+ name), start >= 0, start < bytes.count
    else { return nil }
    return String(decoding: bytes[start...].prefix { $0 != 0 }, as: UTF8.self)
  }
}

/// Frames over a stream, each after its length in four bytes, as networks of type `stream` have them.
/// Source: `net_fill_rstate` in QEMU's net/net.c.
public enum FrameStream {
  /// Of an Ethernet header, and what QEMU has room for (`NET_BUFSIZE`).
  private static let lengths = 14...69632

  /// What waits in a receiver's queue may begin in the middle of a frame: the receiver has read the rest.
  ///
  /// A frame is told by the chain of lengths that begins with it and ends with the last byte. The sender may not be done
  /// with the last frame: then the chain must be long, or begin with the first byte.
  /// - Returns: how many bytes to leave out, so that what follows is a frame; nil if that cannot be told.
  public static func beginning(of bytes: [UInt8]) -> Int? {
    if bytes.isEmpty || chain(from: 0, in: bytes) != nil { return 0 }
    let whole = (1..<min(bytes.count, lengths.upperBound + 4)).filter { start in
      chain(from: start, in: bytes).map { $0.isComplete || $0.places.count >= longChain } ?? false
    }
    // All the others must be frames of the first one's chain: else one of the two is there by chance.
    guard let first = whole.first, let found = chain(from: first, in: bytes), whole.allSatisfy(found.places.contains) else { return nil }
    return first
  }

  /// What waits, cut where frames begin: the rest of one that was sent in part before, if there is one, then whole ones.
  public static func pieces(of bytes: [UInt8]) -> [ArraySlice<UInt8>] {
    guard let first = beginning(of: bytes) else { return [] }
    var pieces = first > 0 ? [bytes[..<first]] : []
    var place = first
    while place + 4 <= bytes.count {
      let end = place + 4 + length(at: place, in: bytes)
      if end > bytes.count { break }
      pieces.append(bytes[place..<end])
      place = end
    }
    return pieces
  }

  private static func length(at place: Int, in bytes: [UInt8]) -> Int { bytes[place..<place + 4].reduce(0) { $0 << 8 | Int($1) } }

  /// So many lengths that make sense do not follow from each other by chance.
  private static let longChain = 4

  /// - Returns: where its frames begin, and whether it ends with the last byte; nil if it is none.
  private static func chain(from start: Int, in bytes: [UInt8]) -> (places: Set<Int>, isComplete: Bool)? {
    var place = start
    var places: Set<Int> = []
    while place + 4 <= bytes.count {
      let length = length(at: place, in: bytes)
      guard lengths.contains(length) else { return nil }
      places.insert(place)
      place += 4 + length
    }
    return places.isEmpty ? nil : (places, place == bytes.count)
  }
}

/// A block of guest memory, ROM or device memory, as a migration sends it by name. Source: HMP `info ramblock`;
/// QEMU's migration/ram.c for what must fit.
public struct RAMBlock: Sendable, Equatable {
  public var name: String
  /// Bytes in use: what the sending side announces.
  public var used: UInt64
  /// Bytes it can grow to. The same as `used` for a block that cannot.
  public var total: UInt64
  public init(name: String, used: UInt64, total: UInt64) {
    self.name = name
    self.used = used
    self.total = total
  }

  /// No vCPU writes to it as to RAM: a ROM, or flash, whose writes its device carries out.
  public var isReadOnly: Bool {
    name.hasPrefix("/rom@") || name.hasSuffix(".rom") || name.hasPrefix("system.flash") || ["pc.bios", "isa-bios"].contains(name)
  }

  /// Reads the table. Versions differ in its columns: the headings tell which is which.
  /// - Returns: nil if this is no such table, or a line of it makes no sense.
  public static func parse(_ text: String) -> [RAMBlock]? {
    let lines = text.split(whereSeparator: \.isNewline).map { $0.split(separator: " ") }
    guard let head = lines.first, head.starts(with: ["Block", "Name"]),
      let used = head.firstIndex(of: "Used"), let total = head.firstIndex(of: "Total")
    else { return nil }
    // `Block Name` is two words of the heading and `4 KiB` two of a line; names themselves may have spaces.
    var blocks: [RAMBlock] = []
    for line in lines.dropFirst() {
      guard line.count >= head.count, let usedBytes = number(line[line.count - (head.count - used)]),
        let totalBytes = number(line[line.count - (head.count - total)])
      else { return nil }
      let name = line.prefix(line.count - (head.count - 2) - 1).joined(separator: " ")
      if name.isEmpty || totalBytes < usedBytes { return nil }
      blocks.append(RAMBlock(name: name, used: usedBytes, total: totalBytes))
    }
    return blocks
  }

  private static func number(_ word: Substring) -> UInt64? {
    word.hasPrefix("0x") ? UInt64(word.dropFirst(2), radix: 16) : nil
  }

  /// Why a migration from `old` blocks into `new` ones would fail, in words.
  static func mismatches(old: [RAMBlock], new: [RAMBlock]) -> [String] {
    var found: [String] = []
    for block in old {
      guard let twin = new.first(where: { $0.name == block.name }) else {
        found.append("memory block \(block.name): \(block.used) bytes there, none here")
        continue
      }
      // A block that can grow is made as large as the sender's, if it has the room.
      let canResize = twin.total > twin.used && block.used <= twin.total
      if block.used != twin.used, !canResize {
        found.append("memory block \(block.name): \(twin.used) bytes here, \(block.used) there (a ROM or firmware of another size)")
      }
    }
    return found
  }
}

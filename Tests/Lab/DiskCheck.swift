import Foundation
import Glibc

/// Reads what the guest counted on its disk (Tests/Lab/guest/pulse.c has the layout).
enum DiskCheck {
  private static let sector = 512
  private static let magic = Array("MOULTLOG".utf8)

  /// - Parameters:
  ///   - synced: the last number the guest said was on the disk.
  ///   - inUse: a QEMU has the image open, and its guest stands still.
  ///   - wasKilled: its last QEMU was: clusters that it had reserved and not yet used are no fault.
  static func faults(
    image: String, format: String, synced: Int, inUse: Bool = false, wasKilled: Bool = false
  ) throws -> [String] {
    var faults: [String] = []
    let share = inUse ? ["-U"] : []
    if format != "raw" {
      let check = try run(["qemu-img", "check", "-f", format] + share + [image])
      if check.code != 0, check.code != 3 || !wasKilled { faults.append("qemu-img check: exit \(check.code)\n\(check.stdout)\(check.stderr)") }
    }
    let raw = image + ".raw"
    defer { unlink(raw) }
    try succeed(["qemu-img", "convert"] + share + ["-f", format, "-O", "raw", image, raw])
    let data = [UInt8](try Data(contentsOf: URL(fileURLWithPath: raw)))

    guard let last = number(data, 0) else { return faults + ["the first sector holds no number"] }
    if last < synced { faults.append("\(synced) was acknowledged, the disk holds \(last)") }
    let places = data.count / sector - 1
    // The place of the number after the last may already hold it: it is written before the first sector.
    for value in max(1, last - places + 2)...max(1, last) where last > 0 {
      let found = number(data, 1 + (value - 1) % places)
      if found != value { faults.append("number \(value): its place holds \(found.map(String.init) ?? "nothing")") }
    }
    return faults
  }

  private static func number(_ data: [UInt8], _ index: Int) -> Int? {
    let start = index * sector
    guard data.count >= start + sector, Array(data[start..<start + 8]) == magic else { return nil }
    return data[start + 8..<start + 16].reversed().reduce(0) { $0 << 8 | Int($1) }
  }
}

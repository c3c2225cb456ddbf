import FoundationEssentials
import Glibc
import Kernel
import QEMU

/// The journal of a VM: everything that a later command has to know of an upgrade, in the order it became so.
///
/// A text file that only grows. Each line is `1 LENGTH CHECKSUM PAYLOAD`: the version of the format, the length
/// of the payload in bytes, its CRC-32 in hexadecimal, and JSON without a line break: an entry (a step began, was
/// done, failed, is being undone) or a whole record. The last record counts. Entries belong to the upgrade whose
/// record came last before them.
///
/// Each line is one write(2), made before the effect that it announces. There is no fsync(2): the file lies in
/// `/run`, in memory, and outlives moult, not the host; the VM does not outlive the host either.
enum Journal {
  static let version = 1

  /// What a journal says.
  struct Contents {
    /// The upgrade as it was noted last.
    var record: UpgradeRecord?
    /// The held upgrade that `record` takes back.
    var superseded: UpgradeRecord?
    /// Of `record`'s upgrade.
    var entries: [JournalEntry] = []
    /// Lines that are whole but are not what was written, from 1.
    var damagedLines: [Int] = []
    /// The last line has no end: whoever wrote it was killed, or had no room, before it meant anything.
    var isTorn = false

    /// Whether a step may have had an effect: its beginning is written down, or is in what cannot be read.
    func mayHaveBegun(_ step: StepName) -> Bool {
      !damagedLines.isEmpty || entries.contains { $0.step == step && $0.phase == .begin }
    }
  }

  static func line(_ payload: String) -> [UInt8] {
    let bytes = Array(payload.utf8)
    return Array("\(version) \(bytes.count) \(CRC32.text(CRC32.of(bytes))) ".utf8) + bytes + [UInt8(ascii: "\n")]
  }

  static func line(_ record: UpgradeRecord) throws(Failure) -> [UInt8] {
    do { return line(String(decoding: try JSONEncoder().encode(RecordLine(record: record)), as: UTF8.self)) } catch {
      throw Failure(step: "write the record of", subject: record.vm, reason: "\(error)")
    }
  }

  /// Reads a journal of this version or of the one before, whose records were in a file of their own.
  /// - Throws: only for a journal that a newer moult has written.
  static func read(_ bytes: [UInt8], path: String) throws(Failure) -> Contents {
    var contents = Contents()
    var start = bytes.startIndex
    var number = 0
    while start < bytes.endIndex {
      number += 1
      guard let end = bytes[start...].firstIndex(of: UInt8(ascii: "\n")) else {
        contents.isTorn = true
        break
      }
      let line = bytes[start..<end]
      start = end + 1
      guard let payload = try payload(of: line, path: path) else {
        contents.damagedLines.append(number)
        continue
      }
      if let entry = JournalEntry(payload) {
        contents.entries.append(entry)
      } else if let record = decodeRecord(payload) {
        contents.take(record)
      } else {
        contents.damagedLines.append(number)
      }
    }
    return contents
  }

  /// The JSON of a line; nil if it is not what was written.
  private static func payload(of line: ArraySlice<UInt8>, path: String) throws(Failure) -> ArraySlice<UInt8>? {
    // Before version 1 a line was the JSON alone.
    if line.first == UInt8(ascii: "{") { return line }
    let fields = line.split(separator: UInt8(ascii: " "), maxSplits: 3, omittingEmptySubsequences: false)
    guard fields.count == 4, let version = Int(String(decoding: fields[0], as: UTF8.self)), version > 0,
      let length = Int(String(decoding: fields[1], as: UTF8.self)), fields[3].count == length,
      String(decoding: fields[2], as: UTF8.self) == CRC32.text(CRC32.of(fields[3]))
    else { return nil }
    if version > Self.version {
      throw Failure(
        step: "read the journal", subject: path, reason: "a newer moult has written it (format \(version), this one knows \(Self.version))",
        hint: "use the newer moult to end this upgrade")
    }
    return fields[3]
  }

  private static func decodeRecord(_ payload: ArraySlice<UInt8>) -> UpgradeRecord? {
    do { return try JSONDecoder().decode(RecordLine.self, from: Data(payload)).record } catch { return nil }
  }

  private struct RecordLine: Codable { var record: UpgradeRecord }
}

extension Journal.Contents {
  mutating func take(_ next: UpgradeRecord) {
    if let record, record.id != next.id {
      entries = []
      // The other way round it was a rollback that was undone.
      superseded = record.state == .probation && next.state != .probation ? record : nil
    }
    record = next
  }
}

extension JournalEntry {
  /// JSON, written by hand: it is written while the guest stands still.
  var payload: String {
    var note = ""
    for character in (self.note ?? "").unicodeScalars {
      switch character {
      case "\"", "\\": note += "\\" + String(character)
      case _ where character.value < 0x20: note += " "
      default: note.unicodeScalars.append(character)
      }
    }
    let time = String(Int(milliseconds * 1000))
    return "{\"us\":\(time),\"step\":\"\(step.rawValue)\",\"phase\":\"\(phase.rawValue)\"\(note.isEmpty ? "" : ",\"note\":\"\(note)\"")}"
  }

  /// Nil if the payload is no entry.
  init?(_ payload: ArraySlice<UInt8>) {
    let value: JSONValue
    do { value = try JSONValue(parsing: payload) } catch { return nil }
    guard let step = value["step"]?.string.flatMap(StepName.init), let phase = value["phase"]?.string.flatMap(Phase.init) else { return nil }
    self.init(step: step, phase: phase, milliseconds: Double(value["us"]?.integer ?? 0) / 1000, note: value["note"]?.string)
  }
}

/// A journal that is being written.
final class JournalFile {
  private let file: DescriptorBox
  private let path: String
  var raw: CInt { file.raw }

  init(_ path: String) throws(Failure) {
    self.path = path
    file = DescriptorBox(try OwnedFD.open(path, O_WRONLY | O_CREAT | O_APPEND, mode: 0o600, step: "open the journal"))
  }

  /// Appends a line; one that does not fit is taken out again, so that the next stands on a line of its own.
  func append(_ line: [UInt8]) throws(Failure) {
    let count = try valueOrErrno("write the journal", path, hint: "free space in /run") { write(file.raw, line, line.count) }
    if count == line.count { return }
    let size = try Files.status(of: file.raw).size
    try valueOrErrno("take back half a line of the journal", path) { ftruncate(file.raw, off_t(size) - count) }
    throw Failure(step: "write the journal", subject: path, errno: .noSpace, hint: "free space in /run")
  }
}

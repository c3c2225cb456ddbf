import Glibc
public import Kernel

/// A support bundle: everything that is remembered of one upgrade, as a tar archive (POSIX ustar). Source: pax(1).
extension History {
  /// - Parameter path: must not exist.
  public func writeBundle(_ id: String, state: StateDirectory, to path: String) throws(Failure) {
    guard let entry = try entry(id) else {
      throw Failure(step: "find the upgrade", subject: id, reason: "no upgrade with this id is remembered", hint: "a bundle is of one upgrade: moult history lists the ids")
    }
    var archive: [UInt8] = []
    for name in try Files.names(in: directory(id)).sorted() {
      archive += try Self.member("\(id)/\(name)", directory(id) + "/" + name)
    }
    // A held upgrade's journal is still written.
    if let record = try state.record(entry.key), record.id == id {
      archive += try Self.member("\(id)/journal.now", state.journalPath(entry.key))
    }
    archive += [UInt8](repeating: 0, count: 2 * Tar.block)
    let file = try Self.create(path)
    var done = 0
    while done < archive.count {
      done += try valueOrErrno("write the bundle", path) { archive[done...].withUnsafeBytes { write(file.raw, $0.baseAddress, $0.count) } }
    }
  }

  private static func create(_ path: String) throws(Failure) -> OwnedFD {
    do throws(Failure) { return try OwnedFD.open(path, O_WRONLY | O_CREAT | O_EXCL, mode: 0o600, step: "write the bundle") } catch {
      throw error.hinting(
        error.errno == .fileExists
          ? "--bundle never replaces a file: name one that is not there yet" : "--bundle names the archive to make, in a directory that is there")
    }
  }

  private static func member(_ name: String, _ path: String) throws(Failure) -> [UInt8] {
    let written = try Files.modificationTime(path, in: AT_FDCWD) ?? 0
    return try Tar.member(name, Files.read(path), written: written / 1_000_000_000)
  }
}

enum Tar {
  static let block = 512

  /// A regular file: its header, its content, and zeroes up to the next block.
  /// - Parameter written: seconds since 1970.
  static func member(_ name: String, _ content: [UInt8], written: Int64) -> [UInt8] {
    var header = [UInt8](repeating: 0, count: block)
    func put(_ text: String, at offset: Int, room: Int) {
      for (index, byte) in text.utf8.prefix(room).enumerated() { header[offset + index] = byte }
    }
    func octal(_ number: some BinaryInteger, _ digits: Int) -> String {
      let text = String(number, radix: 8)
      return String(repeating: "0", count: max(0, digits - text.count)) + text
    }
    put(name, at: 0, room: 100)
    put(octal(0o600, 7), at: 100, room: 7)
    for offset in [108, 116] { put(octal(0, 7), at: offset, room: 7) }
    put(octal(content.count, 11), at: 124, room: 11)
    put(octal(written, 11), at: 136, room: 11)
    put("        ", at: 148, room: 8)
    put("0", at: 156, room: 1)
    put("ustar\u{0}00", at: 257, room: 8)
    put(octal(header.reduce(0) { $0 + Int($1) }, 6) + "\u{0} ", at: 148, room: 8)
    return header + content + [UInt8](repeating: 0, count: (block - content.count % block) % block)
  }
}

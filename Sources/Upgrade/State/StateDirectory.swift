import FoundationEssentials
import Glibc
public import Kernel

/// Where upgrades under way or held keep their lock, record and journal: a directory for each VM.
///
/// `lock` holds the pid of the moult at work and an flock(2) that the kernel drops when that moult
/// ends, however it ends. `record.json` is what later commands need; `journal` has a line for each
/// beginning and end of a step.
public struct StateDirectory: Sendable {
  /// `/run/moult`.
  public var path: String
  /// `/var/lib/moult`.
  public var persistent: String

  public init(path: String = "/run/moult", persistent: String = "/var/lib/moult") {
    self.path = path
    self.persistent = persistent
  }

  func directory(_ key: String) -> String { path + "/" + key }
  public func lockPath(_ key: String) -> String { directory(key) + "/lock" }
  public func recordPath(_ key: String) -> String { directory(key) + "/record.json" }
  public func journalPath(_ key: String) -> String { directory(key) + "/journal" }

  /// The records of all upgrades under way, held, or interrupted. One that cannot be read is left out: it
  /// must not keep anybody from the other VMs. `damaged` tells of it.
  public func records() throws(Failure) -> [UpgradeRecord] {
    var records: [UpgradeRecord] = []
    for key in try keys() {
      do throws(Failure) {
        if let record = try record(key) { records.append(record) }
      } catch where error.errno == nil { continue }
    }
    return records
  }

  /// Why records cannot be read, for those that cannot.
  public func damaged() throws(Failure) -> [Failure] {
    var failures: [Failure] = []
    for key in try keys() {
      do throws(Failure) { _ = try record(key) } catch where error.errno == nil { failures.append(error) }
    }
    return failures
  }

  /// Removes directories that a moult left empty of a record when it was killed while it removed them.
  public func sweep() throws(Failure) {
    for key in try keys() {
      if try Files.statusIfPresent(recordPath(key)) != nil { continue }
      let lock: OwnedFD
      do throws(Failure) { lock = try self.lock(key) } catch { continue }  // Taken just now: not left behind.
      if try Files.statusIfPresent(recordPath(key)) == nil { try remove(key) }
      _ = lock.raw  // Held until here.
    }
  }

  private func keys() throws(Failure) -> [String] {
    guard try Files.statusIfPresent(path) != nil else { return [] }
    return try Files.names(in: path).sorted()
  }

  public func record(_ key: String) throws(Failure) -> UpgradeRecord? {
    let path = recordPath(key)
    let bytes: [UInt8]
    do { bytes = try Files.read(path) } catch {
      if error.errno == .noSuchFileOrDirectory || error.errno == .notDirectory { return nil }
      throw error
    }
    do { return try JSONDecoder().decode(UpgradeRecord.self, from: Data(bytes)) } catch {
      throw Failure(
        step: "read the record", subject: path, reason: "it is damaged: \(error)",
        hint: "see which QEMU runs (moult list), then remove the directory")
    }
  }

  /// Replaces the record; a reader sees the old or the new one, whole.
  public func save(_ record: UpgradeRecord) throws(Failure) {
    let path = recordPath(record.key)
    let data: Data
    do { data = try JSONEncoder().encode(record) } catch {
      throw Failure(step: "write the record", subject: path, reason: "\(error)")
    }
    try Files.replace(path, with: Array(data))
  }

  /// Whether the journal says that a step was begun. Each beginning is written before anything is done.
  func hasBegun(_ step: StepName, _ key: String) throws(Failure) -> Bool {
    let path = journalPath(key)
    guard try Files.statusIfPresent(path) != nil else { return false }
    return try Files.readText(path).contains("\"step\":\"\(step.rawValue)\",\"phase\":\"begin\"")
  }

  /// The pid of the moult that works on this VM now; nil when none does.
  public func holder(of key: String) throws(Failure) -> pid_t? {
    let file: OwnedFD
    do { file = try OwnedFD.open(lockPath(key), O_RDONLY) } catch {
      if error.errno == .noSuchFileOrDirectory || error.errno == .notDirectory { return nil }
      throw error
    }
    if flock(file.raw, LOCK_SH | LOCK_NB) == 0 { return nil }
    return pid_t(try Files.readText(lockPath(key)).trimmingWhitespace) ?? 0
  }

  /// Takes the VM's lock, making its directory. Held until the descriptor is closed.
  public func lock(_ key: String) throws(Failure) -> OwnedFD {
    try Files.makeDirectories(directory(key), mode: 0o700)
    while true {
      let file = try openLock(key)
      if flock(file.raw, LOCK_EX | LOCK_NB) != 0 {
        let holder = try Files.readText(lockPath(key)).trimmingWhitespace
        throw Failure(
          step: "lock the VM", subject: key, reason: "another moult (pid \(holder)) is working on it",
          hint: "wait for it, or end it with Ctrl-C there")
      }
      // The last holder may have removed the directory between our open and our lock.
      guard let there = try Files.statusIfPresent(lockPath(key)), there.isSameFile(as: try Files.status(of: file.raw)) else {
        try Files.makeDirectories(directory(key), mode: 0o700)
        continue
      }
      try sign(key, file.raw)
      return file
    }
  }

  private func openLock(_ key: String) throws(Failure) -> OwnedFD {
    do { return try OwnedFD.open(lockPath(key), O_RDWR | O_CREAT, mode: 0o600, step: "open the lock") } catch {
      // The directory is of no use then: gone, unless another moult has something in it.
      if rmdir(directory(key)) == 0 { _ = rmdir(path) }
      throw error
    }
  }

  /// Writes our pid into the lock; nothing is left if there is no room for it.
  private func sign(_ key: String, _ lock: CInt) throws(Failure) {
    let text = Array("\(getpid())\n".utf8)
    do throws(Failure) {
      try valueOrErrno("write the lock", lockPath(key)) { ftruncate(lock, 0) }
      try valueOrErrno("write the lock", lockPath(key), hint: "free space there") { pwrite(lock, text, text.count, 0) }
    } catch {
      if try Files.statusIfPresent(recordPath(key)) == nil { try remove(key) }
      throw error
    }
  }

  /// Removes a VM's directory; to be called with its lock held.
  public func remove(_ key: String) throws(Failure) {
    for path in [journalPath(key), recordPath(key), lockPath(key)] { try Files.remove(path) }
    try Files.remove(recordPath(key) + Files.temporarySuffix)
    try Files.removeDirectory(directory(key))
    // Others may have their directories in there: then it stays.
    _ = rmdir(path)
  }
}

extension Files {
  /// mkdir -p.
  static func makeDirectories(_ path: String, mode: mode_t) throws(Failure) {
    var made = ""
    for part in path.split(separator: "/") {
      made += "/" + part
      if mkdir(made, mode) != 0, errno != EEXIST {
        throw Failure(step: "make directory", subject: made, errno: .init(rawValue: errno), hint: errno == ENOSPC ? "free space there" : nil)
      }
    }
  }

  /// unlink(2); nothing if it is not there.
  static func remove(_ path: String) throws(Failure) {
    if unlink(path) != 0, errno != ENOENT { throw Failure(step: "remove", subject: path, errno: .init(rawValue: errno)) }
  }

  /// rmdir(2); nothing if it is not there.
  static func removeDirectory(_ path: String) throws(Failure) {
    if rmdir(path) != 0, errno != ENOENT {
      throw Failure(step: "remove directory", subject: path, errno: .init(rawValue: errno))
    }
  }

  static let temporarySuffix = ".new"

  /// Writes a file under another name and renames it into place.
  static func replace(_ path: String, with bytes: [UInt8], mode: mode_t = 0o600) throws(Failure) {
    let temporary = path + temporarySuffix
    let file = try OwnedFD.open(temporary, O_WRONLY | O_CREAT | O_TRUNC, mode: mode, step: "write")
    do throws(Failure) {
      let count = try valueOrErrno("write", temporary, hint: "free space there") { Glibc.write(file.raw, bytes, bytes.count) }
      if count != bytes.count { throw Failure(step: "write", subject: temporary, reason: "only \(count) of \(bytes.count) bytes", hint: "free space there") }
      try valueOrErrno("rename into place", path) { rename(temporary, path) }
    } catch {
      unlink(temporary)  // Half of it is worth nothing; the failure that matters is thrown.
      throw error
    }
  }
}

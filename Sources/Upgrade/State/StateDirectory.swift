import FoundationEssentials
import Glibc
public import Kernel

/// Where upgrades under way or held keep their lock, record and journal: a directory for each VM.
///
/// `lock` holds the pids of the moult at work and of its guardian, and locks that the kernel drops when both have
/// ended, however they end. `journal` has everything else: see ``Journal``.
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
  /// What version 0 of the format had its records in. Read, never written.
  func recordPath(_ key: String) -> String { directory(key) + "/record.json" }
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

  /// What cannot be read of the journals.
  public func damaged() throws(Failure) -> [Failure] {
    var failures: [Failure] = []
    for key in try keys() {
      do throws(Failure) {
        let lines = try contents(key).damagedLines
        if try record(key) == nil || lines.isEmpty { continue }
        failures.append(
          Failure(
            step: "read the journal", subject: journalPath(key), reason: "\(lines.count) of its lines are damaged",
            hint: "the others are gone by: moult recover takes whatever it cannot read for done"))
      } catch where error.errno == nil { failures.append(error) }
    }
    return failures
  }

  /// Journals that hold no record that can be read: what was done to those VMs, only a person can find out.
  /// - Parameter vm: a guest's name; nil for all.
  public func unreadable(_ vm: String?) throws(Failure) -> [Failure] {
    var failures: [Failure] = []
    for key in try keys() {
      if let vm, UpgradePlan.readable(vm) != key.prefix(upTo: key.lastIndex(of: "-") ?? key.startIndex) { continue }
      do throws(Failure) { _ = try record(key) } catch where error.errno == nil { failures.append(error) }
    }
    return failures
  }

  /// Removes what nothing refers to: directories that a moult left without a record when it was killed at its
  /// beginning or end, and kept files of upgrades that are no more, such as those from before the host was rebooted.
  public func sweep() throws(Failure) {
    // Listed before the records are read: a directory of an upgrade that begins meanwhile is not among them.
    let kept = try Files.statusIfPresent(keptPath) == nil ? [] : Files.names(in: keptPath)
    for key in try keys() {
      if try Files.statusIfPresent(journalPath(key))?.size ?? 0 > 0 { continue }
      if try Files.statusIfPresent(recordPath(key)) != nil { continue }
      let lock: OwnedFD
      do throws(Failure) { lock = try self.lock(key) } catch { continue }  // Taken just now: not left behind.
      if try contents(key).record == nil { try remove(key) }
      _ = lock.raw  // Held until here.
    }
    guard try damaged().isEmpty else { return }
    var named: Set<String> = []
    for key in try keys() {
      let contents = try contents(key)
      named.formUnion([contents.record?.id, contents.superseded?.id].compactMap { $0 })
    }
    for id in kept where !named.contains(id) { try KeptRuntime.remove(directory: keptPath + "/" + id) }
  }

  var keptPath: String { persistent + "/kept" }

  private func keys() throws(Failure) -> [String] {
    guard try Files.statusIfPresent(path) != nil else { return [] }
    return try Files.names(in: path).sorted()
  }

  public func record(_ key: String) throws(Failure) -> UpgradeRecord? {
    let contents = try contents(key)
    if contents.record == nil, !contents.damagedLines.isEmpty {
      throw Failure(
        step: "read the journal", subject: journalPath(key), reason: "it is damaged, and holds no record that can be read",
        hint: "see which QEMU runs (moult list), then remove the directory")
    }
    return contents.record
  }

  /// The VM's journal; empty if there is none.
  func contents(_ key: String) throws(Failure) -> Journal.Contents {
    var contents = try Journal.read(readIfPresent(journalPath(key)) ?? [], path: journalPath(key))
    if contents.record == nil, let old = try readIfPresent(recordPath(key)) {
      do { contents.record = try JSONDecoder().decode(UpgradeRecord.self, from: Data(old)) } catch {
        throw Failure(
          step: "read the record", subject: recordPath(key), reason: "it is damaged: \(error)",
          hint: "see which QEMU runs (moult list), then remove the directory")
      }
    }
    return contents
  }

  private func readIfPresent(_ path: String) throws(Failure) -> [UInt8]? {
    do { return try Files.read(path) } catch {
      if error.errno == .noSuchFileOrDirectory || error.errno == .notDirectory { return nil }
      throw error
    }
  }

  /// The pid of the moult, or the guardian, that works on this VM now; nil when none does. Takes no lock, so that
  /// nobody who wants it finds it taken.
  public func holder(of key: String) throws(Failure) -> pid_t? { try holders(of: key)?.first?.pid }

  struct Holder: Equatable {
    /// 0 if nobody could write it down.
    var pid: pid_t
    /// It only watches, as long as a moult is there; else it brings the upgrade to an end.
    var isGuardian: Bool
    fileprivate static let mark = "guardian "
  }

  /// The same, and behind it its guardian.
  func holders(of key: String) throws(Failure) -> [Holder]? {
    let file: OwnedFD
    do { file = try OwnedFD.open(lockPath(key), O_RDWR) } catch {
      if error.errno == .noSuchFileOrDirectory || error.errno == .notDirectory { return nil }
      throw error
    }
    if try !FileLock.isHeld(file.raw) { return nil }
    let holders = try signatures(key)
    return holders.isEmpty ? [Holder(pid: 0, isGuardian: false)] : holders
  }

  private func signatures(_ key: String) throws(Failure) -> [Holder] {
    try Files.readText(lockPath(key)).split(separator: "\n").compactMap { line in
      let isGuardian = line.hasPrefix(Holder.mark)
      return pid_t(isGuardian ? line.dropFirst(Holder.mark.count) : line).map { Holder(pid: $0, isGuardian: isGuardian) }
    }
  }

  /// Takes the VM's lock, making its directory. Held until the descriptor and all its copies are closed.
  public func lock(_ key: String) throws(Failure) -> OwnedFD {
    try Files.makeDirectories(directory(key), mode: 0o700)
    while true {
      let file = try openLock(key)
      guard try FileLock.take(file.raw) else { throw try taken(key) }
      // The last holder may have removed the directory between our open and our lock.
      guard let there = try Files.statusIfPresent(lockPath(key)), there.isSameFile(as: try Files.status(of: file.raw)) else {
        try Files.makeDirectories(directory(key), mode: 0o700)
        continue
      }
      try sign(key, file.raw)
      return file
    }
  }

  /// Who has signed the lock. Until its guardian has taken over, a moult that was killed still stands there.
  func worker(on key: String) throws(Failure) -> Holder? {
    let signatures = try signatures(key)
    return signatures.first { $0.pid > 0 && (kill($0.pid, 0) == 0 || errno == EPERM) } ?? signatures.first
  }

  /// Why the lock cannot be had.
  func taken(_ key: String) throws(Failure) -> Failure {
    let holder = try worker(on: key)
    let pid = holder.map { "pid \($0.pid)" } ?? "just starting"
    if holder?.isGuardian ?? false {
      return Failure(
        step: "lock the VM", subject: key, reason: "a guardian (\(pid)) is bringing an upgrade to an end whose moult was killed",
        hint: "try again in a moment; moult status shows when it has")
    }
    return Failure(
      step: "lock the VM", subject: key, reason: "another moult (\(pid)) is working on it",
      hint: "wait for it, or end it with Ctrl-C there")
  }

  private func openLock(_ key: String) throws(Failure) -> OwnedFD {
    do { return try OwnedFD.open(lockPath(key), O_RDWR | O_CREAT, mode: 0o600, step: "open the lock") } catch {
      // The directory is of no use then: gone, unless another moult has something in it.
      if rmdir(directory(key)) == 0 { _ = rmdir(path) }
      throw error
    }
  }

  /// Writes our pid into the lock, and the guardian's; nothing is left if there is no room for them.
  /// - Parameter guardian: our own if it is us.
  func sign(_ key: String, _ lock: CInt, guardian: pid_t? = nil) throws(Failure) {
    let lines = (guardian == getpid() ? [] : ["\(getpid())\n"]) + (guardian.map { [Holder.mark + "\($0)\n"] } ?? [])
    let text = Array(lines.joined().utf8)
    do throws(Failure) {
      try valueOrErrno("write the lock", lockPath(key)) { ftruncate(lock, 0) }
      try valueOrErrno("write the lock", lockPath(key), hint: "free space there") { pwrite(lock, text, text.count, 0) }
    } catch {
      if try contents(key).record == nil { try remove(key) }
      throw error
    }
  }

  /// Removes a VM's directory; to be called with its lock held.
  public func remove(_ key: String) throws(Failure) {
    // One that was killed while it started the new QEMU has left its sockets.
    let names = try Files.statusIfPresent(directory(key)) == nil ? [] : Files.names(in: directory(key))
    let sockets = names.filter { $0.hasPrefix(PeerStandIn.filePrefix) }.map { directory(key) + "/" + $0 }
    for path in [recordPath(key), recordPath(key) + ".new", journalPath(key), lockPath(key)] + sockets { try Files.remove(path) }
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
}

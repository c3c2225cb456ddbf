import Glibc
public import Kernel

extension Session {
  /// Upgrades whose moult is gone without having ended them.
  public func interrupted(_ selector: String?) throws(Failure) -> [UpgradeRecord] {
    try state.sweep()
    var found: [UpgradeRecord] = []
    for record in try unended(selector) {
      if try !isWorkedOn(record.key) { found.append(record) }
    }
    return found
  }

  /// Why upgrades of dead moults are not for others to recover: their guardians are at it, and are held up.
  public func recoveredElsewhere(_ selector: String?) throws(Failure) -> [Failure] {
    var found: [Failure] = []
    for record in try unended(selector) {
      if try isWorkedOn(record.key), try state.worker(on: record.key)?.isGuardian ?? false { found.append(try state.taken(record.key)) }
    }
    return found
  }

  /// Upgrades that are neither over nor held, whoever works on them.
  func unended(_ selector: String?) throws(Failure) -> [UpgradeRecord] {
    let found = try state.records().filter { !$0.isHeld }
    guard let selector, !found.isEmpty else { return found }
    let named = found.filter { $0.isMeant(by: selector) }
    if !named.isEmpty { return named }
    // A pidfile, a second monitor. Of a VM that cannot be found nothing is interrupted: the command itself says so.
    let pid: pid_t
    do throws(Failure) { pid = try Locator.find(selector, state: state) } catch { return [] }
    return found.filter { $0.old.pid == pid || $0.spawned?.pid == pid }
  }

  /// One that was killed a moment ago may still be ending, and so may its guardian: they have the lock until they have.
  private func isWorkedOn(_ key: String) throws(Failure) -> Bool {
    guard let holders = try state.holders(of: key) else { return false }
    // A guardian whose moult lives is not waited for, and one that is at work only for a moment.
    for holder in holders {
      let process: Pidfd
      do throws(Failure) { process = try Pidfd(pid: holder.pid) } catch where [.noSuchProcess, .invalidArgument].contains(error.errno) { continue }
      if try !process.waitForExit(timeoutMilliseconds: holder.isGuardian ? 2000 : 0) { break }
    }
    return try state.holders(of: key) != nil
  }

  /// Ends upgrades of a VM that were interrupted, before anything else is done to it.
  /// - Parameter isAlone: what is to be done suffers nobody beside it. A VM in the middle of an upgrade looks unwell, and what
  ///   would help another, such as SIGCONT, would be its end.
  public func recoverInterrupted(_ selector: String?, isAlone: Bool) throws(Failure) {
    if let selector, let failure = try state.unreadable(selector).first { throw failure }
    try state.sweep()
    for record in try unended(selector) {
      if try isWorkedOn(record.key) {
        if isAlone { throw try state.taken(record.key) }
        continue
      }
      guard let report = try recover(record) else { continue }
      recovered(record, report)
      if report.outcome == .needsPerson {
        throw Failure(
          step: "recover", subject: record.vm, reason: "upgrade \(record.id) was interrupted: \(report.notes.joined(separator: "; "))",
          hint: "see which QEMU runs (moult list) and the VM's log")
      }
    }
  }

  /// Brings an interrupted upgrade to an end: undone if the guest never ran in the new QEMU, else finished.
  /// - Returns: nil if somebody else has meanwhile.
  public func recover(_ record: UpgradeRecord) throws(Failure) -> UpgradeReport? {
    try Takeover(state: state, reactor: reactor).end(record.key, lock: state.lock(record.key), isGuarded: true)?.report
  }
}

extension UpgradeRecord {
  func isMeant(by selector: String) -> Bool {
    [vm, key, id, String(old.pid), spawned.map { String($0.pid) } ?? "", monitor].contains(selector)
  }
}

import Glibc
public import Kernel
import QEMU

/// The migration from one to the other, and what they say when it fails.
extension LinuxHost {
  /// The first version whose `migrate-incoming` has `exit-on-error`. Source: qapi/migration.json.
  private static let survivesFailedLoad = QEMUVersion(major: 9, minor: 1)

  public func startMigration(_ last: () throws(Failure) -> Void) throws(Failure) {
    guard let migrationStream else { throw Failure(step: "migrate", subject: "", reason: "there is no stream") }
    var incoming: [String: JSONValue] = ["uri": .string("fd:\(LaunchPlan.migrationDescriptor)")]
    // One that lives on after a failed load can be asked for the reason.
    if let version = try monitor(.new).version, version >= Self.survivesFailedLoad { incoming["exit-on-error"] = false }
    _ = try monitor(.new).execute("migrate-incoming", .object(incoming))
    _ = try monitor(.old).execute("getfd", ["fdname": "moult-migration"], descriptor: migrationStream.raw)
    self.migrationStream = nil
    try last()
    _ = try monitor(.old).execute("migrate", ["uri": "fd:moult-migration"])
  }

  public func awaitMigration(
    _ side: Side, states: Set<String>, seconds: Double?, peerMustLive: Bool
  ) throws(Failure) -> String {
    let connection = try monitor(side)
    let peer: Side = side == .old ? .new : .old
    let step = "await migration (\(states.sorted().joined(separator: " or "))) of"
    return try reactor.wait(seconds: seconds, step: step, subject: "the \(side.rawValue) QEMU") { () throws(Failure) -> String? in
      while let event = try connection.takeEvent(where: {
        $0.name == "MIGRATION" || $0.name == "MIGRATION_PASS" || $0.name == "STOP" && states.contains("stopped")
      }) {
        if event.name == "STOP" {
          self.seen.append((side, event))
          return "stopped"
        }
        if event.name == "MIGRATION_PASS" {
          if states.contains("pass") { return "pass" }
          continue
        }
        let status = event.data["status"]?.string ?? ""
        if states.contains(status) { return status }
        if ["failed", "cancelled"].contains(status) { throw self.migrationFailure(side, status) }
      }
      // The old one may fail at its end of the stream, of which the new one would wait for the rest.
      if side == .new, let old = self.oldMonitor,
        let event = try old.takeEvent(where: { $0.name == "MIGRATION" && ["failed", "cancelled"].contains($0.data["status"]?.string ?? "") })
      {
        throw self.migrationFailure(.old, event.data["status"]?.string ?? "")
      }
      if connection.isClosed || !self.isAlive(side) { throw self.death(of: side, during: "migrate") }
      if peerMustLive, !self.isAlive(peer) { throw self.death(of: peer, during: "migrate") }
      return nil
    }
  }

  /// What both QEMUs say of a migration that failed.
  private func migrationFailure(_ side: Side, _ status: String) -> Failure {
    var reasons = ["the \(side.rawValue) QEMU reports \(status)"]
    if !isAlive(.new) { reasons.append("the new QEMU has ended") }
    for side in [Side.old, .new] where isAlive(side) {
      do {
        if let text = try command(side, "query-migrate", nil)["error-desc"]?.string { reasons.append("the \(side.rawValue) one says: \(text)") }
      } catch {
        reasons.append("\(side.rawValue): \(error)")
      }
    }
    if let text = newComplaints {
      reasons.append("the VM's log says: \(text)")
    } else if !isAlive(.new), messages == nil {
      reasons.append("what it said went where the VM's messages go, and cannot be read back there (\(whyNoMessages?.description ?? "/dev/null, a pipe, a terminal"))")
    }
    return Failure(step: "migrate", subject: "", reason: reasons.joined(separator: "; "))
  }

  func death(of side: Side, during step: String) -> Failure {
    var reason = "the \(side.rawValue) QEMU ended"
    if side == .new, let text = newComplaints { reason += ": \(text)" }
    if side == .old { reason += " (the guest powered off, or it was killed)" }
    return Failure(step: step, subject: "", reason: reason)
  }

  /// Why the new QEMU went wrong, by its own words and those of whoever stood in for a back end; nil if there are none, or its
  /// log cannot be read back.
  var newComplaints: String? {
    let complaints = [wiring?.complaint, newMessages(lines: 20).flatMap(QEMUMessages.complaint)].compactMap { $0 }
    return complaints.isEmpty ? nil : complaints.joined(separator: "; ")
  }

  /// What the new QEMU has written to its log since it was started; nil if its log cannot be read back.
  func newMessages(lines: Int) -> String? {
    guard let messages else { return nil }
    let size: Int64
    do { size = try Files.status(of: messages.file.raw).size } catch { return "its messages cannot be read (\(error))" }
    // Its end, where the reason is.
    var bytes = [UInt8](repeating: 0, count: 200 * lines)
    let count = pread(messages.file.raw, &bytes, bytes.count, off_t(max(messages.offset, size - Int64(bytes.count))))
    guard count > 0 else { return nil }
    let text = String(decoding: bytes[..<count], as: UTF8.self).trimmingWhitespace
    return text.isEmpty ? nil : text.split(separator: "\n").suffix(lines).joined(separator: "\n")
  }
}

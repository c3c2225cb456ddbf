import Kernel
import QEMU

/// Block nodes that the VM exports by NBD: the new QEMU is told to export the same, and gets the server's socket then. Clients
/// that come between the guest's stop and that wait there.
///
/// An export that may be written to keeps QEMU from giving its images up (`blk_can_inactivate` in its block/block-backend.c), and
/// the migration would fail. So these are ended with the guest stopped, when all that clients have sent is done.
extension Executor {
  /// Somebody may have made or ended exports over another monitor since the observation. Asked again when the guest stands still.
  func mustExportAsObserved() throws(Failure) {
    guard let server = record.exports?.server else { return }
    let now = try exports(of: .old)
    let expected = server.exports.filter { !hasEndedExports || !$0.isWritable }
    if now.reversed().map(\.id) == expected.map(\.id), !now.contains(where: \.isEnding) { return }
    throw Failure(
      step: "move the exports of", subject: record.vm, reason: "they were changed during the upgrade (another monitor)",
      hint: "leave the VM alone while it is upgraded, and try again")
  }

  /// The guest stands still. Those that are only read may stay: QEMU gives an image up for which nobody has the right to write.
  func endWrittenExports() throws(Failure) {
    guard let exports = record.exports, !exports.server.written.isEmpty else { return }
    try mustExportAsObserved()
    hasEndedExports = true
    for export in exports.server.written {
      _ = try host.command(.old, "block-export-del", ["id": .string(export.id), "mode": "hard"], seconds: Self.switchSeconds)
    }
    try awaitEnd(of: Set(exports.server.written.map(\.id)), in: .old)
  }

  /// The guest runs in the old QEMU again.
  func exportAgain() {
    guard let exports = record.exports else { return }
    var isStopped = false
    hasExports = insist("let the old QEMU export again") { () throws(Failure) in
      // Whoever has stopped the server wants it so.
      if self.hasEndedExports, try self.host.hasServer(exports) {
        try self.awaitEnd(of: Set(self.exports(of: .old).filter(\.isEnding).map(\.id)), in: .old)
        try self.addMissing(exports.server, to: .old)
      }
      isStopped = try !self.host.putListenerBack(exports)
    } || !host.isAlive(.old)
    if isStopped { noteStop(of: exports) }
    if !hasExports { notes.append("the guest runs in the old QEMU, and its NBD server at \(exports.address) is not what it was: moult recover \(record.vm) tries again; or " + exports.byHand) }
  }

  /// The guest runs in the new QEMU. Clients wait at the socket; the old QEMU has it, too, until it is ended.
  func serveExports() {
    // A recovery that comes after this leaves what the VM's owner has made of it.
    guard let exports = record.exports, record.state != .probation else { return }
    var isStopped = false
    hasExports = insist("let the new QEMU export what the old one did") { () throws(Failure) in
      // The old QEMU was stopped before the new one had any of it: this cannot change any more.
      isStopped = try !self.host.hasServer(exports)
      if isStopped { return }
      if try self.exports(of: .new).isEmpty {
        try self.host.giveListenerStandIn()
        do throws(Failure) {
          _ = try self.host.command(.new, "nbd-server-start", exports.server.startArguments(socket: ExportServer.standInName))
        } catch {
          // In a recovery it may run already, without an export so far: then it takes the first one.
          do throws(Failure) { try self.addMissing(exports.server, to: .new) } catch let other {
            var failure = error
            failure.reason = "\(error.reason ?? ""); \(other)"
            throw failure
          }
        }
      }
      try self.addMissing(exports.server, to: .new)
      try self.host.openListener(exports)
    } || !host.isAlive(.new)
    if isStopped { noteStop(of: exports) }
    if !hasExports { notes.append("the guest runs, and the NBD server at \(exports.address) is not what it was. " + exports.byHand) }
  }

  private func noteStop(of exports: ExportServer) {
    notes.append("the NBD server at \(exports.address) was stopped during the upgrade, by another monitor, and stays so. To start it again, \(exports.byHand)")
  }

  private func exports(of side: Side) throws(Failure) -> [BlockExport] {
    BlockExport.all(try host.command(side, "query-block-exports", nil, seconds: Self.switchSeconds))
  }

  private func addMissing(_ server: NBDServer, to side: Side) throws(Failure) {
    let there = Set(try exports(of: side).map(\.id))
    let missing = server.exports.filter { !there.contains($0.id) }
    let drives = missing.contains { $0.drive != nil } ? try host.command(side, "query-block", nil) : nil
    for export in missing {
      guard let arguments = export.arguments(drives: drives) else {
        throw Failure(step: "export", subject: export.name, reason: "drive \(export.drive ?? "") has no image any more", hint: "insert one, then block-export-add")
      }
      _ = try host.command(side, "block-export-add", arguments)
    }
  }

  private func awaitEnd(of ids: Set<String>, in side: Side) throws(Failure) {
    while try !ids.isDisjoint(with: exports(of: side).map(\.id)) {
      try host.awaitEvent(side, "BLOCK_EXPORT_DELETED", seconds: Self.switchSeconds)
    }
  }
}

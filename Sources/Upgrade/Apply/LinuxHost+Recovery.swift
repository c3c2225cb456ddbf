import Kernel
import QEMU

/// The monitors of the two QEMUs of an upgrade whose moult is gone.
extension LinuxHost {
  /// A connection to one of them, made when it is first needed: the interrupted moult's, or else a new one. The old QEMU
  /// need not be let go on (SIGCONT) to be asked as long as nobody asks it: a `cont` may be waiting at another monitor of it.
  func takeOver(_ side: Side) throws(Failure) -> QMPConnection? {
    guard let recovered, let process = side == .old ? oldProcess : newProcess else { return nil }
    // One that never answered has never run the guest: there is nothing to ask it.
    if side == .new, recovered.new == nil { return nil }
    if let connection = former.removeValue(forKey: side) {
      let monitor = QMPConnection(takingOver: try connection.duplicate(), subject: "QEMU (pid \(process.pid))", reactor: reactor)
      do throws(Failure) {
        _ = try monitor.execute("query-status", seconds: Executor.switchSeconds)
        return monitor
      } catch {
        seen += monitor.events.map { (side, $0) }
        // Silent or closed: it is not asked this way again.
        if process.hasExited { return nil }
      }
    }
    var monitor: QMPConnection?
    do throws(Failure) { monitor = try findMonitor(of: process, recovered) } catch {
      if process.exits(withinMilliseconds: Self.endMilliseconds) { return nil }
      throw error
    }
    // Whoever looks at a QEMU without a monitor next is to find it gone, if it goes.
    if monitor == nil { _ = process.exits(withinMilliseconds: Self.endMilliseconds) }
    return monitor
  }

  /// Killed together with moult, it closes its sockets first; how long it may take then to be gone.
  private static let endMilliseconds: Int32 = 2000

  /// What a new QEMU that has ended had said over the interrupted moult's connection.
  func hearLastEventsOfNew() throws(Failure) {
    guard newProcess?.hasExited ?? true, let connection = former.removeValue(forKey: .new) else { return }
    let monitor = QMPConnection(takingOver: try connection.duplicate(), subject: "the new QEMU", reactor: reactor)
    try monitor.receiveWhatIsThere()
    seen += monitor.events.map { (.new, $0) }
  }

  /// The QMP socket of one twin: public or staged, whichever inode the process listens at.
  private func findMonitor(of process: ProcessHandle, _ record: UpgradeRecord) throws(Failure) -> QMPConnection? {
    var paths = [record.monitor]
    let (directory, base) = (try Paths.real(Paths.parent(record.monitor)), Paths.base(record.monitor))
    paths += record.stages.filter { $0.directory == directory }.map { Stage.join($0.path, base) }
    let listening: [UnixSocketEntry]
    do throws(Failure) {
      let own = Set(try ProcFS.openDescriptors(of: process.pid).compactMap(\.socketInode))
      listening = try UnixSocketTable.read(networkOf: process.pid).filter { $0.state == .listening && own.contains($0.inode) }
    } catch where error.errno == .noSuchFileOrDirectory || error.errno == .noSuchProcess {
      return nil  // It was killed, and is ending just now.
    }
    for path in paths {
      guard let status = try Files.statusIfPresent(path), listening.contains(where: { $0.isBound(to: status) }) else { continue }
      let monitor = QMPConnection(try UnixSocket.connect(path), subject: path, reactor: reactor)
      _ = try monitor.negotiate(seconds: Observer.greetingSeconds)
      return monitor
    }
    return nil
  }
}

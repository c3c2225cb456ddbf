import Glibc
import Kernel

/// A descriptor with several users: closed when the last of them lets go.
final class DescriptorBox {
  private let owned: OwnedFD
  var raw: CInt { owned.raw }
  init(_ owned: consuming OwnedFD) { self.owned = owned }
  func duplicate() throws(Failure) -> OwnedFD { try owned.duplicate() }
}

/// A process that is held by pidfd: the number cannot come to mean another one.
final class ProcessHandle {
  private let pidfd: Pidfd
  private var isReaped = false
  var pid: pid_t { pidfd.pid }
  var raw: CInt { pidfd.raw }
  var hasExited: Bool { pidfd.hasExited }

  init(pid: pid_t) throws(Failure) { pidfd = try Pidfd(pid: pid) }

  /// Nil if the process has ended: one that is about to is waited for. Its first thread may be a zombie while others still
  /// have its files, and the locks of its images; or it has been killed, and its memory is being given up. The pidfd pins whoever has the number now; the start time tells
  /// whether it is the one that is meant.
  init?(_ identity: ProcessIdentity) throws(Failure) {
    do throws(Failure) {
      pidfd = try Pidfd(pid: identity.pid)
      let status = try ProcessStatus.read(pid: identity.pid)
      if status.startTime != identity.startTime { return nil }
      if status.isEnding, try pidfd.waitForExit(timeoutMilliseconds: Self.patienceMilliseconds) { return nil }
    } catch {
      if error.errno == .noSuchProcess || error.errno == .noSuchFileOrDirectory { return nil }
      throw error
    }
  }

  /// How long the end of one that was killed may take: the kernel unmaps its memory.
  private static let patienceMilliseconds: CInt = 10_000

  /// It has been killed, or exits, and has not come to its end.
  var isEnding: Bool {
    if hasExited { return false }
    do throws(Failure) { return try ProcessStatus.read(pid: pid).isEnding } catch { return error.meansGone }
  }

  func kill() throws(Failure) { try send(signal: SIGKILL) }
  func send(signal: CInt) throws(Failure) { try pidfd.send(signal: signal) }
  func duplicate(descriptor: CInt) throws(Failure) -> OwnedFD { try pidfd.duplicate(descriptor: descriptor) }

  /// Whether it ends within so long.
  func exits(withinMilliseconds milliseconds: Int32) -> Bool {
    do { return try pidfd.waitForExit(timeoutMilliseconds: milliseconds) } catch { return hasExited }
  }

  /// Waits for the end of a child of ours that was killed, and collects it.
  func waitForExit() throws(Failure) {
    _ = try pidfd.waitForExit(timeoutMilliseconds: Self.patienceMilliseconds)
    reap(if: true)
  }

  /// Collects the exit status of a child of ours, so that no zombie stays.
  func reap(if isChild: Bool) {
    guard isChild, !isReaped, hasExited else { return }
    var status: CInt = 0
    waitpid(pid, &status, WNOHANG)
    isReaped = true
  }
}

/// Last words where nobody is left to throw to.
enum FileDescriptorOutput {
  static func error(_ text: String) {
    let bytes = Array((text + "\n").utf8)
    _ = write(2, bytes, bytes.count)
  }
}

/// The two ends of a connection with a process to be started.
struct Channel {
  let ours: DescriptorBox
  let theirs: DescriptorBox

  init() throws(Failure) {
    let pair = try UnixSocket.pair()
    ours = DescriptorBox(try pair.first.duplicate())
    theirs = DescriptorBox(try pair.second.duplicate())
  }
}

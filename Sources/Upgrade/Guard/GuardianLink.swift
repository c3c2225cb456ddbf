import Glibc
import Kernel
import Sandbox

/// moult's end of its guardian.
final class GuardianLink {
  private let channel: DescriptorBox
  private let process: ProcessHandle
  var pid: pid_t { process.pid }
  private let reactor: Reactor
  private(set) var isReady = false
  /// It was killed, or could not go on. moult can, and can have another.
  private(set) var isGone = false

  /// Seconds that it may take to start: it takes milliseconds.
  private static let startSeconds = 10.0

  /// Starts a guardian. It is ready some milliseconds later.
  /// - Parameter oldMonitor: nil in a recovery, whose guardian makes its own connections.
  init(key: String, lock: CInt, oldMonitor: CInt?, newMonitor: CInt?, reactor: Reactor) throws(Failure) {
    self.reactor = reactor
    let pair = try Channel()
    channel = pair.ours
    let program = try OwnedFD.open("/proc/self/exe", O_RDONLY, step: "open moult's own program")
    let moult = try Pidfd(pid: getpid())
    var plan = ProcessPlan.moult(
      program.raw, [Guardian.command, "--", key], environment: try ProcFS.environment(of: getpid()),
      inherited: [
        ProcessPlan.Inherited(source: pair.theirs.raw, number: Guardian.Descriptor.channel),
        ProcessPlan.Inherited(source: lock, number: Guardian.Descriptor.lock),
        ProcessPlan.Inherited(source: moult.raw, number: Guardian.Descriptor.moult),
      ] + (oldMonitor.map { [ProcessPlan.Inherited(source: $0, number: Guardian.Descriptor.oldMonitor)] } ?? []))
    if var fileSize = try ResourceLimits.read(pid: getpid()).limits[.fileSize] {
      // It must not keep it from writing its journal.
      fileSize.soft = fileSize.hard
      plan.limits = ResourceLimits([.fileSize: fileSize])
    }
    let child: Child
    do throws(Failure) { child = try Sandbox.launch(SandboxPlan(), plan) } catch {
      throw Failure(
        step: "start the guardian", subject: key, errno: error.errno, reason: "\(error)",
        hint: error.hint ?? "an upgrade is not begun without one")
    }
    process = try ProcessHandle(pid: child.pid)
    reactor.add(channel.raw) { [unowned self] () throws(Failure) in hear() }
    if let newMonitor { give(newMonitor: newMonitor) }
  }

  private func hear() {
    var byte: UInt8 = 0
    let count = recv(channel.raw, &byte, 1, Int32(MSG_DONTWAIT))
    if count == 1 {
      isReady = true
    } else if count == 0 || errno != EAGAIN && errno != EINTR {
      isGone = true
      reactor.remove(channel.raw)
    }
  }

  /// Lets it have the connection to the new QEMU.
  func give(newMonitor: CInt) { give(newMonitor, Guardian.Word.newMonitor) }

  /// Lets it have a descriptor that must stay open if moult ends.
  func give(kept descriptor: CInt) { give(descriptor, Guardian.Word.kept) }

  private func give(_ descriptor: CInt, _ word: UInt8) {
    // One that is gone is noticed, and replaced, before the guest stands still.
    do { try UnixMessage.send([word], descriptor: descriptor, to: channel.raw) } catch { isGone = true }
  }

  /// Waits until it watches; returns at once if it is gone.
  func awaitReady() throws(Failure) {
    _ = try reactor.wait(seconds: Self.startSeconds, step: "start", subject: "the guardian (pid \(process.pid))") { () throws(Failure) -> Bool? in
      isReady || isGone ? true : nil
    }
  }

  /// Lets it go: the upgrade has come to its end. Returns when it is gone.
  func dismiss() {
    reactor.remove(channel.raw)
    do throws(Failure) {
      try UnixMessage.send([Guardian.Word.dismissed], to: channel.raw)
      if process.exits(withinMilliseconds: 2000) { return }
      // Stopped, for one: it must not find out later that moult has ended.
      try process.kill()
    } catch where error.errno == .brokenPipe || error.errno == .noSuchProcess {
    } catch { FileDescriptorOutput.error("moult: could not end the guardian (pid \(process.pid)): \(error)") }
  }
}

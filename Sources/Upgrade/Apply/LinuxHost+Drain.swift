import Glibc
public import Kernel
public import QEMU

/// Stopping a guest whose disks are served by other programs (vhost-user).
///
/// QEMU stops such a device's rings when it stops the guest, and the program that serves them should finish what it has
/// begun first. Some do not: qemu-storage-daemon goes on, finds nobody to tell when it is done, and gives the device up
/// (`vu_panic: Error writing eventfd`), at a plain `stop` just as in a migration. So the guest stands still a little sooner
/// than QEMU knows: its vCPUs are stopped by ptrace(2), whatever it has asked for is finished, and only then QEMU stops it.
extension LinuxHost {
  /// Seconds in which a moment must be found at which nothing is under way.
  private static let drainSeconds = 10.0
  /// Milliseconds that the guest stands still for it at once.
  private static let stillMilliseconds = 50.0
  /// Seconds in which QEMU must answer while vCPUs stand still: one of them may hold what it needs.
  private static let answerSeconds = 0.1
  /// Milliseconds that its main thread may take on its way from being told to stop the guest to waiting for the vCPUs.
  private static let patienceMilliseconds: CInt = 2000

  public func stopGuest(draining devices: [VhostUserDevice]) throws(Failure) -> Double {
    guard let oldProcess, !devices.isEmpty else {
      _ = try command(.old, "stop", nil)
      return 0
    }
    let monitor = try monitor(.old)
    // One thread may do the work of all vCPUs.
    let threads = Set(try monitor.execute("query-cpus-fast").array?.compactMap { $0["thread-id"]?.integer.flatMap { pid_t(exactly: $0) } } ?? [])
    var rings: [VhostUserDevice.Ring] = []
    for device in devices { rings += try VhostUserDevice.rings(of: device.path, queues: device.queues, monitor) }
    let memory = try ForeignMemory(of: oldProcess.pid)
    func failure(_ reason: String, _ hint: String) -> Failure {
      Failure(step: "stop the guest of", subject: "pid \(oldProcess.pid)", reason: reason, hint: hint)
    }
    let deadline = now().adding(seconds: Self.drainSeconds)
    while now() < deadline {
      let began = now()
      let vcpus = try FrozenThreads(Array(threads))
      defer { vcpus.release() }
      let status: JSONValue
      do throws(Failure) { status = try monitor.execute("query-status", seconds: Self.answerSeconds) } catch where error.errno == .timedOut { continue }
      if status["running"]?.bool != true {
        throw failure("another program has stopped it meanwhile (\(status["status"]?.string ?? "no status"))", "let it run again (cont), then try again")
      }
      let end = now().adding(seconds: Self.stillMilliseconds / 1000)
      while try !Self.areDone(rings, memory), now() < end { usleep(Self.glance) }
      guard try Self.areDone(rings, memory) else { continue }
      let main = try FrozenThreads([oldProcess.pid])
      defer { main.release() }
      let identifier = try monitor.send("stop")
      // It has told the vCPUs when it waits for them: they stop before they do anything else.
      do throws(Failure) { try main.goOnToCondition(withinMilliseconds: Self.patienceMilliseconds) } catch {
        throw failure("QEMU was told to stop the guest, and does not wait for its vCPUs (\(error))", "try again; restart the VM if it stays so")
      }
      vcpus.release()
      main.release()
      _ = try monitor.reply(to: identifier, command: "stop")
      // A vCPU first does the few instructions to the end of what was translated at once.
      guard try Self.areDone(rings, memory) else {
        throw failure("the guest asked for more in the moment in which it was stopped", "try again")
      }
      // The event comes before the reply.
      return max(0, (lastEvent(.old, "STOP")?.heard ?? now()) - began)
    }
    throw failure(
      "the back end of a vhost-user disk was never done with all that the guest had asked for",
      "try again when the guest writes less; a back end that hangs has to be mended first")
  }

  private static let glance: UInt32 = 50

  /// Nothing is under way in a ring of which as much was used as was made available.
  private static func areDone(_ rings: [VhostUserDevice.Ring], _ memory: borrowing ForeignMemory) throws(Failure) -> Bool {
    for ring in rings {
      let index = VhostUserDevice.Ring.index
      if try memory.number(at: ring.used + index) != memory.number(at: ring.available + index) { return false }
    }
    return true
  }
}

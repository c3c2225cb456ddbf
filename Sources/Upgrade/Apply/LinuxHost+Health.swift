import Glibc
public import Kernel
import QEMU

/// Probation: whether the guest is well in the new QEMU, and what is kept if it is not.
extension LinuxHost {
  /// Events of QEMU that no healthy guest causes; `STOP` and `SHUTDOWN` end it, whoever asked for them.
  /// Source: QEMU's qapi/run-state.json, qapi/block-core.json.
  static let unhealthyEvents: Set<String> = [
    "GUEST_PANICKED", "GUEST_CRASHLOADED", "BLOCK_IO_ERROR", "BLOCK_IMAGE_CORRUPTED", "MEMORY_FAILURE", "WATCHDOG", "STOP", "SHUTDOWN",
  ]
  /// Seconds between two looks at what reports nothing by itself.
  static let healthInterval = 1.0
  /// Seconds in which a monitor must answer while the guest runs.
  static let healthAnswer = 5.0

  /// Seconds that the guest agent may take to answer.
  static let agentAnswer = 1.0

  public func isThere(_ agent: GuestAgent, in side: Side) throws(Failure) -> Bool {
    try agent.state(monitor(side), reactor: reactor, seconds: Self.agentAnswer) != .silent
  }

  public func watch(_ record: UpgradeRecord, seconds: Double) throws(Failure) {
    let monitor = try monitor(.new)
    isInterruptible = true
    let deadline = Instant.now().adding(seconds: seconds)
    var progress = VCPUProgress()
    // Asked until it has answered once: each time keeps others from its socket for a moment.
    var silentAgent = record.agent
    do throws(Failure) {
      while true {
        try checkHealth(record, &progress)
        if let agent = silentAgent, try isThere(agent, in: .new) { silentAgent = nil }
        let left = (deadline - Instant.now()) / 1000
        if left <= 0 {
          if silentAgent != nil { throw unhealthy("its guest agent, which answered before, has not answered since") }
          return
        }
        let event: QMPEvent
        do throws(Failure) {
          event = try monitor.awaitEvent(step: "watch", seconds: min(left, Self.healthInterval)) { Self.unhealthyEvents.contains($0.name) }
        } catch where error.errno == .timedOut { continue }
        seen.append((.new, event))
        // QEMU ends a moment after the guest, unless it was told to stay.
        if event.name == "SHUTDOWN", newProcess?.exits(withinMilliseconds: 2000) ?? true {
          throw Failure(
            step: "watch the guest in", subject: "the new QEMU", reason: "the guest has powered off \(event.data.text()), and QEMU has ended",
            hint: "start the VM anew, when it is to run again: nothing is held, there is nothing to go back to")
        }
        throw unhealthy("\(event.name)\(event.data == .null ? "" : " \(event.data.text())")")
      }
    } catch {
      if error.errno != .interrupted { keepEvidence(of: error, record) }
      throw error
    }
  }

  private func unhealthy(_ reason: String) -> Failure {
    Failure(step: "watch the guest in", subject: "the new QEMU", reason: reason + ": the guest is not healthy")
  }

  private func checkHealth(_ record: UpgradeRecord, _ progress: inout VCPUProgress) throws(Failure) {
    let monitor = try monitor(.new)
    let (status, cpus): (JSONValue, JSONValue)
    do throws(Failure) {
      status = try monitor.execute("query-status", seconds: Self.healthAnswer)
      cpus = try monitor.execute("query-cpus-fast", seconds: Self.healthAnswer)
    } catch where error.errno == .timedOut {
      throw unhealthy("its monitor has not answered for \(Int(Self.healthAnswer)) s")
    }
    // An event that says why is in front of it.
    if status["status"]?.string != "running", monitor.events.allSatisfy({ !Self.unhealthyEvents.contains($0.name) }) {
      throw unhealthy("it is \(status["status"]?.string ?? "in no known state")")
    }
    var threads: [Int32: VCPUProgress.Thread] = [:]
    for cpu in cpus.array ?? [] {
      guard let thread = cpu["thread-id"]?.integer.map(Int32.init) else { continue }
      // It may have been unplugged just now.
      do throws(Failure) {
        let status = try ProcessStatus.read(pid: thread)
        threads[thread] = VCPUProgress.Thread(state: status.state, cpuTime: status.cpuTime)
      } catch where error.errno == .noSuchFileOrDirectory || error.errno == .noSuchProcess { continue }
    }
    if let thread = progress.look(threads) {
      throw unhealthy("its vCPU (thread \(thread)) has waited for the host for \(VCPUProgress.patience) s, state \(threads[thread]?.state ?? "?")")
    }
    for exchange in record.stages.flatMap(\.exchanges) where try !isExchanged(exchange) {
      throw unhealthy("\(exchange.published) does not lead to it any more")
    }
  }

  /// What tells afterwards what was wrong. Whatever cannot be had is said among it.
  private func keepEvidence(of failure: Failure, _ record: UpgradeRecord) {
    let history = History(state)
    var missing: [String] = []
    func keep(_ name: String, _ content: () throws(Failure) -> String?) {
      do throws(Failure) {
        guard let text = try content() else { return }
        try history.put(name, Array((text + "\n").utf8), of: record.id)
      } catch { missing.append("\(name): \(error)") }
    }
    let events = seen.filter { $0.side == .new }.map(\.event) + (newMonitor?.events ?? [])
    keep("events") { () throws(Failure) in events.map { "\($0.microseconds) \($0.name) \($0.data.text())" }.joined(separator: "\n") }
    keep("journal") { () throws(Failure) in try Files.readText(state.journalPath(record.key)) }
    if let why = whyNoMessages.map({ "\($0)" }) ?? (messages == nil ? "its standard error is no file that could be read back" : nil) {
      missing.append("messages: they cannot be had: \(why)")
    }
    keep("messages") { () throws(Failure) in newMessages(lines: 200) }
    keep("registers") { () throws(Failure) in
      try monitor(.new).execute(
        "human-monitor-command", ["command-line": "info registers -a"], seconds: Self.healthAnswer).string
    }
    do throws(Failure) { try keepScreen(history, record.id) } catch { missing.append("screen.ppm: \(error)") }
    keep("unhealthy") { () throws(Failure) in ([failure.description] + missing).joined(separator: "\n") }
  }

  /// QEMU writes the picture itself, into a file that it is handed: it may live in another root.
  private func keepScreen(_ history: History, _ id: String) throws(Failure) {
    let path = history.directory(id) + "/screen.ppm"
    let file = try OwnedFD.open(path, O_WRONLY | O_CREAT | O_TRUNC, mode: 0o600, step: "write")
    do throws(Failure) {
      let set = try monitor(.new).execute("add-fd", descriptor: file.raw, seconds: Self.healthAnswer)["fdset-id"]?.integer ?? 0
      defer {
        // Left in, it would only be a descriptor of a process that is about to be ended.
        do throws(Failure) { _ = try monitor(.new).execute("remove-fd", ["fdset-id": .integer(set)], seconds: Self.healthAnswer) } catch {}
      }
      _ = try monitor(.new).execute("screendump", ["filename": .string("/dev/fdset/\(set)")], seconds: Self.healthAnswer)
    } catch {
      unlink(path)  // There is no display, for one.
      throw error
    }
  }
}

/// Whether vCPUs get anywhere, by what the kernel says of their threads. An idle guest's vCPU sleeps, and that is
/// well; one that waits for a device of the host, or is stopped, and uses no processor time, is not.
struct VCPUProgress {
  struct Thread: Equatable {
    /// As in proc_pid_stat(5).
    var state: Character
    /// Clock ticks.
    var cpuTime: UInt64
  }
  /// Looks in a row that must find a thread so.
  static let patience = 5

  private var former: [Int32: (thread: Thread, looks: Int)] = [:]

  /// - Returns: a thread that makes no progress.
  mutating func look(_ threads: [Int32: Thread]) -> Int32? {
    var next: [Int32: (thread: Thread, looks: Int)] = [:]
    for (id, thread) in threads {
      let isStuck = ["D", "T", "t"].contains(thread.state) && former[id]?.thread.cpuTime == thread.cpuTime
      next[id] = (thread, isStuck ? (former[id]?.looks ?? 0) + 1 : 0)
    }
    former = next
    return next.filter { $0.value.looks >= Self.patience }.keys.min()
  }
}

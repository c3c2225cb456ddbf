import CKernel
import Glibc
import SystemPackage

/// The start of a process, up to the moment when certain calls have been made: connections are led to other addresses
/// (``ConnectRedirection``), ioctls get another argument (``ControlRedirection``), and it does not notice.
///
/// All its threads are traced from its execve(2) on (ptrace(2)). At the beginning of a call that is to be led elsewhere the
/// thread's registers are pointed at another argument, which lies below its stack, and put back at the call's end: nothing of
/// the process's memory is changed. It is let go as soon as each of the calls has been made once. If this process is killed before, the
/// kernel ends the other one (PTRACE_O_EXITKILL). On x86-64 only.
public final class TracedStart {
  /// A call that was led elsewhere, until it ends.
  private struct Call {
    var redirection: Int
    var registers: moult_registers
  }

  private let pid: pid_t
  private let redirections: [CallRedirection]
  private var threads: Set<pid_t>
  /// By their thread.
  private var calls: [pid_t: Call] = [:]
  private var led: Set<Int> = []
  private var isOver = false

  /// - Parameter pid: a process that has not begun its program yet.
  public init(_ pid: pid_t, _ redirections: [CallRedirection]) throws(Failure) {
    #if !arch(x86_64)
      throw Failure(
        step: "trace process", subject: "\(pid)", reason: "calls can be led elsewhere on x86-64 only",
        hint: "give the VM unix sockets with paths to connect to, and no vsock device")
    #endif
    self.pid = pid
    self.redirections = redirections
    threads = [pid]
    do throws(Failure) {
      try valueOrErrno("trace process", "\(pid)") { moult_trace_seize_start(pid) }
    } catch {
      isOver = true
      var failure = error
      failure.hint = "tracing is forbidden: look at /proc/sys/kernel/yama/ptrace_scope (3 forbids it to everybody) and at the security module's log"
      throw failure
    }
  }

  /// Lets the process run until each of the calls has been made, and lets go of it.
  /// - Parameters:
  ///   - seconds: how long it may take.
  ///   - describe: a redirection in words, for a failure.
  /// - Throws: if it ends, or does not make them. It is killed then.
  public func run(_ reactor: Reactor, seconds: Double, describe: (Int) -> String) throws(Failure) {
    defer { end() }
    let reports = try valueOrErrno("await reports of process", "\(pid)") { moult_trace_reports_open() }
    reactor.add(reports) { () throws(Failure) in
      var count: UInt64 = 0
      _ = read(reports, &count, MemoryLayout<UInt64>.size)  // It fails if it was read before.
    }
    defer {
      reactor.remove(reports)
      moult_trace_reports_close(reports)
    }
    do throws(Failure) {
      _ = try reactor.wait(seconds: seconds, step: "await calls of", subject: "process \(pid)") { () throws(Failure) -> Bool? in
        for _ in 0..<Self.turns {
          if isDone { return true }
          if try !takeReports() { return nil }
        }
        // There may be more, and others have something to say as well.
        moult_trace_reports_more(reports)
        return nil
      }
    } catch where error.errno == .timedOut {
      let missing = redirections.indices.filter { !led.contains($0) }.map(describe).joined(separator: ", ")
      throw Failure(
        step: "await", subject: missing, errno: .timedOut, reason: "the program does not get to it",
        hint: "if the address is a name, it may lead nowhere now")
    }
    try letGo(reactor)
  }

  /// Looks for reports in a row.
  private static let turns = 100

  private var isDone: Bool { led.count == redirections.count && calls.isEmpty }

  /// - Returns: whether there were any.
  private func takeReports() throws(Failure) -> Bool {
    var found = false
    for thread in threads {
      guard !isDone, let report = try next(of: thread) else { continue }
      found = true
      if let signal = try handle(report, of: thread) { try goOn(thread, signal) }
    }
    return found
  }

  private typealias Report = (event: moult_trace_event, detail: CInt)

  private func next(of thread: pid_t) throws(Failure) -> Report? {
    var detail: CInt = 0
    let event = moult_trace_poll(thread, &detail)
    if event < 0 { throw Failure(step: "trace process", subject: "\(pid)", errno: Errno(rawValue: errno)) }
    return event == 0 ? nil : (moult_trace_event(UInt32(event)), detail)
  }

  /// - Returns: the signal with which the thread is to go on, 0 for none; nil if it has ended.
  private func handle(_ report: Report, of thread: pid_t) throws(Failure) -> CInt? {
    switch report.event {
    case moult_trace_ended:
      threads.remove(thread)
      calls[thread] = nil
      if thread != pid { return nil }
      throw Failure(step: "start process", subject: "\(pid)", errno: .noSuchProcess, reason: "it has ended")
    case moult_trace_cloned: threads.insert(pid_t(report.detail))
    case moult_trace_signal: return report.detail
    case moult_trace_syscall: try follow(thread)
    default: break
    }
    return 0
  }

  private func goOn(_ thread: pid_t, _ signal: CInt) throws(Failure) {
    // One that was killed meanwhile reports its end.
    if moult_trace_on_to_syscall(thread, signal) != 0, errno != ESRCH {
      throw Failure(step: "let process go on", subject: "\(pid)", errno: Errno(rawValue: errno))
    }
  }

  /// At the beginning or the end of a call.
  private func follow(_ thread: pid_t) throws(Failure) {
    var call = moult_syscall()
    if moult_trace_get_syscall(thread, &call) != 0 {
      if errno == ESRCH { return }
      throw Failure(step: "read the system call of process", subject: "\(pid)", errno: Errno(rawValue: errno))
    }
    if call.is_entry != 0 {
      switch call.number {
      case Self.connect: try connect(thread, call)
      case Self.ioctl: try control(thread, call)
      default: break
      }
    } else if let begun = calls.removeValue(forKey: thread) {
      try finish(thread, begun, call.result)
    }
  }

  private static let ioctl: UInt64 = 16
  private static let connect: UInt64 = 42

  private func connect(_ thread: pid_t, _ call: moult_syscall) throws(Failure) {
    let (descriptor, length) = (CInt(truncatingIfNeeded: call.arguments.0), Int(CInt(truncatingIfNeeded: call.arguments.2)))
    guard (3...MemoryLayout<sockaddr_storage>.size).contains(length), let address = bytes(thread, call.arguments.1, length),
      let choice = ConnectRedirection.choose(redirections, led: led, for: address), try isStream(descriptor)
    else { return }
    try lead(thread, choice.index, to: choice.address) { registers, place in
      (registers.rsi, registers.rdx) = (place, UInt64(choice.address.count))
    }
  }

  private func control(_ thread: pid_t, _ call: moult_syscall) throws(Failure) {
    for (index, redirection) in redirections.enumerated() {
      guard case .control(let control) = redirection, control.descriptor == CInt(truncatingIfNeeded: call.arguments.0),
        control.request == UInt32(truncatingIfNeeded: call.arguments.1), bytes(thread, call.arguments.2, control.argument.count) == control.argument
      else { continue }
      return try lead(thread, index, to: control.replacement) { registers, place in registers.rdx = place }
    }
  }

  /// Nil of what cannot be read: the kernel will not read it either.
  private func bytes(_ thread: pid_t, _ address: UInt64, _ count: Int) -> [UInt8]? {
    var bytes = [UInt8](repeating: 0, count: count)
    return moult_trace_read(thread, address, &bytes, count) == count ? bytes : nil
  }

  /// - Parameter point: makes the call's arguments lead to that place.
  private func lead(_ thread: pid_t, _ redirection: Int, to argument: [UInt8], _ point: (inout moult_registers, UInt64) -> Void) throws(Failure) {
    var registers = moult_registers()
    try valueOrErrno("read registers of process", "\(pid)") { moult_trace_get_registers(thread, &registers) }
    calls[thread] = Call(redirection: redirection, registers: registers)
    // Below the 128 bytes that belong to the function under way (System V ABI, "red zone").
    let place = (registers.rsp - 128 - UInt64(argument.count)) & ~15
    let written = try valueOrErrno("write memory of process", "\(pid)") { moult_trace_write(thread, place, argument, argument.count) }
    if written != argument.count { throw Failure(step: "write memory of process", subject: "\(pid)", reason: "its stack has no room") }
    point(&registers, place)
    try valueOrErrno("set registers of process", "\(pid)") { moult_trace_set_registers(thread, &registers) }
  }

  private func finish(_ thread: pid_t, _ begun: Call, _ result: Int64) throws(Failure) {
    var registers = moult_registers()
    try valueOrErrno("read registers of process", "\(pid)") { moult_trace_get_registers(thread, &registers) }
    (registers.rsi, registers.rdx) = (begun.registers.rsi, begun.registers.rdx)
    try valueOrErrno("set registers of process", "\(pid)") { moult_trace_set_registers(thread, &registers) }
    // A signal came: the call begins anew (ERESTARTSYS and its like, which no program sees).
    if (-516...(-512)).contains(result) || result == -Int64(EINTR) { return }
    // Of an ioctl the program itself says why it failed.
    if case .connect(let redirection) = redirections[begun.redirection], result != 0, result != -Int64(EINPROGRESS) {
      throw Failure(
        step: "lead a connection of process \(pid) to", subject: "\(redirection.standIn)", errno: Errno(rawValue: CInt(truncatingIfNeeded: -result)),
        hint: "of an IPv6 socket the kernel may refuse it: look at /proc/sys/net/ipv6/bindv6only")
    }
    led.insert(begun.redirection)
  }

  /// Of TCP, or of the stream kind: getaddrinfo(3) connects UDP sockets to the very addresses, to see whether they can be reached.
  private func isStream(_ descriptor: CInt) throws(Failure) -> Bool {
    let socket: OwnedFD
    do throws(Failure) { socket = try Pidfd(pid: pid).duplicate(descriptor: descriptor) } catch where error.errno == .badFileDescriptor { return false }
    var kind: CInt = 0
    var size = socklen_t(MemoryLayout<CInt>.size)
    return getsockopt(socket.raw, SOL_SOCKET, SO_TYPE, &kind, &size) == 0 && kind == CInt(SOCK_STREAM.rawValue)
  }

  /// A thread can be let go only where it has stopped.
  private func letGo(_ reactor: Reactor) throws(Failure) {
    for thread in threads { _ = moult_trace_interrupt(thread) }
    _ = try reactor.wait(
      seconds: Double(Transplant.patienceMilliseconds) / 1000, step: "let go of process", subject: "\(pid)",
      hint: "a thread of it does not stop: it waits for a device or file system that does not answer"
    ) { () throws(Failure) -> Bool? in
      // A thread that has just been made may have stopped before it was known.
      while try letGoOfStopped() {}
      return threads.isEmpty ? true : nil
    }
  }

  /// - Returns: whether there was any.
  private func letGoOfStopped() throws(Failure) -> Bool {
    var found = false
    for thread in threads {
      guard let report = try next(of: thread) else { continue }
      found = true
      guard let signal = try handle(report, of: thread) else { continue }
      // One call more may have begun: its end puts the registers back.
      if calls[thread] != nil {
        try goOn(thread, signal)
        continue
      }
      if moult_trace_detach_with(thread, signal) != 0, errno != ESRCH {
        throw Failure(step: "let go of process", subject: "\(pid)", errno: Errno(rawValue: errno))
      }
      threads.remove(thread)
    }
    return found
  }

  /// Whatever is traced still is killed, and its threads collected: the kernel keeps them for the tracer.
  private func end() {
    if isOver { return }
    isOver = true
    if threads.isEmpty { return }
    for thread in threads { kill(thread, SIGKILL) }
    // Those that it has just made are traced, and not known yet.
    do throws(Failure) { threads.formUnion(try Files.names(in: "/proc/\(pid)/task").compactMap { pid_t($0) }) } catch { /* It has ended. */ }
    var detail: CInt = 0
    // The first thread's end is told when the others have been collected.
    for thread in threads.subtracting([pid]) + [pid] {
      while ![-1, CInt(moult_trace_ended.rawValue)].contains(moult_trace_wait(thread, Transplant.patienceMilliseconds, &detail)) {
        _ = moult_trace_on_to_syscall(thread, 0)
      }
    }
  }

  deinit { end() }
}

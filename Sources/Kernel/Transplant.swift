import CKernel
import Glibc
import SystemPackage

/// Puts open files of another process in the place of others of its own: its descriptor `to` becomes what its
/// descriptor `from` is, and what `to` was is closed.
///
/// The process does that itself, by dup3(2): its first thread is stopped where it is (ptrace(2), PTRACE_SEIZE),
/// made to do the calls, and let go on as if nothing had been. A system call that it was waiting in is begun
/// anew by the kernel, as after a signal without a handler (signal(7)): one that waits in poll(2) then waits for
/// the new files. Nothing is asked of the program, nothing of its memory is touched, other threads run on.
public enum Transplant {
  public struct Move: Sendable, Equatable, Codable {
    public var from: CInt
    public var to: CInt
    public init(from: CInt, to: CInt) {
      self.from = from
      self.to = to
    }
  }

  /// How long the thread may take to stop. It takes microseconds; one that waits for a device cannot be stopped.
  static let patienceMilliseconds: CInt = 2000

  /// Whether the process will let itself be treated so: it is made to do a call of the same kind that has no effect.
  /// - Throws: a failure with a hint, if tracing or the call is forbidden.
  /// - Parameter outlivesUs: see ``perform(in:endsWithUs:outlivesUs:_:)``.
  public static func probe(_ pid: pid_t, outlivesUs: Bool = false) throws(Failure) {
    // dup3(2) of a descriptor to itself is EINVAL, whatever the descriptor is.
    let result = try call(dup3, 0, in: pid, outlivesUs: outlivesUs)
    if result != -Int(EINVAL) { throw refused(pid, result) }
  }

  /// Does the moves in their order, and closes descriptors of the process then. What was moved gets the
  /// close-on-exec flag. Doing all of it again is harmless as long as nothing was closed.
  /// - Throws: when a move fails; those before it are done then.
  public static func perform(_ moves: [Move], closing: [CInt] = [], in pid: pid_t, outlivesUs: Bool = false) throws(Failure) {
    if moves.isEmpty, closing.isEmpty { return }
    try perform(in: pid, outlivesUs: outlivesUs) { (moves, closing) }
  }

  /// The same, decided while the thread stands still: what it alone opens and closes is then what it is.
  /// - Parameter endsWithUs: whether the kernel is to end the process if this one is killed meanwhile, as in the middle
  ///   of a call nobody could put its registers back. For a process that can be done without.
  /// - Parameter outlivesUs: the process must go on even then. Its thread is stopped only where it waits in poll(2), or is about to: what
  ///   the call answers is then taken for the number of descriptors that are ready, of which none says that it is. Nor has
  ///   it been told there that there is something to read, and looks at the new files before it does.
  public static func perform(
    in pid: pid_t, endsWithUs: Bool = false, outlivesUs: Bool = false, _ decide: () throws(Failure) -> (moves: [Move], closing: [CInt])
  ) throws(Failure) {
    var thread = try StoppedThread(pid, endsWithUs: endsWithUs, inPoll: outlivesUs)
    var failure: Failure?
    do throws(Failure) {
      let (moves, closing) = try decide()
      for move in moves {
        let result = try thread.call(dup3, UInt64(move.from), UInt64(move.to), UInt64(O_CLOEXEC))
        if result == Int(move.to) { continue }
        failure = refused(pid, result)
        failure?.subject += ", descriptor \(move.from) to \(move.to)"
        break
      }
      if failure == nil {
        // One that is closed already is as it should be.
        for descriptor in closing { _ = try thread.call(close, UInt64(descriptor), 0, 0) }
      }
    } catch { failure = error }
    do throws(Failure) { try thread.release() } catch { throw failure ?? error }
    if let failure { throw failure }
  }

  /// Makes one of the process's descriptors its working directory (fchdir(2)), and closes it. All its threads have the
  /// same one.
  public static func enter(directory: CInt, in pid: pid_t, outlivesUs: Bool = false) throws(Failure) {
    let result = try call(fchdir, UInt64(directory), in: pid, outlivesUs: outlivesUs)
    if result == 0 { return try perform([], closing: [directory], in: pid, outlivesUs: outlivesUs) }
    throw Failure(
      step: "change the working directory of process", subject: "\(pid)", errno: Errno(rawValue: CInt(truncatingIfNeeded: -result)))
  }

  /// One call, whose further arguments are 0. The thread is let go whatever becomes of it: moult may live on for long.
  private static func call(_ number: UInt64, _ argument: UInt64, in pid: pid_t, outlivesUs: Bool) throws(Failure) -> Int {
    var thread = try StoppedThread(pid, endsWithUs: false, inPoll: outlivesUs)
    let result: Int
    do throws(Failure) { result = try thread.call(number, argument, 0, 0) } catch {
      do throws(Failure) { try thread.release() } catch _ { /* The failure of the call says more. */ }
      throw error
    }
    try thread.release()
    return result
  }

  private static let fchdir: UInt64 = 81
  private static let dup3: UInt64 = 292
  private static let close: UInt64 = 3

  private static func refused(_ pid: pid_t, _ result: Int) -> Failure {
    Failure(
      step: "exchange descriptors of process", subject: "\(pid)", errno: Errno(rawValue: CInt(truncatingIfNeeded: -result)),
      hint: "dup3(2) is refused in that process: a system call filter (seccomp) that is tighter than QEMU's -sandbox forbids it")
  }
}

/// The first thread of a process, stopped between two of its instructions.
private struct StoppedThread: ~Copyable {
  private let pid: pid_t
  private let saved: moult_registers
  /// Where a system call instruction lies in the process.
  private let instruction: UInt64
  /// Signals that came meanwhile. They are kept from it here and not by its mask: that would stay if this process were
  /// killed, and SIGTERM would never again arrive.
  private var signals: [CInt]

  /// - Parameter inPoll: only where the thread waits in poll(2).
  init(_ pid: pid_t, endsWithUs: Bool, inPoll: Bool) throws(Failure) {
    #if !arch(x86_64)
      throw Failure(
        step: "stop a thread of process", subject: "\(pid)", reason: "descriptors can be exchanged on x86-64 only",
        hint: "give the VM unix sockets with paths instead of ports, and no taps")
    #endif
    try Self.seize(pid, endsWithUs)
    var held: [CInt] = []
    do throws(Failure) {
      try valueOrErrno("stop a thread of process", "\(pid)") { moult_trace_interrupt(pid) }
      // A signal that is on its way first gets to where it was going.
      while case .signal(let number) = try Self.wait(pid) {
        try valueOrErrno("give signal \(number) to process", "\(pid)") { moult_trace_continue(pid, number) }
      }
      var registers = try Self.registers(pid)
      let deadline = Instant.now().adding(seconds: Double(Transplant.patienceMilliseconds) / 1000)
      let instruction: UInt64
      if inPoll, !Self.waitsInPoll(registers) {
        registers = try Self.goOnToPoll(pid, &held, until: deadline)
        instruction = registers.rip
      } else {
        instruction = try Self.instruction(pid, registers)
      }
      self.pid = pid
      self.signals = held
      self.saved = registers
      self.instruction = instruction
    } catch {
      // It may be gone, or not have stopped yet: the kernel lets go of it when moult ends at the latest.
      _ = moult_trace_detach(pid)
      for number in held { kill(pid, number) }
      throw error
    }
  }

  private static func registers(_ pid: pid_t) throws(Failure) -> moult_registers {
    var registers = moult_registers()
    try valueOrErrno("read registers of process", "\(pid)") { moult_trace_get_registers(pid, &registers) }
    return registers
  }

  private static func isPoll(_ registers: moult_registers) -> Bool { [7, 271].contains(registers.orig_rax) }

  /// It waits in poll(2) or ppoll(2), which the kernel will begin anew (ERESTARTNOHAND and its like, which no program sees).
  private static func waitsInPoll(_ registers: moult_registers) -> Bool {
    isPoll(registers) && (-516...(-512)).contains(Int64(bitPattern: registers.rax))
  }

  /// Lets the stopped thread run until it calls poll(2), and takes that call from it. A busy one waits there seldom: it calls
  /// again and again, and always finds a descriptor ready.
  /// - Parameter signals: those that are kept from it are added.
  /// - Returns: registers with which it calls poll(2) as if for the first time.
  private static func goOnToPoll(_ pid: pid_t, _ signals: inout [CInt], until deadline: Instant) throws(Failure) -> moult_registers {
    while Instant.now() < deadline {
      try valueOrErrno("let process go on", "\(pid)") { moult_trace_to_syscall(pid) }
      if case .signal(let number) = try wait(pid) { signals.append(number) }
      var now = try registers(pid)
      // What is about to begin has this answer so far (ptrace(2), syscall-enter-stop).
      guard isPoll(now), Int64(bitPattern: now.rax) == -Int64(ENOSYS) else { continue }
      var again = now
      (again.rax, again.orig_rax, again.rip) = (now.orig_rax, .max, now.rip - 2)
      // There is no such call: the kernel answers ENOSYS, which is what the thread would get if this process were killed now.
      now.orig_rax = .max
      try valueOrErrno("set registers of process", "\(pid)") { moult_trace_set_registers(pid, &now) }
      while true {
        try valueOrErrno("let process go on", "\(pid)") { moult_trace_to_syscall(pid) }
        guard case .signal(let number) = try wait(pid) else { return again }
        signals.append(number)
      }
    }
    throw Failure(
      step: "stop a thread of process", subject: "\(pid)", reason: "its main loop does not come round, and only there it can be changed safely",
      hint: "try again when the VM is less busy, or disconnect the clients of its consoles")
  }

  /// Makes the thread do a system call with numbers for arguments.
  /// - Returns: what the kernel answered: a value, or a negative errno.
  mutating func call(_ number: UInt64, _ a: UInt64, _ b: UInt64, _ c: UInt64) throws(Failure) -> Int {
    let result = try callOnce(number, a, b, c)
    // A filter that ends the process for it leaves the call's number there (`syscall_rollback` in kernel/seccomp.c); so may
    // the call itself, which is one that can be repeated.
    return result == Int(number) ? try callOnce(number, a, b, c) : result
  }

  private mutating func callOnce(_ number: UInt64, _ a: UInt64, _ b: UInt64, _ c: UInt64) throws(Failure) -> Int {
    var registers = saved
    registers.rax = number
    (registers.rdi, registers.rsi, registers.rdx) = (a, b, c)
    registers.rip = instruction
    // No system call is under way that the kernel would have to begin anew first.
    registers.orig_rax = .max
    let pid = self.pid
    try valueOrErrno("set registers of process", "\(pid)") { moult_trace_set_registers(pid, &registers) }
    // Its beginning and its end.
    for _ in 0..<2 {
      var report: Report
      repeat {
        try valueOrErrno("let process go on", "\(pid)") { moult_trace_to_syscall(pid) }
        report = try Self.wait(pid)
        if case .signal(let number) = report { signals.append(number) }
      } while report != .syscall
    }
    try valueOrErrno("read registers of process", "\(pid)") { moult_trace_get_registers(pid, &registers) }
    return Int(truncatingIfNeeded: Int64(bitPattern: registers.rax))
  }

  /// Puts everything back and lets the thread go on.
  consuming func release() throws(Failure) {
    let (pid, signals) = (self.pid, self.signals)
    var registers = saved
    // With `orig_rax` as it was the kernel begins the interrupted system call anew, as it would have done anyhow.
    try valueOrErrno("restore registers of process", "\(pid)") { moult_trace_set_registers(pid, &registers) }
    try valueOrErrno("let go of process", "\(pid)") { moult_trace_detach(pid) }
    for number in signals { try valueOrErrno("give signal \(number) to process", "\(pid)") { kill(pid, number) } }
  }

  private enum Report: Equatable { case stopped, syscall, signal(CInt) }

  private static func wait(_ pid: pid_t) throws(Failure) -> Report {
    var detail: CInt = 0
    let event = try valueOrErrno(
      "stop a thread of process", "\(pid)",
      hint: "it does not stop: it waits for a device or file system that does not answer", retryOnInterrupt: false
    ) { moult_trace_wait(pid, Transplant.patienceMilliseconds, &detail) }
    switch UInt32(event) {
    case moult_trace_interrupted.rawValue: return .stopped
    case moult_trace_syscall.rawValue: return .syscall
    case moult_trace_signal.rawValue: return .signal(detail)
    case moult_trace_ended.rawValue:
      throw Failure(step: "stop a thread of process", subject: "\(pid)", errno: .noSuchProcess, reason: "it has ended")
    default:
      throw Failure(step: "stop a thread of process", subject: "\(pid)", reason: "the kernel reports \(detail)")
    }
  }

  private static func seize(_ pid: pid_t, _ endsWithUs: Bool) throws(Failure) {
    do throws(Failure) {
      try valueOrErrno("trace process", "\(pid)") { moult_trace_seize(pid, endsWithUs ? 1 : 0) }
    } catch where error.errno == .notPermitted || error.errno == .permissionDenied {
      var failure = error
      let tracer = try ProcFS.tracer(of: pid)
      failure.reason = tracer.map { "process \($0) traces it already" }
      failure.hint =
        tracer == nil
        ? "tracing is forbidden: look at /proc/sys/kernel/yama/ptrace_scope (3 forbids it to everybody) and at the security module's log"
        : "end that debugger or tracer first"
      throw failure
    }
  }

  /// The instruction before the one to be done next, if the thread is in a system call; else one in the vDSO, which
  /// the kernel maps into every process.
  private static func instruction(_ pid: pid_t, _ registers: moult_registers) throws(Failure) -> UInt64 {
    let memory = try OwnedFD.open("/proc/\(pid)/mem", O_RDONLY, step: "read memory of process")
    func bytes(_ address: UInt64, _ count: Int) throws(Failure) -> [UInt8] {
      var bytes = [UInt8](repeating: 0, count: count)
      let size = try valueOrErrno("read memory of process", "\(pid)") { pread(memory.raw, &bytes, count, off_t(address)) }
      return Array(bytes[..<size])
    }
    let syscall: [UInt8] = [0x0f, 0x05]
    if Int64(bitPattern: registers.orig_rax) >= 0, try bytes(registers.rip - 2, 2) == syscall { return registers.rip - 2 }
    for line in try Files.readText("/proc/\(pid)/maps").split(separator: "\n") where line.hasSuffix("[vdso]") {
      let range = line.prefix { $0 != " " }.split(separator: "-").compactMap { UInt64($0, radix: 16) }
      guard range.count == 2 else { continue }
      let code = try bytes(range[0], Int(range[1] - range[0]))
      if let offset = code.indices.dropLast().first(where: { code[$0] == 0x0f && code[$0 + 1] == 0x05 }) {
        return range[0] + UInt64(offset)
      }
    }
    throw Failure(
      step: "stop a thread of process", subject: "\(pid)", reason: "no system call instruction is found in it",
      hint: "boot the host's kernel with vdso=1")
  }
}

extension ProcFS {
  /// The process that traces another by ptrace(2); nil if none does, or one of the two has ended.
  public static func tracer(of pid: pid_t) throws(Failure) -> pid_t? {
    func field(_ key: String, of id: pid_t) throws(Failure) -> pid_t? {
      guard let text = try unlessGone({ () throws(Failure) in try Files.readText("/proc/\(id)/status") }) else { return nil }
      let line = text.split(separator: "\n").first { $0.hasPrefix(key) }
      return line.flatMap { pid_t($0.dropFirst(key.count).trimmingSpaces()) }
    }
    // The kernel names the thread that does it.
    guard let thread = try field("TracerPid:", of: pid), thread != 0 else { return nil }
    return try field("Tgid:", of: thread) ?? thread
  }
}

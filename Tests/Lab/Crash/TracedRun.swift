import CLab
import Foundation
import Glibc

/// A run of the program that is stopped right before and right after it writes a record of its journal, and each call
/// by which it changes a running QEMU, by ptrace(2): what happens then happens at exactly that point, not somewhere near it.
///
/// To be used by the thread that made it, and only by that one.
public final class TracedRun {
  public let pid: pid_t
  private let state: VMState
  private let arguments: [String]
  private let output: String
  private var seen: [String: Int] = [:]
  /// The step that it has noted last: `switch.begin`.
  private var step = ""
  private var status: CInt?
  private var isTraced = true

  /// - Parameter vm: the one whose journal this run will write.
  public init(moult arguments: [String], of vm: LabVM) throws {
    self.arguments = arguments
    state = VMState(vm.configuration)
    output = NSTemporaryDirectory() + "/moult-lab-\(getpid())-\(UUID().uuidString)"
    var argv = ([Lab.paths.moult] + arguments).map { strdup($0) } + [nil]
    defer { for word in argv { free(word) } }
    pid = lab_trace_start(&argv, output + ".out", output + ".err")
    if pid < 0 { throw LabFailure.system("trace \(Lab.paths.moult)") }
  }

  deinit {
    if status == nil {
      kill(pid, SIGKILL)
      collect(0)
    }
    unlink(output + ".out")
    unlink(output + ".err")
  }

  struct Record {
    /// `switch.begin`: a step and what is noted of it, or `record`. `switch.begin+setregs`: a call of ptrace(2), with
    /// what was noted last. With `#2` if it is the second such.
    var label: String
    /// It is such a call.
    var isCall: Bool
    /// A call that only asks.
    var isQuestion: Bool
    /// The run has done something since it wrote the record before: the host may be another.
    var isNew: Bool
  }

  /// Lets it run to its next record, which it has not written yet, or call, which it has not made yet.
  /// - Returns: nil if it has ended instead.
  func next() throws -> Record? {
    var buffer = [UInt8](repeating: 0, count: 512)
    var (request, others) = (0, 0)
    var value: CInt = 0
    let count = buffer.withUnsafeMutableBytes {
      lab_trace_next(pid, state.journal, $0.baseAddress?.assumingMemoryBound(to: CChar.self), $0.count, &request, &others, &value)
    }
    if count < 0 { throw LabFailure.system("trace \(pid)") }
    if count == 0 {
      (status, isTraced) = (value, false)
      return nil
    }
    let isCall = request >= 0
    let plain = isCall ? "\(step)+\(Self.requests[request] ?? "\(request)")" : Self.label(String(decoding: buffer[..<min(count, buffer.count)], as: UTF8.self))
    seen[plain, default: 0] += 1
    let number = seen[plain] ?? 1
    let label = number == 1 ? plain : "\(plain)#\(number)"
    if !isCall, plain != "record" { step = label }
    return Record(label: label, isCall: isCall, isQuestion: request == Self.getRegisters, isNew: others > 0)
  }

  private static let getRegisters = 12
  /// Source: linux/ptrace.h.
  private static let requests = [7: "cont", getRegisters: "getregs", 13: "setregs", 17: "detach", 24: "syscall", 0x4206: "seize", 0x4207: "interrupt"]

  /// Lets it run until it is about to write a record, or to make a call. Of calls it makes more or fewer, as it finds the
  /// QEMU waiting or busy: if there was no such, it is held at what is noted of a step next.
  public func go(to record: String) throws {
    var former = ""
    while let next = try next() {
      if next.label == record || step != former && record.hasPrefix("\(former)+") { return }
      former = step
    }
    throw LabFailure("moult \(arguments.joined(separator: " ")) never came to \(record): \(try wait())")
  }

  /// Lets it write that record, or make that call, and nothing more.
  public func finishRecord() throws {
    if lab_trace_finish(pid) < 0 { throw LabFailure("process \(pid) could not do that call") }
  }

  /// Lets it go on by itself.
  public func release() throws {
    isTraced = false
    if lab_trace_release(pid) < 0 { throw LabFailure.system("release process \(pid)") }
  }

  /// Kills it, and before it who watches over it: then nobody knows.
  public func killAll() throws {
    try Processes.end(state.guardian(of: pid))
    kill(pid, SIGKILL)
    _ = try wait()
  }

  var hasEnded: Bool {
    collect(WNOHANG)
    return status != nil
  }

  /// Waits for its end, which must not take longer than `seconds`.
  public func wait(seconds: Double = 60) throws -> ChildProcess.Outcome {
    let began = monotonicNanoseconds()
    try eventually("\(arguments.joined(separator: " ")): ends\n\(text(".err"))", within: seconds) { hasEnded }
    let (value, signal) = (status ?? 0, (status ?? 0) & 0x7f)
    return ChildProcess.Outcome(
      code: Int(signal == 0 ? (value >> 8) & 0xff : 128 + signal), stdout: text(".out"), stderr: text(".err"),
      seconds: Double(monotonicNanoseconds() - began) / 1e9)
  }

  private func collect(_ options: CInt) {
    if status != nil { return }
    var value: CInt = 0
    let wall: CInt = 0x4000_0000  // __WALL
    if waitpid(pid, &value, options | wall) == pid, value & 0xff != 0x7f { status = value }
  }

  private func text(_ suffix: String) -> String {
    String(decoding: FileManager.default.contents(atPath: output + suffix) ?? Data(), as: UTF8.self)
  }

  private static func label(_ line: String) -> String {
    func value(_ name: String) -> Substring? {
      line.range(of: "\"\(name)\":\"").map { line[$0.upperBound...].prefix { $0 != "\"" } }
    }
    if line.contains("{\"record\":{") { return "record" }
    guard let step = value("step"), let phase = value("phase") else { return "unknown" }
    return "\(step).\(phase)"
  }
}

import Foundation
import Glibc

/// A run of the program that stands still right after it has written a chosen line of its journal: what
/// happens then happens at exactly that step, not somewhere near it.
///
/// strace(1) sends it SIGSTOP on its way into that write(2): the line is written, nothing after it is done.
public final class SteppedRun {
  private let strace: ChildProcess
  private let journal: String
  private let line: Int
  private let trace: String
  /// Lines that an upgrade before this one has left.
  private let former: Int

  /// - Parameters:
  ///   - journal: the journal that this run will write.
  ///   - line: which of its lines, from 1.
  public init(moult arguments: [String], journal: String, line: Int) throws {
    self.journal = journal
    self.line = line
    former = Self.lines(in: journal)
    trace = NSTemporaryDirectory() + "/moult-lab-\(getpid())-\(UUID().uuidString).trace"
    strace = try ChildProcess(
      ["strace", "-qq", "-o", trace, "-P", journal, "-e", "trace=write"]
        + ["-e", "inject=write:signal=SIGSTOP:when=\(line)", Lab.paths.moult] + arguments)
  }

  deinit { unlink(trace) }

  /// Waits until it stands still.
  /// - Returns: its pid, or nil if it ended before it came there.
  public func held(within seconds: Double = 60) throws -> pid_t? {
    var samples = 0
    return try eventually("moult stands still at line \(line) of \(journal)", within: seconds) { () -> pid_t?? in
      if !strace.isRunning { return .some(nil) }
      guard let pid = program, isStopped(pid), Self.lines(in: journal) >= former + line else {
        samples = 0
        return nil
      }
      // A tracer stops it for moments, too.
      samples += 1
      return samples > 2 ? .some(pid) : nil
    }
  }

  public func goOn(_ pid: pid_t) { kill(pid, SIGCONT) }

  public func wait(seconds: Double = 120) throws -> ChildProcess.Outcome { try strace.wait(seconds: seconds) }

  private static func lines(in journal: String) -> Int {
    (FileManager.default.contents(atPath: journal) ?? Data()).count { $0 == 10 }
  }

  private var program: pid_t? {
    let path = "/proc/\(strace.pid)/task/\(strace.pid)/children"
    let text = String(decoding: FileManager.default.contents(atPath: path) ?? Data(), as: UTF8.self)
    return text.split(separator: " ").first.flatMap { pid_t($0) }
  }

  private func isStopped(_ pid: pid_t) -> Bool {
    let text = Processes.text("/proc/\(pid)/stat")
    guard let end = text.lastIndex(of: ")") else { return false }
    return ["T", "t"].contains(text[end...].dropFirst(2).prefix(1))
  }
}

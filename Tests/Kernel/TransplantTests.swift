import CKernel
import Glibc
import SystemPackage
import Testing

@testable import Kernel

/// A running tracee: what it waits for at descriptor 0, and another pipe that it has as descriptor 5.
private final class Tracee {
  let pid: pid_t
  private let first: CInt, second: CInt, event: CInt, output: CInt

  init(_ mode: String) throws {
    var pipes: [[CInt]] = []
    for _ in 0..<4 {
      var ends: [CInt] = [-1, -1]
      try #require(moult_pipe(&ends) == 0)
      pipes.append(ends)
    }
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    // Over numbers that are free, so that none of them overwrites another's source.
    let sources = [pipes[0][0], pipes[1][0], pipes[2][0], pipes[3][1]].map { fcntl($0, F_DUPFD_CLOEXEC, 100) }
    for (source, number) in zip(sources, [CInt(0), 5, 4, 1]) { posix_spawn_file_actions_adddup2(&actions, source, number) }
    let program = try Files.link("/proc/self/exe").split(separator: "/").dropLast().joined(separator: "/")
    var words: [UnsafeMutablePointer<CChar>?] = [strdup("/" + program + "/tracee"), strdup(mode), nil]
    defer { for word in words { free(word) } }
    var attributes = posix_spawnattr_t()
    posix_spawnattr_init(&attributes)
    defer { posix_spawnattr_destroy(&attributes) }
    var none = sigset_t()
    sigemptyset(&none)
    posix_spawnattr_setsigmask(&attributes, &none)
    posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK))
    var pid: pid_t = 0
    let code = posix_spawn(&pid, words[0]!, &actions, &attributes, &words, environ)
    try #require(code == 0, "\(String(cString: strerror(code))): \("/" + program + "/tracee")")
    self.pid = pid
    for source in sources { close(source) }
    (first, second, event, output) = (pipes[0][1], pipes[1][1], pipes[2][1], pipes[3][0])
    for end in [pipes[0][0], pipes[1][0], pipes[2][0], pipes[3][1]] { close(end) }
    try #require(line() == "ready")
  }

  deinit {
    kill(pid, SIGKILL)
    var status: CInt = 0
    waitpid(pid, &status, 0)
    for end in [first, second, event, output] { close(end) }
  }

  /// The next line of its output; what there is at its end.
  func line() -> String {
    var text = ""
    var byte: UInt8 = 0
    while read(output, &byte, 1) == 1, byte != 10 { text.unicodeScalars.append(Unicode.Scalar(byte)) }
    return text
  }

  /// Until the thread sleeps in the system call that its mode is about.
  func settles() throws {
    for _ in 0..<2000 {
      if try ProcessStatus.read(pid: pid).state == "S" { return }
      usleep(1000)
    }
    Issue.record("the tracee does not come to rest")
  }

  func say(_ text: String, on pipe: Pipe) {
    let bytes = Array(text.utf8)
    let end = switch pipe { case .first: first; case .second: second; case .event: event }
    #expect(write(end, bytes, bytes.count) == bytes.count)
  }
  enum Pipe { case first, second, event }
}

@Suite struct FrozenThreadsTests {
  /// It has to wait for the mutex before, and is not taken for waiting at the condition then.
  @Test func aThreadIsFollowedToItsCondition() throws {
    for _ in 0..<10 {
      let tracee = try Tracee("condition")
      let thread = try FrozenThreads([tracee.pid])
      tracee.say("x", on: .event)
      try thread.goOnToCondition(withinMilliseconds: 20_000)
      #expect(tracee.line() == "told")
      thread.release()
      tracee.say("first", on: .first)
      #expect(tracee.line() == "got first")
    }
  }

  /// It goes on as if nothing had been, signals that came meanwhile included.
  @Test func oneThatNeverComesThereIsAFailure() throws {
    let tracee = try Tracee("mutex")
    let thread = try FrozenThreads([tracee.pid])
    tracee.say("x", on: .event)
    #expect(throws: Failure.self) { try thread.goOnToCondition(withinMilliseconds: 100) }
    thread.release()
    tracee.say("x", on: .second)
    #expect(tracee.line() == "told")
    tracee.say("first", on: .first)
    #expect(tracee.line() == "got first")
  }
}

@Suite struct TransplantTests {
  /// Whatever the thread waits in, it goes on waiting, and reads from the other pipe then.
  @Test(arguments: ["read", "ppoll", "nanosleep", "epoll", "spin", "threads", "alarms"])
  func aWaitingThreadGoesOnWithTheOtherFile(mode: String) throws {
    let tracee = try Tracee(mode)
    if mode != "spin", mode != "alarms" { try tracee.settles() }
    for _ in 0..<20 { try Transplant.probe(tracee.pid) }
    try Transplant.perform([.init(from: 5, to: 0)], in: tracee.pid)
    for _ in 0..<20 { try Transplant.probe(tracee.pid) }
    if mode == "alarms" { usleep(50_000) }
    if mode == "epoll" { tracee.say("x", on: .event) }
    tracee.say("second", on: .second)
    #expect(tracee.line() == "got second")
  }

  @Test func movesAreDoneInOrderAndMayBeRepeated() throws {
    let tracee = try Tracee("read")
    for _ in 0..<2 { try Transplant.perform([.init(from: 5, to: 0), .init(from: 0, to: 9)], in: tracee.pid) }
    let descriptors = try ProcFS.openDescriptors(of: tracee.pid)
    let targets = [0, 5, 9].map { number in descriptors.first { $0.number == number }?.target }
    #expect(targets[0] == targets[1] && targets[1] == targets[2] && targets[0] != nil)
    #expect(descriptors.first { $0.number == 9 }?.isCloseOnExec == true)
    tracee.say("second", on: .second)
    #expect(tracee.line() == "got second")
  }

  @Test func onlyADirectoryCanBeEntered() throws {
    let tracee = try Tracee("read")
    #expect { try Transplant.enter(directory: 5, in: tracee.pid) } throws: { ($0 as? Failure)?.errno == .notDirectory }
    tracee.say("first", on: .first)
    #expect(tracee.line() == "got first")
  }

  @Test func descriptorsAreClosed() throws {
    let tracee = try Tracee("read")
    for _ in 0..<2 { try Transplant.perform([], closing: [4, 77], in: tracee.pid) }
    let open = try ProcFS.openDescriptors(of: tracee.pid).map(\.number)
    #expect(open.contains(5) && !open.contains(4))
    tracee.say("first", on: .first)
    #expect(tracee.line() == "got first")
  }

  @Test func aMoveThatCannotBeDoneLeavesTheProcessAsItWas() throws {
    let tracee = try Tracee("read")
    #expect {
      try Transplant.perform([.init(from: 77, to: 0), .init(from: 5, to: 0)], in: tracee.pid)
    } throws: { ($0 as? Failure)?.errno == .badFileDescriptor && "\($0)".contains("descriptor 77 to 0") }
    tracee.say("first", on: .first)
    #expect(tracee.line() == "got first")
  }

  @Test func aStoppedProcessStaysStopped() throws {
    let tracee = try Tracee("read")
    kill(tracee.pid, SIGSTOP)
    while try ProcessStatus.read(pid: tracee.pid).state != "T" { usleep(1000) }
    try Transplant.perform([.init(from: 5, to: 0)], in: tracee.pid)
    usleep(20_000)
    #expect(try ProcessStatus.read(pid: tracee.pid).state == "T")
    tracee.say("second", on: .second)
    kill(tracee.pid, SIGCONT)
    #expect(tracee.line() == "got second")
  }

  @Test func aFilterThatForbidsItIsNamed() throws {
    let tracee = try Tracee("refused")
    #expect { try Transplant.probe(tracee.pid) } throws: {
      ($0 as? Failure)?.errno == .notPermitted && ($0 as? Failure)?.hint?.contains("seccomp") == true
    }
    tracee.say("first", on: .first)
    #expect(tracee.line() == "got first")
  }

  @Test func aFilterThatKillsIsAFailure() throws {
    let tracee = try Tracee("killed")
    #expect { try Transplant.probe(tracee.pid) } throws: { ($0 as? Failure)?.errno == .noSuchProcess }
  }

  @Test func aTracerIsNamed() throws {
    let tracee = try Tracee("read")
    try #require(moult_trace_seize(tracee.pid, 0) == 0)
    #expect { try Transplant.probe(tracee.pid) } throws: {
      let failure = $0 as? Failure
      return failure?.errno == .notPermitted && failure?.reason == "process \(getpid()) traces it already" && failure?.hint != nil
    }
  }

  @Test func aProcessThatHasEndedIsAFailure() throws {
    let tracee = try Tracee("read")
    kill(tracee.pid, SIGKILL)
    while try !ProcessStatus.read(pid: tracee.pid).isZombie { usleep(1000) }
    #expect(throws: Failure.self) { try Transplant.probe(tracee.pid) }
  }
}

import CKernel
import Glibc
import SystemPackage
import Testing

@testable import Kernel

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
      tracee.say("x", on: .second)
      tracee.say("first", on: .first)
      #expect(tracee.line() == "got first")
    }
  }

  /// However often it makes calls, and signals come.
  @Test func oneThatGoesRoundAndRoundIsAFailure() throws {
    let tracee = try Tracee("alarms")
    let thread = try FrozenThreads([tracee.pid])
    #expect { try thread.goOnToCondition(withinMilliseconds: 200) } throws: { ($0 as? Failure)?.errno == .timedOut }
    thread.release()
    usleep(50_000)
    tracee.say("first", on: .first)
    #expect(tracee.line() == "got first")
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

import Glibc
import Kernel
import SystemPackage
import Testing

@testable import Upgrade

/// The real host of a recovery, before processes that end.
@Suite(.enabled(if: geteuid() == 0)) struct RecoveryHostTests {
  /// A process that is no QEMU, and ends of itself.
  private final class Child {
    let pid: pid_t
    init(_ words: String...) throws {
      var pid: pid_t = 0
      var arguments = words.map { strdup($0) } + [nil]
      defer { for word in arguments { free(word) } }
      let code = posix_spawnp(&pid, words[0], nil, nil, &arguments, environ)
      if code != 0 { throw Failure(step: "run", subject: words[0], errno: Errno(rawValue: code)) }
      self.pid = pid
    }
    func identity() throws -> ProcessIdentity { ProcessIdentity(pid: pid, startTime: try ProcessStatus.read(pid: pid).startTime) }
    deinit {
      kill(pid, SIGKILL)
      waitpid(pid, nil, 0)
    }
  }

  private static func host(old: ProcessIdentity, _ scratch: Scratch) throws -> LinuxHost {
    var record = StateDirectoryTests.record("k")
    (record.old, record.monitor, record.stages) = (old, scratch.path + "/qmp.sock", [])
    return try LinuxHost(
      recovering: record, superseded: nil, lock: scratch.state.lock("k"), monitors: [:], reactor: Reactor(), state: scratch.state)
  }

  /// Its monitor is gone already, its process not yet: a person is not needed for that.
  @Test func oneWhoseMonitorHasGoneIsWaitedFor() throws {
    let (scratch, child) = (Scratch(), try Child("sleep", "1.5"))
    let host = try Self.host(old: child.identity(), scratch)
    #expect(host.isAlive(.old))
    #expect(throws: Failure.self) { try host.command(.old, "query-status", nil, seconds: 1) }
    #expect(!host.isAlive(.old))
  }

  /// It is stopped, so it is not asked; and dies meanwhile.
  @Test func oneThatIsKilledIsNotTakenForAlive() throws {
    let (scratch, child) = (Scratch(), try Child("sleep", "60"))
    let host = try Self.host(old: child.identity(), scratch)
    kill(child.pid, SIGSTOP)
    #expect(host.isAlive(.old))
    kill(child.pid, SIGKILL)
    #expect(!host.isAlive(.old))
  }
}

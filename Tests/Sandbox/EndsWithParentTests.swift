import Foundation
import Glibc
import Kernel
import Testing

@testable import Sandbox

/// To the kernel the parent is the thread that started the child (prctl(2), PR_SET_PDEATHSIG): one that ends stands
/// for a moult that is killed.
@Suite struct EndsWithParentTests {
  struct Case: Sendable, CustomTestStringConvertible {
    var testDescription: String
    var credentials: Credentials?
    var endsWithParent: Bool
  }

  static let nobody = Identities(real: 65534, effective: 65534, saved: 65534, filesystem: 65534)
  static let cases = [
    Case(testDescription: "left alone, it stays", endsWithParent: false),
    Case(testDescription: "as root", endsWithParent: true),
    Case(
      testDescription: "as another user, whose change would clear the mark",
      credentials: Credentials(
        user: Self.nobody, group: Self.nobody, supplementaryGroups: [], capabilities: CapabilitySets(), noNewPrivileges: false),
      endsWithParent: true),
  ]

  @Test(arguments: cases)
  func `a program that ends with its parent`(_ example: Case) throws {
    let process = ProcessPlan(
      executable: .path("/bin/sleep"), arguments: ["sleep", "30"], environment: [], credentials: example.credentials,
      standardOutput: .null, endsWithParent: example.endsWithParent)
    nonisolated(unsafe) var pid: pid_t = 0
    nonisolated(unsafe) var failure: Failure?
    let thread = Thread {
      do throws(Failure) { pid = try launch(SandboxPlan(), process).pid } catch { failure = error }
    }
    thread.start()
    while !thread.isFinished { usleep(1000) }
    #expect(failure == nil)
    let pidfd = try Pidfd(pid: pid)
    let hasEnded = try pidfd.waitForExit(timeoutMilliseconds: example.endsWithParent ? 10_000 : 200)
    #expect(hasEnded == example.endsWithParent)
    kill(pid, SIGKILL)
    waitpid(pid, nil, 0)
  }
}

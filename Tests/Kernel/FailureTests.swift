import Kernel
import SystemPackage
import Testing

/// What a failure says in one line.
@Suite struct FailureTests {
  static let sentences: [(failure: Failure, text: String)] = [
    (Failure(step: "open", subject: "/f", errno: .permissionDenied), "open /f: Permission denied"),
    (Failure(step: "start", subject: ""), "start"),
    (Failure(step: "start", subject: "q", reason: "it is no QEMU"), "start q: it is no QEMU"),
    // Words that were chosen say it better than the kernel's of the same.
    (Failure(step: "find", subject: "7", errno: .noSuchFileOrDirectory, reason: "there is no such process"), "find 7: there is no such process"),
    (Failure(step: "open", subject: "/f", errno: .fileExists).hinting("name another"), "open /f: File exists"),
  ]

  @Test(arguments: sentences) func oneReasonIsGiven(failure: Failure, text: String) { #expect("\(failure)" == text) }

  @Test(arguments: [(0.0, "0 ms"), (0.01, "10 ms"), (1, "1 s")] as [(Double, String)]) func silenceIsMeasured(seconds: Double, text: String) {
    let failure = #expect(throws: Failure.self) { try Reactor().wait(seconds: seconds, step: "await", subject: "QEMU") { nil as Int? } }
    #expect(failure.map { "\($0)" } == "await QEMU: no answer for \(text)")
    #expect(failure?.errno == .timedOut)
  }
}

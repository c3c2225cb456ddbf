import CKernel
import Glibc
import Testing

@testable import Kernel

/// A running tracee: what it waits for at descriptor 0, and another pipe that it has as descriptor 5.
final class Tracee {
  let pid: pid_t
  private let first: CInt, second: CInt, event: CInt, output: CInt

  init(_ mode: String, _ arguments: [String] = []) throws {
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
    var words: [UnsafeMutablePointer<CChar>?] = [strdup("/" + program + "/tracee"), strdup(mode)] + arguments.map { strdup($0) } + [nil]
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

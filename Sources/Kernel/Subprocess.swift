import Glibc
import SystemPackage

/// Runs another program for what it prints. For questions only the program can answer; never in the launch path.
public enum Subprocess {
  /// What the program wrote to standard output. Its standard error goes to /dev/null.
  /// - Throws: if it cannot be started, or exits with anything but 0.
  public static func output(of program: String, _ arguments: [String]) throws(Failure) -> String {
    var ends: [CInt] = [-1, -1]
    try valueOrErrno("pipe for", program) { pipe(&ends) }
    let reader = OwnedFD(ends[0])
    let writer = OwnedFD(ends[1])
    for end in ends { try valueOrErrno("pipe for", program) { fcntl(end, F_SETFD, FD_CLOEXEC) } }

    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
    posix_spawn_file_actions_adddup2(&actions, writer.raw, 1)
    posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0)
    var words: [UnsafeMutablePointer<CChar>?] = ([program] + arguments).map { strdup($0) }
    words.append(nil)
    defer { for word in words { free(word) } }
    var pid: pid_t = 0
    let code = posix_spawnp(&pid, program, &actions, nil, &words, environ)
    if code != 0 { throw Failure(step: "run", subject: program, errno: Errno(rawValue: code)) }
    close(writer.release())

    var output: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 16384)
    while true {
      let size = try valueOrErrno("read output of", program) { read(reader.raw, &chunk, chunk.count) }
      if size == 0 { break }
      output += chunk[..<size]
    }
    var status: CInt = 0
    try valueOrErrno("wait for", program) { waitpid(pid, &status, 0) }
    if status != 0 {
      throw Failure(step: "run", subject: program, reason: "it ended with status \(status >> 8 & 0xff) (signal \(status & 0x7f))")
    }
    return String(decoding: output, as: UTF8.self)
  }
}

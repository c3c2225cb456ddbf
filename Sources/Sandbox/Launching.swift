import Glibc
public import Kernel
import SystemPackage

/// What a launcher needs to know about programs.
public enum Launching {
  /// The step of a failure to start the program itself, in contrast to what comes before.
  public static let executeStep = ChildStage.execute

  /// The program that a shell would run for `command`: as it is if it contains a slash, else the first executable
  /// file in `path` (PATH). Fails with ENOENT, or with EACCES if there is only a file that cannot be executed.
  public static func find(_ command: String, path: String?) throws(Failure) -> String {
    if command.utf8.contains(UInt8(ascii: "/")) { return command }
    var found: Errno = .noSuchFileOrDirectory
    for directory in (path ?? "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
      .split(separator: ":", omittingEmptySubsequences: false) where !command.isEmpty
    {
      let candidate = Paths.join(directory.isEmpty ? "." : String(directory), command)
      var status = stat()
      guard stat(candidate, &status) == 0, status.st_mode & S_IFMT == S_IFREG else { continue }
      if access(candidate, X_OK) == 0 { return candidate }
      found = .permissionDenied
    }
    throw Failure(step: executeStep, subject: command, errno: found)
  }
}

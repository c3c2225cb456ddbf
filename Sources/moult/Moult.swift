import ArgumentParser
import Glibc
import Kernel
import Upgrade

@main
struct Moult: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "moult",
    abstract: "Move a running virtual machine into another QEMU on the same host.",
    discussion: """
      VM is a guest's name (-name), a pid, a pidfile or a QMP socket path. All commands need root, but for `inspect --argv`.

      Exit codes: 0 done; 1 failed, and nothing changed: the old QEMU runs on; 2 `list --exit-code`: a VM is stale or has \
      an update pending; 3 refused, with the reasons; \
      4 switched, then rolled back; 5 a person has to look: the message says what state the VM is in; \
      64 wrong usage. `run` has its own: see its help.
      """,
    version: History.version,
    subcommands: [Plan.self, Upgrade.self, Commit.self, Rollback.self, Status.self, List.self, Inspect.self, Recover.self, HistoryCommand.self, Run.self, Guard.self, StandIn.self])

  static func main() {
    // A standard stream that is closed would become the number of the next file opened, such as a QMP
    // connection: messages would then be written into that.
    for number in CInt(0)...2 where fcntl(number, F_GETFD) < 0 {
      if open("/dev/null", number == 0 ? O_RDONLY : O_WRONLY) != number { Glibc.exit(ExitStatus.failed.rawValue) }
    }
    main(nil)
  }
}

/// What `moult` ends with, as scripts rely on it.
enum ExitStatus: Int32 {
  case done = 0
  case failed = 1
  case refused = 3
  case rolledBack = 4
  case needsPerson = 5

  var code: ExitCode { ExitCode(rawValue) }
}

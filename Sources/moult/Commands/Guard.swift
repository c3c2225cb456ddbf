import ArgumentParser
import Kernel
import Upgrade

/// What `moult upgrade` starts to watch over it: see `Guardian`.
struct Guard: ParsableCommand {
  static let configuration = CommandConfiguration(commandName: Guardian.command, shouldDisplay: false)

  @Argument var key: String

  func run() throws {
    do { try Guardian.watch(key: key) } catch {
      Output.failure(error)
      throw ExitStatus.failed.code
    }
  }
}

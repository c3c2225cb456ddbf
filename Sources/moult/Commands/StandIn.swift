import ArgumentParser
import Kernel
import Upgrade

/// What `moult upgrade` starts to speak to the new QEMU in the place of a back end: see `StandInServer`.
struct StandIn: ParsableCommand {
  static let configuration = CommandConfiguration(commandName: StandInServer.command, shouldDisplay: false)

  @Argument var backEnd: String
  @Argument var key: String
  @Argument var path: String?

  func run() throws {
    do { try StandInServer.serve(backEnd, key: key, path: path) } catch {
      Output.failure(error)
      throw ExitStatus.failed.code
    }
  }
}

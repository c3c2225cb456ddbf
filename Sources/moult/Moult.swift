import ArgumentParser

@main
struct Moult: ParsableCommand {
  static let configuration = CommandConfiguration(commandName: "moult")
}

import ArgumentParser
import Kernel
import Upgrade

struct HistoryCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "history", abstract: "Show the upgrades that are over, failed ones included.",
    discussion: "The last \(History.mostOfOne) of each VM are remembered, \(History.most) in all. Secrets of the VM's command line are not.")

  @Argument(help: "A guest's name, or the id of an upgrade; all without it.")
  var subject: String?
  @Option(help: ArgumentHelp("Write everything that is known of the upgrade ID to a new tar archive.", valueName: "file"))
  var bundle: String?
  @OptionGroup var output: OutputOptions

  func validate() throws {
    if bundle != nil, subject == nil { throw ValidationError("--bundle needs the id of an upgrade") }
  }

  func run() throws {
    try reporting(output) {
      let session = try Session()
      let history = History(session.state)
      if let bundle, let subject {
        try history.writeBundle(subject, state: session.state, to: bundle)
        if output.isJSON {
          try Output.json(["id": subject, "bundle": bundle])
        } else {
          Output.data("\(bundle) has everything that is known of upgrade \(subject)")
        }
        return .done
      }
      let entries = try history.entries().filter { subject == nil || $0.vm == subject || $0.id == subject }
      if let subject, entries.isEmpty {
        throw Failure(
          step: "find upgrades of", subject: subject, reason: "none is remembered", hint: "moult history lists all")
      }
      if output.isJSON {
        try Output.json(entries)
      } else if entries.isEmpty {
        Output.data("no upgrade is remembered")
      } else if entries.count == 1, entries[0].id == subject {
        Output.data(Self.text(entries[0]))
      } else {
        let rows = entries.map { entry in
          [
            entry.id, entry.vm, "\(entry.from.version ?? "?") → \(entry.to.version ?? "?")", entry.outcome,
            entry.pause_ms.map(Output.duration) ?? "-", entry.error?.message ?? "",
          ]
        }
        Output.data(Output.table([["UPGRADE", "VM", "QEMU", "OUTCOME", "PAUSE", "WHY"]] + rows))
      }
      return .done
    }
  }

  private static func text(_ entry: HistoryEntry) -> String {
    var lines = [
      "\(entry.vm): \(entry.outcome), QEMU \(entry.from.version ?? "?") (\(entry.from.binary)) → \(entry.to.version ?? "?") (\(entry.to.binary))",
      "memory \(entry.memory), \(entry.pause_ms.map { "guest paused \(Output.duration($0)), " } ?? "")\(Output.duration(entry.total_ms)) in all",
    ]
    lines += entry.steps.map { "  \($0.name.rawValue): \($0.outcome), \(Output.duration($0.end - $0.start))" }
    if let error = entry.error { lines.append("\(error.step): \(error.message)") }
    return (lines + entry.notes).joined(separator: "\n")
  }
}

import ArgumentParser
import Kernel
import Upgrade

struct Status: ParsableCommand {
  static let configuration = CommandConfiguration(abstract: "Show the upgrades that are under way, held or interrupted.",
    discussion: "An interrupted one is ended by `moult recover`.")

  @Argument(help: "The guest's name, a pid, a pidfile or a QMP socket path; all VMs without it.")
  var vm: String?
  @OptionGroup var output: OutputOptions

  func run() throws {
    try reporting(output) {
      let session = try Session.announcing()
      if let vm { try session.recoverInterrupted(vm, isAlone: false) }
      var records = try session.state.records()
      if let vm {
        if records.contains(where: { $0.vm == vm }) {
          records.removeAll { $0.vm != vm }
        } else {
          let pid = try Locator.find(vm, state: session.state)
          records.removeAll { $0.new?.process.pid != pid && $0.old.pid != pid }
        }
      }
      var rows: [(UpgradeRecord, UpgradeStanding)] = []
      for record in records { rows.append((record, try session.state.standing(of: record))) }
      for failure in try session.state.damaged() { Output.failure(failure) }
      if output.isJSON {
        try Output.json(rows.map { HeldDocument($0.0, outcome: $0.1.rawValue) })
      } else if rows.isEmpty {
        Output.data(vm.map { "\($0): no upgrade is under way or held" } ?? "no upgrade is under way or held")
      } else {
        let table = rows.map { record, standing in
          [
            record.vm, record.id, standing.rawValue, "\(record.oldVersion) → \(record.new?.version.description ?? "?")",
            standing == .ended ? "-" : String(record.guestProcess.pid), record.pauseMilliseconds.map(Output.duration) ?? "-",
          ]
        }
        Output.data(Output.table([["VM", "UPGRADE", "STATE", "QEMU", "PID", "PAUSE"]] + table))
      }
      for advice in rows.compactMap({ $0.advice($1) }) { Output.note("moult: note: \(advice)") }
      return .done
    }
  }
}

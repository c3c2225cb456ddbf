import ArgumentParser
import Kernel
import Upgrade

struct Recover: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Bring an upgrade whose moult was killed to an end.",
    discussion: "If the guest never ran in the new QEMU, the old one goes on; if it did, the upgrade is finished.")

  @Argument(help: "The guest's name, a pid or a QMP socket path; all interrupted upgrades without it.")
  var vm: String?
  @OptionGroup var output: OutputOptions

  func run() throws {
    try reporting(output) {
      let session = try Session()
      let records = try session.interrupted(vm)
      var status = ExitStatus.done
      var documents: [HeldDocument] = []
      for record in records {
        let report = try session.recover(record)
        for note in report.notes { Output.note("moult: \(note)") }
        switch report.outcome {
        case .committed, .held:
          documents.append(HeldDocument(record, outcome: report.outcome.rawValue))
          if !output.isJSON { Output.data("\(record.vm): the upgrade to QEMU \(record.new?.version.description ?? "?") was finished (\(report.outcome.rawValue))") }
        case .needsPerson:
          status = .needsPerson
          documents.append(HeldDocument(record, outcome: "failed"))
          if !output.isJSON { Output.data("\(record.vm): somebody has to look") }
        default:
          documents.append(HeldDocument(record, outcome: "undone"))
          if !output.isJSON { Output.data("\(record.vm): the upgrade was undone, QEMU \(record.oldVersion) runs on (pid \(record.old.pid))") }
        }
      }
      if output.isJSON {
        try Output.json(documents)
      } else if records.isEmpty {
        Output.data("no upgrade was interrupted")
      }
      return status
    }
  }
}

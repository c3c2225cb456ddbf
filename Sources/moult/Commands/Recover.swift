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
        // A guardian may have been quicker.
        guard let report = try session.recover(record) else { continue }
        for note in report.notes { Output.note("moult: \(note)") }
        if report.outcome == .needsPerson { status = .needsPerson }
        documents.append(HeldDocument(record, outcome: report.recovery))
        if !output.isJSON { Output.data(session.sentence(record, report)) }
      }
      let unreadable = try session.state.unreadable(vm)
      for failure in unreadable {
        Output.failure(failure)
        status = .needsPerson
      }
      let elsewhere = try session.recoveredElsewhere(vm)
      for failure in elsewhere {
        Output.failure(failure)
        if status == .done { status = .failed }
      }
      if output.isJSON {
        try Output.json(documents)
      } else if records.isEmpty, unreadable.isEmpty, elsewhere.isEmpty {
        Output.data(vm.map { "no upgrade of \($0) was interrupted" } ?? "no upgrade was interrupted")
      }
      return status
    }
  }
}

extension UpgradeReport {
  /// What became of an upgrade that was interrupted.
  var recovery: String {
    switch outcome {
    case .committed, .held: outcome.rawValue
    case .needsPerson: "failed"
    default: "undone"
    }
  }
}

extension Session {
  func sentence(_ record: UpgradeRecord, _ report: UpgradeReport) -> String {
    let what = report.takesBack ? "rollback" : "upgrade"
    return switch report.outcome {
    case .committed, .held: "\(record.vm): the \(what) to QEMU \(record.new?.version.description ?? "?") was finished (\(report.outcome.rawValue))"
    case .needsPerson: "\(record.vm): somebody has to look"
    default: "\(record.vm): the \(what) was undone, QEMU \(record.oldVersion) runs on (pid \(record.old.pid))"
    }
  }

  /// One that says what it recovers on the way.
  static func announcing() throws(Failure) -> Session {
    let session = try Session()
    session.recovered = { [unowned session] record, report in
      Output.note("moult: note: upgrade \(record.id) was interrupted. \(session.sentence(record, report))")
      for note in report.notes { Output.note("moult: \(note)") }
    }
    return session
  }
}

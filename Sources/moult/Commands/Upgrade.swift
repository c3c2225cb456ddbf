import ArgumentParser
import Kernel
import QEMU
import Upgrade

struct Upgrade: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Move a running VM into another QEMU.",
    discussion: """
      Until the guest runs in the new QEMU, any failure leaves the old one running as it was; Ctrl-C does the same. \
      Without --hold and --probation the upgrade is final when the command ends.

      Exit codes: 0 committed, or held; 1 failed, the old QEMU runs on; 3 refused; 4 switched, found unhealthy in \
      probation and rolled back; 5 a person has to look.
      """)

  @Argument(help: "The guest's name, a pid, a pidfile or a QMP socket path.")
  var vm: String
  @OptionGroup var target: TargetOptions
  @OptionGroup var output: OutputOptions

  func run() throws {
    try reporting(output) {
      let session = try Session.announcing()
      let (observed, plan) = try target.assess(vm, in: session)
      return try carryOut(session, observed, plan, output)
    }
  }
}

/// Runs a plan with its progress display and prints the result.
func carryOut(
  _ session: Session, _ observed: Session.Observed, _ plan: UpgradePlan, _ output: OutputOptions,
  takingBack held: UpgradeRecord? = nil
) throws -> ExitStatus {
  let display = ProgressDisplay(isSilent: false)
  for warning in plan.warnings { display.line("moult: note: \(warning)") }
  defer { display.finish() }
  let isRollback = held != nil
  var report = try session.upgrade(observed, plan, takingBack: held, progress: display.show)
  if report.outcome == .failed, report.failure?.step == .probation {
    // The guest ran and was found wanting: the way back is an upgrade in reverse.
    report = session.rollBackUnhealthy(report, plan, progress: display.show)
  }
  display.finish()
  if isRollback, report.outcome == .committed { report.outcome = .rolledBack }
  if output.isJSON { try Output.json(UpgradeDocument(plan, report)) } else { Output.data(sentence(plan, report, hasEnded: try session.hasEnded(plan, report))) }
  if report.outcome == .refused {
    printBlockers(plan.vm, report.blockers)
  } else if let failure = report.failure {
    Output.failure(failure.failure)
  }
  for note in report.notes { Output.note("moult: \(note)") }
  switch report.outcome {
  case .committed, .held: return .done
  case .refused: return .refused
  case .failed: return .failed
  case .rolledBack: return isRollback ? .done : .rolledBack
  case .needsPerson: return .needsPerson
  }
}

func printBlockers(_ vm: String, _ blockers: [Blocker]) {
  Output.note("moult: the upgrade of \(vm) is refused:")
  for line in blockerLines(blockers, on: 2) { Output.note(line) }
}

private func sentence(_ plan: UpgradePlan, _ report: UpgradeReport, hasEnded: Bool) -> String {
  let pause = report.pauseMilliseconds.map { "guest paused \(Output.duration($0)), " } ?? ""
  let total = "\(pause)\(Output.duration(report.totalMilliseconds)) in all, memory \(plan.memory.strategy.rawValue)"
  let to = report.new.map { "QEMU \($0.version) (pid \($0.process.pid))" } ?? plan.request.binary
  switch report.outcome {
  case .committed: return "\(plan.vm) runs in \(to): \(total)"
  case .held: return "\(plan.vm) runs in \(to), held: \(total)\nmoult commit \(plan.vm) to keep it, moult rollback \(plan.vm) to go back"
  case .rolledBack: return "\(plan.vm) is back in \(to): \(total)"
  case .refused: return "\(plan.vm): refused, nothing was changed"
  case .failed: return "\(plan.vm): failed, \(plan.request.takesBack ? "" : "the old ")QEMU \(plan.observation.version) runs on (pid \(plan.observation.process.pid))"
  case .needsPerson where hasEnded: return "\(plan.vm): the VM has ended: no QEMU runs the guest"
  case .needsPerson: return "\(plan.vm): failed, and somebody has to look"
  }
}

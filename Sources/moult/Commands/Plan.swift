import ArgumentParser
import Kernel
import QEMU
import Upgrade

struct Plan: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Say what `upgrade` would do, or what stands in its way. Changes nothing.",
    discussion: """
      It reads the VM over its QMP monitor; asks the new binary whether it knows the VM's machine type, devices, \
      properties and options; compares what both binaries say of the device state that they save and load; and starts \
      the new QEMU once as the upgrade would, compares it with the running one and ends it. Ends with 0 if the upgrade \
      would be tried, 3 if it is refused.
      """)

  @Argument(help: "The guest's name, a pid, a pidfile or a QMP socket path.")
  var vm: String
  @OptionGroup var target: TargetOptions
  @Flag(help: "Do not start the new QEMU for comparison: ask its binary only.")
  var noTrial = false
  @OptionGroup var output: OutputOptions

  func run() throws {
    try reporting(output) {
      let session = try Session.announcing()
      let (observed, assessed) = try target.assess(vm, in: session)
      var plan = assessed
      let trial = noTrial ? Trial.skipped(why: "--no-trial") : try session.trial(observed, plan)
      plan.judge(trial)
      if !output.isJSON, !plan.blockers.isEmpty { printBlockers(plan.vm, plan.blockers) }
      if output.isJSON { try Output.json(PlanDocument(plan, trial)) } else { Output.data(Self.text(plan, trial)) }
      for warning in plan.warnings { Output.note("moult: note: \(warning)") }
      return plan.blockers.isEmpty ? .done : .refused
    }
  }

  private static func text(_ plan: UpgradePlan, _ trial: Trial) -> String {
    let observation = plan.observation
    var lines = [
      "\(plan.vm): QEMU \(observation.version) (pid \(observation.process.pid)) → \(plan.target?.version.description ?? "?") (\(plan.request.binary)\(plan.request.root.map { " in \($0)" } ?? ""))",
      "machine \(observation.live.machineType)\(plan.foreignAlias.map { " (\($0.alias) would be \($0.machine) there)" } ?? "")",
      "memory  \(plan.memory.strategy.rawValue): \(plan.memory.why); up to \(plan.memory.extraBytes >> 20) MiB more",
    ]
    for (strategy, why) in plan.memory.against.sorted(by: { $0.key < $1.key }) { lines.append("        not \(strategy): \(why)") }
    let pause = plan.pause
    if plan.blockers.isEmpty { lines.append("pause   \(Output.decimals(pause.least, 0)) to \(Output.decimals(pause.most, 0)) ms expected: \(pause.basis)") }
    switch trial {
    case .done(let differences, _, _, let milliseconds):
      lines.append("trial   the new QEMU was started, compared and ended in \(Output.duration(milliseconds)): \(differences.isEmpty ? "it is the VM's twin" : "it is not the VM's twin")")
    case .skipped(let why): lines.append("trial   not made: \(why)")
    }
    lines.append("")
    if !plan.bindings.isEmpty {
      lines.append(Output.table([["BINDING", "ADDRESS", "HANDOVER", "WHY"]] + plan.bindings.map { [$0.kind, $0.address, $0.handover, $0.why] }))
      lines.append("")
    }
    let rebuilt = observation.drift.compactMap { drift in drift.rebuiltAs.map { [drift.subject, drift.what, $0] } }
    if !rebuilt.isEmpty {
      lines.append(Output.table([["CHANGED LIVE", "WHAT", "REBUILT AS"]] + rebuilt))
      lines.append("")
    }
    // What will not be done need not be read.
    if plan.blockers.isEmpty { lines.append(Output.table([["STEP", "WHAT"]] + plan.steps.map { [$0.name.rawValue, $0.why] })) }
    while lines.last == "" { lines.removeLast() }
    return lines.joined(separator: "\n")
  }
}

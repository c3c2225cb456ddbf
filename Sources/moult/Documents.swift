import Kernel
import QEMU
import Upgrade

/// The JSON that scripts read. Members are named as in the command line's reference.
struct TwinDocument: Encodable {
  var version: String?
  var binary: String
  var root: String?
  var pid: Int32?
}

struct StepDocument: Encodable {
  var name: String
  var start_ms: Double
  var end_ms: Double
  var outcome: String
}

struct BindingDocument: Encodable {
  var kind: String
  var address: String
  var handover: String
  var why: String
}

struct BlockerDocument: Encodable {
  var what: String
  var reason: String
  var way_out: String
  init(_ blocker: Blocker) {
    what = blocker.option
    reason = blocker.reason
    way_out = blocker.wayOut
  }
}

/// What the running VM has that its arguments do not say, and how the new QEMU is given it.
struct DriftDocument: Encodable {
  var what: String
  var reason: String
  /// Options, verbatim; absent if it cannot be rebuilt.
  var rebuilt_as: String?
  var way_out: String?
  init(_ drift: Drift) {
    what = drift.subject
    reason = drift.what
    rebuilt_as = drift.rebuiltAs
    way_out = drift.wayOut
  }
}

struct UpgradeDocument: Encodable {
  var vm: String
  var id: String
  var outcome: String
  var from: TwinDocument
  var to: TwinDocument
  var memory: String
  var pause_ms: Double?
  var total_ms: Double
  var extra_memory_bytes: UInt64?
  var steps: [StepDocument]
  var bindings: [BindingDocument]
  var warnings: [String]
  var notes: [String]
  var blockers: [BlockerDocument]?
  var error: ErrorDocument?

  init(_ plan: UpgradePlan, _ report: UpgradeReport) {
    vm = plan.vm
    id = plan.id
    outcome = report.outcome == .needsPerson ? "failed" : report.outcome.rawValue
    let observation = plan.observation
    from = TwinDocument(
      version: observation.version.description, binary: observation.binary, root: observation.root, pid: observation.process.pid)
    to = TwinDocument(
      version: report.new?.version.description, binary: plan.request.binary, root: plan.request.root, pid: report.new?.process.pid)
    memory = plan.memory.strategy.rawValue
    pause_ms = report.pauseMilliseconds
    total_ms = report.totalMilliseconds
    extra_memory_bytes = report.extraMemoryBytes
    steps = report.steps.map { StepDocument(name: $0.name.rawValue, start_ms: $0.start, end_ms: $0.end, outcome: $0.outcome) }
    bindings = plan.bindings.map { BindingDocument(kind: $0.kind, address: $0.address, handover: $0.handover, why: $0.why) }
    warnings = plan.warnings
    notes = report.notes
    if !plan.blockers.isEmpty {
      blockers = plan.blockers.map(BlockerDocument.init)
      error = ErrorDocument(
        step: "plan",
        Failure(
          step: "plan the upgrade of", subject: plan.vm,
          reason: plan.blockers.map { "\($0.option): \($0.reason)" }.joined(separator: "; "), hint: plan.blockers.first?.wayOut))
    }
    if let failure = report.failure { error = ErrorDocument(step: failure.step.rawValue, failure.failure) }
  }
}

struct PlanDocument: Encodable {
  struct Step: Encodable {
    var name: String
    var why: String
  }
  struct Pause: Encodable {
    var least_ms: Double
    var most_ms: Double
    var basis: String
  }
  struct TrialDocument: Encodable {
    var done: Bool
    var ms: Double?
    var differences: [String]?
    var masked_features: [String]?
    var why_not: String?
  }
  struct Alias: Encodable {
    var name: String
    var there: String
  }
  struct Memory: Encodable {
    var strategy: String
    var why: String
    var against: [String: String]
    var extra_bytes: UInt64
  }
  var vm: String
  var from: TwinDocument
  var to: TwinDocument
  var machine: String
  /// The alias that the VM was started with, and what it would mean to the new QEMU.
  var machine_alias: Alias?
  var memory: Memory
  var pause: Pause
  var trial: TrialDocument
  var drift: [DriftDocument]
  var steps: [Step]
  var bindings: [BindingDocument]
  var warnings: [String]
  var blockers: [BlockerDocument]

  init(_ plan: UpgradePlan, _ trial: Trial) {
    let observation = plan.observation
    vm = plan.vm
    from = TwinDocument(
      version: observation.version.description, binary: observation.binary, root: observation.root, pid: observation.process.pid)
    to = TwinDocument(version: plan.target?.version.description, binary: plan.request.binary, root: plan.request.root, pid: nil)
    machine = observation.live.machineType
    machine_alias = plan.foreignAlias.map { Alias(name: $0.alias, there: $0.machine) }
    memory = Memory(
      strategy: plan.memory.strategy.rawValue, why: plan.memory.why, against: plan.memory.against, extra_bytes: plan.memory.extraBytes)
    pause = Pause(least_ms: plan.pause.least, most_ms: plan.pause.most, basis: plan.pause.basis)
    switch trial {
    case .done(let differences, let masked, let milliseconds):
      self.trial = TrialDocument(done: true, ms: milliseconds, differences: differences, masked_features: masked.isEmpty ? nil : masked)
    case .skipped(let why): self.trial = TrialDocument(done: false, why_not: why)
    }
    drift = observation.drift.map(DriftDocument.init)
    steps = plan.steps.map { Step(name: $0.name.rawValue, why: $0.why) }
    bindings = plan.bindings.map { BindingDocument(kind: $0.kind, address: $0.address, handover: $0.handover, why: $0.why) }
    warnings = plan.warnings
    blockers = plan.blockers.map(BlockerDocument.init)
  }
}

import Kernel
import QEMU
import Upgrade

/// The JSON that scripts read. Members are named as in the command line's reference.
struct TwinDocument: Encodable {
  var version: String?
  var binary: String
  var root: String?
  var pid: Int32?

  init(version: QEMUVersion?, binary: String, root: String?, pid: Int32? = nil) {
    (self.version, self.binary, self.root, self.pid) = (version?.description, binary, root, pid)
  }

  /// The running one.
  init(_ observation: Observation) {
    self.init(version: observation.version, binary: observation.binary, root: observation.root, pid: observation.process.pid)
  }
}

struct StepDocument: Encodable {
  var name: String
  var start_ms: Double
  var end_ms: Double
  var outcome: String
}

struct BindingDocument: Encodable {
  var kind: String
  var role: String?
  var address: String
  /// The option that makes it, verbatim; empty if none does.
  var option: String?
  var handover: String
  var why: String
  var purpose: String?
  /// Those of a running QEMU that hold it.
  var descriptors: [DescriptorDocument]?

  init(_ planned: PlannedBinding) { (kind, address, handover, why) = (planned.kind, planned.address, planned.handover, planned.why) }

  init(_ inspected: InspectedBinding, isLive: Bool) {
    let binding = inspected.binding
    (kind, role, address, option) = (binding.kind.rawValue, binding.role.rawValue, binding.address, binding.option)
    (handover, why) = (binding.handover.rawValue, binding.why)
    purpose = binding.purpose.isEmpty ? nil : binding.purpose
    descriptors = isLive ? inspected.descriptors.map(DescriptorDocument.init) : nil
  }
}

struct DescriptorDocument: Encodable {
  var fd: Int32
  var type: String
  var address: String
  var peer: String?

  init(_ descriptor: HeldDescriptor) {
    fd = descriptor.number
    type = descriptor.type
    address = descriptor.address
    peer = descriptor.peer
  }
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
    from = TwinDocument(plan.observation)
    to = TwinDocument(
      version: report.new?.version ?? plan.target?.version, binary: plan.request.binary, root: plan.request.root, pid: report.new?.process.pid)
    memory = plan.memory.strategy.rawValue
    pause_ms = report.pauseMilliseconds
    total_ms = report.totalMilliseconds
    extra_memory_bytes = report.extraMemoryBytes
    steps = report.steps.map { StepDocument(name: $0.name.rawValue, start_ms: $0.start, end_ms: $0.end, outcome: $0.outcome) }
    bindings = plan.bindings.map(BindingDocument.init)
    warnings = plan.warnings
    notes = report.notes
    if !report.blockers.isEmpty {
      blockers = report.blockers.map(BlockerDocument.init)
      error = ErrorDocument(
        step: "plan",
        Failure(
          step: "plan the upgrade of", subject: plan.vm,
          reason: report.blockers.map { "\($0.option): \($0.reason)" }.joined(separator: "; "), hint: report.blockers.first?.wayOut))
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
    from = TwinDocument(observation)
    to = TwinDocument(version: plan.target?.version, binary: plan.request.binary, root: plan.request.root)
    machine = observation.live.machineType
    machine_alias = plan.foreignAlias.map { Alias(name: $0.alias, there: $0.machine) }
    memory = Memory(
      strategy: plan.memory.strategy.rawValue, why: plan.memory.why, against: plan.memory.against, extra_bytes: plan.memory.extraBytes)
    pause = Pause(least_ms: plan.pause.least, most_ms: plan.pause.most, basis: plan.pause.basis)
    switch trial {
    case .done(let differences, let masked, _, let milliseconds):
      self.trial = TrialDocument(done: true, ms: milliseconds, differences: differences, masked_features: masked.isEmpty ? nil : masked)
    case .skipped(let why): self.trial = TrialDocument(done: false, why_not: why)
    }
    drift = observation.drift.map(DriftDocument.init)
    steps = plan.steps.map { Step(name: $0.name.rawValue, why: $0.why) }
    bindings = plan.bindings.map(BindingDocument.init)
    warnings = plan.warnings
    blockers = plan.blockers.map(BlockerDocument.init)
  }
}

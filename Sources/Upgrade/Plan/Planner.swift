import QEMU

extension UpgradePlan {
  /// The oldest QEMU that upgrades are tested with.
  static let oldestVersion = QEMUVersion(major: 5, minor: 2)

  /// Plans an upgrade. Decides everything that can be decided before anything is started.
  /// - Parameters:
  ///   - id: names this upgrade; becomes part of the stages' names.
  ///   - target: what the new binary said of itself, if it was tried out; without it the upgrade finds out
  ///     when it starts the new QEMU, still before anything of the VM is touched.
  public static func make(
    id: String, observation: Observation, request: UpgradeRequest, target: TargetFacts?
  ) -> UpgradePlan {
    let description = observation.description
    var blockers = description.blockers
    let live = observation.live
    blockers += Self.stateBlockers(live, takesBack: request.takesBack)
    blockers += Self.driftBlockers(observation)
    blockers += Self.fileBlockers(observation)
    blockers += Self.lostImageBlockers(observation)
    blockers += Self.nameBlockers(observation)
    blockers += Self.hostBlockers(observation)
    blockers += Self.versionBlockers(observation, target)
    let backEnds = observation.network.outgoing.filter { $0.peer.backEnd != nil }.map { observation.commandLine.options[$0.peer.option].text }
    blockers += observation.network.unresolved.map {
      Blocker(
        option: $0.words, reason: $0.why,
        wayOut: backEnds.contains($0.words)
          ? "see that the program behind it runs and serves this VM; or restart both, or unplug the device"
          : "restart the VM, or upgrade it without this device")
    }
    let ramBytes = description.ramSize + live.pluggedMemory
    var (memory, memoryBlockers) = MemoryDecision.decide(
      asked: request.memory, memory: observation.memory, ramBytes: ramBytes, sender: observation.version,
      room: observation.room)
    blockers += memoryBlockers
    memory.stopsGuest = MemoryDecision.stopsGuest(memory.strategy, observation)
    // A RAM file that both would map must not be opened by a copy: it gets a new file under its name.
    let names = observation.names.filter { $0.kind != .memory || memory.strategy == .copy }
    let needed = observation.files.flatMap { [$0.path, $0.realPath] } + observation.network.outgoing.compactMap(\.path)
      + observation.network.disks.compactMap(\.path)
    let stages = Stage.plan(names: names, directories: observation.directories, needed: needed, id: id)
    var plan = UpgradePlan(
      id: id, vm: description.name ?? "pid \(observation.process.pid)",
      key: Self.key(name: description.name, monitor: observation.monitor), observation: observation,
      request: request, target: target, memory: memory, stages: stages,
      bindings: Self.bindings(observation, memory), steps: Self.steps(request, observation, memory, stages),
      warnings: description.warnings + observation.unreadable + Self.warnings(observation, memory, target), blockers: blockers)
    // Its stop must be one of moult's: see ``LinuxHost/stopGuest(draining:)``.
    if !observation.network.servedDisks.isEmpty { plan.memory.stopsGuest = true }
    plan.blockers += plan.networkBlockers + plan.redirectionBlockers + plan.remoteDiskBlockers + plan.servedDiskBlockers + plan.servedDirectoryBlockers
    plan.dropUnnamedSockets()
    plan.warnings += plan.networkWarnings
    let rewiring = plan.rewiring
    var traced = plan.ledElsewhere.isEmpty ? [] : ["connected to what answers for " + plan.ledElsewhere.map(\.text).joined(separator: ", ")]
    if rewiring.vsock != nil { traced.append("given its vsock device a CID") }
    if !traced.isEmpty, let place = plan.steps.firstIndex(where: { $0.name == .launch }) {
      plan.steps[place].why += ", traced until it has " + traced.joined(separator: " and ")
    }
    if !rewiring.isEmpty || rewiring.vsock != nil, let place = plan.steps.firstIndex(where: { $0.name == .verify }) {
      plan.steps.insert(PlannedStep(name: .rewire, why: rewiring.summary(observation.network)), at: place)
    }
    if let target {
      let demands = plan.demands
      plan.blockers += demands.unmet(by: target.catalog, version: target.version)
      plan.warnings += demands.unheeded(by: target.catalog, version: target.version)
    }
    return plan
  }

  /// The alias that the VM was started with, where the new QEMU means another machine by it.
  public var foreignAlias: (alias: String, machine: String)? {
    guard let alias = observation.description.machine, let there = target?.catalog.machine(alias: alias),
      there != observation.live.machineType
    else { return nil }
    return (alias, there)
  }

  /// What the new QEMU must know to be this VM's twin.
  var demands: Demands {
    Demands(CommandLine(argv: LaunchPlan.arguments(self)), live: observation.live, present: observation.deviceTypes)
  }

  /// A VM's name in moult's state directory: readable, and unique by the monitor's public path, which
  /// stays the same across upgrades while pids change.
  static func key(name: String?, monitor: String) -> String {
    var hash: UInt64 = 0xcbf2_9ce4_8422_2325  // FNV-1a
    for byte in monitor.utf8 { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3 }
    return readable(name ?? "vm") + "-" + String(hash, radix: 16)
  }

  /// A VM's name as its key begins.
  static func readable(_ name: String) -> String {
    String(name.prefix(40).map { $0.isASCII && ($0.isLetter || $0.isNumber || "-_.".contains($0)) ? $0 : "_" })
  }

  private static func steps(
    _ request: UpgradeRequest, _ observation: Observation, _ memory: MemoryDecision, _ stages: [Stage]
  ) -> [PlannedStep] {
    var steps = [PlannedStep(name: .lock, why: "one upgrade of a VM at a time")]
    let watches = request.hold || request.probation != nil
    if watches {
      steps.append(
        PlannedStep(
          name: .keep,
          why: observation.binaryDeleted
            ? "the running binary is gone from disk: its files are copied for the way back"
            : "the running version's files are copied: a package upgrade may replace them before you commit"))
    }
    let respelled = TwinArguments.respelled(in: observation.commandLine).map { ", \($0)" }.joined()
    let places = stages.map { "\($0.path) for \($0.directory)" }.joined(separator: ", ")
    steps += [
      PlannedStep(name: .stage, why: places.isEmpty ? "no public names" : places),
      PlannedStep(name: .launch, why: "\(request.binary)\(request.root.map { " in \($0)" } ?? ""), waiting, in private namespaces\(respelled)"),
      PlannedStep(name: .compare, why: "both must have made the same machine of the same command line"),
      PlannedStep(name: .migrate, why: "over a unix socket pair; memory: \(memory.strategy.rawValue)\(memory.stopsGuest ? ", the guest stopped before" : "")"),
      PlannedStep(name: .pause, why: "the guest stops"),
      PlannedStep(name: .switch, why: "device state moves"),
      PlannedStep(name: .exchange, why: stages.flatMap(\.exchanges).count == 1 ? "all names in one renameat2" : "\(stages.flatMap(\.exchanges).count) names by renameat2"),
      PlannedStep(name: .verify, why: "every public name leads to the new QEMU"),
      PlannedStep(name: .resume, why: "the guest runs on in the new QEMU"),
      PlannedStep(
        name: .retire,
        why: (observation.network.exports.map {
          "the new QEMU gets the NBD server's socket and exports \($0.server.exports.map(\.name).joined(separator: ", ")) as the old one did; "
        } ?? "") + "the old QEMU is killed: its exit must delete nothing public"),
    ]
    if request.hold { return steps }
    if let seconds = request.probation {
      steps.append(PlannedStep(name: .probation, why: "watch the guest for \(seconds) s"))
    }
    steps.append(PlannedStep(name: .commit, why: "drop what was kept for the way back"))
    return steps
  }

  private static func bindings(_ observation: Observation, _ memory: MemoryDecision) -> [PlannedBinding] {
    observation.description.bindings.map { binding in
      var handover = binding.handover.rawValue
      var why = binding.why
      if binding.kind == .memory {
        handover = memory.strategy == .shared ? "share" : "reopen"
        why = memory.strategy == .shared ? "the new QEMU maps the same file by a duplicated descriptor" : "RAM is copied into memory of the new QEMU's own"
      }
      return PlannedBinding(kind: binding.kind.rawValue, address: binding.address, handover: handover, why: why)
    }
  }

  private static func warnings(
    _ observation: Observation, _ memory: MemoryDecision, _ target: TargetFacts?
  ) -> [String] {
    var warnings: [String] = []
    if memory.stopsGuest {
      warnings.append(
        "the guest stands still while \(memory.strategy == .copy ? "its RAM" : "memory of its devices") is copied: without KVM, QEMU can lose what a running guest writes meanwhile")
    }
    for (path, count) in observation.clients.sorted(by: { $0.key < $1.key }) where path != observation.monitor {
      warnings.append("\(count) client\(count == 1 ? " is" : "s are") connected to \(path): the connection ends, and has to be made again")
    }
    for (path, count) in observation.waiting.sorted(by: { $0.key < $1.key }) {
      warnings.append("\(count) client\(count == 1 ? " waits" : "s wait") in the queue of \(path), behind another one: cut off with the old QEMU, \(count == 1 ? "it has" : "they have") to connect again")
    }
    for binding in observation.description.bindings where binding.kind == .file && binding.handover == .share {
      let path = observation.absolute(binding.address)
      guard let file = observation.files.first(where: { $0.path == path }), !file.isOpen else { continue }
      warnings.append(
        "\(binding.option): the running QEMU does not write to \(path) any more (the file was rotated, or the character device changed over QMP); the new QEMU does")
    }
    guard let target else { return warnings }
    if target.version < observation.version {
      warnings.append("\(target.version) is older than \(observation.version): QEMU's authors test migration forwards only")
    }
    let machine = observation.live.machineType
    if target.catalog.machines[machine]?.isDeprecated ?? false {
      let last = BinaryCatalog.release(droppingMachine: machine).map { ": by QEMU's rule \($0) is the first without it" } ?? ""
      warnings.append("machine type \(machine) is deprecated in QEMU \(target.version)\(last); restart the VM with a newer type some time before")
    }
    for (name, isOn) in observation.live.migrationCapabilities.sorted(by: { $0.key < $1.key }) where isOn {
      if target.catalog.capabilities.contains(name) { continue }
      warnings.append("the VM has the migration capability \(name) set, which QEMU \(target.version) does not know: it will not be set there")
    }
    return warnings
  }
}

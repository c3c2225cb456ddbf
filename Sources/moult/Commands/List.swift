import ArgumentParser
import Kernel
import QEMU
import Upgrade

struct List: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "List every QEMU of this host: what it runs, whether that is still what is installed, and what brings updates into use.",
    discussion: """
      A VM is stale when its binary or a library that it runs was replaced on disk. For each pending update it says what \
      resolves it: `moult upgrade`, or a reboot of the host.
      """)

  /// As terraform's -detailed-exitcode: 1 stays what it is everywhere, a failure.
  private static let somethingPending = ExitCode(2)

  @Flag(help: "Only the VMs that are stale or have an update pending.")
  var stale = false
  @Flag(help: "End with 2 if a VM is stale or has an update pending.")
  var exitCode = false
  @OptionGroup var output: OutputOptions

  func run() throws {
    var isCurrent = true
    try reporting(output) {
      let session = try Session()
      var found = try session.inventory()
      let pending = found.filter { $0.isStale || !$0.pending.isEmpty }
      isCurrent = pending.isEmpty
      if stale { found = pending }
      if output.isJSON { try Output.json(found.map(Document.init)) } else { Output.data(Self.text(found)) }
      for advice in Set(found.compactMap { $0.upgrade.flatMap { $0.record.advice($0.standing) } }).sorted() { Output.note("moult: note: \(advice)") }
      return .done
    }
    if exitCode, !isCurrent { throw Self.somethingPending }
  }

  private static func text(_ found: [InventoryEntry]) -> String {
    let rows = found.map { vm in
      [
        vm.name ?? "-", String(vm.pid), vm.version?.description ?? "?", state(vm),
        vm.machine ?? "-", vm.memory.rawValue, vm.manager ?? "-", vm.binary + (vm.root.map { " in \($0)" } ?? ""),
      ]
    }
    var text = Output.table([["NAME", "PID", "VERSION", "STATE", "MACHINE", "MEMORY", "MANAGER", "BINARY"]] + rows)
    var updates: [(update: PendingUpdate, vms: [String])] = []
    for vm in found {
      for update in vm.pending {
        let name = vm.name ?? String(vm.pid)
        if let index = updates.firstIndex(where: { $0.update == update }) { updates[index].vms.append(name) } else { updates.append((update, [name])) }
      }
    }
    guard !updates.isEmpty else { return text }
    let pending = updates.map { update, vms in
      [
        update.what, update.package ?? "-", update.running ?? "?", update.installed ?? "?", update.resolution.rawValue,
        vms.count == found.count && vms.count > 1 ? "all" : vms.joined(separator: ", "),
      ]
    }
    text += "\n\n" + Output.table([["UPDATE", "PACKAGE", "RUNNING", "INSTALLED", "RESOLVED BY", "VMS"]] + pending)
    return text
  }

  /// Of two QEMUs that are one VM only one can be called current or stale.
  private static func state(_ vm: InventoryEntry) -> String {
    let state = vm.whyStale.map { "stale: \(brief($0))" } ?? "current"
    guard let upgrade = vm.upgrade else { return state }
    return upgrade.hasGuest ? "\(state), \(upgrade.standing.rawValue)" : "without the guest: upgrade \(upgrade.standing.rawValue)"
  }

  /// With the binary all else is replaced, too: JSON has it.
  private static func brief(_ why: String) -> String {
    why.hasPrefix("the binary") ? String(why.prefix { $0 != "," }) : why
  }

  private struct Document: Encodable {
    var name: String?
    var pid: Int32
    var binary: String
    var root: String?
    var version: String?
    var version_from: String?
    var installed_version: String?
    var stale: Bool
    var why_stale: String?
    var pending: [Update]
    var machine: String?
    var memory: String
    var manager: String?
    var upgrade: Part?

    init(_ vm: InventoryEntry) {
      name = vm.name
      pid = vm.pid
      binary = vm.binary
      root = vm.root
      version = vm.version?.description
      version_from = vm.versionSource?.rawValue
      installed_version = vm.installed?.description
      stale = vm.isStale
      why_stale = vm.whyStale
      pending = vm.pending.map(Update.init)
      machine = vm.machine
      memory = vm.memory.rawValue
      manager = vm.manager
      upgrade = vm.upgrade.map { Part(id: $0.record.id, outcome: $0.standing.rawValue, has_guest: $0.hasGuest) }
    }
  }

  private struct Part: Encodable {
    var id: String
    var outcome: String
    var has_guest: Bool
  }

  private struct Update: Encodable {
    var what: String
    var package: String?
    var running: String?
    var installed: String?
    var resolved_by: String

    init(_ update: PendingUpdate) {
      what = update.what
      package = update.package
      running = update.running
      installed = update.installed
      resolved_by = update.resolution.rawValue
    }
  }
}

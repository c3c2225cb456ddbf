import ArgumentParser
import Kernel
import QEMU
import Upgrade

struct List: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "List every QEMU of this host: what it runs, and whether that is still what is installed.")

  @OptionGroup var output: OutputOptions

  func run() throws {
    try reporting(output) {
      let session = try Session()
      let found = try session.inventory()
      if output.isJSON {
        try Output.json(found.map(Document.init))
      } else {
        let rows = found.map { vm in
          [
            vm.name ?? "-", String(vm.pid), vm.version?.description ?? "?", vm.isStale ? "stale: \(vm.whyStale ?? "")" : "current",
            vm.machine ?? "-", vm.memory.rawValue, vm.manager ?? "-", vm.binary,
          ]
        }
        Output.data(Output.table([["NAME", "PID", "VERSION", "STATE", "MACHINE", "MEMORY", "MANAGER", "BINARY"]] + rows))
      }
      return .done
    }
  }

  private struct Document: Encodable {
    var name: String?
    var pid: Int32
    var binary: String
    var root: String?
    var version: String?
    var installed_version: String?
    var stale: Bool
    var why_stale: String?
    var machine: String?
    var memory: String
    var manager: String?

    init(_ vm: InventoryEntry) {
      name = vm.name
      pid = vm.pid
      binary = vm.binary
      root = vm.root
      version = vm.version?.description
      installed_version = vm.installed?.description
      stale = vm.isStale
      why_stale = vm.whyStale
      machine = vm.machine
      memory = vm.memory.rawValue
      manager = vm.manager
    }
  }
}

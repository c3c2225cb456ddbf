import ArgumentParser
import Kernel
import Upgrade

struct Commit: ParsableCommand {
  static let configuration = CommandConfiguration(abstract: "End a held upgrade for good: what was kept for the way back is removed.")

  @Argument(help: "The guest's name, a pid, a pidfile or a QMP socket path.")
  var vm: String
  @OptionGroup var output: OutputOptions

  func run() throws {
    try reporting(output) {
      let session = try Session.announcing()
      let record = try session.held(vm)
      try session.commit(record)
      if output.isJSON {
        try Output.json(HeldDocument(record, outcome: "committed"))
      } else {
        Output.data("\(record.vm): upgrade \(record.id) to QEMU \(record.new?.version.description ?? "?") is committed")
      }
      return .done
    }
  }
}

struct Rollback: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Take a held upgrade back: the guest moves into a fresh QEMU of the version it came from.",
    discussion: """
      Nothing that the guest did since the upgrade is lost. If it fails, the guest runs on in the new QEMU and the \
      upgrade stays held.
      """)

  @Argument(help: "The guest's name, a pid, a pidfile or a QMP socket path.")
  var vm: String
  @OptionGroup var output: OutputOptions

  func run() throws {
    try reporting(output) {
      let session = try Session.announcing()
      let record = try session.held(vm)
      let (observed, plan) = try session.rollbackPlan(record)
      return try carryOut(session, observed, plan, output, takingBack: record)
    }
  }
}

struct HeldDocument: Encodable {
  var vm: String
  var id: String
  var outcome: String
  var from: TwinDocument
  var to: TwinDocument
  var memory: String
  var pause_ms: Double?

  init(_ record: UpgradeRecord, outcome: String) {
    vm = record.vm
    id = record.id
    self.outcome = outcome
    from = TwinDocument(version: record.oldVersion, binary: record.oldBinary, root: record.oldRoot, pid: record.old.pid)
    to = TwinDocument(
      version: record.new?.version, binary: record.newBinary, root: record.newRoot, pid: record.new?.process.pid)
    memory = record.memory.rawValue
    pause_ms = record.pauseMilliseconds
  }
}

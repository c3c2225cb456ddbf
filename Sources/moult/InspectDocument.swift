import QEMU
import Upgrade

/// The JSON of `moult inspect`.
struct InspectDocument: Encodable {
  struct Machine: Encodable {
    var requested: String?
    var resolved: String?
  }
  struct Memory: Encodable {
    var backend: String
    var shared: Bool
    var bytes: UInt64
  }
  struct Process: Encodable {
    struct Resident: Encodable {
      var anonymous: UInt64
      var shared: UInt64
      var file: UInt64
      var huge: UInt64
    }
    var user: UInt32
    var group: UInt32
    var label: String?
    var cgroup: String?
    var unit: String?
    var namespaces: [String: String]
    var root: String?
    var resident_bytes: Resident
    var shared_mappings: [String: UInt64]

    init(_ process: InspectedProcess) {
      user = process.user
      group = process.group
      label = process.label
      cgroup = process.cgroup
      unit = process.unit
      namespaces = process.namespaces
      root = process.root
      resident_bytes = Resident(
        anonymous: process.resident.anonymous, shared: process.resident.shared, file: process.resident.file, huge: process.resident.huge)
      shared_mappings = process.sharedMappings
    }
  }
  var name: String?
  var pid: Int32?
  var binary: String
  var version: String?
  var machine: Machine
  var memory: Memory
  var bindings: [BindingDocument]
  var descriptors: [DescriptorDocument]?
  var process: Process?
  var unknown: [String]
  var drift: [DriftDocument]
  var blockers: [BlockerDocument]
  var warnings: [String]
  var notes: [String]

  init(_ inspection: Inspection) {
    name = inspection.name
    pid = inspection.pid
    binary = inspection.binary
    version = inspection.version?.description
    machine = Machine(requested: inspection.requestedMachine, resolved: inspection.resolvedMachine)
    memory = Memory(backend: inspection.memory.backend, shared: inspection.memory.shared, bytes: inspection.memory.bytes)
    let isLive = inspection.pid != nil
    bindings = inspection.bindings.map { BindingDocument($0, isLive: isLive) }
    descriptors = isLive ? inspection.descriptors.map(DescriptorDocument.init) : nil
    process = inspection.process.map(Process.init)
    unknown = inspection.unknown
    drift = inspection.drift.map(DriftDocument.init)
    blockers = inspection.blockers.map(BlockerDocument.init)
    warnings = inspection.warnings
    notes = inspection.notes
  }
}

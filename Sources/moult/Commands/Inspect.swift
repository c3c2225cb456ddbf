import ArgumentParser
import Glibc
import Kernel
import QEMU
import Upgrade

struct Inspect: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Say what a VM owns and uses on the host, how an upgrade hands each of it over, and what stands in the way.",
    discussion: """
      With --argv, what a command line alone can tell: nothing is started or touched, and it needs no root. Ends with \
      0 whatever stands in the way: `plan` is the command that refuses.
      """)

  @Argument(help: "The guest's name, a pid, a pidfile or a QMP socket path.")
  var vm: String?
  @Option(
    name: .customLong("argv"),
    help: ArgumentHelp("Read a command line instead: a shell command, a copy of /proc/PID/cmdline or a -readconfig file; - is standard input.", valueName: "file"))
  var file: String?
  @OptionGroup var output: OutputOptions

  func validate() throws {
    if (vm == nil) == (file == nil) { throw ValidationError("give either a VM or --argv FILE") }
  }

  func run() throws {
    try reporting(output) {
      let inspection: Inspection
      if let file {
        let bytes = try Files.read(file == "-" ? "/proc/self/fd/0" : file)
        inspection = Inspection(try QEMU.CommandLine(reading: bytes, subject: file == "-" ? "standard input" : file))
      } else {
        inspection = try Session().inspect(vm ?? "")
      }
      if output.isJSON { try Output.json(InspectDocument(inspection)) } else { Output.data(Self.text(inspection)) }
      for note in inspection.warnings + inspection.notes { Output.note("moult: note: \(note)") }
      return .done
    }
  }

  private static func text(_ inspection: Inspection) -> String {
    let memory = inspection.memory
    let resolved = inspection.resolvedMachine.map { $0 == inspection.requestedMachine ? "" : " (\($0))" } ?? ""
    let name = inspection.name ?? inspection.pid.map { "pid \($0)" } ?? "a VM without a name"
    var lines = [
      "\(name): \(inspection.version.map { "QEMU \($0), " } ?? "")\(inspection.binary)\(inspection.pid.map { ", pid \($0)" } ?? "")",
      "machine  \(inspection.requestedMachine ?? "QEMU's default")\(resolved)",
      "memory   \(memory.backend), \(memory.bytes >> 20) MiB, \(memory.shared ? "shared" : "private")",
    ]
    if let process = inspection.process { lines += Self.lines(process) }
    if !inspection.bindings.isEmpty {
      let isLive = inspection.pid != nil
      let rows = inspection.bindings.map { entry in
        let binding = entry.binding
        let address = binding.address + (binding.purpose.isEmpty ? "" : " (\(binding.purpose))")
        return [binding.kind.rawValue, binding.role.rawValue, binding.handover.rawValue]
          + (isLive ? [entry.descriptors.isEmpty ? "-" : entry.descriptors.map { String($0.number) }.joined(separator: ","), address] : [address])
      }
      lines += ["", Output.table([["BINDING", "ROLE", "HANDOVER"] + (isLive ? ["FD"] : []) + ["ADDRESS"]] + rows)]
    }
    let connected = inspection.descriptors.filter { $0.peer != nil }
    if !connected.isEmpty {
      lines += ["", Output.table([["FD", "CONNECTION", "AT", "PEER"]] + connected.map { [String($0.number), $0.type, $0.address, $0.peer ?? ""] })]
    }
    if !inspection.unknown.isEmpty { lines += ["", "not understood:"] + inspection.unknown.map { "  " + Output.shortened($0, to: 110) } }
    if !inspection.drift.isEmpty {
      lines += ["", "changed since the start:"]
      for drift in inspection.drift {
        lines += ["  \(drift.subject): \(drift.what)", "      \(drift.rebuiltAs.map { "rebuilt as " + Output.shortened($0, to: 110) } ?? drift.wayOut ?? "")"]
      }
    }
    if !inspection.blockers.isEmpty { lines += ["", "in the way of an upgrade:"] + blockerLines(inspection.blockers) }
    return lines.joined(separator: "\n")
  }
}

extension Inspect {
  private static func lines(_ process: InspectedProcess) -> [String] {
    let resident = process.resident
    let parts = [("private", resident.anonymous), ("shared", resident.shared), ("files", resident.file), ("huge pages", resident.huge)]
    var lines = ["resident " + parts.filter { $0.1 > 0 }.map { "\($0.1 >> 20) MiB \($0.0)" }.joined(separator: ", ")]
    lines.append("process  user \(process.user), group \(process.group)" + (process.label.map { ", label \($0)" } ?? "") + (process.state == "T" ? ", stopped by a signal" : ""))
    if let cgroup = process.cgroup { lines.append("cgroup   \(cgroup)\(process.unit.map { " (\($0))" } ?? "")") }
    if !process.namespaces.isEmpty { lines.append("own namespaces: \(process.namespaces.keys.sorted().joined(separator: ", "))") }
    if let root = process.root { lines.append("root     \(root)") }
    return lines
  }
}

/// Each reason, and the way out below it. Options can be longer than a screen: JSON has all of them.
func blockerLines(_ blockers: [Blocker]) -> [String] {
  blockers.flatMap { blocker in
    let option = blocker.option.isEmpty ? "command line" : Output.shortened(blocker.option, to: 72)
    return ["  \(option): \(blocker.reason)", "      \(blocker.wayOut)"]
  }
}

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
  struct Binding: Encodable {
    var kind: String
    var role: String
    var address: String
    var option: String
    var handover: String
    var why: String
    var purpose: String?
    var descriptors: [Descriptor]?
  }
  struct Descriptor: Encodable {
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
  var bindings: [Binding]
  var descriptors: [Descriptor]?
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
    bindings = inspection.bindings.map { entry in
      let binding = entry.binding
      return Binding(
        kind: binding.kind.rawValue, role: binding.role.rawValue, address: binding.address, option: binding.option,
        handover: binding.handover.rawValue, why: binding.why, purpose: binding.purpose.isEmpty ? nil : binding.purpose,
        descriptors: isLive ? entry.descriptors.map(Descriptor.init) : nil)
    }
    descriptors = isLive ? inspection.descriptors.map(Descriptor.init) : nil
    process = inspection.process.map(Process.init)
    unknown = inspection.unknown
    drift = inspection.drift.map(DriftDocument.init)
    blockers = inspection.blockers.map(BlockerDocument.init)
    warnings = inspection.warnings
    notes = inspection.notes
  }
}

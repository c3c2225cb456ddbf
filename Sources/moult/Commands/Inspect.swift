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
    help: ArgumentHelp("Read a command line instead: a shell command or a copy of /proc/PID/cmdline; - is standard input.", valueName: "file"))
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
        throw Failure(step: "inspect", subject: vm ?? "", reason: "a running VM cannot be inspected yet", hint: "use --argv /proc/PID/cmdline")
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
    if !inspection.bindings.isEmpty {
      let rows = inspection.bindings.map { binding in
        [binding.kind.rawValue, binding.role.rawValue, binding.handover.rawValue, binding.address + (binding.purpose.isEmpty ? "" : " (\(binding.purpose))")]
      }
      lines += ["", Output.table([["BINDING", "ROLE", "HANDOVER", "ADDRESS"]] + rows)]
    }
    if !inspection.unknown.isEmpty { lines += ["", "not understood:"] + inspection.unknown.map { "  " + Output.shortened($0, to: 110) } }
    for (title, found) in [("changed since the start:", inspection.drift), ("in the way of an upgrade:", inspection.blockers)] where !found.isEmpty {
      lines += ["", title] + blockerLines(found)
    }
    return lines.joined(separator: "\n")
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
  }
  var name: String?
  var pid: Int32?
  var binary: String
  var version: String?
  var machine: Machine
  var memory: Memory
  var bindings: [Binding]
  var unknown: [String]
  var drift: [BlockerDocument]
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
    bindings = inspection.bindings.map {
      Binding(
        kind: $0.kind.rawValue, role: $0.role.rawValue, address: $0.address, option: $0.option, handover: $0.handover.rawValue,
        why: $0.why, purpose: $0.purpose.isEmpty ? nil : $0.purpose)
    }
    unknown = inspection.unknown
    drift = inspection.drift.map(BlockerDocument.init)
    blockers = inspection.blockers.map(BlockerDocument.init)
    warnings = inspection.warnings
    notes = inspection.notes
  }
}

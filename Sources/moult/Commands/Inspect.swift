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
    let name = inspection.name ?? inspection.pid.map { "pid \($0)" } ?? (inspection.isPart ? "part of a command line" : "a VM without a name")
    let what = [inspection.version.map { "QEMU \($0)" }, inspection.binary.isEmpty ? nil : inspection.binary, inspection.pid.map { "pid \($0)" }]
    var lines = [([name] + [what.compactMap(\.self).joined(separator: ", ")].filter { !$0.isEmpty }).joined(separator: ": ")]
    // What a part does not say is in the rest.
    if !inspection.isPart || inspection.requestedMachine != nil { lines.append("machine  \(inspection.requestedMachine ?? "QEMU's default")\(resolved)") }
    if !inspection.isPart || memory.isStated {
      lines.append("memory   \(memory.backend), \(memory.bytes >> 20) MiB, \(memory.shared ? "shared" : "private")")
    }
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
    if !inspection.unknown.isEmpty { lines += ["", "not understood:"] + inspection.unknown.map { "  " + Output.shortened($0, beside: 2) } }
    if !inspection.drift.isEmpty {
      lines += ["", "changed since the start:"]
      for drift in inspection.drift {
        lines += ["  \(drift.subject): \(drift.what)", "      \(drift.rebuiltAs.map { "rebuilt as " + Output.shortened($0, beside: 17) } ?? drift.wayOut ?? "")"]
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

/// Each reason, and the way out below it.
func blockerLines(_ blockers: [Blocker], on descriptor: CInt = 1) -> [String] {
  blockers.flatMap { blocker in
    let option = blocker.option.isEmpty ? "command line" : Output.shortened(blocker.option, beside: 3, on: descriptor)
    return ["  \(option): \(blocker.reason)", "      \(blocker.wayOut)"]
  }
}

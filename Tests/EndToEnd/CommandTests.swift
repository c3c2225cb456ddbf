import Foundation
import Lab
import Testing

extension EndToEnd {
  /// Probation, and the JSON that scripts rely on.
  @Suite struct Commands {
    private func mustHave(_ json: JSON, _ members: [String], at location: SourceLocation = #_sourceLocation) {
      for member in members { #expect(json.members[member] != nil, "\(member) is missing", sourceLocation: location) }
    }

    @Test func `every member of the documents is there`() throws {
      try leavingNothing {
        let vm = try LabVM(VMConfiguration("e2e-json") { $0.memory = .file() })
        defer { vm.end() }
        let plan = try Answer(run(moult: ["plan", "e2e-json"] + QEMUVersion.v10_0.destination + ["--format", "json"]))
        #expect(plan.code == 0)
        mustHave(plan.json, ["vm", "from", "to", "machine", "memory", "steps", "bindings", "warnings", "blockers"])
        mustHave(plan["from"], ["version", "binary", "pid"])
        #expect(plan["to"]["version"].string?.hasPrefix("10.0.") ?? false)
        #expect(plan["blockers"].array.isEmpty)

        let answer = try vm.mustUpgrade(to: .v10_0, ["--hold"], outcome: "held")
        mustHave(
          answer.json,
          ["vm", "id", "outcome", "from", "to", "memory", "pause_ms", "total_ms", "extra_memory_bytes", "steps", "bindings"])
        for side in ["from", "to"] { mustHave(answer[side], ["version", "binary", "pid"]) }
        for step in answer["steps"].array {
          mustHave(step, ["name", "start_ms", "end_ms", "outcome"])
          #expect(step["outcome"].string == "done" && (step["end_ms"].double ?? 0) >= (step["start_ms"].double ?? 1))
        }
        for binding in answer["bindings"].array { mustHave(binding, ["address", "handover"]) }
        #expect(answer["pause_ms"].double ?? 0 > 0)

        let status = try Answer(run(moult: ["status", "e2e-json", "--format", "json"]))
        let held = try #require(status.json.array.first ?? (status.json.members.isEmpty ? nil : status.json))
        mustHave(held, ["vm", "id", "outcome", "from", "to", "memory", "pause_ms"])
        #expect(held["outcome"].string == "held" && held["id"].string == answer["id"].string)
        try vm.mustCommit()
        let list = try Answer(run(moult: ["list", "--format", "json"]))
        let listed = try #require(list.json.array.first { $0["name"].string == "e2e-json" })
        mustHave(listed, ["name", "pid", "version", "installed_version", "stale", "machine", "memory", "binary"])
        #expect(try listed["pid"].int == Int(vm.pid()) && listed["memory"].string == "shared")
        vm.end()
      }
    }

    @Test func `a healthy guest's probation ends with a commit`() throws {
      try leavingNothing {
        let vm = try LabVM(VMConfiguration("e2e-probation") { $0.memory = .file() })
        defer { vm.end() }
        let answer = try vm.mustUpgrade(to: .v10_0, ["--probation", "2"])
        #expect(answer["total_ms"].double ?? 0 > 2000)
        let again = try vm.commit()
        #expect(again.code == 1, "nothing is held any more")
        vm.end()
      }
    }

    /// A stop that nobody here asked for is what a monitor sees of a guest that is not well.
    @Test func `a guest that stops in probation is taken back`() throws {
      try leavingNothing {
        let vm = try LabVM(VMConfiguration("e2e-unwell") { $0.memory = .file() })
        defer { vm.end() }
        let old = try vm.pid()
        let child = try start(
          moult: ["upgrade", "e2e-unwell"] + QEMUVersion.v10_0.destination + ["--probation", "20", "--format", "json"])
        try eventually("the guest runs in the new QEMU") {
          guard let pid = try? vm.pid(), pid != old else { return false }
          return try Answer(run(moult: ["status", "e2e-unwell", "--format", "json"])).json.array.first?["pause_ms"].double != nil
        }
        // The pause is known as soon as the guest runs; the watch begins once the old QEMU is gone.
        try eventually("the old QEMU is gone") { Processes.hasEnded(old) }
        usleep(500_000)
        try vm.qmp("stop")
        let answer = try Answer(child.wait())
        #expect(answer.code == 4 && answer["outcome"].string == "rolled-back", "\(answer)")
        #expect(try vm.version().hasPrefix("7.2."))
        // What was found is kept, and can be handed on.
        let id = try #require(answer["id"].string)
        let evidence = "/var/lib/moult/history/" + id
        let registers = String(decoding: FileManager.default.contents(atPath: evidence + "/registers") ?? Data(), as: UTF8.self)
        let events = String(decoding: FileManager.default.contents(atPath: evidence + "/events") ?? Data(), as: UTF8.self)
        #expect(registers.contains("RIP=") && events.contains(" STOP "))
        let bundle = vm.configuration.home + "/bundle.tar"
        let packed = try run(moult: ["history", id, "--bundle", bundle])
        #expect(packed.code == 0, "\(packed)")
        let names = try run(["tar", "tf", bundle]).stdout.split(separator: "\n").map(String.init)
        #expect(Set(names).isSuperset(of: ["\(id)/report.json", "\(id)/registers", "\(id)/events", "\(id)/journal"]), "\(names)")
        let remembered = try run(moult: ["history", "e2e-unwell", "--format", "json"]).json().array
        #expect(remembered.count { $0["id"].string == id && $0["outcome"].string == "failed" } == 1)
        #expect(remembered.last?["outcome"].string == "rolled-back")
        vm.end()
      }
    }
  }
}

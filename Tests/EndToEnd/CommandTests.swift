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

        #expect(!plan["warnings"].array.contains { $0.string?.contains("very file") ?? false })
        let second = try SerialReader(path: vm.configuration.serialSocket)
        try eventually("another client waits behind the first") { second.connections == 1 }
        let same = try Answer(run(moult: ["plan", "e2e-json", "--no-trial", "--format", "json"]))
        second.stop()
        #expect(same["warnings"].array.contains { $0.string?.contains("1 client waits in the queue of \(vm.configuration.serialSocket)") ?? false }, "\(same)")
        #expect(same["warnings"].array.contains { $0.string?.contains("runs this very file already") ?? false }, "\(same)")

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
        let mine = try run(moult: ["list", "--format", "json"]).json().array.filter { $0["name"].string == "e2e-json" }
        #expect(mine.count == 1 && mine[0]["upgrade"]["outcome"].string == "held" && mine[0]["upgrade"]["has_guest"].bool == true, "\(mine)")
        try vm.mustCommit()
        let list = try Answer(run(moult: ["list", "--format", "json"]))
        let listed = try #require(list.json.array.first { $0["name"].string == "e2e-json" })
        mustHave(listed, ["name", "pid", "version", "installed_version", "stale", "machine", "memory", "binary"])
        #expect(try listed["pid"].int == Int(vm.pid()) && listed["memory"].string == "shared")
        vm.end()
      }
    }
  }
}

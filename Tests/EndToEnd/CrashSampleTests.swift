import Foundation
import Lab
import Testing

extension EndToEnd {
  /// Some cases of the crash matrix: each command, each victim, both memories, at the points where most is at
  /// stake. `make crash-test` does them all.
  @Suite(.serialized)
  struct CrashSampleTests {
    static let cases: [CrashCase.Memory: [String]] = [
      .shared: [
        "upgrade/shared/stage.done/after/kill-moult",
        "upgrade/shared/launch.done/after/kill-moult+guardian",
        "upgrade/shared/switch.done/before/kill-moult",
        "upgrade/shared/exchange.done/after/kill-guardian",
        "upgrade/shared/rewire.begin/after/kill-moult",
        "upgrade/shared/rewire.done/after/kill-moult+guardian",
        "upgrade/shared/rewire.done/after/kill-old",
        "upgrade/shared/verify.done/after/kill-new",
        "upgrade/shared/resume.begin/after/kill-moult",
        "upgrade/shared/resume.done/before/kill-moult",
        "upgrade/shared/resume.done/after/kill-old",
        // In the middle of a change of the old QEMU, and of the new one.
        "upgrade/shared/migrate.begin+setregs#3/after/kill-moult",
        "upgrade/shared/migrate.begin+syscall#3/after/kill-moult",
        "upgrade/shared/rewire.begin+syscall#2/after/kill-moult",
        "recover-undo/shared/pause.undoing+syscall#3/after/kill-moult+guardian",
        "recover-undo/shared/exchange.undone/after/kill-moult",
        "recover-onward/shared/resume.begin/after/kill-moult",
        "recover-finish/shared/retire.begin/after/kill-moult",
      ],
      .copy: [
        "upgrade/copy/pause.done/after/kill-moult",
        "upgrade/copy/migrate.begin/before/kill-old",
        "rollback/copy/switch.done/after/kill-moult",
        "rollback/copy/retire.begin/after/kill-moult+guardian",
        "recover-undo/copy/launch.undoing/after/kill-new",
      ],
    ]

    @Test func `whoever dies, one QEMU runs the guest, or it is said that none does`() throws {
      let scratch = try Scratch("crash-sample")
      let image = scratch.path + "/boot.qcow2"
      try CrashRig.makeImage(image)
      for (memory, names) in Self.cases {
        let rig = try CrashRig("crash-sample-\(memory)", memory: memory, image: image)
        defer { rig.end() }
        for name in names {
          let test = try #require(CrashCase(name), "\(name)")
          var faults: [String] = []
          do { faults = try rig.run(test).faults } catch { faults.append("\(error)") }
          #expect(faults == [], "\(name)")
          if !faults.isEmpty { try rig.reset() }
        }
      }
    }
  }
}

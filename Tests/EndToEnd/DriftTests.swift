import Lab
import Testing

extension EndToEnd {
  /// VMs that are no more what their arguments say: the new QEMU is given what they are.
  @Suite struct Drifting {
    /// What `moult plan` says was changed, by subject; fails if it refuses.
    static func drift(_ vm: LabVM, at location: SourceLocation = #_sourceLocation) throws -> [String: String] {
      let outcome = try run(moult: ["plan", vm.configuration.name, "--format", "json"])
      let blockers = try outcome.json()["blockers"].array
      // While an upgrade is held there is no other.
      let isHeld = blockers.count == 1 && blockers[0]["reason"].string?.hasPrefix("it is held") == true
      try #require(outcome.code == (isHeld ? 3 : 0), "\(outcome.stdout)\(outcome.stderr)", sourceLocation: location)
      var found: [String: String] = [:]
      for entry in try outcome.json()["drift"].array { found[entry["what"].string ?? ""] = entry["rebuilt_as"].string }
      return found
    }

    static func checksum(_ path: String) throws -> String { try succeed(["sha256sum", path]) }

    static func mustWriteOn(_ vm: LabVM) throws {
      let synced = vm.lastSynced ?? 0
      try eventually("the disk takes writes") { vm.lastSynced ?? 0 > synced + 3 }
    }

    /// How a snapshot is taken while the guest writes.
    enum Snapshot: String, Sendable {
      case device, node, libvirt

      func take(_ vm: LabVM, _ overlay: String, of image: String) throws {
        switch self {
        case .device:
          try vm.qmp("blockdev-snapshot-sync", ["device": "virtio0", "snapshot-file": .text(overlay), "format": "qcow2"])
        case .node:
          try vm.qmp(
            "blockdev-snapshot-sync",
            ["node-name": "disk0", "snapshot-file": .text(overlay), "format": "qcow2", "snapshot-node-name": "over"])
        case .libvirt:
          try succeed(["qemu-img", "create", "-q", "-f", "qcow2", "-b", image, "-F", "qcow2", overlay])
          try vm.qmp("blockdev-add", ["driver": "file", "node-name": "over-file", "filename": .text(overlay), "auto-read-only": true])
          try vm.qmp("blockdev-add", ["driver": "qcow2", "node-name": "over", "file": "over-file", "backing": .null])
          try vm.qmp("blockdev-snapshot", ["node": "disk0", "overlay": "over"])
        }
      }
    }

    @Test(arguments: [
      (Snapshot.device, VMConfiguration.DiskSyntax.drive, QEMUVersion.v7_2, QEMUVersion.v10_0, VMConfiguration.Memory.file()),
      (.node, .blockdev, .v10_0, .v11_1, .anonymous), (.libvirt, .blockdev, .v7_2, .v11_1, .anonymous),
    ])
    func `after a live snapshot the guest goes on in the overlay, and the base stays as it is`(
      _ snapshot: Snapshot, _ syntax: VMConfiguration.DiskSyntax, _ from: QEMUVersion, _ to: QEMUVersion, _ memory: VMConfiguration.Memory
    ) throws {
      try leavingNothing {
        let vm = try LabVM(
          VMConfiguration("e2e-drift-\(snapshot)") {
            $0.version = from
            $0.disk = "qcow2"
            $0.diskSyntax = syntax
            $0.memory = memory
          })
        defer { vm.end() }
        let base = vm.configuration.diskImage, overlay = vm.configuration.home + "/over.qcow2"
        try Self.mustWriteOn(vm)
        #expect(try Self.drift(vm) == [:])
        try snapshot.take(vm, overlay, of: base)
        let sum = try Self.checksum(base)
        #expect(try Self.drift(vm).values.contains { $0.contains(overlay) })
        // In each other's place: both files are open, but neither is what its name says any more.
        func swap() throws {
          for (from, to) in [(base, base + ".away"), (overlay, base), (base + ".away", overlay)] { try succeed(["mv", from, to]) }
        }
        try swap()
        let refused = try run(moult: ["plan", vm.configuration.name])
        #expect(refused.code == 3 && (refused.stdout + refused.stderr).contains("not the one that the running QEMU has open"), "\(refused)")
        try swap()
        try vm.mustUpgrade(to: to, ["--hold"], outcome: "held")
        #expect(try Self.drift(vm) == [:], "the new QEMU's arguments say it")
        try Self.mustWriteOn(vm)
        try vm.mustRollBack(to: from)
        try Self.mustWriteOn(vm)
        try vm.mustUpgrade(to: to)
        try Self.mustWriteOn(vm)
        #expect(try Self.checksum(base) == sum)
        #expect(try vm.endAndVerifyDisk(image: overlay, format: "qcow2") == [])
      }
    }

    /// One VM, many turns: each upgrade finds what the last one did not know.
    @Test func `what finished block jobs have left is rebuilt`() throws {
      try leavingNothing {
        let vm = try LabVM(
          VMConfiguration("e2e-drift-jobs") {
            $0.disk = "qcow2"
            $0.memory = .file()
          })
        defer { vm.end() }
        let home = vm.configuration.home, base = vm.configuration.diskImage
        func finish(_ job: String) throws {
          try eventually("the job is ready") { try vm.qmp("query-block-jobs").array.allSatisfy { $0["ready"].bool ?? false } }
          try vm.qmp("block-job-complete", ["device": .text(job)])
          try eventually("the job has ended") { try vm.qmp("query-block-jobs").array.isEmpty }
        }
        for overlay in ["one", "two"] {
          try vm.qmp("blockdev-snapshot-sync", ["device": "virtio0", "snapshot-file": .text("\(home)/\(overlay).qcow2"), "format": "qcow2"])
        }
        try vm.mustUpgrade(to: .v10_0)
        // The one in the middle goes.
        try vm.qmp("block-stream", ["device": "virtio0", "job-id": "j", "base": .text(base)])
        try eventually("the job has ended") { try vm.qmp("query-block-jobs").array.isEmpty }
        try vm.mustUpgrade(to: .v11_1)
        // The active one goes.
        try vm.qmp("block-commit", ["device": "virtio0", "job-id": "j"])
        try finish("j")
        #expect(try Self.drift(vm).values.map { $0.contains("file=\(base),") } == [true])
        try vm.mustUpgrade(to: .v7_2)
        try Self.mustWriteOn(vm)
        // All goes to another place.
        try vm.qmp("drive-mirror", ["device": "virtio0", "job-id": "j", "target": .text(home + "/copy.raw"), "format": "raw", "sync": "full"])
        try finish("j")
        let sum = try Self.checksum(base)
        try vm.mustUpgrade(to: .v10_0)
        try Self.mustWriteOn(vm)
        #expect(try Self.checksum(base) == sum)
        #expect(try vm.endAndVerifyDisk(image: home + "/copy.raw", format: "raw") == [])
      }
    }
  }
}

import Lab
import Testing

extension EndToEnd {
  /// A guest that counts on its disk and says which number is safely there.
  @Suite struct Disks {
    @Test(arguments: [
      ("raw", VMConfiguration.DiskSyntax.drive, false, VMConfiguration.Memory.file()),
      ("raw", .blockdev, false, .anonymous),
      ("qcow2", .drive, false, .anonymous),
      ("qcow2", .blockdev, false, .file()),
      ("qcow2", .drive, true, .file()),
      ("qcow2", .blockdev, true, .anonymous),
    ])
    func `every acknowledged write is there`(
      _ format: String, _ syntax: VMConfiguration.DiskSyntax, _ backed: Bool, _ memory: VMConfiguration.Memory
    ) throws {
      try leavingNothing {
        let vm = try LabVM(
          VMConfiguration("e2e-disk-\(format)-\(syntax)\(backed ? "-backed" : "")") {
            $0.disk = format
            $0.diskSyntax = syntax
            $0.diskIsBacked = backed
            $0.memory = memory
          })
        defer { vm.end() }
        try vm.mustWriteOn()
        try vm.mustUpgrade(to: .v10_0)
        try vm.mustWriteOn()
        try vm.mustUpgrade(to: .v11_1, ["--hold"], outcome: "held")
        try vm.mustWriteOn()
        try vm.mustRollBack(to: .v10_0)
        try vm.mustWriteOn()
        try vm.mustUpgrade(to: .v11_1, ["--hold"], outcome: "held")
        try vm.mustCommit()
        try vm.mustWriteOn()
        #expect(try vm.endAndVerifyDisk() == [])
      }
    }
  }
}

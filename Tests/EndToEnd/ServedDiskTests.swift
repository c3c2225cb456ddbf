import Foundation
import Glibc
import Lab
import Testing

extension EndToEnd {
  /// Disks whose rings another program serves (vhost-user-blk).
  @Suite struct ServedDisks {
    /// The guest writes as fast as it can: a QEMU that stops it with a request under way makes this back end give up.
    @Test
    func `every write that a storage daemon has acknowledged is there`() throws {
      try leavingNothing {
        let base = Lab.paths.run + "/e2e-served-daemon"
        try FileManager.default.createDirectory(atPath: base, withIntermediateDirectories: true)
        defer { _ = try? run(["rm", "-r", base]) }
        let (image, socket) = (base + "/image", base + "/disk.sock")
        try succeed(["qemu-img", "create", "-q", "-f", "raw", image, "16M"])
        let daemon = try ChildProcess(
          [
            "qemu-storage-daemon", "--blockdev", "driver=file,node-name=file,filename=\(image)", "--blockdev", "driver=raw,node-name=disk,file=file",
            "--export", "type=vhost-user-blk,id=export,node-name=disk,addr.type=unix,addr.path=\(socket),writable=on",
          ], log: base + "/log")
        defer { daemon.signal(SIGKILL) }
        try eventually("the daemon listens") { access(socket, F_OK) == 0 }
        let vm = try LabVM(
          VMConfiguration("e2e-served") {
            $0.memory = .file()
            $0.words = ["disk=1", "sync=0"]
            $0.extraArguments = ["-chardev", "socket,id=served,path=\(socket)", "-device", "vhost-user-blk-pci,chardev=served"]
          })
        defer { vm.end() }
        func mustWriteOn() throws {
          let synced = vm.lastSynced ?? 0
          try eventually("the disk takes writes") { vm.lastSynced ?? 0 > synced + 20 }
        }
        try mustWriteOn()
        let refused = try run(moult: ["plan", "e2e-served"] + QEMUVersion.v11_1.destination)
        #expect(refused.code == 3 && refused.stdout.contains("does not load a vhost-user-blk") || refused.stderr.contains("does not load a vhost-user-blk"), "\(refused)")
        try vm.mustUpgrade(to: .v10_0, ["--hold"], outcome: "held")
        try mustWriteOn()
        try vm.mustRollBack(to: .v7_2)
        try mustWriteOn()
        try vm.mustUpgrade(to: .v10_0, ["--memory", "copy"])
        try mustWriteOn()
        #expect(daemon.isRunning)
        vm.end(keepDisk: true)
        daemon.signal(SIGTERM)
        try eventually("the daemon ends") { !daemon.isRunning }
        #expect(try vm.diskFaults(image: image) == [])
      }
    }
  }
}

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
        let image = try ServedImage("e2e-served-daemon")
        let daemon = try image.serve([
          "qemu-storage-daemon", "--blockdev", "driver=file,node-name=file,filename=\(image.path)", "--blockdev", "driver=raw,node-name=disk,file=file",
          "--export", "type=vhost-user-blk,id=export,node-name=disk,addr.type=unix,addr.path=\(image.socket),writable=on",
        ])
        let vm = try LabVM(
          VMConfiguration("e2e-served") {
            $0.memory = .file()
            $0.words = ["disk=1", "sync=0"]
            $0.extraArguments = ["-chardev", "socket,id=served,path=\(image.socket)", "-device", "vhost-user-blk-pci,chardev=served"]
          })
        defer { vm.end() }
        try vm.mustWriteOn(20)
        let refused = try run(moult: ["plan", "e2e-served"] + QEMUVersion.v11_1.destination)
        #expect(refused.code == 3 && refused.stdout.contains("does not load a vhost-user-blk") || refused.stderr.contains("does not load a vhost-user-blk"), "\(refused)")
        try vm.mustUpgrade(to: .v10_0, ["--hold"], outcome: "held")
        try vm.mustWriteOn(20)
        try vm.mustRollBack(to: .v7_2)
        try vm.mustWriteOn(20)
        try vm.mustUpgrade(to: .v10_0, ["--memory", "copy"])
        try vm.mustWriteOn(20)
        // The new QEMU has the guest and no disk yet, and is the only one left: by the guardian, and by a command when nobody else is.
        for (version, everybody) in [(QEMUVersion.v7_2, false), (.v10_0, true)] {
          let (old, upgrade) = (try vm.pid(), try TracedRun(moult: ["upgrade", "e2e-served"] + version.destination, of: vm))
          try upgrade.go(to: "switch.done")
          Glibc.kill(old, SIGKILL)
          if everybody {
            try upgrade.killAll()
            #expect(try run(moult: ["recover", "e2e-served"]).code == 0)
          } else {
            Glibc.kill(upgrade.pid, SIGKILL)
            _ = try upgrade.wait()
          }
          try eventually("the guest goes on in the new QEMU") { try vm.pid() != old && vm.processes == [vm.pid()] && vm.status() == "running" }
          try vm.mustWriteOn(20)
        }
        #expect(daemon.isRunning)
        // It ends when the new QEMU is connected, and before the guest goes on: nothing but a look would tell.
        let upgrade = try TracedRun(moult: ["upgrade", "e2e-served"] + QEMUVersion.v7_2.destination, of: vm)
        try upgrade.go(to: "verify.done")
        daemon.signal(SIGKILL)
        try upgrade.release()
        let outcome = try upgrade.wait()
        #expect(outcome.code == 5 && outcome.stderr.contains("runs in the new QEMU without what other programs do for it"), "\(outcome)")
        #expect(try image.endAndVerify(vm) == [])
      }
    }
  }
}

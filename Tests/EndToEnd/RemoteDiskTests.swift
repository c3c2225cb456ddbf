import Glibc
import Lab
import Testing

extension EndToEnd {
  /// Disks that another program serves.
  @Suite struct RemoteDisks {
    @Test
    func `every write that an NBD server has acknowledged is there`() throws {
      try leavingNothing {
        let (image, port) = (try ServedImage("e2e-nbd-server"), "45891")
        // Two clients at once, which is what a move takes, and one that only reads by TCP.
        _ = try image.serve(["qemu-nbd", "--persistent", "--shared=2", "-f", "raw", "-k", image.socket, image.path])
        _ = try image.serve(["qemu-nbd", "--persistent", "--shared=3", "--read-only", "-f", "raw", "-b", "127.0.0.1", "-p", port, "-x", "kernel", Lab.paths.kernel])
        try eventually("the other server listens") { try run(["qemu-img", "info", "nbd://127.0.0.1:\(port)/kernel"]).code == 0 }
        let vm = try LabVM(
          VMConfiguration("e2e-nbd") {
            $0.memory = .file()
            $0.words = ["disk=1"]
            $0.extraArguments = [
              "-blockdev", "driver=nbd,node-name=remote,server.type=unix,server.path=\(image.socket)", "-device", "virtio-blk-pci,drive=remote",
              "-drive", "file=nbd://127.0.0.1:\(port)/kernel,if=none,id=cd,readonly=on,format=raw", "-device", "virtio-blk-pci,drive=cd",
            ]
          })
        defer { vm.end() }
        // Whoever has the second place leaves none for the new QEMU.
        let taken = Client(image.socket)
        let refused = try run(moult: ["plan", "e2e-nbd"] + QEMUVersion.v10_0.destination)
        #expect(refused.code == 3 && refused.stderr.contains("answers no second client"), "\(refused)")
        taken.leave()
        try vm.mustUpgrade(to: .v10_0)
        try vm.mustWriteOn()
        try vm.mustUpgrade(to: .v11_1, ["--hold"], outcome: "held")
        try vm.mustWriteOn()
        try vm.mustRollBack(to: .v10_0)
        try vm.mustWriteOn()
        try vm.mustUpgrade(to: .v7_2)
        try vm.mustWriteOn()
        #expect(try image.endAndVerify(vm) == [])
      }
    }

    /// Connected, and no more.
    private struct Client {
      let descriptor: CInt
      init(_ path: String) {
        descriptor = socket(AF_UNIX, CInt(SOCK_STREAM.rawValue) | CInt(SOCK_CLOEXEC.rawValue), 0)
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
        let result = withUnsafePointer(to: &address) {
          $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size)) }
        }
        precondition(result == 0)
      }
      func leave() { close(descriptor) }
    }
  }
}

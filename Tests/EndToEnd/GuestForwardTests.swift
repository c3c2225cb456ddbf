import Glibc
import Lab
import Testing

extension EndToEnd {
  /// What a guest reaches through a user network.
  @Suite struct GuestForwards {
    @Test
    func `a guest's connection to a character device goes on`() throws {
      try leavingNothing {
        let vm = try LabVM(
          VMConfiguration("e2e-guestfwd") {
            $0.memory = .file()
            $0.words = ["net=10.0.2.15/24", "connect=10.0.2.100:99"]
            $0.extraArguments = [
              "-chardev", "socket,id=service,path=\($0.agentSocket),server=on,wait=off",
              "-netdev", "user,id=u,tftp=\(Lab.paths.run),guestfwd=tcp:10.0.2.100:99-chardev:service", "-device", "virtio-net-pci,netdev=u",
            ]
          })
        defer { vm.end() }
        let service = try SerialReader(path: vm.configuration.agentSocket)
        defer { service.stop() }
        // Nothing is kept for a guest that is not connected yet.
        var said: [String] = []
        func mustComeBack() throws {
          said.append("line \(said.count)")
          try service.send(said[said.count - 1])
          try eventually("the guest sends back \(said.count)") { service.lines.last?.text == said.last }
        }
        try eventually("the guest has connected") {
          try vm.qmp("human-monitor-command", ["command-line": "info usernet"]).string?.contains("10.0.2.100") == true
        }
        for version in [QEMUVersion.v11_1, .v10_0, .v7_2] {
          for _ in 0..<5 { try mustComeBack() }
          try vm.mustUpgrade(to: version)
        }
        for _ in 0..<5 { try mustComeBack() }
        #expect(service.lines.map(\.text) == said && service.connections == 1)
        vm.end()
      }
    }
  }
}

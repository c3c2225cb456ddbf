import Foundation
import Glibc
import Lab
import Testing

extension EndToEnd {
  /// VMs whose options are not all on the command line.
  @Suite struct Configuration {
    @Test func `what a configuration file says and -set changes comes along`() throws {
      let file = """
        [chardev "extra"]
          backend = "file"
          path = "extra.log"
        [device "serial1"]
          driver = "pci-serial"
          chardev = "extra"
        [device "balloon0"]
          driver = "virtio-balloon-pci"
        """
      let configuration = VMConfiguration("e2e-readconfig") {
        $0.memory = .file()
        $0.daemonize = true  // Then the path is relative to a directory that QEMU is not in any more.
        $0.extraArguments = ["-readconfig", "vm.cfg", "-set", "device.balloon0.deflate-on-oom=on"]
        $0.launcher = ["sh", "-c", "printf '%s\\n' \"$0\" >vm.cfg; exec \"$@\"", file]
      }
      try leavingNothing {
        let vm = try LabVM(configuration)
        defer { vm.end() }
        let path = configuration.home + "/vm.cfg"
        func isSet() throws -> Bool {
          try vm.qmp("qom-get", ["path": "/machine/peripheral/balloon0", "property": "deflate-on-oom"]).bool ?? false
        }
        #expect(try isSet())

        // What QEMU read cannot be told from a file that was changed since.
        try succeed(["touch", "-d", "1 hour", path])
        let refused = try run(moult: ["plan", "e2e-readconfig"] + QEMUVersion.v10_0.destination)
        #expect(refused.code == 3 && refused.stderr.contains("changed after the VM's start"), "\(refused.stderr)")
        try succeed(["touch", "-d", "1 hour ago", path])

        try vm.mustUpgrade(to: .v10_0, ["--hold"], outcome: "held")
        #expect(try isSet())
        // The new QEMU needs the file no more, and neither does the way back.
        unlink(path)
        try vm.mustRollBack(to: .v7_2)
        #expect(try isSet())
        vm.end()
      }
    }
  }
}

import Foundation
import Glibc
import Lab
import Testing

extension EndToEnd {
  /// Whatever started the VM, and however it is named.
  @Suite struct Starts {
    @Test func `a VM is found by name, pid, pidfile and QMP socket`() throws {
      try leavingNothing {
        let vm = try LabVM(VMConfiguration("e2e-found") { $0.memory = .file(); $0.daemonize = true })
        defer { vm.end() }
        let versions: [QEMUVersion] = [.v10_0, .v7_2, .v11_1, .v7_2]
        for (index, to) in versions.enumerated() {
          let old = try vm.pid()
          let configuration = vm.configuration
          let selector = [configuration.name, "\(old)", configuration.pidfile, configuration.qmpSocket][index]
          let answer = try Answer(run(moult: ["upgrade", selector] + to.destination + ["--format", "json"]))
          try vm.mustHaveMoved(answer, from: old, to: to, outcome: "committed")
          #expect(answer["vm"].string == "e2e-found")
        }
        vm.end()
      }
    }

    @Test func `a VM that moult run has started`() throws {
      try leavingNothing {
        let repository = (#filePath as NSString).deletingLastPathComponent + "/../.."
        let vm = try LabVM(
          VMConfiguration("e2e-run") {
            $0.memory = .file()
            $0.launcher = ["env", "MOULT_PROFILES=\(repository)/profiles", Lab.paths.moult, "run", "--"]
          })
        defer { vm.end() }
        for to in [QEMUVersion.v10_0, .v7_2] { try vm.mustUpgrade(to: to) }
        vm.end()
      }
    }

    @Test(arguments: [(VMConfiguration.Memory.file(), "shared"), (.anonymous, "copy")])
    func `a guest on KVM`(_ memory: VMConfiguration.Memory, _ strategy: String) throws {
      let hasKVM = access("/dev/kvm", R_OK | W_OK) == 0
      try leavingNothing {
        let vm = try LabVM(
          VMConfiguration("e2e-kvm") {
            $0.guest = .bootSector
            $0.machine = "pc-i440fx-5.2"
            $0.accelerator = hasKVM ? .kvm : .tcg
            $0.memory = memory
          })
        defer { vm.end() }
        for to in [QEMUVersion.v10_0, .v11_1, .v7_2] {
          #expect(try vm.mustUpgrade(to: to, strategy: strategy).warnsOfStandingStill == (!hasKVM && strategy == "copy"), "the kernel hears of every write")
        }
        vm.end()
      }
    }

    @Test(arguments: [VMConfiguration.Memory.file(), .anonymous])
    func `several processors, an I/O thread, a network card, a screen`(_ memory: VMConfiguration.Memory) throws {
      try leavingNothing {
        let vm = try LabVM(
          VMConfiguration("e2e-rich") {
            $0.memory = memory
            $0.version = .v10_0
            $0.disk = "qcow2"
            $0.extraArguments = [
              "-smp", "2", "-object", "iothread,id=io0",
              "-netdev", "user,id=net0,restrict=on", "-device", "virtio-net-pci,netdev=net0,romfile=",
              "-device", "VGA", "-vnc", "unix:\($0.home)/vm/vnc.sock",
            ]
          })
        defer { vm.end() }
        for to in [QEMUVersion.v11_1, .v10_0] {
          // The screen's memory is sent whether or not RAM is.
          #expect(try vm.mustUpgrade(to: to).warnsOfStandingStill)
          #expect(vm.publicEntries.contains("vnc.sock"))
        }
        #expect(try vm.endAndVerifyDisk() == [])
        vm.end()
      }
    }
  }
}

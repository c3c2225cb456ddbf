import Foundation
import Glibc
import Lab
import Testing

extension EndToEnd {
  /// What the outside knows a VM by, and what lies beside it.
  @Suite struct Names {
    @Test(arguments: [
      VMConfiguration("e2e-names-alone") { $0.memory = .file() },
      VMConfiguration("e2e-names-apart") { $0.memory = .file(); $0.layout = .separateFilesystems },
      VMConfiguration("e2e-names-link") { $0.memory = .file(); $0.layout = .symlinked },
      VMConfiguration("e2e-names-run") { $0.memory = .file(); $0.layout = .at("/var" + Lab.paths.run + "/e2e-names-run/vm") },
      VMConfiguration("e2e-names-disk") {
        $0.memory = .file()
        $0.disk = "qcow2"
        $0.diskIsBesideSockets = true
      },
    ])
    func `names lead to the new QEMU, and it removes them when it quits`(_ configuration: VMConfiguration) throws {
      try leavingNothing {
        let vm = try LabVM(configuration)
        defer { vm.end() }
        let entries = vm.publicEntries
        for to in [QEMUVersion.v10_0, .v7_2, .v11_1] {
          try vm.mustUpgrade(to: to, strategy: "shared")
          #expect(vm.publicEntries == entries)
        }
        try mustQuitTidily(vm)
        if configuration.disk != nil { #expect(try vm.endAndVerifyDisk() == []) }
        vm.end()
      }
    }

    /// Its working directory is one that a stage lies over while the new QEMU starts, and is removed then.
    @Test func `a VM that was started among its names stays there, and can go back`() throws {
      try leavingNothing {
        var configuration = VMConfiguration("e2e-names-here") {
          $0.memory = .file()
          $0.disk = "qcow2"
          $0.diskIsBesideSockets = true
        }
        let here = configuration.home + "/vm"
        configuration.launcher = ["env", "--chdir", here]
        let vm = try LabVM(configuration)
        defer { vm.end() }
        func mustBeHere() throws {
          #expect(try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/\(vm.pid())/cwd") == here)
        }
        try mustBeHere()
        try vm.mustUpgrade(to: .v10_0, ["--hold"], outcome: "held")
        try mustBeHere()
        try vm.mustRollBack(to: .v7_2)
        try mustBeHere()
        try vm.mustUpgrade(to: .v11_1)
        try mustBeHere()
        #expect(try vm.endAndVerifyDisk() == [])
      }
    }

    /// QEMU removes its sockets and its pidfile when it ends by itself: the public ones.
    private func mustQuitTidily(_ vm: LabVM) throws {
      let configuration = vm.configuration
      vm.serial.stop()
      // QEMU may end before it has answered.
      _ = try? vm.qmp("quit")
      try vm.waitForEnd()
      for path in [configuration.qmpSocket, configuration.serialSocket, configuration.pidfile] {
        #expect(access(path, F_OK) != 0, "\(path) is still there")
      }
    }

    @Test func `two VMs in one directory are upgraded at the same time`() throws {
      let directory = Lab.paths.run + "/e2e-together"
      try leavingNothing {
        let vms = try ["e2e-one", "e2e-two"].map { name in
          try LabVM(VMConfiguration(name) { $0.layout = .shared(directory); $0.memory = .file() })
        }
        defer { for vm in vms { vm.end() } }
        let foreign = directory + "/somebody-elses"
        try Data("theirs".utf8).write(to: URL(fileURLWithPath: foreign))
        defer {
          unlink(foreign)
          rmdir(directory)
        }
        let before = try FileFacts(foreign)
        let entries = Directory.entries(directory)
        for to in [QEMUVersion.v10_0, .v7_2] {
          let old = try vms.map { try $0.pid() }
          let running = try vms.map {
            try start(moult: ["upgrade", $0.configuration.name] + to.destination + ["--format", "json"])
          }
          for (index, child) in running.enumerated() {
            try vms[index].mustHaveMoved(Answer(child.wait()), from: old[index], to: to, outcome: "committed")
          }
          #expect(Directory.entries(directory) == entries)
          #expect(try FileFacts(foreign) == before)
        }
        for vm in vms { try mustQuitTidily(vm) }
        #expect(Directory.entries(directory) == ["somebody-elses"])
        for vm in vms { vm.end() }
      }
    }

    @Test func `a pidfile on a file system of its own`() throws {
      let mount = "/run/moult-lab-pidfile"
      try leavingNothing(["/run/moult-lab", mount]) {
        mkdir(mount, 0o755)
        try succeed(["mount", "-t", "tmpfs", "e2e-pidfile", mount])
        defer {
          _ = try? succeed(["umount", mount])
          rmdir(mount)
        }
        let vm = try LabVM(VMConfiguration("e2e-pidfile") { $0.pidfileDirectory = mount; $0.memory = .file() })
        defer { vm.end() }
        for to in [QEMUVersion.v10_0, .v7_2] {
          try vm.mustUpgrade(to: to)
          #expect(Directory.entries(mount) == ["qemu.pid"])
        }
        try mustQuitTidily(vm)
        vm.end()
      }
    }

    @Test func `a pidfile that somebody removed is there again`() throws {
      for layout in [VMConfiguration.Layout.exclusive, .separateFilesystems] {
        try leavingNothing {
          let vm = try LabVM(VMConfiguration("e2e-removed") { $0.memory = .file(); $0.layout = layout })
          defer { vm.end() }
          let old = try vm.pid()
          unlink(vm.configuration.pidfile)
          let answer = try vm.upgrade(to: .v10_0)
          try vm.mustHaveMoved(answer, from: old, to: .v10_0, outcome: "committed")
          vm.end()
        }
      }
    }

    @Test func `what an administrator changed of a socket stays`() throws {
      for layout in [VMConfiguration.Layout.exclusive, .shared(Lab.paths.run + "/e2e-chmod-dir")] {
        try leavingNothing {
          let vm = try LabVM(VMConfiguration("e2e-chmod") { $0.memory = .file(); $0.layout = layout })
          defer { vm.end() }
          let configuration = vm.configuration
          let directory = (configuration.qmpSocket as NSString).deletingLastPathComponent
          let paths = [configuration.qmpSocket, configuration.serialSocket, configuration.pidfile, directory]
          let wanted: [(mode: mode_t, user: uid_t, group: gid_t)] = [
            (0o660, 0, 4), (0o606, 1, 1), (0o640, 0, 24), (0o751, 0, 4),
          ]
          for (path, want) in zip(paths, wanted) {
            chown(path, want.user, want.group)
            chmod(path, want.mode)
          }
          for to in [QEMUVersion.v10_0, .v7_2] {
            try vm.mustUpgrade(to: to)
            for (path, want) in zip(paths, wanted) {
              let facts = try FileFacts(path)
              #expect(
                facts.mode & 0o7777 == want.mode && facts.user == want.user && facts.group == want.group,
                "\(path): \(String(facts.mode, radix: 8)) \(facts.user) \(facts.group)")
            }
          }
          vm.end()
        }
      }
    }

    @Test(arguments: [VMConfiguration.Layout.exclusive, .shared(Lab.paths.run + "/e2e-probed-dir")])
    func `somebody always answers at the public paths`(_ layout: VMConfiguration.Layout) throws {
      try leavingNothing {
        let vm = try LabVM(VMConfiguration("e2e-probed") { $0.memory = .file(); $0.layout = layout })
        defer { vm.end() }
        let probers = try [vm.configuration.qmpSocket, vm.configuration.serialSocket].map {
          try ConnectionProber(path: $0, pause: 200)
        }
        var failures: [String] = []
        for to in [QEMUVersion.v10_0, .v7_2, .v11_1, .v7_2, .v10_0] {
          let answer = try vm.upgrade(to: to)
          if answer.code != 0 { failures.append("to \(to): \(answer)") }
        }
        for prober in probers {
          let counts = prober.stop()
          #expect(counts.failed == 0 && counts.attempts > 500, "\(prober === probers[0] ? "QMP" : "serial"): \(counts)")
        }
        #expect(failures == [])
        try vm.mustBeWell()
        vm.end()
      }
    }
  }
}

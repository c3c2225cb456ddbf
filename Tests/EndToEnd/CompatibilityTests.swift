import Foundation
import Lab
import Testing

extension EndToEnd {
  /// Pairs of real QEMUs that do not fit each other: `plan` says so, and touches nothing.
  @Suite struct Compatibility {
    @Test func `what the new version has dropped is refused, each by name`() throws {
      try leavingNothing {
        let vm = try LabVM(
          VMConfiguration("e2e-dropped") {
            $0.machine = "pc-q35-4.2"
            $0.extraArguments = ["-device", "sga", "-device", "virtio-serial-pci,emergency-write=off", "-portrait", "-no-hpet"]
          })
        defer { vm.end() }
        // Written as -machine hpet=off for the new one, so no reason to refuse.
        try vm.mustRefuse(
          to: .v11_1,
          blockers: [
            "-machine pc-q35-4.2": "QEMU 11.1.3 does not know this machine type any more",
            "-device sga": "QEMU 11.1.3 has no device sga",
            "-device virtio-serial-pci,emergency-write=off": "device virtio-serial-pci has no property emergency-write in QEMU 11.1.3",
            "-portrait": "QEMU 11.1.3 does not know -portrait any more",
          ])
        try vm.mustRefuse(
          to: .v10_0, blockers: ["-device sga": "QEMU 10.0.2 has no device sga", "-portrait": "QEMU 10.0.2 does not know -portrait any more"])
        try vm.mustBeWell()
        vm.end()
      }
    }

    @Test func `device state that is lost on the way back bars only a promised way back`() throws {
      try leavingNothing {
        let vm = try LabVM(
          VMConfiguration("e2e-backward") {
            $0.version = .v5_2
            $0.memory = .file()
            $0.extraArguments = ["-device", "am53c974,id=scsi"]
          })
        defer { vm.end() }
        let lost = "the way back is not sound: QEMU 5.2.0 does not load the state that QEMU 7.2.22 saves of am53c974: version 2 is saved, up to 1 is loaded"
        let answer = try vm.plan(to: .v7_2)
        #expect(answer.code == 0 && answer["warnings"].array.contains { $0.string == lost }, "\(answer)")
        try vm.mustRefuse(to: .v7_2, ["--hold"], blockers: ["--hold": lost])
        try vm.mustRefuse(to: .v7_2, ["--probation", "1"], blockers: ["--probation": lost])
        try vm.mustUpgrade(to: .v7_2)
        try vm.mustRefuse(
          to: .v5_2,
          blockers: [
            "device am53c974":
              "QEMU 5.2.0 does not load the state that QEMU 7.2.22 saves of it: version 2 is saved, up to 1 is loaded"
          ])
        try vm.mustBeWell()
        vm.end()
      }
    }

    @Test func `a load that fails says why, and the old QEMU goes on`() throws {
      try leavingNothing {
        let vm = try LabVM(
          VMConfiguration("e2e-unloaded") {
            $0.version = .v10_0
            $0.memory = .file()
            $0.extraArguments = ["-global", "PIIX4_PM.unheard-of=1"]
          })
        defer { vm.end() }
        // State that 10.0 saves if there is any, and 7.2 does not load: the PIC's level trigger mode.
        try vm.qmp("human-monitor-command", ["command-line": "o /b 0x20 0x19"])
        let plan = try vm.plan(to: .v7_2)
        let warnings = plan["warnings"].array.compactMap(\.string)
        #expect(plan.code == 0 && warnings.contains { $0.contains("i8259/ltim") }, "\(plan)")
        #expect(warnings.contains { $0.contains("PIIX4_PM.unheard-of=1: PIIX4_PM has no property unheard-of") }, "\(warnings)")
        let answer = try vm.upgrade(to: .v7_2)
        #expect(answer.code == 1 && answer["error"]["step"].string == "switch", "\(answer)")
        #expect(answer["error"]["message"].string?.contains("i8259") == true, "QEMU's own words: \(answer)")
        #expect(answer["error"]["hint"].string?.contains("moult plan e2e-unloaded --to") == true, "\(answer)")
        try vm.mustBeWell()
        vm.end()
      }
    }

    @Test func `the new QEMU is started and compared, and no trace is left`() throws {
      try leavingNothing {
        let vm = try LabVM(
          VMConfiguration("e2e-trial") {
            $0.layout = .separateFilesystems
            $0.memory = .file()
            $0.disk = "qcow2"
            $0.serialLog = true
          })
        defer { vm.end() }
        let (entries, image) = (vm.publicEntries, try FileFacts(vm.configuration.diskImage))
        let log = try FileManager.default.attributesOfItem(atPath: vm.configuration.log)[.size] as? Int
        let pid = try vm.pid()
        for to in [QEMUVersion.v11_1, .v5_2] {
          let answer = try vm.plan(to: to)
          #expect(answer.code == 0 && answer["trial"]["done"].bool == true && answer["trial"]["differences"].array.isEmpty, "\(answer)")
          #expect(answer["pause"]["most_ms"].double ?? 0 > answer["pause"]["least_ms"].double ?? 0)
        }
        #expect(try vm.plan(to: .v10_0, ["--no-trial"])["trial"]["done"].bool == false)
        #expect(try vm.processes == [pid] && vm.pid() == pid)
        #expect(try vm.publicEntries == entries && FileFacts(vm.configuration.diskImage) == image)
        #expect(try FileManager.default.attributesOfItem(atPath: vm.configuration.log)[.size] as? Int == log, "the VM's log")
        try vm.mustBeWell()
        try vm.mustUpgrade(to: .v10_0)
        #expect(try vm.endAndVerifyDisk() == [])
      }
    }

    @Test func `a CPU of other features and a ROM of another size are refused before anything pauses`() throws {
      try leavingNothing {
        let rom = "/run/moult-lab/e2e-differs.rom"
        try FileManager.default.createDirectory(atPath: "/run/moult-lab", withIntermediateDirectories: true)
        try Data(count: 64 << 10).write(to: URL(fileURLWithPath: rom))
        defer { try? FileManager.default.removeItem(atPath: rom) }
        let vm = try LabVM(
          VMConfiguration("e2e-differs") {
            $0.memory = .file()
            // Of the last -cpu. Since 10.0 QEMU emulates x2apic.
            $0.extraArguments = ["-cpu", "Haswell", "-device", "e1000,romfile=\(rom)"]
          })
        defer { vm.end() }
        try Data(count: 128 << 10).write(to: URL(fileURLWithPath: rom))
        let old = try vm.pid()
        let plan = try vm.plan(to: .v10_0)
        let upgrade = try vm.upgrade(to: .v10_0)
        #expect(plan.code == 3 && upgrade.code == 3 && upgrade["error"]["step"].string == "compare", "\(plan) \(upgrade)")
        #expect(upgrade["outcome"].string == "refused" && upgrade["blockers"].array.count == plan["blockers"].array.count)
        let reasons = plan["blockers"].array.compactMap { $0["reason"].string }
        for what in ["CPU features that the guest would gain: x2apic", "e1000.rom: 131072 bytes here, 65536 there"] {
          #expect(reasons.contains { $0.contains(what) }, "\(reasons)")
          #expect(upgrade["error"]["message"].string?.contains(what) == true, "\(upgrade)")
        }
        #expect(vm.processes == [old])
        try vm.mustBeWell()
        // With the ROM as it was, the features are all: they are switched off for this guest, there and back.
        try Data(count: 64 << 10).write(to: URL(fileURLWithPath: rom))
        let masked = try vm.plan(to: .v10_0)
        #expect(masked.code == 0 && masked["trial"]["masked_features"].array.compactMap(\.string) == ["x2apic"], "\(masked)")
        let moved = try vm.upgrade(to: .v10_0)
        #expect(moved.code == 0 && moved["notes"][0].string?.contains("x2apic") == true, "\(moved)")
        #expect(ProcessFacts(try vm.pid()).command.contains("Haswell,x2apic=off"))
        try vm.mustUpgrade(to: .v7_2)
        vm.end()
      }
    }

    @Test func `CPU features that the guest would lose are a reason to refuse`() throws {
      try leavingNothing {
        let vm = try LabVM(
          VMConfiguration("e2e-loses") {
            $0.version = .v10_0
            $0.extraArguments = ["-cpu", "Haswell"]
          })
        defer { vm.end() }
        try vm.mustRefuse(
          to: .v7_2, blockers: ["trial": "the new QEMU's machine is not the VM's: CPU features that the guest would lose: x2apic"])
        vm.end()
      }
    }

    @Test func `an option that was removed is written in the words that took its place`() throws {
      try leavingNothing {
        let vm = try LabVM(
          VMConfiguration("e2e-respelled") {
            $0.memory = .file()
            $0.extraArguments = ["-no-hpet"]
          })
        defer { vm.end() }
        try vm.mustUpgrade(to: .v11_1)
        try vm.mustUpgrade(to: .v5_2)
        vm.end()
      }
    }
  }
}

extension LabVM {
  func plan(to version: QEMUVersion, _ options: [String] = []) throws -> Answer {
    try Answer(run(moult: ["plan", configuration.name] + version.destination + options + ["--format", "json"]))
  }

  /// Plans and upgrades, and makes sure that these and only these are the reasons against, and that nothing was begun.
  /// - Parameter blockers: by what is at fault.
  func mustRefuse(
    to version: QEMUVersion, _ options: [String] = [], blockers: [String: String], at location: SourceLocation = #_sourceLocation
  ) throws {
    let old = try pid()
    for answer in [try plan(to: version, options), try upgrade(to: version, options)] {
      #expect(answer.code == 3, "\(answer)", sourceLocation: location)
      var found: [String: String] = [:]
      for blocker in answer["blockers"].array {
        found[blocker["what"].string ?? ""] = blocker["reason"].string ?? ""
        #expect(blocker["way_out"].string?.isEmpty == false, sourceLocation: location)
      }
      #expect(found == blockers, sourceLocation: location)
      if blockers["trial"] == nil { #expect(!answer.stderr.contains("lock "), "\(answer.stderr)", sourceLocation: location) }
    }
    #expect(try processes == [old] && pid() == old, sourceLocation: location)
  }
}

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

  /// Plans, and makes sure that these and only these are the reasons against.
  /// - Parameter blockers: by what is at fault.
  func mustRefuse(
    to version: QEMUVersion, _ options: [String] = [], blockers: [String: String], at location: SourceLocation = #_sourceLocation
  ) throws {
    let old = try pid()
    let answer = try plan(to: version, options)
    #expect(answer.code == 3, "\(answer)", sourceLocation: location)
    var found: [String: String] = [:]
    for blocker in answer["blockers"].array {
      found[blocker["what"].string ?? ""] = blocker["reason"].string ?? ""
      #expect(blocker["way_out"].string?.isEmpty == false, sourceLocation: location)
    }
    #expect(found == blockers, sourceLocation: location)
    #expect(try processes == [old] && pid() == old, sourceLocation: location)
  }
}

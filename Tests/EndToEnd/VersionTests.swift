import Lab
import Testing

extension EndToEnd {
  /// Every version to every other, in one life of one guest.
  @Suite struct Versions {
    /// Each ordered pair of the four once: a closed walk, so that it can begin anywhere.
    static let circuit: [QEMUVersion] = [
      .v7_2, .v5_2, .v7_2, .v10_0, .v7_2, .v11_1, .v5_2, .v10_0, .v5_2, .v11_1, .v10_0, .v11_1, .v7_2,
    ]

    @Test func `the circuit has every ordered pair once`() {
      let pairs = zip(Self.circuit, Self.circuit.dropFirst()).map { "\($0) \($1)" }
      #expect(pairs.count == 12 && Set(pairs).count == 12)
    }

    @Test(arguments: [
      ("file", VMConfiguration.Memory.file(), "shared"),
      ("anonymous", .anonymous, "copy"),
      // By the first upgrade its RAM becomes a named file, which 10.0 and later insist on.
      ("memfd", .memfd(), "shared"),
    ])
    func `twelve upgrades in a row`(_ kind: String, _ memory: VMConfiguration.Memory, _ strategy: String) throws {
      try leavingNothing {
        let vm = try LabVM(
          VMConfiguration("e2e-versions-\(kind)") {
            $0.version = Self.circuit[0]
            $0.memory = memory
            $0.words = ["fill=16"]
          })
        defer { vm.end() }
        let names = vm.publicEntries
        var holdings: [QEMUVersion: [String]] = [:]
        for (from, to) in zip(Self.circuit, Self.circuit.dropFirst()) {
          do {
            let answer = try vm.mustUpgrade(to: to, strategy: strategy, "\(from) → \(to)")
            // No version hears of all that an emulated guest writes while it is copied.
            #expect(answer.warnsOfStandingStill == (strategy == "copy"), "\(from) → \(to)")
          } catch { throw LabFailure("\(from) → \(to): \(error)") }
          #expect(vm.publicEntries == names)
          let pid = try vm.pid()
          // Whatever it came from, and however often: a QEMU of one version holds the same things.
          let held = ProcessFacts(pid).holdings
          let grown = differences(holdings[to, default: held], held)
          #expect(grown == [], "\(from) → \(to)")
          holdings[to] = holdings[to] ?? held
        }
        // The first and the last word of its command line: nothing is added each time.
        #expect(ProcessFacts(try vm.pid()).command.filter { $0.contains("moult-control") }.count == 2)
        vm.end()
      }
    }

    @Test func `memory of a memfd is copied from 10_0 on, and shared once it is a file`() throws {
      try leavingNothing {
        let vm = try LabVM(
          VMConfiguration("e2e-memfd") {
            $0.version = .v10_0
            $0.memory = .memfd()
            $0.words = ["fill=16"]
          })
        defer { vm.end() }
        for (to, strategy) in [(QEMUVersion.v11_1, "copy"), (.v7_2, "copy"), (.v10_0, "shared"), (.v11_1, "shared")] {
          try vm.mustUpgrade(to: to, strategy: strategy, "to \(to)")
        }
        vm.end()
      }
    }
  }
}

import Kernel
import Testing

@testable import Upgrade

/// moult is killed at any call, and `recover` brings the upgrade to an end.
@Suite struct RecoveryTests {
  /// Runs until moult is killed, lets `meanwhile` happen, and recovers.
  /// - Returns: nil if there is nothing to recover.
  static func recover(_ host: ModelHost, _ meanwhile: (ModelHost) -> Void = { _ in }) -> UpgradeReport? {
    _ = ExecutorTests.run(host)
    guard host.moultIsDead, host.stateExists, let record = host.record else { return nil }
    guard record.state != .probation || !record.holds else { return nil }
    meanwhile(host)
    host.reviveMoult()
    return Executor(recovering: record, begun: begun(host), host: host).recover()
  }

  static func begun(_ host: ModelHost) -> Set<StepName> { Set(host.journal.filter { $0.phase == .begin }.map(\.step)) }

  static func calls(_ kind: FaultMatrixTests.Kind) -> [String] {
    let host = FaultMatrixTests.host(kind, [:])
    _ = ExecutorTests.run(host)
    return host.calls
  }

  @Test(arguments: FaultMatrixTests.Kind.allCases, [true, false])
  func nothingIsLostWhenMoultIsKilled(kind: FaultMatrixTests.Kind, after: Bool) {
    for (index, call) in Self.calls(kind).enumerated() {
      let host = FaultMatrixTests.host(kind, [index: .killMoult(after: after)])
      guard let report = Self.recover(host) else {
        #expect(host.violations == [], "\(index) \(call)")
        continue
      }
      let wrong = Ending(host: host, report: report).faultsFound(single: true, recovered: true)
      #expect(wrong == [], "\(kind): moult killed \(after ? "after" : "before") call \(index) \(call) → \(report.outcome.rawValue); notes \(report.notes)")
    }
  }

  /// While no moult is there, a QEMU dies.
  @Test(arguments: [FaultMatrixTests.Kind.plain, .network, .served], [Side.old, .new]) func aQEMUDiesMeanwhile(kind: FaultMatrixTests.Kind, side: Side) {
    for (index, call) in Self.calls(kind).enumerated() {
      for after in [true, false] {
        let host = FaultMatrixTests.host(kind, [index: .killMoult(after: after)])
        guard let report = Self.recover(host, { $0.kill(side) }) else { continue }
        let wrong = Ending(host: host, report: report).faultsFound(single: false, recovered: true)
        #expect(wrong == [], "\(kind): moult killed at call \(index) \(call), then the \(side.rawValue) QEMU → \(report.outcome.rawValue); notes \(report.notes)")
      }
    }
  }

  /// moult is killed, and so is the moult that recovers, and maybe a QEMU then; a third one comes.
  @Test(arguments: [(FaultMatrixTests.Kind.hold, Side?.none), (.hold, .old), (.hold, .new), (.network, nil), (.network, .old), (.network, .new), (.served, .old)])
  func theRecoveryIsKilledToo(kind: FaultMatrixTests.Kind, victim: Side?) {
    for (index, call) in Self.calls(kind).enumerated() {
      for second in (index + 1)..<(index + 40) {
        let host = FaultMatrixTests.host(kind, [index: .killMoult(after: true), second: .killMoult(after: true)])
        guard var report = Self.recover(host) else { continue }
        if host.moultIsDead {
          guard host.stateExists, let record = host.record, record.state != .probation || !record.holds else { continue }
          if let victim { host.kill(victim) }
          host.reviveMoult()
          report = Executor(recovering: record, begun: Self.begun(host), host: host).recover()
        }
        let wrong = Ending(host: host, report: report).faultsFound(single: victim == nil, recovered: true)
        #expect(wrong == [], "\(kind): moult killed after \(index) \(call) and \(second), then \(String(describing: victim)) → \(report.outcome.rawValue); notes \(report.notes)")
      }
    }
  }

  /// The upgrade is being undone when the old QEMU dies: as long as the new one, which has the whole guest, has
  /// not been ended, the guest goes on there.
  @Test func theOldQEMUDiesWhileTheUpgradeIsUndone() throws {
    let interrupted = try #require(ExecutorTests.goldenCalls.firstIndex(of: "journal exchange done"))
    func recover(_ faults: [Int: ModelHost.Fault]) -> (host: ModelHost, report: UpgradeReport?) {
      let host = FaultMatrixTests.host(.plain, faults.merging([interrupted: .killMoult(after: true)]) { $1 })
      return (host, Self.recover(host))
    }
    let undisturbed = recover([:]).host.calls
    let end = try #require(undisturbed.firstIndex(of: "end new"))
    for index in (interrupted + 1)..<end {
      let (host, report) = recover([index: .kill(.old, after: false)])
      #expect(report?.outcome == .committed && host.new?.runs == true && host.violations == [], "\(index) \(undisturbed[index]): \(report?.notes ?? [])")
      #expect(report.map { Ending(host: host, report: $0).faultsFound(single: false, recovered: true) } == [])
    }
  }

  /// Until the new QEMU is given the connections everything is taken back; what clients sent since, the old one would not hear of.
  @Test func theUpgradeGoesOnOnceTheNewQEMUMayHaveHeardClients() throws {
    let calls = Self.calls(.network)
    let given = try #require(calls.firstIndex { $0.hasPrefix("rewire ") }), runs = try #require(calls.firstIndex(of: "journal resume done"))
    for index in 0..<runs {
      let host = FaultMatrixTests.host(.network, [index: .killMoult(after: true)])
      guard let report = Self.recover(host) else { continue }
      #expect(report.outcome == (index < given ? .failed : .committed), "moult killed after call \(index) \(calls[index])")
      // Told to go on it could have been continued by somebody else.
      if index >= given { #expect(!host.calls[(index + 1)...].contains("thaw old"), "\(calls[index])") }
    }
  }

  /// It has never run the guest: then there is still the way back.
  @Test func anUpgradeThatCannotGoOnIsTakenBack() throws {
    let interrupted = try #require(Self.calls(.network).firstIndex(of: "journal verify done"))
    for call in ["freeze old", "rewire", "journal resume begin"] {
      let undisturbed = FaultMatrixTests.host(.network, [interrupted: .killMoult(after: true)])
      _ = Self.recover(undisturbed)
      let index = try #require(undisturbed.calls.indices.first { undisturbed.calls[$0].hasPrefix(call) && $0 > interrupted })
      let host = FaultMatrixTests.host(.network, [interrupted: .killMoult(after: true), index: .fails(.ioError)])
      let report = try #require(Self.recover(host))
      #expect(report.outcome == .failed && host.old.runs, "\(call) fails → \(report.outcome): \(report.notes)")
      #expect(Ending(host: host, report: report).faultsFound(single: true, recovered: true) == [])
    }
  }

  /// Its monitor is public from the exchange on. It wrote to the VM's disks, or may have: the old QEMU must not go on,
  /// at whichever of the recovery's calls that happens, and whatever else goes wrong.
  @Test(arguments: [FaultMatrixTests.Kind.plain, .network], ["journal exchange done", "journal verify done", "journal resume begin"])
  func anotherProgramContinuesTheNewQEMUAndItDies(kind: FaultMatrixTests.Kind, point: String) throws {
    let interrupted = try #require(Self.calls(kind).firstIndex(of: point))
    let undisturbed = FaultMatrixTests.host(kind, [interrupted: .killMoult(after: true)])
    _ = Self.recover(undisturbed)
    var happened = 0
    for index in (interrupted + 1)..<undisturbed.calls.count {
      for other in [ModelHost.Fault?.none, .fails(.timedOut)] {
        var faults: [Int: ModelHost.Fault] = [interrupted: .killMoult(after: true), index: .continueAndKillNew]
        // The call before it: a question that gets no answer, say.
        if let other, index > interrupted + 1 { faults[index - 1] = other }
        let host = FaultMatrixTests.host(kind, faults)
        let report = try #require(Self.recover(host))
        guard host.new?.hasRun == true, host.new?.isAlive == false else { continue }
        happened += 1
        let what = "\(index) \(undisturbed.calls[index]), \(other.map { "\($0)" } ?? "nothing") before"
        #expect(report.outcome == .needsPerson && !host.old.runs && host.violations == [], "\(what): \(report.notes) \(host.violations)")
        // What it reported can be heard once only.
        host.new?.unheardResume = nil
        guard host.stateExists, let record = host.record else { continue }
        host.reviveMoult()
        let again = Executor(recovering: record, begun: Self.begun(host), host: host).recover()
        #expect(again.outcome == .needsPerson && !host.old.runs && host.violations == [], "\(what), recovered again: \(again.notes) \(host.violations)")
      }
    }
    #expect(happened > 2)
  }

  @Test func itDidSoBeforeAnybodyCameToRecover() throws {
    for point in ["journal exchange done", "journal verify done"] {
      let interrupted = try #require(Self.calls(.plain).firstIndex(of: point))
      let host = FaultMatrixTests.host(.plain, [interrupted: .killMoult(after: true)])
      let report = try #require(Self.recover(host) { $0.continueAndKillNew() })
      #expect(report.outcome == .needsPerson && !host.old.runs && host.violations == [], "\(point): \(report.notes)")
    }
  }

  /// No recovery is at work: the upgrade itself hears of it.
  @Test func itDoesSoUnderTheUpgrade() {
    for (index, call) in Self.calls(.plain).enumerated() {
      let host = FaultMatrixTests.host(.plain, [index: .continueAndKillNew])
      let report = ExecutorTests.run(host)
      guard host.new?.hasRun == true, host.new?.isAlive == false else { continue }
      #expect(report.outcome == .needsPerson && !host.old.runs && host.violations == [], "\(index) \(call): \(report.notes) \(host.violations)")
    }
  }

  /// A client is heard by nobody until it is: that is not an end.
  @Test func connectionsThatCannotBeGivenBackAreGivenBackByTheNextRecovery() throws {
    let interrupted = try #require(Self.calls(.network).firstIndex(of: "journal exchange done"))
    let undisturbed = FaultMatrixTests.host(.network, [interrupted: .killMoult(after: true)])
    _ = Self.recover(undisturbed)
    let given = try #require(undisturbed.calls.indices.first { $0 > interrupted && undisturbed.calls[$0] == "end diversion" })
    for times in 1...2 {
      let faults = Dictionary(uniqueKeysWithValues: (0..<times).map { (given + $0, ModelHost.Fault.fails(.ioError)) })
      let host = FaultMatrixTests.host(.network, faults.merging([interrupted: .killMoult(after: true)]) { $1 })
      let report = try #require(Self.recover(host))
      if times == 1 {
        #expect(report.outcome == .failed && host.old.runs && !host.isDiverted, "\(report.notes)")
        continue
      }
      #expect(report.outcome == .needsPerson && host.old.runs && host.isDiverted, "\(report.notes)")
      #expect(report.notes.contains { $0.contains("moult recover") }, "\(report.notes)")
      // A guest that runs unheard is better than one that stands still.
      #expect(host.violations.count == 1 && host.violations[0].contains("without its connections"), "\(host.violations)")
      host.violations = []
      let record = try #require(host.record)
      host.reviveMoult()
      let again = Executor(recovering: record, begun: Self.begun(host), host: host).recover()
      #expect(again.outcome == .failed && host.old.runs && !host.isDiverted && host.violations == [], "\(again.notes) \(host.violations)")
      #expect(Ending(host: host, report: again).faultsFound(single: false, recovered: true) == [])
    }
  }
}

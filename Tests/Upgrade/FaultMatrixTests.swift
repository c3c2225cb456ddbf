import Kernel
import SystemPackage
import Testing

@testable import Upgrade

/// Everything that can go wrong, at every call.
@Suite struct FaultMatrixTests {
  /// Requests whose runs differ in the calls they make.
  enum Kind: String, CaseIterable, Sendable {
    case plain, copy, live, hold, probation, unit, network, served, exports, directories
    var request: UpgradeRequest {
      switch self {
      case .plain, .unit, .network, .served, .exports, .directories: Fixture.request()
      case .copy, .live: Fixture.request(memory: .copy)
      case .hold: Fixture.request(hold: true)
      case .probation: Fixture.request(probation: 5)
      }
    }
    var observation: Observation {
      var observation = self == .network ? Fixture.networked() : self == .served ? Fixture.served() : Fixture.observation()
      if self == .directories { return FileServerTests.observation() }
      if self == .exports {
        observation = Fixture.vsock()
        observation.network.exports = Fixture.exports
      }
      if self == .probation {
        observation = Fixture.observation(Fixture.arguments + Fixture.agent)
        observation.live.chardevs.append("qga0")
        observation.live.anonymousDevices.append("virtserialport")
        observation.names.append(Fixture.name(.socket, "/run/vm1/qga.sock", inode: 13))
      }
      observation.usesKVM = self == .live
      if self == .unit { observation.supervision = .notified(unit: "vm1.service") }
      return observation
    }
  }

  static let faults: [ModelHost.Fault] = [
    .fails(.ioError), .fails(.noSpace), .fails(.timedOut), .happensAndFails(.timedOut), .happensAndFails(.connectionReset),
    .interrupt(after: false), .interrupt(after: true),
    .kill(.old, after: false), .kill(.old, after: true), .kill(.new, after: false), .kill(.new, after: true),
  ]

  /// Not every call can end in every way: these either do what they say or fail and leave nothing.
  static func isPossible(_ fault: ModelHost.Fault, at call: String) -> Bool {
    switch fault {
    case .happensAndFails: !["lock", "keep runtime", "spawn"].contains(call) && !call.hasPrefix("unlock") && !call.hasPrefix("await") && !call.hasPrefix("is exchanged")
    case .fails: !call.hasPrefix("unlock")
    default: true
    }
  }

  private static let plans = Dictionary(uniqueKeysWithValues: Kind.allCases.map { ($0, Fixture.plan($0.observation, $0.request)) })

  static func host(_ kind: Kind, _ faults: [Int: ModelHost.Fault], whole: Bool = true) -> ModelHost {
    let host = ModelHost(plans[kind] ?? Fixture.plan(kind.observation, kind.request), faults: faults)
    host.streamIsWhole = whole
    return host
  }

  @Test(arguments: Kind.allCases, [true, false]) func oneThingGoesWrong(kind: Kind, streamIsWhole: Bool) {
    let undisturbed = Self.host(kind, [:])
    _ = ExecutorTests.run(undisturbed)
    var cases = 0
    for (index, call) in undisturbed.calls.enumerated() {
      for fault in Self.faults where Self.isPossible(fault, at: call) {
        let host = Self.host(kind, [index: fault], whole: streamIsWhole)
        let report = ExecutorTests.run(host)
        let wrong = Ending(host: host, report: report).faultsFound(single: true)
        #expect(wrong == [], "\(kind): call \(index) \(call): \(fault) → \(report.outcome.rawValue); notes \(report.notes); failure \(report.failure.map { "\($0)" } ?? "none")")
        cases += 1
      }
    }
    #expect(cases > 500)
  }

  /// Nobody may hear "committed", or "failed" and no more, of a guest that has lost a disk: until the last look.
  @Test(arguments: [(Kind.served, "ended back ends new"), (.directories, "file servers new")])
  func aBackEndThatEndsIsMissed(kind: Kind, look: String) throws {
    let calls = RecoveryTests.calls(kind)
    let lastLook = try #require(calls.lastIndex(of: look))
    for (index, call) in calls.enumerated() {
      for fault in [ModelHost.Fault.endBackEnd, .killMoult(after: true)] {
        var faults = [index: fault]
        // Killed one call later, moult leaves it to whoever recovers.
        if fault != .endBackEnd, index > 0 { faults[index - 1] = .endBackEnd }
        let host = Self.host(kind, faults)
        let report = fault == .endBackEnd ? ExecutorTests.run(host) : RecoveryTests.recover(host)
        guard let report else { continue }
        let what: Comment = "\(index) \(call): \(fault) → \(report.outcome.rawValue): \(report.notes)"
        #expect(Ending(host: host, report: report).faultsFound(single: true, recovered: fault != .endBackEnd) == [], what)
        // Killed before anything was done, moult has left no word of them.
        #expect(index > lastLook || kind == .served && host.record?.rewiring == nil || report.outcome == .needsPerson, what)
      }
    }
  }

  /// Whose death ends the VM, by the call at which it dies: the old QEMU's until the new one has the guest, the
  /// new one's once it has run.
  @Test(arguments: [Side.old, .new]) func deathIsSurvivedExactlyWhereTheOtherHasTheGuest(side: Side) {
    for (index, call) in ExecutorTests.goldenCalls.enumerated() {
      let host = Self.host(.plain, [index: .kill(side, after: false)])
      let report = ExecutorTests.run(host)
      // From the guest's stop on the old one sends the rest by itself: the model's has sent it at once.
      let loaded = (ExecutorTests.goldenCalls.lastIndex(of: "await old pass|stopped") ?? 0) + 1
      let ran = ExecutorTests.goldenCalls.firstIndex(of: "await new RESUME") ?? 0
      let launched = ExecutorTests.goldenCalls.firstIndex(of: "spawn") ?? 0
      let expected: UpgradeReport.Outcome =
        switch side {
        case .old: index < loaded ? .needsPerson : .committed
        case .new: index <= launched ? .committed : index < ran ? .failed : .needsPerson
        }
      #expect(report.outcome == expected, "\(index) \(call): \(report.notes)")
    }
  }

  @Test(arguments: [Kind.plain, .hold, .network]) func twoThingsGoWrong(kind: Kind) {
    let undisturbed = Self.host(kind, [:])
    _ = ExecutorTests.run(undisturbed)
    let firsts: [ModelHost.Fault] = [.fails(.ioError), .kill(.old, after: true), .kill(.new, after: true)]
    let seconds = firsts + [.happensAndFails(.timedOut)]
    var failures: Set<String> = []
    for (first, firstCall) in undisturbed.calls.enumerated() {
      for fault in firsts where Self.isPossible(fault, at: firstCall) {
        // Thirty calls on, every undoing is over.
        let alone = Self.host(kind, [first: fault])
        _ = ExecutorTests.run(alone)
        for second in (first + 1)...(first + 30) {
          for other in seconds {
            if second < alone.calls.count, !Self.isPossible(other, at: alone.calls[second]) { continue }
            let host = Self.host(kind, [first: fault, second: other])
            host.toleratesLostNames = true
            let report = ExecutorTests.run(host)
            let wrong = Ending(host: host, report: report).faultsFound(single: false)
            if !wrong.isEmpty {
              failures.insert("\(firstCall) \(fault), \(second < host.calls.count ? host.calls[second] : "end") \(other) → \(report.outcome.rawValue): \(wrong); notes \(report.notes)")
            }
          }
        }
      }
    }
    #expect(failures.isEmpty, "\(failures.count): \(failures.sorted().prefix(12).joined(separator: "\n"))")
  }
}

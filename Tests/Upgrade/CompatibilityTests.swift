import QEMU
import Testing

@testable import Upgrade

@Suite struct StateFormatTests {
  static let certain = VMStateDump.Loss(device: "nvme", what: "version 1 is saved, up to 0 is loaded", isCertain: true)
  static let possible = VMStateDump.Loss(device: "isa-i8259", what: "subsection i8259/ltim is not known there", isCertain: false)

  static func judged(_ formats: StateFormats, hold: Bool = false, probation: Double? = nil) -> UpgradePlan {
    var plan = Fixture.plan(
      Fixture.observation(), Fixture.request(hold: hold, probation: probation),
      target: Fixture.target(QEMUVersion(major: 10, minor: 0), machines: ["pc-q35-7.2"]))
    plan.warnings = []
    plan.judge(formats)
    return plan
  }

  @Test func whatCannotBeLoadedIsRefused() {
    let plan = Self.judged(StateFormats(forward: [Self.certain]))
    #expect(plan.blockers.map(\.option) == ["device nvme"])
    #expect(plan.blockers.map(\.reason) == ["QEMU 10.0.0 does not load the state that QEMU 7.2.22 saves of it: version 1 is saved, up to 0 is loaded"])
    #expect(plan.warnings == [])
  }

  @Test func whatCannotBeLoadedOnTheWayBackBarsAPromisedOne() {
    let free = Self.judged(StateFormats(backward: [Self.certain]))
    #expect(free.blockers == [] && free.warnings.count == 1 && free.warnings[0].hasPrefix("the way back is not sound: QEMU 7.2.22 does not load"))
    #expect(Self.judged(StateFormats(backward: [Self.certain]), hold: true).blockers.map(\.option) == ["--hold"])
    #expect(Self.judged(StateFormats(backward: [Self.certain]), probation: 5).blockers.map(\.option) == ["--probation"])
  }

  /// The last column: what is refused with `--hold`, from one version to the other.
  @Test(arguments: [
    (1, QEMUVersion(major: 7, minor: 2), QEMUVersion(major: 10, minor: 0), []), (2, QEMUVersion(major: 7, minor: 2), QEMUVersion(major: 8, minor: 1), []),
    (2, QEMUVersion(major: 7, minor: 2), QEMUVersion(major: 8, minor: 2), ["--hold"]), (2, QEMUVersion(major: 8, minor: 2), QEMUVersion(major: 10, minor: 0), []),
    (3, QEMUVersion(major: 10, minor: 0), QEMUVersion(major: 7, minor: 2), ["device user networks"]),
  ])
  func `several user networks are not taken to a QEMU that has one section for all`(
    _ count: Int, _ from: QEMUVersion, _ to: QEMUVersion, _ refused: [String]
  ) {
    var observation = Fixture.observation()
    observation.version = from
    observation.live.networkText = (0..<count).map { "n\($0): index=0,type=user,net=10.0.2.0,restrict=on" }.joined(separator: "\n")
    var plan = Fixture.plan(observation, Fixture.request(hold: true), target: Fixture.target(to, machines: ["pc-q35-7.2"]))
    plan.blockers = []
    plan.judge(StateFormats())
    #expect(plan.blockers.map(\.option) == refused)
  }

  @Test func whatOnlyMayBeLostIsOneWarningEachWay() {
    let many = (0..<8).map { VMStateDump.Loss(device: "d\($0)", what: "w", isCertain: false) }
    let plan = Self.judged(StateFormats(forward: [Self.possible], backward: many), hold: true)
    #expect(plan.blockers == [] && plan.warnings.count == 2)
    #expect(plan.warnings[0].contains("isa-i8259: subsection i8259/ltim is not known there"))
    #expect(plan.warnings[1].contains("d5: w; and 2 more"))
  }

  @Test func aBinaryThatDoesNotAnswerIsAWarning() {
    let plan = Self.judged(StateFormats(unknown: "it ended"), hold: true)
    #expect(plan.blockers == [] && plan.warnings.count == 1 && plan.warnings[0].contains("it ended"))
  }

  @Test func whatTheTrialFindsIsRefused() {
    var plan = Fixture.plan()
    plan.judge(Trial.skipped(why: "no room"))
    plan.judge(Trial.done(differences: [], maskedFeatures: ["avx2"], adjusted: [], milliseconds: 1))
    #expect(plan.blockers == [] && plan.warnings.contains { $0.contains("avx2") })
    plan.judge(Trial.done(differences: ["vCPUs: 1 here, 2 there"], maskedFeatures: [], adjusted: [], milliseconds: 1))
    #expect(plan.blockers.map(\.reason) == ["the new QEMU's machine is not the VM's: vCPUs: 1 here, 2 there"])
  }

  @Test(arguments: [(MemoryStrategy.shared, false), (.copy, false), (.copy, true)])
  func aPauseHasARange(strategy: MemoryStrategy, stopsGuest: Bool) {
    var decision = MemoryDecision(strategy: strategy, why: "", against: [:], extraBytes: 0)
    decision.stopsGuest = stopsGuest
    let (small, large) = (PauseEstimate.of(decision, copied: 256 << 20), PauseEstimate.of(decision, copied: 64 << 30))
    #expect(small.least < small.most && !small.basis.isEmpty)
    // Only RAM that is copied while the guest stands still makes the pause longer.
    #expect((large.most > small.most) == stopsGuest)
  }
}

import Kernel
import QEMU
import SystemPackage
import Testing

@testable import Upgrade

/// What the executor does when nothing goes wrong, and when one particular thing does.
@Suite struct ExecutorTests {
  static func run(_ host: ModelHost) -> UpgradeReport {
    Executor(plan: host.plan, host: host, began: Instant(nanoseconds: 0)) { _ in }.run()
  }

  @Test func theFixtureIsUpgradable() {
    #expect(Fixture.plan().blockers == [])
  }

  @Test func theSequenceOfCallsIsThis() {
    let host = ModelHost(Fixture.plan())
    let report = Self.run(host)
    #expect(report.outcome == .committed)
    #expect(report.notes == [])
    #expect(host.violations == [])
    #expect(host.calls == Self.goldenCalls)
    #expect(report.steps.map(\.name) == host.plan.steps.map(\.name))
    #expect(report.steps.allSatisfy { $0.outcome == "done" && $0.end >= $0.start })
  }

  @Test func theTwinsMustBeAlike() {
    let host = ModelHost(Fixture.plan())
    host.differingDevice = "blk0"
    let report = Self.run(host)
    #expect(report.outcome == .failed)
    #expect(report.failure?.step == .compare)
    #expect(report.failure?.failure.reason?.contains("device blk0: e1000 here, virtio-blk-pci there") == true)
    #expect(Ending(host: host, report: report).faultsFound(single: true) == [])
    // Nothing of the old QEMU was touched.
    #expect(!host.calls.contains { $0.hasPrefix("old ") })
  }

  @Test func theGuestMustSeeTheSameCPU() {
    let host = ModelHost(Fixture.plan())
    host.lacksFeature = true
    let report = Self.run(host)
    #expect(report.outcome == .failed && report.failure?.step == .compare)
    #expect(report.failure?.failure.reason?.contains("CPU features that the guest would lose: sse3") == true)
    #expect(Ending(host: host, report: report).faultsFound(single: true) == [])
  }

  @Test func gainedFeaturesCanBeSwitchedOff() throws {
    let report = Self.run(ModelHost(Fixture.plan()))
    #expect(report.gainedFeatures == [])
    let plan = Fixture.plan(Fixture.observation(Fixture.arguments + ["-cpu", "max"]))
    let masked = try #require(plan.masking(["avx2"]))
    #expect(LaunchPlan.arguments(masked).contains("max,avx2=off"))
    #expect(masked.masking(["avx2"]) == nil, "once is enough")
    #expect(plan.masking([]) == nil)
    #expect(Fixture.plan().masking(["avx2"]) == nil, "there is no -cpu to say it in")
  }

  /// Each pass over a busy guest's RAM raises the limit of the pause, from the fifth on, up to a second.
  @Test(arguments: [(3, []), (4, []), (5, [40]), (8, [40, 80, 160, 320]), (60, [40, 80, 160, 320, 640, 1000])])
  func aBusyGuestIsGivenALongerPause(passes: Int, limits: [Int]) {
    let host = ModelHost(Fixture.livePlan)
    host.passes = passes
    let report = Self.run(host)
    #expect(report.outcome == .committed && host.violations == [])
    let prefix = "old migrate-set-parameters downtime-limit="
    #expect(host.calls.filter { $0.hasPrefix(prefix) }.map { String($0.dropFirst(prefix.count)) } == (["20"] + limits.map(String.init)))
  }

  @Test func aGuestThatIsTooBusyStaysWhereItIs() {
    let host = ModelHost(Fixture.livePlan)
    host.passes = 201
    let report = Self.run(host)
    #expect(report.outcome == .failed)
    #expect(report.failure?.failure.reason?.contains("201 passes did not suffice") == true)
    #expect(Ending(host: host, report: report).faultsFound(single: true) == [])
  }

  /// An emulated guest stands still before anything is sent: what it wrote while somebody let it run could be lost.
  @Test func aGuestThatIsContinuedWhileItIsCopiedStaysWhereItIs() {
    for plan in [Fixture.plan(Fixture.observation(), Fixture.request(memory: .copy)), Fixture.plan(Fixture.withScreen())] {
      let host = ModelHost(plan)
      host.isContinuedMeanwhile = true
      let report = Self.run(host)
      #expect(host.calls.firstIndex(of: "old stop").map { host.calls[$0...].contains("start migration") } == true)
      #expect(report.outcome == .failed && host.violations == [] && host.new?.hasRun != true)
      #expect(report.failure?.failure.reason?.contains("continued the old QEMU") == true)
      #expect(Ending(host: host, report: report).faultsFound(single: true) == [])
    }
  }

  /// A panic in probation ends in the new QEMU: the way back is an upgrade of its own.
  @Test func anUnhealthyGuestIsReported() {
    let host = ModelHost(Fixture.plan(Fixture.observation(), Fixture.request(probation: 5)))
    host.isUnhealthy = true
    let report = Self.run(host)
    #expect(report.outcome == .failed)
    #expect(report.failure?.step == .probation)
    #expect(host.keptRuntimes == 1)
    #expect(Ending(host: host, report: report).faultsFound(single: true) == [])
  }

  /// What the VM's owner had set for migrations of their own is off during this one, and on again after it.
  @Test func foreignMigrationSettingsAreRestored() {
    var observation = Fixture.observation()
    observation.live.migrationParameters["tls-creds"] = "tls0"
    observation.live.migrationParameters["mode"] = "cpr-reboot"
    let host = ModelHost(Fixture.plan(observation), faults: [36: .fails(.ioError)])
    let report = Self.run(host)
    #expect(report.outcome == .failed)
    #expect(host.old.capabilities["auto-converge"] == true)
    #expect(host.old.parameters["tls-creds"] == "tls0")
    #expect(host.old.parameters["mode"] == "cpr-reboot")
  }

  @Test func aSnapshotTakenMeanwhileSendsTheGuestBack() {
    let host = ModelHost(Fixture.plan())
    host.overlay = "/var/lib/vm1/overlay.qcow2"
    let report = Self.run(host)
    #expect(report.outcome == .failed && host.old.runs && !host.isAlive(.new) && host.violations == [])
    #expect(report.failure?.failure.reason?.contains("overlay.qcow2") == true)
  }

  @Test(arguments: [false, true]) func anOldQEMUThatSomebodyElseContinuedKeepsTheGuest(isStoppedAgain: Bool) {
    let host = ModelHost(Fixture.plan())
    host.isMeddledWith = true
    host.isStoppedAgain = isStoppedAgain
    let report = Self.run(host)
    #expect(report.outcome == .failed && host.old.runs && host.new?.hasRun == false && host.violations == [])
  }

  /// It would run in the new QEMU, or its stop would be waited for in vain.
  @Test func aGuestThatItsOwnerStoppedSinceTheObservationIsLeftAsItIs() {
    let host = ModelHost(Fixture.plan())
    host.old.runState = .paused
    let report = Self.run(host)
    #expect(report.outcome == .failed && host.new?.hasRun != true && host.violations == [])
    #expect(report.failure?.failure.reason?.contains("changed its run state") == true)
    #expect(!host.calls.contains("old cont"))
  }

  /// What the back end of a disk finishes first belongs to the pause, and the old QEMU's connection ends as late as can be.
  @Test func aServedDiskIsGivenOverRightBeforeTheGuestGoesOn() throws {
    let host = FaultMatrixTests.host(.served, [:])
    let report = Self.run(host)
    #expect(report.outcome == .committed && host.violations == [])
    let ended = try #require(host.calls.firstIndex(of: "end predecessors"))
    #expect(host.calls[ended + 1].hasPrefix("new cont"), "\(host.calls[ended...])")
    let plain = FaultMatrixTests.host(.served, [:])
    plain.stoodStill = 0
    #expect(try #require(report.pauseMilliseconds) - #require(Self.run(plain).pauseMilliseconds) == 7)
  }

  static let goldenCalls = [
    "lock",
    "guardian ready=false",
    "save under-way new=0 resumed=false",
    "journal lock done",
    "journal stage begin",
    "make stage /run/shared/.moult-u1",
    "make stage /run/.moult-u1-vm1",
    "journal stage done",
    "journal launch begin",
    "save under-way new=200 resumed=false",
    "spawn",
    "oom score 0", "oom score 1000",
    "greet",
    "journal launch done",
    "journal compare begin",
    "live new", "guest view new", "guest view old",
    "match threads",
    "finish stage /run/shared/.moult-u1",
    "finish stage /run/.moult-u1-vm1",
    "save under-way new=200 resumed=false",
    "journal compare done",
    "journal migrate begin",
    "guardian ready=true",
    "storage old",
    "old query-status",
    "old migrate-set-capabilities",
    "new migrate-set-capabilities",
    "old migrate-set-parameters downtime-limit=20",
    "start migration",
    "await old active|stopped",
    "journal migrate done",
    "journal pause begin",
    "await old pass|stopped",
    "await old pass|stopped",
    "journal pause done",
    "journal switch begin",
    "await new completed",
    "await old completed",
    "storage old",
    "freeze old",
    "journal switch done",
    "journal exchange begin",
    "exchange /run/shared/vm1.serial",
    "exchange /run/vm1",
    "journal exchange done",
    "journal verify begin",
    "is exchanged /run/shared/vm1.serial",
    "is exchanged /run/vm1",
    "journal verify done",
    "journal resume begin",
    "new cont",
    "await new RESUME",
    "journal resume done",
    "journal retire begin",
    "save under-way new=200 resumed=true",
    "oom score 0", "verify public monitor",
    "end old",
    "settle",
    "remove stage /run/shared/.moult-u1",
    "remove stage /run/.moult-u1-vm1",
    "new migrate-set-capabilities",
    "new migrate-set-parameters downtime-limit=300",
    "save probation new=200 resumed=true",
    "journal retire done",
    "journal commit begin",
    "unlock undone=false",
  ]
}

@Suite struct PauseTests {
  @Test(arguments: [
    (what: "as QEMU tells it", told: 3_500, heard: 4.0, pause: 3.5),
    (what: "read late", told: 3_500, heard: 400.0, pause: 3.5),
    (what: "the clock was set back", told: -3_600_000_000, heard: 4.0, pause: 4.0),
    (what: "the clock was set forward", told: 3_600_000_000, heard: 4.0, pause: 4.0),
    (what: "set back by just the pause", told: -1, heard: 4.0, pause: 4.0),
  ])
  func theClockIsSet(what: String, told: Int64, heard: Double, pause: Double) {
    let stopped = QMPEvent(name: "STOP", data: .null, microseconds: 1_000_000_000)
    var resumed = QMPEvent(name: "RESUME", data: .null, microseconds: 1_000_000_000 + told)
    resumed.heard = stopped.heard.adding(seconds: heard / 1000)
    #expect(Executor.pause(from: stopped, to: resumed) == pause, "\(what)")
  }
}

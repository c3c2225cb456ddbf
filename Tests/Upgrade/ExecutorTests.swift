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

  static let goldenCalls = [
    "lock",
    "save under-way new=0 resumed=false",
    "journal lock done",
    "journal stage begin",
    "make stage /run/shared/.moult-u1",
    "make stage /run/.moult-u1-vm1",
    "journal stage done",
    "journal launch begin",
    "spawn",
    "save under-way new=200 resumed=false",
    "greet",
    "journal launch done",
    "journal compare begin",
    "live new",
    "match threads",
    "finish stage /run/shared/.moult-u1",
    "finish stage /run/.moult-u1-vm1",
    "save under-way new=200 resumed=false",
    "journal compare done",
    "journal migrate begin",
    "old migrate-set-capabilities",
    "new migrate-set-capabilities",
    "old migrate-set-parameters downtime-limit=20",
    "start migration",
    "await old active|pre-switchover",
    "journal migrate done",
    "journal pause begin",
    "await old pass|pre-switchover",
    "await old pass|pre-switchover",
    "journal pause done",
    "journal switch begin",
    "old migrate-continue",
    "await new completed",
    "await old completed",
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
    "verify public monitor",
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

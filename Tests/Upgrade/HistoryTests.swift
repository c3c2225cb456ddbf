import Kernel
import QEMU
import Testing

@testable import Upgrade

@Suite struct HistoryTests {
  static let secrets: [(argument: String, shown: String)] = [
    ("secret,id=s0,data=hunter2", "secret,id=s0,data=***"),
    ("secret,data=a,,b,,c,id=s0", "secret,data=***,id=s0"),
    ("secret,id=s0,data=ends,,", "secret,id=s0,data=***"),
    ("secret_keyring,id=s0,data=x", "secret_keyring,id=s0,data=***"),
    ("secret,id=s0,file=/etc/secret", "secret,id=s0,file=/etc/secret"),
    ("qom-type=secret,id=s0,data=x", "qom-type=secret,id=s0,data=***"),
    (#"{"qom-type":"secret","id":"s0","data":"x"}"#, #"{"data":"***","id":"s0","qom-type":"secret"}"#),
    (#"json:{"driver":"https","file":{"password":"x"}}"#, #"json:{"driver":"https","file":{"password":"***"}}"#),
    ("{not json data=x", "***"),
    ("port=5930,password=x,addr=::1", "port=5930,password=***,addr=::1"),
    ("unix:/run/vnc.sock,password-secret=s0", "unix:/run/vnc.sock,password-secret=s0"),
    ("file.password=x,file.driver=ssh", "file.password=***,file.driver=ssh"),
    ("https://user:word@host/disk.img", "https://***@host/disk.img"),
    ("rng-random,id=r,filename=/dev/urandom", "rng-random,id=r,filename=/dev/urandom"),
    ("file=/d,,password=x", "file=/d,,password=***"),
    ("", ""),
  ]

  @Test(arguments: secrets) func noSecretIsKept(argument: String, shown: String) {
    let found = Redaction.of(argument)
    // The members of an object come in no order of their own.
    if argument.contains("{"), argument.contains("secret") {
      #expect(!found.contains("\"x\"") && found.contains("***"))
    } else {
      #expect(found == shown)
    }
  }

  static func report(_ outcome: UpgradeReport.Outcome) -> UpgradeReport {
    UpgradeReport(
      outcome: outcome, pauseMilliseconds: 4, totalMilliseconds: 300, extraMemoryBytes: nil, new: nil,
      steps: [.init(name: .lock, start: 0, end: 1, outcome: "done")],
      failure: outcome == .failed ? (.switch, Failure(step: "migrate", subject: "", reason: "no")) : nil, notes: ["a note"])
  }

  @Test func theLastOfEachVMAreRemembered() throws {
    let scratch = Scratch()
    let history = History(scratch.state)
    #expect(try history.entries().isEmpty)
    var plan = Fixture.plan()
    for number in 100..<(100 + History.mostOfOne + 5) {
      plan.id = "u\(number)"
      try history.add(HistoryEntry(plan, Self.report(number % 2 == 0 ? .committed : .failed), takesBack: false))
    }
    plan.key = "another"
    plan.id = "u000"
    try history.add(HistoryEntry(plan, Self.report(.committed), takesBack: true))
    let entries = try history.entries()
    #expect(entries.count == History.mostOfOne + 1)
    #expect(entries.first?.id == "u000" && entries.first?.outcome == "rolled-back")
    #expect(entries[1].id == "u105" && entries[1].error?.message == "migrate: no")
    #expect(try history.entry("../u110") == nil && history.entry("nothing") == nil)
    // Damaged ones are passed over.
    try history.put("report.json", Array("{".utf8), of: "u110")
    #expect(try history.entries().count == History.mostOfOne)
  }

  /// As documented, and as it was before.
  @Test func theTimesOfStepsHaveTheirUnit() throws {
    let (history, plan) = (History(Scratch().state), Fixture.plan())
    try history.add(HistoryEntry(plan, Self.report(.committed), takesBack: false))
    let path = history.directory(plan.id) + "/report.json"
    let text = try Files.readText(path)
    #expect(text.contains("\"start_ms\" : 0") && text.contains("\"end_ms\" : 1"), "\(text)")
    try history.put("report.json", Array(text.replacing("start_ms", with: "start").replacing("end_ms", with: "end").utf8), of: plan.id)
    #expect(try history.entry(plan.id)?.steps.map(\.end) == [1])
  }

  @Test func manyVMsFillNoDisk() throws {
    let history = History(Scratch().state, most: 3)
    var plan = Fixture.plan()
    for (number, key) in ["a", "a", "b", "c", "d"].enumerated() {
      (plan.id, plan.key) = ("u\(number)", key)
      try history.add(HistoryEntry(plan, Self.report(.committed), takesBack: false))
    }
    #expect(try history.entries().map(\.id) == ["u2", "u3", "u4"])
  }

  @Test(arguments: [
    (UpgradeReport.Outcome.held, UpgradeReport.Outcome.rolledBack, "rolled-back"), (.held, .committed, "committed"), (.failed, .rolledBack, "failed"),
    (.committed, .rolledBack, "committed"),
  ])
  func whatWasHeldIsWhatBecameOfIt(first: UpgradeReport.Outcome, then: UpgradeReport.Outcome, outcome: String) throws {
    let history = History(Scratch().state)
    let plan = Fixture.plan(target: Fixture.target(QEMUVersion(major: 10, minor: 0), machines: []))
    try history.add(HistoryEntry(plan, Self.report(first), takesBack: false))
    history.settle(plan.id, then)
    history.settle("nothing", then)
    let entry = try history.entry(plan.id)
    #expect(entry?.outcome == outcome)
    #expect(entry?.to.version == "10.0.0", "known before anything was started")
  }

  @Test(arguments: [0, 1, 511, 512, 513]) func aTarMemberIsWholeBlocks(size: Int) {
    let member = Tar.member("u1/journal", [UInt8](repeating: 7, count: size), written: 0o17_053_641_700)
    #expect(member.count == 512 + (size + 511) / 512 * 512)
    // The checksum is that of the header with blanks in its place.
    let sum = member[..<512].enumerated().reduce(0) { $0 + ((148..<156).contains($1.offset) ? 32 : Int($1.element)) }
    #expect(Int(String(decoding: member[148..<154], as: UTF8.self), radix: 8) == sum)
    #expect(String(decoding: member[257..<262], as: UTF8.self) == "ustar")
    #expect(String(decoding: member[136..<147], as: UTF8.self) == "17053641700", "when it was written")
  }

  @Test func identifiersHaveOneLength() throws {
    for _ in 0..<200 { #expect(try Session.newIdentifier().count == "20261121-101530-5f3a".count) }
  }

  @Test func aBundleNeverReplacesAFile() throws {
    let scratch = Scratch()
    let (history, plan) = (History(scratch.state), Fixture.plan())
    try history.add(HistoryEntry(plan, Self.report(.failed), takesBack: false))
    let path = scratch.state.persistent + "/bundle.tar"
    try history.writeBundle(plan.id, state: scratch.state, to: path)
    let bytes = try Files.read(path)
    // The time in the only header: no file is from 1970.
    #expect(try #require(Int(String(decoding: bytes[136..<147], as: UTF8.self), radix: 8)) > 1_700_000_000)
    for (path, words) in [(path, "not there yet"), (path + "/none/bundle.tar", "directory")] {
      let error = #expect(throws: Failure.self) { try history.writeBundle(plan.id, state: scratch.state, to: path) }
      #expect(error?.hint?.contains(words) == true)
    }
    #expect(try Files.read(path) == bytes)
  }

  @Test(arguments: [("S", 9, false), ("R", 9, false), ("D", 5, false), ("D", 6, true), ("T", 6, true)] as [(Character, Int, Bool)])
  func aVCPUIsStuckWhenItWaitsForTheHost(state: Character, looks: Int, isStuck: Bool) {
    var progress = VCPUProgress()
    var found: Int32?
    for _ in 0..<looks { found = progress.look([7: .init(state: state, cpuTime: 1), 8: .init(state: "R", cpuTime: 1)]) }
    #expect((found == 7) == isStuck)
    // Whatever its state, processor time is progress.
    var moving = VCPUProgress()
    for tick in 0..<20 { #expect(moving.look([7: .init(state: "D", cpuTime: UInt64(tick))]) == nil) }
  }
}

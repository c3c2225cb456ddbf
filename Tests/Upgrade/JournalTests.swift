import Glibc
import Kernel
import QEMU
import Testing

@testable import Upgrade

/// What is written down of an upgrade comes back, and what was not written does not.
@Suite struct JournalTests {
  static func record(_ id: String = "u1", _ state: UpgradeRecord.State = .underWay, holds: Bool = false) -> UpgradeRecord {
    let plan = Fixture.plan()
    var record = Executor(plan: plan, host: ModelHost(plan), began: Instant(nanoseconds: 0)) { _ in }.record
    (record.id, record.key, record.state, record.holds) = (id, "vm1-1", state, holds)
    return record
  }

  static func entry(_ step: StepName, _ phase: JournalEntry.Phase, note: String? = nil) -> JournalEntry {
    JournalEntry(step: step, phase: phase, milliseconds: 12.3456, note: note)
  }

  static func read(_ bytes: [UInt8]) throws -> Journal.Contents { try Journal.read(bytes, path: "journal") }

  static func lines(_ entries: [JournalEntry]) -> [UInt8] { entries.flatMap { Journal.line($0.payload) } }

  @Test func whatWasAppendedIsRead() throws {
    let scratch = Scratch()
    let lock = try scratch.state.lock("vm1-1")
    let journal = try JournalFile(scratch.state.journalPath("vm1-1"))
    var record = Self.record()
    try journal.append(Journal.line(record))
    #expect(try scratch.state.record("vm1-1") == record)
    record.state = .probation
    record.new = LaunchedTwin(process: ProcessIdentity(pid: 7, startTime: 8), version: QEMUVersion(major: 11, minor: 1))
    record.kept = KeptRuntime(directory: "/k", binary: "/b", root: "/r", files: [.init(path: "/f", original: FileIdentity(device: .max, inode: 1))])
    try journal.append(Journal.line(Self.entry(.stage, .begin).payload))
    try journal.append(Journal.line(record))
    #expect(try scratch.state.records() == [record])
    #expect(try scratch.state.contents("vm1-1").entries.map(\.step) == [.stage])
    #expect(try Files.names(in: scratch.state.directory("vm1-1")).sorted() == ["journal", "lock"])
    try scratch.state.remove("vm1-1")
    #expect(try Files.statusIfPresent(scratch.state.path) == nil)
    try scratch.state.remove("vm1-1")  // Gone already.
    _ = lock.raw
  }

  static let notes: [String?] = [
    nil, "", "plain", "a \"quoted\" \\ path", "two\nlines\t\u{0}\u{1f}", "ü € 🐚", "\\\\\"\"", #"{"step":"resume","phase":"begin"}"#,
    String(repeating: "x", count: 5000),
  ]

  @Test(arguments: notes) func anEntryIsOneLine(note: String?) throws {
    let line = Self.lines([Self.entry(.switch, .failed, note: note)])
    #expect(line.filter { $0 == 10 }.count == 1 && line.last == 10)
    let contents = try Self.read(line)
    let written = (note ?? "").unicodeScalars.map { $0.value < 0x20 ? " " : String($0) }.joined()
    #expect(contents.entries.map(\.step) == [.switch] && contents.entries[0].phase == .failed)
    #expect((contents.entries[0].note ?? "") == written)
    #expect(contents.entries[0].milliseconds == 12.345)
    #expect(!contents.mayHaveBegun(.resume))
  }

  /// Cut anywhere, a journal says what was said before, and never something else.
  @Test func aTornTailIsLeftOut() throws {
    let whole = try Journal.line(Self.record()) + Self.lines([Self.entry(.verify, .done), Self.entry(.resume, .begin)])
    let ends = whole.indices.filter { whole[$0] == 10 }
    for length in whole.indices {
      let contents = try Self.read(Array(whole[..<length]))
      let complete = ends.count { $0 < length }
      #expect(contents.damagedLines == [] && contents.isTorn == (length > 0 && whole[length - 1] != 10))
      #expect((contents.record != nil) == (complete > 0) && contents.entries.count == max(0, complete - 1))
      #expect(!contents.mayHaveBegun(.resume))
    }
    #expect(try Self.read(whole).mayHaveBegun(.resume))
  }

  /// A bit that flipped: the line is not believed, the others are, and what it may have announced counts as begun.
  @Test func aDamagedLineIsLeftOutAndSaid() throws {
    let first = try Journal.line(Self.record())
    let damaged = Self.lines([Self.entry(.verify, .done)])
    for index in damaged.indices.dropLast() {
      for bit in 0..<8 {
        var bytes = damaged
        bytes[index] ^= UInt8(1 << bit)
        if bytes[index] == 10 || bytes == damaged { continue }
        // A higher version's journal is not read at all.
        guard let contents = try? Self.read(first + bytes + Self.lines([Self.entry(.exchange, .done)])) else { continue }
        #expect(contents.damagedLines == [2], "byte \(index), bit \(bit)")
        #expect(contents.entries.map(\.step) == [.exchange] && contents.record != nil)
        #expect(contents.mayHaveBegun(.resume))
      }
    }
  }

  @Test(arguments: ["\n", "1\n", "1 2 3\n", "1 2 00000000 {}\n", "\u{0}\u{1}\n", "{}\n", "[]\n", "1 0 00000000 \n", "-1 2 3 {}\n"])
  func garbageIsNoEntry(text: String) throws {
    let contents = try Self.read(Array(text.utf8))
    #expect(contents.damagedLines == [1] && contents.entries.isEmpty && contents.record == nil)
    let scratch = Scratch()
    let lock = try scratch.state.lock("k")
    try JournalFile(scratch.state.journalPath("k")).append(Array(text.utf8))
    let failure = #expect(throws: Failure.self) { _ = try scratch.state.record("k") }
    #expect(failure?.reason?.hasPrefix("it is damaged") == true && failure?.hint != nil)
    #expect(try scratch.state.records() == [] && scratch.state.damaged().count == 1)
    _ = lock.raw
  }

  @Test func aNewerMoultsJournalIsRefused() throws {
    var line = String(decoding: try Journal.line(Self.record()), as: UTF8.self)
    line.replaceSubrange(line.startIndex...line.startIndex, with: "2")
    let failure = #expect(throws: Failure.self) { _ = try Self.read(Array(line.utf8)) }
    #expect(failure?.reason?.contains("newer moult") == true)
  }

  @Test func aRollbackStandsBehindTheHeldUpgrade() throws {
    let held = try Journal.line(Self.record("u1", .probation, holds: true))
    let back = try held + Self.lines([Self.entry(.resume, .begin)]) + Journal.line(Self.record("u2"))
    var contents = try Self.read(back)
    #expect(contents.record?.id == "u2" && contents.superseded?.id == "u1")
    #expect(!contents.mayHaveBegun(.resume), "that was the former upgrade's")
    // Undone: the first is held as before, and takes nothing back.
    contents = try Self.read(back + held)
    #expect(contents.record?.id == "u1" && contents.record?.isHeld == true && contents.superseded == nil)
  }

  @Test(arguments: [
    (UpgradeRecord.State.probation, true, true, true), (.probation, false, true, true), (.probation, false, false, false),
    (.underWay, true, true, false), (.undoing, true, false, false),
  ]) func heldIsWhatCanBeTakenBack(state: UpgradeRecord.State, holds: Bool, keeps: Bool, isHeld: Bool) {
    var record = Self.record("u1", state, holds: holds)
    if keeps { record.kept = KeptRuntime(directory: "/k", binary: "/b", root: nil, files: []) }
    #expect(record.isHeld == isHeld)
  }

  /// Formats that were written once have to be read for ever. These files are never changed.
  @Test(arguments: [(0, "10.0.2"), (1, "10.0.2")]) func formerFormatsAreRead(version: Int, new: String) throws {
    let scratch = Scratch()
    let lock = try scratch.state.lock("vm1-1")
    if version == 0 {
      try Files.write(JournalSamples.version0Record, newFile: scratch.state.recordPath("vm1-1"))
      try Files.write(JournalSamples.version0Journal, newFile: scratch.state.journalPath("vm1-1"))
    } else {
      try Files.write(JournalSamples.version1, newFile: scratch.state.journalPath("vm1-1"))
    }
    let contents = try scratch.state.contents("vm1-1")
    let record = try #require(contents.record)
    #expect(record.isHeld && record.vm == "vm1" && record.new?.version.description == new && record.kept?.files.count == 1)
    #expect(record.stages.flatMap(\.exchanges).count == 2 && record.settings.capabilities["events"] == false)
    #expect(contents.damagedLines == [] && contents.mayHaveBegun(.resume) && contents.entries.last?.step == .retire)
    #expect(try scratch.state.records() == [record])
    _ = lock.raw
  }

  @Test func whatNoJournalNamesIsSwept() throws {
    let scratch = Scratch()
    // From before the host was rebooted; an empty directory; a held upgrade's.
    for id in ["gone", "u1"] { try Files.makeDirectories(scratch.state.keptPath + "/" + id, mode: 0o700) }
    do { _ = try scratch.state.lock("left").raw }
    do {
      let lock = try scratch.state.lock("vm1-1")
      try JournalFile(scratch.state.journalPath("vm1-1")).append(Journal.line(Self.record("u1", .probation, holds: true)))
      _ = lock.raw
    }
    try scratch.state.sweep()
    #expect(try Files.names(in: scratch.state.keptPath) == ["u1"])
    #expect(try Files.names(in: scratch.state.path) == ["vm1-1"])
    // While one cannot be read, nothing is known to be left over.
    try Files.makeDirectories(scratch.state.keptPath + "/gone", mode: 0o700)
    do {
      let lock = try scratch.state.lock("k")
      try JournalFile(scratch.state.journalPath("k")).append(Array("x\n".utf8))
      _ = lock.raw
    }
    try scratch.state.sweep()
    #expect(try Files.names(in: scratch.state.keptPath).sorted() == ["gone", "u1"])
  }

  @Test(arguments: [("", 0), ("123456789", 0xcbf4_3926), ("a", 0xe8b7_be43)] as [(String, UInt32)])
  func theChecksumIsTheUsualOne(text: String, sum: UInt32) { #expect(CRC32.of(text.utf8) == sum) }

  @Test func theJournalTellsTheStepsOfAMoultThatWasKilled() {
    let entries: [(StepName, JournalEntry.Phase)] = [
      (.lock, .begin), (.lock, .done), (.keep, .begin), (.keep, .failed), (.switch, .begin), (.switch, .undoing), (.switch, .undone),
    ]
    let steps = JournalEntry.steps(entries.enumerated().map { JournalEntry(step: $1.0, phase: $1.1, milliseconds: Double($0), note: nil) })
    #expect(steps.map(\.name) == [.lock, .keep, .switch])
    #expect(steps.map(\.outcome) == ["done", "failed", "interrupted"])
    #expect(steps.map(\.start) == [0, 2, 4] && steps.map(\.end) == [1, 3, 4])
    #expect(JournalEntry.steps([]).isEmpty)
  }
}

extension Files {
  static func write(_ text: String, newFile path: String) throws {
    let file = try OwnedFD.open(path, O_WRONLY | O_CREAT | O_EXCL, mode: 0o600)
    let bytes = Array(text.utf8)
    try valueOrErrno("write", path) { Glibc.write(file.raw, bytes, bytes.count) }
  }
}

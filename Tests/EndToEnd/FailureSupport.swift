import Foundation
import Lab
import Testing

/// Whatever fails, the VM is where it was or where it was to be, and nothing else is anywhere.
///
/// The suites below share this parent, so that they run one after the other.
@Suite(.serialized)
enum FailureTests {
  /// The whole matrix instead of a sample of it.
  static let isFull = ProcessInfo.processInfo.environment["MOULT_FULL"] != nil
}

/// A VM that something goes wrong with, and what must be true of it afterwards.
final class Patient {
  let vm: LabVM
  private(set) var pid: pid_t
  private var names: [String: String]
  private var settings: [JSON]
  private var connections: Int
  private var mounts: Set<String>

  var configuration: VMConfiguration { vm.configuration }
  var name: String { configuration.name }

  init(_ configuration: VMConfiguration) throws {
    vm = try LabVM(configuration)
    pid = 0
    names = [:]
    settings = []
    connections = 0
    mounts = []
    try remember()
  }

  deinit { vm.end() }

  /// Takes what is now as what has to stay.
  func remember() throws {
    pid = try vm.pid()
    names = Self.identities(configuration)
    settings = try Self.settings(configuration)
    connections = vm.serial.connections
    mounts = Self.mounts(configuration)
  }

  /// Where moult keeps the state of this VM: its name, and FNV-1a of the monitor's path.
  var stateDirectory: String {
    var hash: UInt64 = 0xcbf2_9ce4_8422_2325
    for byte in configuration.qmpSocket.utf8 { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3 }
    let readable = name.prefix(40).map { $0.isASCII && ($0.isLetter || $0.isNumber || "-_.".contains($0)) ? $0 : "_" }
    return "/run/moult/" + String(readable) + "-" + String(hash, radix: 16)
  }
  var journal: String { stateDirectory + "/journal" }
  /// The new QEMU's pid as the journal has it last.
  func spawned() throws -> Int {
    let lines = try String(contentsOfFile: journal, encoding: .utf8).split(separator: "\n")
    let pids = try lines.compactMap { line in try JSON(parsing: Data(line.drop { $0 != "{" }.utf8))["record"]["spawned"]["pid"].int }
    guard let pid = pids.last else { throw LabFailure("no process was noted in \(journal)") }
    return pid
  }

  /// Which line of the journal begins a step. `lock` opens the journal: it has no beginning there.
  static func line(beginning step: String, hold: Bool = false) -> Int? {
    let before = steps(hold: hold).prefix { $0 != step }
    if before.isEmpty { return nil }
    // A beginning and an end each, and the record as often as it changes.
    return 2 * before.count + before.reduce(0) { $0 + (records[$1] ?? 0) }
  }
  private static let records = ["lock": 1, "keep": 1, "launch": 1, "compare": 1, "retire": 2]
  static func steps(hold: Bool = false) -> [String] {
    ["lock"] + (hold ? ["keep"] : [])
      + ["stage", "launch", "compare", "migrate", "pause", "switch", "exchange", "rewire", "verify", "resume", "retire"]
      + (hold ? [] : ["commit"])
  }

  /// The other QEMU of this VM, if there is one.
  var twin: pid_t? { vm.processes.first { $0 != pid } }

  /// The old QEMU runs the guest as if nothing had been tried.
  func expectUntouched(running: Bool = true, _ location: SourceLocation = #_sourceLocation) throws {
    if running { try vm.ticks(10) }
    #expect(vm.processes == [pid], sourceLocation: location)
    #expect(Self.identities(configuration) == names, sourceLocation: location)
    #expect(try vm.pid() == pid, sourceLocation: location)
    #expect(vm.serial.connections == connections, "the console was lost", sourceLocation: location)
    if running { #expect(try vm.status() == "running", sourceLocation: location) }
    #expect(try Self.settings(configuration) == settings, "migration settings", sourceLocation: location)
    expectNothingLeft(location)
  }

  /// Another QEMU runs the guest, at the public names.
  func expectMoved(_ location: SourceLocation = #_sourceLocation) throws {
    try vm.ticks(10)
    #expect(vm.processes.count == 1, "\(vm.processes)", sourceLocation: location)
    let now = try vm.pid()
    #expect(now != pid && vm.processes == [now], sourceLocation: location)
    #expect(try vm.status() == "running", sourceLocation: location)
    #expect(Set(Self.identities(configuration).keys) == Set(names.keys), sourceLocation: location)
    expectNothingLeft(location)
    try remember()
  }

  /// Neither QEMU is there any more; whoever ended them, moult has tidied up.
  func expectGone(_ location: SourceLocation = #_sourceLocation) throws {
    try eventually("\(name) is gone", within: 5) { vm.processes.isEmpty }
    expectNothingLeft(location)
  }

  /// One of two is right: undone or completed. Nothing in between ever is.
  /// - Returns: whether the guest has moved.
  func expectWhole(_ location: SourceLocation = #_sourceLocation) throws -> Bool {
    let moved = try vm.pid() != pid
    if moved { try expectMoved(location) } else { try expectUntouched(location) }
    return moved
  }

  func expectNothingLeft(_ location: SourceLocation = #_sourceLocation) {
    #expect(!FileManager.default.fileExists(atPath: stateDirectory), sourceLocation: location)
    var stages: [String] = []
    for directory in Set([configuration.qmpSocket, configuration.serialSocket, configuration.pidfile].map { ($0 as NSString).deletingLastPathComponent }) {
      for place in [directory, (directory as NSString).deletingLastPathComponent] {
        let found = Self.list(place).filter { $0.hasPrefix(".moult-") }
        // Other VMs' stages may stand beside, in a directory that is not this one's alone.
        if place.contains(name) || place == directory { stages += found.map { place + "/" + $0 } }
      }
    }
    #expect(stages == [], sourceLocation: location)
    #expect(Self.mounts(configuration).subtracting(mounts) == [], sourceLocation: location)
    let strangers = Processes.all().filter { process in
      process.arguments.contains { $0.contains(configuration.home + "/") } && process.pid != getpid()
        && !vm.processes.contains(process.pid) && (process.arguments.first ?? "").contains("qemu")
    }
    #expect(strangers.map(\.pid) == [], sourceLocation: location)
  }

  /// Neither the guest's memory nor its clock has noticed anything.
  func expectHealthy(_ location: SourceLocation = #_sourceLocation) {
    #expect(vm.discontinuities == [], sourceLocation: location)
    #expect(vm.pulse.complaints == [], sourceLocation: location)
  }

  /// Runs moult against this VM; checks its exit code, and that its message says what happened.
  @discardableResult
  func moult(
    _ arguments: [String], exits code: Int, saying words: [String] = [], seconds: Double = 120,
    _ location: SourceLocation = #_sourceLocation
  ) throws -> ChildProcess.Outcome {
    let outcome = try run(moult: arguments, seconds: seconds)
    check(outcome, exits: code, saying: words, location)
    return outcome
  }

  func check(
    _ outcome: ChildProcess.Outcome, exits code: Int, saying words: [String] = [],
    _ location: SourceLocation = #_sourceLocation
  ) {
    #expect(outcome.code == code, "\(outcome.stdout)\(outcome.stderr)", sourceLocation: location)
    for word in words {
      #expect(
        outcome.stderr.lowercased().contains(word.lowercased()), "no “\(word)” in: \(outcome.stderr)", sourceLocation: location)
    }
    for word in ["Fatal error", "Swift runtime", "Unexpectedly found nil"] where outcome.stderr.contains(word) {
      Issue.record("a crash: \(outcome.stderr)", sourceLocation: location)
    }
  }

  func upgrade(to version: QEMUVersion = .v10_0, _ options: [String] = []) -> [String] {
    ["upgrade", name] + version.destination + options
  }

  // What has to stay.

  private static func identities(_ configuration: VMConfiguration) -> [String: String] {
    var found: [String: String] = [:]
    for path in [configuration.qmpSocket, configuration.serialSocket, configuration.pidfile] {
      var status = stat()
      if stat(path, &status) == 0 { found[path] = "\(status.st_dev):\(status.st_ino)" }
    }
    return found
  }

  private static func settings(_ configuration: VMConfiguration) throws -> [JSON] {
    let monitor = try QMPConnection(configuration.qmpSocket)
    return [try monitor.execute("query-migrate-capabilities"), try monitor.execute("query-migrate-parameters")]
  }

  private static func mounts(_ configuration: VMConfiguration) -> Set<String> {
    let text = Processes.text("/proc/self/mountinfo")
    return Set(text.split(separator: "\n").filter { $0.contains(configuration.name) }.map { String($0.split(separator: " ").dropFirst(2).joined(separator: " ")) })
  }

  static func list(_ path: String) -> [String] {
    do { return try FileManager.default.contentsOfDirectory(atPath: path) } catch { return [] }
  }
}

/// Notes every process that bears a VM's name, as often as it can look.
final class Watch: @unchecked Sendable {
  private let lock = NSLock()
  private var seen: Set<pid_t> = []
  private var stopped = false
  private var ended = false

  /// - Parameter processes: those of the VM now.
  init(_ processes: @escaping @Sendable () -> [pid_t]) {
    let thread = Thread { [self] in
      while !lock.withLock({ stopped }) {
        let pids = processes()
        lock.withLock { seen.formUnion(pids) }
      }
      lock.withLock { ended = true }
    }
    thread.start()
  }

  /// All that were seen.
  func stop() -> Set<pid_t> {
    lock.withLock { stopped = true }
    while !lock.withLock({ ended }) { usleep(500) }
    return lock.withLock { seen }
  }
}

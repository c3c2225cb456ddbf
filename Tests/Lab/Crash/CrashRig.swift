import Foundation
import Glibc

/// One VM, to which the cases of the matrix are done one after the other.
///
/// It goes on from case to case where a case leaves it running. Where one rightly ends it, it is started
/// anew over what is left, as its owner would.
public final class CrashRig {
  /// How long a stopped process stands still.
  public static let stopSeconds = 2.0
  /// How soon the guest must be heard again.
  public static let limitMilliseconds = 1000.0

  public let memory: CrashCase.Memory
  /// It is upgraded from one to the other, and back.
  private let versions: [QEMUVersion]
  /// The old QEMU's main loop never comes to rest while the command runs.
  private let isBusy: Bool
  let configuration: VMConfiguration
  private(set) var vm: LabVM
  private var scripts: [CrashCase.Operation: CrashScript] = [:]
  /// What there is of the VM without any upgrade.
  private let clean: Remains
  /// How many descriptors a QEMU has that an undisturbed command has started, by its version.
  private var descriptors: [String: Int] = [:]
  /// Which signals its main loop holds back.
  private var masks: [String: String] = [:]
  /// The upgrade that is held, as far as this rig knows.
  private var held: String?

  public static let usualVersions: [QEMUVersion] = [.v7_2, .v10_0]

  /// - Parameters:
  ///   - image: made by ``makeImage(_:words:_:)`` with the first of the versions.
  ///   - versions: two.
  ///   - isBusy: whether the old QEMU's main loop is to be kept from resting while a command runs.
  public init(_ name: String, memory: CrashCase.Memory, image: String, versions: [QEMUVersion] = usualVersions, isBusy: Bool = false) throws {
    self.memory = memory
    self.isBusy = isBusy
    self.versions = versions
    configuration = Self.configuration(name, image: image) {
      $0.memory = memory == .shared ? .file() : .anonymous
      $0.version = versions[0]
    }
    vm = try LabVM(configuration)
    clean = Remains(configuration)
  }

  /// A pass over all of the memory that it fills takes an eighth of a second.
  private static let words = ["fill=4", "churn=32", "sample=20000"]

  /// A VM that is restored from an image made by ``makeImage(_:words:)``.
  public static func configuration(
    _ name: String, image: String?, _ change: (inout VMConfiguration) -> Void = { _ in }
  ) -> VMConfiguration {
    VMConfiguration(name) {
      $0.mebibytes = 96
      $0.disk = "qcow2"
      $0.diskMebibytes = 1
      $0.restoredFrom = image
      change(&$0)
    }
  }

  /// Boots such a VM once and stores it at a path: restoring it takes a tenth of the time.
  /// - Parameters:
  ///   - words: what its guest does; nil for what the matrix needs.
  ///   - change: what else it has; those that are restored from it must have the same.
  public static func makeImage(_ path: String, words: [String]? = nil, _ change: (inout VMConfiguration) -> Void = { _ in }) throws {
    let vm = try LabVM(
      configuration("crash-image-\(getpid())", image: nil) {
        $0.words = words ?? Self.words
        change(&$0)
      })
    defer { vm.end() }
    try eventually("the guest counts", within: 60) { (vm.lastSynced ?? 0) > 0 }
    try vm.store(to: path)
  }

  public func end() {
    vm.end()
    removeRemains()
  }

  // The commands.

  private var name: String { configuration.name }

  private func arguments(_ operation: CrashCase.Operation) throws -> [String] {
    switch operation {
    case .upgrade: try upgrade()
    case .rollback: ["rollback", name]
    case .undo, .onward, .finish: ["recover", name]
    }
  }

  private func upgrade(hold: Bool = false) throws -> [String] {
    let target = try vm.version().hasPrefix(versions[0].rawValue + ".") ? versions[1] : versions[0]
    return ["upgrade", name, "--memory", memory.rawValue] + (hold ? ["--hold"] : []) + Self.destination(target)
  }

  /// Out of a root tree one has to say so.
  public static func destination(_ version: QEMUVersion) -> [String] {
    version.root == nil ? ["--to", version.binary, "--root", "/"] : version.destination
  }

  /// Brings the VM to where the command begins.
  private func prepare(_ operation: CrashCase.Operation) throws -> (old: pid_t, new: pid_t?) {
    // One who is just coming back would have nothing that could be given to another QEMU.
    try eventually("the console has its client", within: 10) { try Processes.hasClient(vm.pid(), at: configuration.serialSocket) }
    if operation != .rollback, held != nil {
      try mustSucceed(["commit", name])
      held = nil
    }
    switch operation {
    case .upgrade: return (try vm.pid(), nil)
    case .rollback:
      if held == nil {
        try mustSucceed(upgrade(hold: true))
        held = try state().id
        try learnDescriptors()
      }
      return (try vm.pid(), nil)
    case .undo, .onward, .finish: return try interrupt(at: operation.interruption ?? "")
    }
  }

  /// Kills an upgrade, and whoever watches over it, right after it has written a record.
  private func interrupt(at record: String) throws -> (old: pid_t, new: pid_t?) {
    let old = try vm.pid()
    let run = try TracedRun(moult: upgrade(), of: vm)
    try run.go(to: record)
    try run.finishRecord()
    try run.killAll()
    return (old, vm.processes.first { $0 != old })
  }

  private func learnDescriptors() throws {
    // One is the console's client, which may just be coming back.
    let (version, pid) = (try vm.version(), try vm.pid())
    descriptors[version] = max(descriptors[version] ?? 0, Processes.descriptors(pid) + 1)
    masks[version] = Processes.status("SigBlk", of: pid)
  }

  private func moult(_ arguments: [String]) throws -> ChildProcess.Outcome { try start(moult: arguments).wait() }

  private func mustSucceed(_ arguments: [String]) throws {
    let outcome = try moult(arguments)
    guard outcome.code == 0 else { throw LabFailure("moult \(arguments.joined(separator: " ")): exit \(outcome.code): \(outcome.stderr)") }
  }

  /// What `moult status` says of the VM's upgrade; nil if there is none.
  private func state() throws -> (state: String?, id: String?) {
    let document = try moult(["status", "--format", "json"]).json().array.first { $0["vm"].string == name }
    return (document?["outcome"].string, document?["id"].string)
  }

  // One run.

  /// The points at which a command can be disturbed, from a run of it that is not.
  func script(_ operation: CrashCase.Operation) throws -> CrashScript {
    if let script = scripts[operation] { return script }
    let (old, new) = try prepare(operation)
    let flood = isBusy ? try EventFlood(old) : nil
    defer { flood?.end() }
    let run = try TracedRun(moult: arguments(operation), of: vm)
    var points: [CrashScript.Point] = []
    while let record = try run.next() {
      let before = cast(run, old, new)
      points.append(.init(record: record.label, moment: .before, cast: before, isRedundant: !record.isNew, isCall: record.isCall))
      try run.finishRecord()
      points.append(.init(record: record.label, moment: .after, cast: before, isRedundant: record.isQuestion, isCall: record.isCall))
    }
    let outcome = try run.wait()
    guard outcome.code == 0, !points.isEmpty else { throw LabFailure("\(operation): exit \(outcome.code), \(points.count) points: \(outcome.stderr)") }
    let script = CrashScript(operation: operation, memory: memory, points: points)
    scripts[operation] = script
    try learnDescriptors()
    held = nil
    return script
  }

  /// All cases of a command.
  public func cases(_ operation: CrashCase.Operation) throws -> [CrashCase] { try script(operation).cases }

  private func cast(_ run: TracedRun, _ old: pid_t, _ new: pid_t?) -> Set<CrashCase.Victim> {
    var cast: Set<CrashCase.Victim> = [.moult]
    if VMState(configuration).guardian(of: run.pid) != nil { cast.formUnion([.guardian, .both]) }
    let processes = vm.processes
    if processes.contains(old) { cast.insert(.old) }
    if let new { if processes.contains(new) { cast.insert(.new) } } else if processes.contains(where: { $0 != old }) { cast.insert(.new) }
    return cast
  }

  /// Does a case, and says what was wrong afterwards.
  public func run(_ test: CrashCase) throws -> CrashResult {
    let script = try script(test.operation)
    guard script.position(test) != nil else { throw LabFailure("no such point; there are: \(script.points.map { "\($0.record)/\($0.moment)" })") }
    let (old, known) = try prepare(test.operation)
    let whileHeld = Remains(configuration)
    var result = CrashResult(test)
    let heard = vm.serial.count

    let flood = isBusy ? try EventFlood(old) : nil
    defer { flood?.end() }
    let run = try TracedRun(moult: arguments(test.operation), of: vm)
    try run.go(to: test.record)
    if test.moment == .after { try run.finishRecord() }
    if test.moment == .before { usleep(60_000) }  // What QEMU does by itself is over by then.
    let new = known ?? vm.processes.first { $0 != old }
    let newLives = new.map { !Processes.hasEnded($0) } ?? false
    let time = try act(test, run, old, new)
    flood?.end()
    let expectation = script.expectation(test, newLives: newLives)

    // Only a command that is there can bring an end to it.
    let isOrphaned = test.act == .kill && (test.victim == .both || test.victim == .moult && !script.hasGuardian(test))
    result.needsCommand = isOrphaned
    if !isOrphaned { result.recovery = listen(since: time) }
    let outcome = try run.wait()
    try eventually("the guardian ends", within: 10) { VMState(configuration).watchers.isEmpty }
    if isOrphaned {
      let began = monotonicNanoseconds()
      let recovery = try start(moult: ["recover", name])
      result.recovery = listen(since: max(began, time))
      let outcome = try recovery.wait()
      if outcome.code != 0 { result.faults.append("moult recover: exit \(outcome.code): \(outcome.stdout)\(outcome.stderr)") }
    }

    let alive = vm.processes
    result.hasEnded = alive.isEmpty
    if alive.isEmpty {
      if expectation == .survives { result.faults.append("no QEMU is left\n\(outcome.stdout)\(outcome.stderr)") }
      if test.victim == .old || test.victim == .new, outcome.code != 5 { result.faults.append("exit \(outcome.code) though the VM has ended: \(outcome.stderr)") }
      result.recovery = nil
      try checkEnded(&result)
    } else {
      if expectation == .ends { result.faults.append("a QEMU runs that cannot have the guest: \(alive)") }
      if result.recovery == nil { result.faults.append("the guest was not heard again\n\(outcome.stdout)\(outcome.stderr)") }
      if test.act == .stop || test.victim != .moult && test.victim != .both {
        let moved = alive.first != old
        if outcome.code != (moved || test.operation.recovers ? 0 : 1) {
          result.faults.append("exit \(outcome.code) though the guest \(moved ? "has" : "has not") moved: \(outcome.stdout)\(outcome.stderr)")
        }
      }
      let isHeld = test.operation == .rollback && alive == [old]
      try checkAlive(&result, heard: heard, isHeld ? whileHeld : clean, isHeld: isHeld)
    }
    return result
  }

  /// - Returns: when it was over, nanoseconds.
  private func act(_ test: CrashCase, _ run: TracedRun, _ old: pid_t, _ new: pid_t?) throws -> Int64 {
    let guardian = VMState(configuration).guardian(of: run.pid)
    let victim: pid_t? = switch test.victim {
    case .moult, .both: run.pid
    case .guardian: guardian
    case .old: old
    case .new: new
    }
    guard let victim else { throw LabFailure("there is no \(test.victim) at this point") }
    if test.act == .stop {
      // A traced process stands still already.
      if test.victim != .moult {
        Glibc.kill(victim, SIGSTOP)
        try run.release()
      }
      usleep(UInt32(Self.stopSeconds * 1e6))
      if test.victim == .moult { try run.release() } else { Glibc.kill(victim, SIGCONT) }
      return monotonicNanoseconds()
    }
    if test.victim == .both { try Processes.end(guardian) }
    let time = monotonicNanoseconds()
    Glibc.kill(victim, SIGKILL)
    if test.victim == .moult || test.victim == .both { _ = try run.wait() } else {
      try eventually("the end of \(victim)", within: 10) { Processes.hasEnded(victim) }
      try run.release()
    }
    return time
  }

  /// Waits until the guest is heard, or all its QEMUs are gone.
  /// - Returns: how long that took from `time` on, milliseconds.
  private func listen(since time: Int64) -> Double? {
    var next = max(0, vm.serial.count - 1)
    let deadline = time + 20_000_000_000
    while monotonicNanoseconds() < deadline {
      let lines = vm.serial.lines(from: next)
      next += lines.count
      if let first = lines.first(where: { $0.time > time && $0.text.hasPrefix("tick ") }) { return Double(first.time - time) / 1e6 }
      if vm.processes.isEmpty { return nil }
      usleep(3000)
    }
    return nil
  }

  // What must hold.

  private func checkAlive(
    _ result: inout CrashResult, heard: Int, _ before: Remains, isHeld: Bool
  ) throws {
    let pid = try vm.pid()
    try eventually("one QEMU is left: \(vm.processes)", within: 5) { vm.processes.count == 1 }
    if vm.processes != [pid] { result.faults.append("the pidfile says \(pid), there are \(vm.processes)") }
    for path in [configuration.qmpSocket, configuration.serialSocket] {
      if try !Processes.listens(pid, at: path) { result.faults.append("\(path) does not lead to \(pid)") }
    }
    try awaitMemoryPass()
    let pulse = Pulse(vm.serial.lines(from: heard))
    result.faults += pulse.complaints + pulse.discontinuities()
    result.silence = pulse.largestSilence
    let status = try vm.status()
    if status != "running" { result.faults.append("it is \(status ?? "?")") }
    try checkState(&result, isHeld ? "held" : nil)
    result.faults += Remains(configuration).difference(from: before)
    let version = try vm.version()
    // A busy QEMU closes what its clients have left a little later.
    var now = Processes.descriptors(pid)
    for _ in 0..<100 where now > descriptors[version] ?? now {
      usleep(20_000)
      now = Processes.descriptors(pid)
    }
    if let usual = descriptors[version], now > usual { result.faults.append("QEMU has \(now) descriptors, \(usual) after an undisturbed run") }
    // Who was changed by ptrace(2) must not keep anything of it.
    let (mask, usual) = (Processes.status("SigBlk", of: pid), masks[version])
    if let usual, mask != usual { result.faults.append("QEMU holds back the signals \(mask), \(usual) after an undisturbed run") }
    if Processes.status("TracerPid", of: pid) != "0" { result.faults.append("QEMU is traced still") }
    // Stopped, QEMU has written all it has to write, and the image can be read beside it.
    try vm.qmp("stop")
    result.faults += try DiskCheck.faults(
      image: configuration.diskImage, format: "qcow2", synced: Pulse(vm.serial.lines(from: heard)).lastSynced ?? 0, inUse: true)
    try vm.qmp("cont")
  }

  /// One whole pass over the guest's memory, begun after now.
  private func awaitMemoryPass() throws {
    var (passes, next) = (0, vm.serial.count)
    try eventually("the guest checks its memory", within: 20) {
      let lines = vm.serial.lines(from: next)
      next += lines.count
      passes += lines.count { $0.text.hasPrefix("memory ") || $0.text.hasPrefix("MEMORY ") }
      return passes >= 2
    }
  }

  private func checkEnded(_ result: inout CrashResult) throws {
    try checkState(&result, nil)
    result.faults += Remains(configuration).difference(from: clean)
    result.faults += try DiskCheck.faults(
      image: configuration.diskImage, format: "qcow2", synced: vm.lastSynced ?? 0, wasKilled: true)
    vm.end(keepDisk: true)
    vm = try LabVM(configuration, again: true)
  }

  /// Nothing pretends that there is an upgrade, or that there is none.
  private func checkState(_ result: inout CrashResult, _ wanted: String?) throws {
    let state = try state().state
    if state != wanted { result.faults.append("moult status says \(state ?? "nothing")") }
    if state != nil { return }
    if let id = held, FileManager.default.fileExists(atPath: "/var/lib/moult/kept/\(id)") {
      result.faults.append("left behind: kept runtime \(id)")
    }
    held = nil
  }

  /// After a case that went wrong: a new VM, and nothing of the one before.
  public func reset() throws {
    end()
    held = nil
    vm = try LabVM(configuration)
  }

  private func removeRemains() {
    let state = VMState(configuration)
    for pid in state.watchers { Glibc.kill(pid, SIGKILL) }
    for path in [state.directory] + Remains.stages(configuration) where FileManager.default.fileExists(atPath: path) {
      do { try FileManager.default.removeItem(atPath: path) } catch { print("could not remove \(path): \(error)") }
    }
  }
}

extension CrashScript {
  func hasGuardian(_ test: CrashCase) -> Bool { position(test).map { points[$0].cast.contains(.guardian) } ?? false }
}

public struct CrashResult: Sendable {
  public var test: CrashCase
  public var faults: [String] = []
  /// Milliseconds from the last kill, or the SIGCONT, until the guest was heard; with `needsCommand` from
  /// the start of the next command on.
  public var recovery: Double?
  public var needsCommand = false
  /// Longer than that may take. On a machine that is busy with other things it may say something of those.
  public var isLate: Bool { !needsCommand && (recovery ?? 0) > limit }
  /// Where the upgrade goes on, an emulated guest stands still until all of its RAM is copied.
  private var limit: Double {
    CrashRig.limitMilliseconds * (test.memory == .copy && (test.act == .stop || test.victim == .guardian) ? 3 : 1)
  }
  /// Milliseconds: the longest time in the case in which the guest was not heard.
  public var silence = 0.0
  /// The VM has ended, as it had to.
  public var hasEnded = false
  public init(_ test: CrashCase) { self.test = test }
}

import Glibc
import Lab
import Synchronization

/// The guests of one size: one with RAM of QEMU's own, one with RAM in a file, only one of them running
/// at a time. Each goes from QEMU to QEMU, measurement by measurement.
final class Subject {
  let mebibytes: Int
  private let version: QEMUVersion
  private let plain: LabVM?
  private let shared: LabVM?
  private var running: LabVM?

  /// Those that a signal has to end.
  private static let all = Mutex<[LabVM]>([])

  init(mebibytes: Int, options: Options) throws {
    self.mebibytes = mebibytes
    guard let version = QEMUVersion(rawValue: options.version) else { throw Misuse("no QEMU \(options.version) in the lab") }
    self.version = version
    func boot(_ name: String, _ memory: VMConfiguration.Memory) throws -> LabVM {
      let vm = try LabVM(
        VMConfiguration("bench-\(mebibytes)-\(name)") {
          $0.version = version
          $0.mebibytes = mebibytes
          $0.memory = memory
          $0.words = ["fill=\(Subject.touched(mebibytes))"]
        }, within: 240)
      Subject.all.withLock { $0.append(vm) }
      try vm.qmp("stop")
      return vm
    }
    plain = options.rows.contains { !$0.isShared } ? try boot("plain", .anonymous) : nil
    shared = options.rows.contains { $0.isShared } ? try boot("shared", .file()) : nil
  }

  /// MiB the guest fills: most of what it has.
  static func touched(_ mebibytes: Int) -> Int {
    [512: 300, 4096: 3300][mebibytes] ?? mebibytes * 6 / 10
  }

  func end() {
    for vm in [plain, shared] { vm?.end() }
    Subject.all.withLock { $0 = [] }
  }

  /// To be called from the thread that waits for signals.
  static func endAll() { for vm in all.withLock({ $0 }) { vm.end() } }

  /// The row's guest, running, the other one stopped.
  private func guest(_ row: Row) throws -> LabVM {
    guard let vm = row.isShared ? shared : plain else { throw LabFailure("row \(row.rawValue) has no guest") }
    if running !== vm {
      if let running { try running.qmp("stop") }
      try vm.qmp("cont")
      running = vm
    }
    return vm
  }

  /// Does what the row says, once. `began` is called as soon as what is to be measured begins.
  private func perform(_ row: Row, _ vm: LabVM, began: () throws -> Void) throws -> Sample {
    let (bare, moult) = (BareSwitch(vm: vm), MoultSwitch(vm: vm, version: version))
    let isRollback = row == .rollbackCopy || row == .rollbackShared
    if isRollback { _ = try moult.upgrade(shared: row.isShared, hold: true) }
    try began()
    switch row {
    case .save: return try bare.save(Subject.stateFile(vm))
    case .plain, .plainShared: return try bare.migrate(shared: row.isShared)
    case .upgradeCopy, .upgradeShared: return try moult.upgrade(shared: row.isShared)
    case .rollbackCopy, .rollbackShared: return try moult.rollBack()
    }
  }

  private static func stateFile(_ vm: LabVM) -> String { "/dev/shm/moult-lab-\(vm.configuration.name).state" }

  func measure(_ row: Row) throws -> Sample {
    let vm = try guest(row)
    var clock: GuestClock?
    var sample = try perform(row, vm) { clock = try GuestClock(settled: vm) }
    if let clock { sample.guestPause = try clock.held() }
    guard vm.noCorruption else {
      let words = vm.serial.lines.map(\.text).filter { !$0.hasPrefix("tick ") }.suffix(60).joined(separator: "\n")
      throw LabFailure("\(vm.configuration.name), row \(row.rawValue): the guest is not well:\n\(words)")
    }
    return sample
  }

  /// Bytes at the peak above what the old QEMU had alone.
  func extraMemory(_ row: Row) throws -> Int {
    let vm = try guest(row)
    var sampler: MemorySampler?
    defer { _ = sampler?.stop() }
    _ = try perform(row, vm) {
      sampler = MemorySampler(vm.configuration.name, file: row == .save ? Subject.stateFile(vm) : nil)
    }
    let bytes = sampler?.stop() ?? 0
    return bytes
  }

  /// Upgrades again and again until that many connections have been tried, to monitor and console alike.
  func probe(_ row: Row, attempts: Int) throws -> ConnectionProber.Counts {
    let vm = try guest(row)
    let probers = try [vm.configuration.qmpSocket, vm.configuration.serialSocket].map { try ConnectionProber(path: $0) }
    var ended = false
    defer { if !ended { for prober in probers { _ = prober.stop() } } }
    repeat { _ = try perform(row, vm) {} } while probers.reduce(0, { $0 + $1.attempts }) < attempts
    ended = true
    return probers.map { $0.stop() }.reduce(ConnectionProber.Counts()) { $0 + $1 }
  }
}

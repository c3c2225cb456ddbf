import FoundationEssentials
import Glibc
public import Kernel
import QEMU

/// What is remembered of an upgrade that is over. No secret of the VM's command line is in it.
public struct HistoryEntry: Sendable, Codable {
  public struct Twin: Sendable, Equatable, Codable {
    public var version: String?
    public var binary: String
    public var root: String?
    public var pid: Int32?
  }
  public struct Trouble: Sendable, Equatable, Codable {
    public var step: String
    public var message: String
    public var hint: String?
  }
  public var id: String
  public var vm: String
  public var key: String
  public var outcome: String
  public var from: Twin
  public var to: Twin
  public var memory: String
  public var pause_ms: Double?
  public var total_ms: Double
  public var steps: [UpgradeReport.Step]
  public var notes: [String]
  public var error: Trouble?
  /// The VM's arguments, redacted; missing in an upgrade that was recovered when neither QEMU was left to tell.
  public var arguments: [String]?
  public var moult: String
  public var kernel: String
}

/// The record of upgrades in `/var/lib/moult/history`: a directory for each, named by its id.
public struct History: Sendable {
  /// How many are kept of each VM, and of all: VMs come and go.
  public static let mostOfOne = 20, most = 1000
  /// moult's version.
  public static let version = "0.1.0"

  public var path: String
  private let most: Int

  /// - Parameter most: of all VMs together.
  public init(_ state: StateDirectory, most: Int = Self.most) {
    self.most = most
    path = state.persistent + "/history"
  }

  /// Where to look afterwards, for whom an upgrade went wrong.
  static func hint(_ id: String) -> String { "what is known of it: moult history \(id); moult history \(id) --bundle FILE packs all of it" }

  func directory(_ id: String) -> String { path + "/" + id }

  /// Every upgrade remembered, oldest first: ids sort by time. One that cannot be read is left out.
  public func entries() throws(Failure) -> [HistoryEntry] {
    guard try Files.statusIfPresent(path) != nil else { return [] }
    var entries: [HistoryEntry] = []
    for id in try Files.names(in: path).sorted() {
      if let entry = try entry(id) { entries.append(entry) }
    }
    return entries
  }

  public func entry(_ id: String) throws(Failure) -> HistoryEntry? {
    guard !id.contains("/"), !id.hasPrefix(".") else { return nil }
    let bytes: [UInt8]
    do { bytes = try Files.read(directory(id) + "/report.json") } catch {
      if error.errno == .noSuchFileOrDirectory || error.errno == .notDirectory { return nil }
      throw error
    }
    do { return try JSONDecoder().decode(HistoryEntry.self, from: Data(bytes)) } catch { return nil }
  }

  /// Notes what became of an upgrade that was held. Failing to is no reason to fail what is done already: it is said.
  func settle(_ id: String, _ outcome: UpgradeReport.Outcome) {
    do throws(Failure) {
      guard var entry = try entry(id), entry.outcome.hasSuffix(UpgradeReport.Outcome.held.rawValue) else { return }
      entry.outcome = outcome.rawValue
      try store(entry)
    } catch { FileDescriptorOutput.error("moult: could not note in the history that \(id) is \(outcome.rawValue): \(error)") }
  }

  /// Writes an entry, and forgets the oldest beyond ``mostOfOne`` of this VM and the oldest of all beyond the limit.
  func add(_ entry: HistoryEntry) throws(Failure) {
    try store(entry)
    let ids = try Files.names(in: path).sorted()
    var same: [String] = []
    for id in ids where try isOf(entry.key, id) { same.append(id) }
    for id in Set(ids.dropLast(most)).union(same.dropLast(Self.mostOfOne)) { try Files.removeTree(directory(id)) }
  }

  /// Found in the text: decoding a thousand entries would cost more than the upgrade that adds one.
  private func isOf(_ key: String, _ id: String) throws(Failure) -> Bool {
    let text = try unlessGone { () throws(Failure) in try Files.read(directory(id) + "/report.json") } ?? []
    return text.firstRange(of: Array("\"key\" : \"\(key)\"".utf8)) != nil
  }

  private func store(_ entry: HistoryEntry) throws(Failure) {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
    let data: Data
    do { data = try encoder.encode(entry) } catch {
      throw Failure(step: "write the history of", subject: entry.vm, reason: "\(error)")
    }
    try put("report.json", Array(data), of: entry.id)
  }

  /// Puts a file into an upgrade's directory, in place of a former one of that name.
  func put(_ name: String, _ bytes: [UInt8], of id: String) throws(Failure) {
    try Files.makeDirectories(directory(id), mode: 0o700)
    let (path, new) = (directory(id) + "/" + name, directory(id) + "/" + name + ".new")
    let file = try OwnedFD.open(new, O_WRONLY | O_CREAT | O_TRUNC, mode: 0o600, step: "write")
    do throws(Failure) {
      var done = 0
      while done < bytes.count {
        done += try valueOrErrno("write", new, hint: "free space there") { bytes[done...].withUnsafeBytes { write(file.raw, $0.baseAddress, $0.count) } }
      }
      try valueOrErrno("rename into place", path) { rename(new, path) }
    } catch {
      unlink(new)  // Half of it is worth nothing.
      throw error
    }
  }
}

extension HistoryEntry {
  init(_ plan: UpgradePlan, _ report: UpgradeReport, takesBack: Bool) {
    let observation = plan.observation
    let outcome = takesBack && report.outcome == .committed ? UpgradeReport.Outcome.rolledBack : report.outcome
    self.init(
      id: plan.id, vm: plan.vm, key: plan.key, outcome: outcome.rawValue,
      from: Twin(version: observation.version.description, binary: observation.binary, root: observation.root, pid: observation.process.pid),
      to: Twin(version: (report.new?.version ?? plan.target?.version)?.description, binary: plan.request.binary, root: plan.request.root, pid: report.new?.process.pid),
      memory: plan.memory.strategy.rawValue, report, arguments: Redaction.of(observation.arguments))
  }

  /// Of an upgrade that was recovered.
  /// - Parameter arguments: with their secrets.
  init(_ record: UpgradeRecord, _ report: UpgradeReport, arguments: [String]?) {
    self.init(
      id: record.id, vm: record.vm, key: record.key, outcome: "recovered: " + report.outcome.rawValue,
      from: Twin(version: record.oldVersion.description, binary: record.oldBinary, root: record.oldRoot, pid: record.old.pid),
      to: Twin(version: record.new?.version.description, binary: record.newBinary, root: record.newRoot, pid: record.spawned?.pid),
      memory: record.memory.rawValue, report, arguments: arguments.map(Redaction.of))
  }

  private init(
    id: String, vm: String, key: String, outcome: String, from: Twin, to: Twin, memory: String, _ report: UpgradeReport,
    arguments: [String]?
  ) {
    (self.id, self.vm, self.key, self.outcome, self.from, self.to, self.memory) = (id, vm, key, outcome, from, to, memory)
    pause_ms = report.pauseMilliseconds
    total_ms = report.totalMilliseconds
    steps = report.steps
    notes = report.notes
    error = report.failure.map { Trouble(step: $0.step.rawValue, message: $0.failure.description, hint: $0.failure.hint) }
    self.arguments = arguments
    moult = History.version
    kernel = Self.kernelRelease
  }

  private static var kernelRelease: String {
    var name = utsname()
    guard uname(&name) == 0 else { return "?" }
    return withUnsafeBytes(of: &name.release) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
  }
}

import Foundation
import Glibc
import Lab
import Synchronization
import Testing

/// Real VMs on real QEMUs. One test at a time: what one leaves behind could not be told from what
/// another still has, and times would say nothing.
@Suite(.serialized) enum EndToEnd {}

extension LabVM {
  /// Runs `moult upgrade` with JSON output; the answer, whatever became of it.
  func upgrade(to version: QEMUVersion?, _ options: [String] = []) throws -> Answer {
    let words = ["upgrade", configuration.name] + (version?.destination ?? []) + options + ["--format", "json"]
    return try Answer(run(moult: words))
  }

  func rollback() throws -> Answer { try Answer(run(moult: ["rollback", configuration.name, "--format", "json"])) }
  func commit() throws -> Answer { try Answer(run(moult: ["commit", configuration.name, "--format", "json"])) }

  /// Upgrades and makes sure that the VM is what it was, on the other version.
  @discardableResult
  func mustUpgrade(
    to version: QEMUVersion, _ options: [String] = [], strategy: String? = nil, outcome: String = "committed",
    _ comment: Comment? = nil, at location: SourceLocation = #_sourceLocation
  ) throws -> Answer {
    let old = try pid()
    let answer = try upgrade(to: version, options)
    try mustHaveMoved(answer, from: old, to: version, outcome: outcome, at: location)
    if let strategy { #expect(answer["memory"].string == strategy, comment, sourceLocation: location) }
    return answer
  }

  @discardableResult
  func mustRollBack(to version: QEMUVersion, at location: SourceLocation = #_sourceLocation) throws -> Answer {
    let old = try pid()
    let answer = try rollback()
    try mustHaveMoved(answer, from: old, to: version, outcome: "rolled-back", at: location)
    return answer
  }

  func mustCommit(at location: SourceLocation = #_sourceLocation) throws {
    let answer = try commit()
    #expect(answer.code == 0 && answer["outcome"].string == "committed", "\(answer)", sourceLocation: location)
  }

  /// What holds after every move, whichever way.
  func mustHaveMoved(
    _ answer: Answer, from old: pid_t, to version: QEMUVersion, outcome: String,
    at location: SourceLocation = #_sourceLocation
  ) throws {
    try #require(answer.code == 0 && answer["outcome"].string == outcome, "\(answer)", sourceLocation: location)
    let new = try pid()
    #expect(answer["from"]["pid"].int == Int(old), sourceLocation: location)
    #expect(answer["to"]["pid"].int == Int(new), "the pidfile's", sourceLocation: location)
    #expect(new != old, sourceLocation: location)
    #expect(Processes.hasEnded(old), "the old QEMU", sourceLocation: location)
    #expect(processes == [new], sourceLocation: location)
    #expect(try self.version().hasPrefix(version.rawValue + "."), sourceLocation: location)
    #expect(answer["notes"].array.isEmpty, "\(answer["notes"])", sourceLocation: location)
    try mustBeWell(at: location)
  }

  /// The guest runs, goes on from where it was, and its memory and disk are as it left them.
  func mustBeWell(at location: SourceLocation = #_sourceLocation) throws {
    #expect(try status() == "running", sourceLocation: location)
    if configuration.guest == .linux {
      do { try ticks(10) } catch {
        let last = serial.lines.suffix(3).map(\.text)
        throw LabFailure(
          "\(error): QEMU \(try version()) is \(try status() ?? "?"), connection \(serial.connections), last heard: \(last)")
      }
      #expect(discontinuities == [], sourceLocation: location)
      #expect(pulse.complaints == [], sourceLocation: location)
    } else {
      let seen = serial.lines.count
      try eventually("\(configuration.name): beats") { serial.lines.count > seen + 2 }
    }
  }

  /// What lies in the directory of the VM's monitor.
  var publicEntries: [String] { Directory.entries((configuration.qmpSocket as NSString).deletingLastPathComponent) }
}

/// What the program said and how it ended.
struct Answer: CustomStringConvertible {
  var code: Int
  var json: JSON
  var stderr: String
  var stdout: String

  init(_ outcome: ChildProcess.Outcome) throws {
    code = outcome.code
    stdout = outcome.stdout
    stderr = outcome.stderr
    json = outcome.stdout.isEmpty ? .null : try outcome.json()
    if let id = json["id"].string { Upgrades.identifiers.withLock { _ = $0.insert(id) } }
  }
  subscript(name: String) -> JSON { json[name] }
  var warnsOfStandingStill: Bool { json["warnings"].array.contains { $0.string?.contains("stands still") ?? false } }
  var description: String { "exit \(code)\n\(stdout)\(stderr)" }
}

/// Runs a test on VMs and makes sure that they and their upgrades have left nothing.
///
/// Only what bears the name of one of this folder's VMs or of one of their upgrades: others may upgrade
/// theirs on this host meanwhile.
func leavingNothing(
  _ directories: [String] = [Lab.paths.run], at location: SourceLocation = #_sourceLocation, _ body: () throws -> Void
) throws {
  let before = Leftovers.snapshot(directories)
  try body()
  let ours = Upgrades.identifiers.withLock { $0 }.union(["e2e-"])
  let left = Leftovers.snapshot(directories).difference(from: before).filter { thing in ours.contains { thing.contains($0) } }
  #expect(left == [], "left behind", sourceLocation: location)
}

/// The upgrades that the tests have made: their names are in the names of what they make.
enum Upgrades {
  static let identifiers = Mutex<Set<String>>([])
}

enum Directory {
  /// Names in a directory, sorted; none if there is none.
  static func entries(_ path: String) -> [String] {
    do { return try FileManager.default.contentsOfDirectory(atPath: path).sorted() } catch { return [] }
  }
}

/// A file's identity and attributes, by lstat(2).
struct FileFacts: Equatable {
  var inode: ino_t
  var mode: mode_t
  var user: uid_t
  var group: gid_t
  init(_ path: String) throws {
    var status = stat()
    guard lstat(path, &status) == 0 else { throw LabFailure("\(path): \(String(cString: strerror(errno)))") }
    (inode, mode, user, group) = (status.st_ino, status.st_mode, status.st_uid, status.st_gid)
  }
}

import Foundation
import Glibc
import Lab

/// One of the soak's upgrades or rollbacks, as its own report has it.
struct Sample {
  var pause: Double
  var total: Double
  /// What the step `verify` took: two records of the journal, and an lstat(2) for each public name.
  var verify: Double

  /// In turn: an upgrade that is held, its rollback, an upgrade for good, and back.
  init(_ number: Int, of vm: LabVM) throws {
    let name = vm.configuration.name
    let words: [String] = switch number % 4 {
    case 1: ["upgrade", name, "--hold"] + CrashRig.destination(.v10_0)
    case 2: ["rollback", name]
    case 3: ["upgrade", name] + CrashRig.destination(.v10_0)
    default: ["upgrade", name] + CrashRig.destination(.v7_2)
    }
    let old = try vm.pid()
    let outcome = try start(moult: words + ["--format", "json"]).wait(seconds: 120)
    guard outcome.code == 0, case let report = try outcome.json(), let pause = report["pause_ms"].double else {
      throw LabFailure("moult \(words.joined(separator: " ")): exit \(outcome.code)\n\(outcome.stdout)\(outcome.stderr)")
    }
    let notes = report["notes"].array
    if !notes.isEmpty { throw LabFailure("notes: \(notes)") }
    self.pause = pause
    total = report["total_ms"].double ?? 0
    let step = report["steps"].array.first { $0["name"].string == "verify" }
    verify = (step?["end_ms"].double ?? 0) - (step?["start_ms"].double ?? 0)
    let new = try vm.pid()
    if new == old || vm.processes != [new] { throw LabFailure("it was \(old), the pidfile says \(new), there are \(vm.processes)") }
    try vm.ticks(3)
  }

  static func row(_ samples: ArraySlice<Sample>, _ vm: LabVM, _ number: Int) throws -> [String] {
    let pid = try vm.pid()
    let status = Processes.text("/proc/\(pid)/status")
    let private_ = status.split(separator: "\n").first { $0.hasPrefix("RssAnon:") }?.split(separator: " ").dropFirst().first
    let mounts = Processes.text("/proc/self/mountinfo").utf8.count { $0 == 10 }
    let files = FileManager.default.enumerator(atPath: vm.configuration.home)?.allObjects.count ?? 0
    return [
      "\(number)", Text.number(Text.median(samples.map(\.pause))), Text.number(samples.map(\.pause).max() ?? 0),
      Text.number(Text.median(samples.map(\.total))), "\(Processes.descriptors(pid))",
      Text.number(Double(private_ ?? "0").map { $0 / 1024 } ?? 0), "\(mounts)", "\(vm.processes.count)", "\(files)",
      "\(vm.lastSynced ?? 0)",
    ]
  }

  /// The last pause is as short as the first: of the medians of the first and the last tenth.
  static func trend(_ samples: [Sample], _ tenth: Int) -> [String] {
    // Rollbacks and upgrades differ: only whole turns can be compared.
    guard samples.count >= 40 else { return [] }
    let (first, last) = (Text.median(samples.prefix(tenth).map(\.pause)), Text.median(samples.suffix(tenth).map(\.pause)))
    return last > 1.5 * first ? ["the pause grew from \(first) ms to \(last) ms"] : []
  }

  /// Records of the journal that are written while the guest stands still: from `pause.done` to `resume.begin`.
  static let recordsInPause = 10.0

  static func cost(_ samples: [Sample]) -> String {
    let verify = Text.median(samples.map(\.verify))
    return String(
      format: "journal: the step verify (two records and an lstat(2) for each public name) takes %.3f ms (median), "
        + "so the %.0f records within the pause take less than %.3f ms", verify, recordsInPause, verify / 2 * recordsInPause)
  }
}

enum Text {
  static func median(_ values: [Double]) -> Double {
    let sorted = values.sorted()
    return sorted.isEmpty ? 0 : sorted[sorted.count / 2]
  }

  static func number(_ value: Double) -> String { String(format: value < 10 ? "%.1f" : "%.0f", value) }

  /// Columns: the first to the left, the others to the right.
  static func table(_ rows: [[String]]) -> String {
    let widths = rows[0].indices.map { column in rows.map { $0[column].count }.max() ?? 0 }
    return rows.map { row in
      zip(row, widths).enumerated().map { column, cell in
        let space = String(repeating: " ", count: cell.1 - cell.0.count)
        return column == 0 ? cell.0 + space : space + cell.0
      }.joined(separator: "  ")
    }.joined(separator: "\n")
  }
}

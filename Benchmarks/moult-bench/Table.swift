import Foundation

/// The one table, and what it says of each target.
struct Table {
  let options: Options
  let results: [Int: [Row: Results]]

  private func number(_ value: Double?) -> String {
    guard let value else { return "-" }
    return String(format: value < 100 ? "%.2f" : "%.0f", value)
  }

  func text() -> String {
    var lines = [["RAM", "row", "", "pause", "guest's", "total", "start-up", "extra MiB", "attempts", "busy", "failed"]]
    for size in options.sizes {
      for row in options.rows {
        guard let result = results[size]?[row] else { continue }
        let memory = result.memory.max().map { String(format: "%.0f", Double($0) / 1_048_576) } ?? "-"
        let probed = result.attempts > 0
        lines.append([
          "\(size)", row.rawValue, row.title, number(result.median { $0.pause }), number(result.median { $0.guestPause }),
          number(result.median { $0.total }), number(result.median { $0.startUp }), memory,
          probed ? "\(result.attempts)" : "-", probed ? "\(result.busy)" : "-", probed ? "\(result.failed)" : "-",
        ])
      }
    }
    let widths = lines[0].indices.map { column in lines.map { $0[column].count }.max() ?? 0 }
    let rows = lines.map { line in
      zip(line, widths).enumerated().map { column, cell in
        let space = String(repeating: " ", count: cell.1 - cell.0.count)
        return column == 1 || column == 2 ? cell.0 + space : space + cell.0
      }.joined(separator: "  ")
    }
    return rows.joined(separator: "\n") + "\n\n" + Self.notes(options)
  }

  private static func notes(_ options: Options) -> String {
    """
    Medians of \(options.runs) interleaved runs, milliseconds; QEMU \(options.version) on both sides; RAM in MiB.
    pause: STOP of the old to RESUME of the new QEMU, by QEMU's own time stamps. guest's: what the guest's
    clock missed of its hardware clock. total: the whole row, old QEMU gone. start-up: exec of the new QEMU
    until it answers QMP. extra: peak of the PSS of both QEMUs and moult (and of the saved file) above the old
    one's alone, largest of \(options.memoryRuns) runs of their own. attempts: connections to the monitor's and the console's
    public path during upgrades of their own; busy: a listener was there and had as many clients waiting as
    it takes (EAGAIN); failed: ENOENT, ECONNREFUSED or anything else.
    """
  }

  // MARK: Targets

  private struct Target {
    var name: String
    var isReached: Bool?
    var figures: String
  }

  func verdicts() -> String {
    targets().map { target in
      let verdict = target.isReached.map { $0 ? "reached    " : "NOT REACHED" } ?? "not measured"
      return "\(verdict)  \(target.name): \(target.figures)"
    }.joined(separator: "\n")
  }

  private func ratio(
    _ name: String, _ limit: Double, _ above: (Results?) -> Double?, _ row: Row, of below: (Results?) -> Double?, _ base: Row
  ) -> [Target] {
    options.sizes.map { size in
      let (a, b) = (above(results[size]?[row]), below(results[size]?[base]))
      guard let a, let b, b > 0 else { return Target(name: "\(name), \(size) MiB", isReached: nil, figures: "-") }
      return Target(
        name: "\(name), \(size) MiB", isReached: a <= limit * b,
        figures: String(format: "%.2f ms / %.2f ms = %.2f", a, b, a / b))
    }
  }

  private func targets() -> [Target] {
    func pause(_ result: Results?) -> Double? { result?.median { $0.pause } }
    func total(_ result: Results?) -> Double? { result?.median { $0.total } }
    func startUp(_ result: Results?) -> Double? { result?.median { $0.startUp } }
    var targets = ratio("pause of e ≤ 1.15 × c", 1.15, pause, .upgradeShared, of: pause, .plainShared)
    targets += ratio("pause of d ≤ 1.15 × b", 1.15, pause, .upgradeCopy, of: pause, .plain)

    let pauses = options.sizes.compactMap { pause(results[$0]?[.upgradeShared]) }
    if pauses.count > 1, let least = pauses.min(), let most = pauses.max() {
      targets.append(
        Target(
          name: "pause of e independent of size (≤ 1.15)", isReached: most <= 1.15 * least,
          figures: String(format: "%.2f ms / %.2f ms = %.2f", most, least, most / least)))
    }
    for size in options.sizes {
      guard let bytes = results[size]?[.upgradeShared]?.memory.max() else { continue }
      targets.append(
        Target(
          name: "extra memory of e ≤ 100 MiB, \(size) MiB", isReached: bytes <= 100 << 20,
          figures: String(format: "%.1f MiB", Double(bytes) / 1_048_576)))
    }
    let all = results.values.flatMap(\.values)
    let (attempts, failed) = (all.reduce(0) { $0 + $1.attempts }, all.reduce(0) { $0 + $1.failed })
    targets.append(
      Target(
        name: "0 of ≥ 100000 connections fail", isReached: attempts == 0 ? nil : attempts >= 100_000 && failed == 0,
        figures: "\(failed) of \(attempts)"))
    targets += ratio("total of e ≤ 1.5 × start-up", 1.5, total, .upgradeShared, of: startUp, .plainShared)
    targets += ratio("rollback's pause ≤ 1.2 × upgrade's, shared", 1.2, pause, .rollbackShared, of: pause, .upgradeShared)
    targets += ratio("rollback's pause ≤ 1.2 × upgrade's, copy", 1.2, pause, .rollbackCopy, of: pause, .upgradeCopy)
    return targets
  }

  // MARK: Steps

  /// Where moult's time goes: medians of each step's beginning and duration.
  func steps() -> String {
    var lines: [String] = []
    for size in options.sizes {
      for row in options.rows {
        guard let samples = results[size]?[row]?.samples, let names = samples.first?.steps.map(\.name), !names.isEmpty else { continue }
        let parts = names.indices.map { index -> String in
          let own = samples.compactMap { $0.steps.indices.contains(index) ? $0.steps[index] : nil }
          return "\(names[index]) \(number(Results.median(own.map(\.start))))+\(number(Results.median(own.map { $0.end - $0.start })))"
        }
        lines.append("\(size) \(row.rawValue): " + parts.joined(separator: ", "))
      }
    }
    return lines.joined(separator: "\n")
  }
}

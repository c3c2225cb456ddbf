import Foundation
import Glibc
import Lab

/// Measures what a guest notices of a change of its QEMU, by moult and by other ways.
@main
struct Bench {
  static func main() {
    Ending.blockSignals()
    do {
      try measure(try Options(Array(CommandLine.arguments.dropFirst())))
    } catch let misuse as Misuse {
      complain("\(misuse)\n\(Options.usage)")
      exit(64)
    } catch {
      complain("\(error)")
      exit(1)
    }
  }

  private static func measure(_ options: Options) throws {
    guard geteuid() == 0 else { throw LabFailure("moult-bench needs root, as moult does") }
    Ending.onSignals { Subject.endAll() }
    let before = Leftovers.snapshot()
    var results: [Int: [Row: Results]] = [:]
    var surveys: [SurveyResult] = []
    for row in options.surveys {
      complain("\(row.title)")
      surveys += try row.measure(options)
    }
    for size in options.sizes where !options.rows.isEmpty {
      complain("\(size) MiB: booting")
      let subject = try Subject(mebibytes: size, options: options)
      defer { subject.end() }
      results[size] = try measure(subject, options)
    }
    // Others may have VMs on this host, which come and go.
    let left = Leftovers.snapshot().difference(from: before).filter { $0.contains("bench-") }
    if !options.rows.isEmpty {
      let table = Table(options: options, results: results)
      print(table.text())
      print("\n" + table.verdicts())
      if options.showsSteps { print("\n" + table.steps()) }
    }
    if !surveys.isEmpty { print("\n" + SurveyResult.lines(surveys) + "\n" + load()) }
    if !left.isEmpty { throw LabFailure("left behind: \(left)") }
  }

  private static func measure(_ subject: Subject, _ options: Options) throws -> [Row: Results] {
    var results = Dictionary(uniqueKeysWithValues: options.rows.map { ($0, Results()) })
    // The first of each row meets cold caches: not counted.
    for run in 0...options.runs {
      for row in options.rows {
        let sample = try subject.measure(row)
        complain(
          String(
            format: "%d MiB, run %d of %d, %@: pause %.2f ms (the guest's %.2f), total %.1f ms", subject.mebibytes, run,
            options.runs, row.rawValue, sample.pause, sample.guestPause, sample.total))
        if run > 0 { results[row]?.samples.append(sample) }
      }
    }
    for _ in 0..<options.memoryRuns {
      for row in options.rows { results[row]?.memory.append(try subject.extraMemory(row)) }
    }
    let upgrades = options.rows.filter(\.isUpgrade)
    for row in upgrades where options.attempts > 0 {
      let counts = try subject.probe(row, attempts: options.attempts / (upgrades.count * options.sizes.count) + 1)
      complain("\(subject.mebibytes) MiB, \(row.rawValue): \(counts)")
      results[row]?.attempts = counts.attempts
      results[row]?.busy = counts.busy
      results[row]?.failed = counts.failed
    }
    return results
  }

  /// Others on the machine make every figure larger.
  private static func load() -> String {
    var averages = [Double](repeating: 0, count: 3)
    getloadavg(&averages, 3)
    return String(format: "load average %.1f %.1f %.1f on %d processors", averages[0], averages[1], averages[2], sysconf(CInt(_SC_NPROCESSORS_ONLN)))
  }

  private static func complain(_ text: String) { FileHandle.standardError.write(Data((text + "\n").utf8)) }
}

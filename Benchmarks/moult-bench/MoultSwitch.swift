import Glibc
import Lab

/// The rows that are moult's own.
struct MoultSwitch {
  let vm: LabVM
  let version: QEMUVersion

  private func run(_ arguments: [String], during: (ChildProcess) -> Void) throws -> Sample {
    let began = monotonicNanoseconds()
    let child = try start(moult: arguments + ["--format", "json"])
    during(child)
    let outcome = try child.wait()
    let total = Double(monotonicNanoseconds() - began) / 1e6
    guard outcome.code == 0, case let json = try outcome.json(), let pause = json["pause_ms"].double else {
      throw LabFailure("moult \(arguments.joined(separator: " ")): exit \(outcome.code)\n\(outcome.stdout)\(outcome.stderr)")
    }
    let steps = json["steps"].array.map {
      (name: $0["name"].string ?? "", start: $0["start_ms"].double ?? 0, end: $0["end_ms"].double ?? 0)
    }
    return Sample(pause: pause, guestPause: 0, total: total, startUp: nil, steps: steps)
  }

  /// - Parameter hold: stay able to go back.
  func upgrade(shared: Bool, hold: Bool = false, during: (ChildProcess) -> Void = { _ in }) throws -> Sample {
    try run(
      ["upgrade", vm.configuration.name, "--memory", shared ? "shared" : "copy"] + version.destination
        + (hold ? ["--hold"] : []), during: during)
  }

  func rollBack(during: (ChildProcess) -> Void = { _ in }) throws -> Sample {
    try run(["rollback", vm.configuration.name], during: during)
  }
}

import Foundation

/// What the guardian does while the guest stands still: nothing, if it is not scheduled.
public enum GuardianCost {
  /// Upgrades a VM to its other version, and counts how often its guardian was scheduled in the pause.
  public static func measure(_ vm: LabVM) throws -> String {
    let target: QEMUVersion = try vm.version().hasPrefix("7.2") ? .v10_0 : .v7_2
    let state = VMState(vm.configuration)
    let run = try TracedRun(
      moult: ["upgrade", vm.configuration.name] + CrashRig.destination(target), of: vm)
    var switches: [String: Int] = [:]
    while let record = try run.next() {
      guard ["pause.begin", "retire.begin"].contains(record.label), let guardian = state.guardian(of: run.pid) else { continue }
      switches[record.label] = Self.switches(guardian)
    }
    let outcome = try run.wait()
    guard outcome.code == 0, let first = switches["pause.begin"], let last = switches["retire.begin"] else {
      throw LabFailure("no guardian was there all the time: exit \(outcome.code): \(outcome.stderr)")
    }
    return "guardian: scheduled \(last - first) times between pause and the guest's running on"
  }

  /// How often a process has waited, or was made to: proc_pid_status(5).
  private static func switches(_ pid: pid_t) -> Int {
    Processes.text("/proc/\(pid)/status")
      .split(separator: "\n").filter { $0.contains("ctxt_switches") }
      .compactMap { $0.split(separator: "\t").last.flatMap { Int($0) } }.reduce(0, +)
  }
}

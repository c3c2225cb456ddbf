import Glibc
import Kernel

/// What the service manager that started the VM makes of another process in its place.
public enum Supervision: Sendable, Equatable {
  /// Nobody watches this process.
  case none
  /// systemd follows the pidfile: "Forking services may occasionally move to a new PID" (systemd, service.c).
  case pidfile
  /// systemd follows what the main process says (sd_notify(3), `MAINPID=`).
  case notified(unit: String)
  /// Nothing of the kind: a service whose main process ends is over, and all its processes with it.
  case mainProcess(unit: String, type: String)

  var notifiedUnit: String? { if case .notified(let unit) = self { unit } else { nil } }

  /// - Parameter pidfile: QEMU's, absolute.
  static func of(_ pid: pid_t, pidfile: String?) throws(Failure) -> Supervision {
    guard try Files.statusIfPresent("/run/systemd/system") != nil else { return .none }
    let units = try CgroupMembership.of(process: pid)
      .filter { $0.isUnified || $0.controllers.contains("name=systemd") }
      .flatMap { Paths.components($0.path) }.filter { $0.hasSuffix(".service") }
    guard let unit = units.last else { return .none }
    let properties = try ServiceManager.properties(["MainPID", "Type", "PIDFile", "NotifyAccess"], of: unit)
    // A scope has no main process.
    guard properties["MainPID"] == String(pid) else { return .none }
    if properties["Type"] == "forking", let file = properties["PIDFile"], !file.isEmpty, let pidfile,
      try Paths.real(file) == Paths.real(pidfile)
    {
      return .pidfile
    }
    if let access = properties["NotifyAccess"], ["main", "exec", "all"].contains(access) { return .notified(unit: unit) }
    return .mainProcess(unit: unit, type: properties["Type"] ?? "?")
  }
}

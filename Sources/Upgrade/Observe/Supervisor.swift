import Glibc
import Kernel

/// The service manager that started the VM, if one did.
enum Supervisor {
  /// Why ending this process would end the unit it belongs to, and with it the new QEMU; nil when it would not.
  ///
  /// A service whose main process ends is over, unless it is of `Type=forking` and its `PIDFile=` names
  /// another process by then: "Forking services may occasionally move to a new PID" (systemd,
  /// service.c). Scopes have no main process.
  static func whyNotReplaceable(pid: pid_t, pidfile: String?) throws(Failure) -> String? {
    guard try Files.statusIfPresent("/run/systemd/system") != nil else { return nil }
    let units = try CgroupMembership.of(process: pid)
      .filter { $0.isUnified || $0.controllers.contains("name=systemd") }
      .flatMap { Paths.components($0.path) }.filter { $0.hasSuffix(".service") }
    guard let unit = units.last else { return nil }
    let text = try Subprocess.output(of: "systemctl", ["show", "-p", "MainPID,Type,PIDFile,KillMode", unit])
    var properties: [String: String] = [:]
    for line in text.split(separator: "\n") {
      let parts = line.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
      if parts.count == 2 { properties[String(parts[0])] = String(parts[1]) }
    }
    guard properties["MainPID"] == String(pid) else { return nil }
    if properties["Type"] == "forking", let file = properties["PIDFile"], !file.isEmpty, let pidfile,
      try Paths.real(file) == Paths.real(pidfile)
    {
      return nil
    }
    return "it is the main process of \(unit) (Type=\(properties["Type"] ?? "?")): when it ends, systemd ends the unit and the new QEMU with it"
  }
}

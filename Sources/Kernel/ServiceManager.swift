import CKernel
import Glibc
import SystemPackage

/// systemd, as a process that it manages speaks to it.
public enum ServiceManager {
  /// Where it listens. Source: systemd's manager.c; `$NOTIFY_SOCKET` of the services of the system manager.
  static let notifySocket = "/run/systemd/notify"

  /// Properties of a unit, by name, as `systemctl show` prints them.
  public static func properties(_ names: [String], of unit: String) throws(Failure) -> [String: String] {
    let text = try Subprocess.output(of: "systemctl", ["show", "-p", names.joined(separator: ","), "--", unit])
    var properties: [String: String] = [:]
    for line in text.split(separator: "\n") {
      let parts = line.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
      if parts.count == 2 { properties[String(parts[0])] = String(parts[1]) }
    }
    return properties
  }

  /// Makes another process of its cgroup the main process of a unit, and returns when systemd has done so: the
  /// present one may end then without ending the unit. Source: sd_notify(3), `MAINPID=` and `BARRIER=`.
  /// - Parameters:
  ///   - main: the present main process, which must live: the word is given in its name, for which root is needed.
  ///   - seconds: how long systemd may take.
  public static func handOver(unit: String, from main: pid_t, to successor: pid_t, seconds: Double) throws(Failure) {
    try notify("MAINPID=\(successor)", inNameOf: main)
    // systemd closes its end when it has dealt with all that was said before.
    var ends: [CInt] = [-1, -1]
    try valueOrErrno("make", "a pipe") { moult_pipe(&ends) }
    let reader = OwnedFD(ends[0])
    do {
      let writer = OwnedFD(ends[1])
      try notify("BARRIER=1", inNameOf: main, descriptor: writer.raw)
    }
    var entry = pollfd(fd: reader.raw, events: 0, revents: 0)
    let answered = try valueOrErrno("wait for", "systemd") { poll(&entry, 1, CInt(seconds * 1000)) }
    if answered == 0 { throw Failure(step: "wait for", subject: "systemd", errno: .timedOut) }
    let now = try properties(["MainPID"], of: unit)["MainPID"]
    if now != String(successor) {
      throw Failure(
        step: "make the new QEMU the main process of", subject: unit, reason: "systemd did not take it: MainPID=\(now ?? "?")",
        hint: "see journalctl -u \(unit)")
    }
  }

  private static func notify(_ state: String, inNameOf pid: pid_t, descriptor: CInt = -1) throws(Failure) {
    try valueOrErrno("notify", notifySocket, hint: "a word in the name of another process needs root") {
      moult_notify(notifySocket, state, pid, descriptor)
    }
  }
}

import Foundation
import Glibc
import Kernel
import Lab

/// The rows that moult is compared with, on a VM of the lab. Each leaves the guest running in the new
/// QEMU at the public paths, and the old one dead.
struct BareSwitch {
  let vm: LabVM
  private var home: String { vm.configuration.home }
  private var names: String { home + "/vm" }
  private var stage: String { home + "/bare-stage" }
  private var log: String { vm.configuration.log }

  /// What moult allows, so that the pauses compare.
  private static let limits = "{\"max-bandwidth\":100000000000,\"downtime-limit\":20}"

  private static func capabilities(_ names: [String]) -> String {
    "{\"capabilities\":[" + names.map { "{\"capability\":\"\($0)\",\"state\":true}" }.joined(separator: ",") + "]}"
  }

  /// Kills a QEMU and waits until it is gone with all that it had.
  private func end(_ pid: pid_t) {
    kill(pid, SIGKILL)
    while !Processes.hasEnded(pid) { usleep(200) }
  }

  // MARK: Save, stop, start, load

  /// What was done before there was anything better (Proxmox bug 3303), the state on a tmpfs.
  func save(_ file: String, during: (pid_t) -> Void = { _ in }) throws -> Sample {
    let began = monotonicNanoseconds()
    defer { unlink(file) }
    let pid = try vm.pid()
    let old = try BareMonitor(vm.configuration.qmpSocket)
    try old.execute("qmp_capabilities")
    try old.execute("migrate-set-capabilities", Self.capabilities(["events"]))
    try old.execute("migrate-set-parameters", Self.limits)
    try old.execute("stop")
    let stopped = try old.event("STOP")
    try old.execute("migrate", "{\"uri\":\"exec:cat > \(file)\"}")
    try old.event("MIGRATION", "\"completed\"")
    try old.execute("quit")
    while !Processes.hasEnded(pid) { usleep(200) }

    let mark = stage + ".exec"
    let new = try start(wrapper: [], mark: mark, extra: ["-S", "-incoming", "defer"])
    during(new)
    let monitor = try BareMonitor(vm.configuration.qmpSocket)
    try monitor.execute("qmp_capabilities")
    let startUp = try sinceExec(mark)
    try monitor.execute("migrate-set-capabilities", Self.capabilities(["events"]))
    try monitor.execute("migrate-incoming", "{\"uri\":\"exec:cat \(file)\"}")
    try monitor.event("MIGRATION", "\"completed\"")
    try monitor.execute("cont")
    let resumed = try monitor.event("RESUME")
    return Sample(
      pause: Double(resumed - stopped) / 1000, guestPause: 0,
      total: Double(monotonicNanoseconds() - began) / 1e6, startUp: startUp)
  }

  // MARK: Live migration

  /// Two QEMUs side by side, the new one's names in a directory that is bound over the public one in a
  /// mount namespace of its own.
  /// - Parameter replacing: what to replace in the VM's arguments: two QEMUs cannot have the same tap.
  func migrate(shared: Bool, replacing: [String: String] = [:], during: (pid_t) -> Void = { _ in }) throws -> Sample {
    let began = monotonicNanoseconds()
    let pid = try vm.pid()
    try FileManager.default.createDirectory(atPath: stage, withIntermediateDirectories: false)
    let mark = stage + ".exec"
    let new = try start(
      wrapper: ["unshare", "--mount", "--ipc", "--uts", "bash", "-c"], mark: mark,
      setUp: "mount --make-rslave / && mount --bind '\(stage)' '\(names)' && ", extra: ["-S", "-incoming", "defer"],
      replacing: replacing)
    during(new)
    let capabilities = Self.capabilities(["events"] + (shared ? ["x-ignore-shared"] : []))
    let old = try BareMonitor(vm.configuration.qmpSocket)
    try old.execute("qmp_capabilities")
    try old.execute("migrate-set-capabilities", capabilities)
    try old.execute("migrate-set-parameters", Self.limits)
    let monitor = try BareMonitor(stage + "/" + (vm.configuration.qmpSocket as NSString).lastPathComponent)
    try monitor.execute("qmp_capabilities")
    let startUp = try sinceExec(mark)
    try monitor.execute("migrate-set-capabilities", capabilities)
    let stream = home + "/migration.sock"
    defer { unlink(stream) }
    try monitor.execute("migrate-incoming", "{\"uri\":\"unix:\(stream)\"}")
    // An emulated guest that writes while it is copied can lose what it wrote.
    if !shared { try old.execute("stop") }
    try old.execute("migrate", "{\"uri\":\"unix:\(stream)\"}")
    let stopped = try old.event("STOP")
    try monitor.event("MIGRATION", "\"completed\"")
    try old.event("MIGRATION", "\"completed\"")
    try monitor.execute("cont")
    let resumed = try monitor.event("RESUME")

    try Exchange.names(names, stage)
    end(pid)
    try FileManager.default.removeItem(atPath: stage)
    return Sample(
      pause: Double(resumed - stopped) / 1000, guestPause: 0,
      total: Double(monotonicNanoseconds() - began) / 1e6, startUp: startUp)
  }

  // MARK: The new QEMU

  /// Starts a QEMU with the VM's own argv by way of a shell that notes the time of its exec.
  private func start(wrapper: [String], mark: String, setUp: String = "", extra: [String], replacing: [String: String] = [:]) throws -> pid_t {
    unlink(mark)
    let script = setUp + "echo $EPOCHREALTIME >'\(mark)' && exec \"$@\""
    var configuration = vm.configuration
    configuration.launcher += (wrapper.isEmpty ? ["bash", "-c"] : wrapper) + [script, "bench"]
    configuration.extraArguments += extra
    for (words, others) in replacing {
      configuration.extraArguments = configuration.extraArguments.map { $0.replacingOccurrences(of: words, with: others) }
    }
    return try ChildProcess(configuration.command(), log: log).pid
  }

  private func sinceExec(_ mark: String) throws -> Double {
    var now = timespec()
    clock_gettime(CLOCK_REALTIME, &now)
    defer { unlink(mark) }
    let text = try String(contentsOfFile: mark, encoding: .utf8).trimmingCharacters(in: .whitespacesAndNewlines)
    guard let began = Double(text) else { throw LabFailure("\(mark): \(text)") }
    return (Double(now.tv_sec) - began) * 1000 + Double(now.tv_nsec) / 1e6
  }
}

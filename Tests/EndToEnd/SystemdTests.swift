import Foundation
import Lab
import Testing

/// VMs that systemd runs: a real systemd, PID 1 of namespaces of its own.
@Suite(.serialized, .enabled(if: access("/lib/systemd/systemd", X_OK) == 0 && getuid() == 0))
struct SystemdTests {
  /// "Forking services may occasionally move to a new PID. As long as they update the PID file before
  /// exiting the old PID, they're fine" (systemd, service.c).
  @Test func `a unit follows its VM into the new QEMU, or the upgrade is refused`() throws {
    let before = Leftovers.snapshot()
    let host = try SystemdHost()
    defer { host.end() }

    try host.unit("forking", type: "forking", options: "PIDFile=/run/forking/qemu.pid", arguments: "-daemonize")
    try host.succeed(["systemctl", "start", "forking"])
    let first = try host.mainPID("forking")
    #expect(first > 0)
    let upgrade = try host.run([Lab.paths.moult, "upgrade", "forking", "--format", "json"])
    #expect(upgrade.code == 0, "\(upgrade.stderr)")
    let document = try upgrade.json()
    let new = try #require(document["to"]["pid"].int)
    try host.until { try host.mainPID("forking") == new }
    #expect(document["from"]["pid"].int == first)
    #expect(try host.state("forking") == "active")
    // The unit still manages it: stopping it ends the new QEMU.
    try host.succeed(["systemctl", "stop", "forking"])
    try host.until { try host.state("forking") != "deactivating" }
    let end = try host.run(["systemctl", "status", "forking"]).stdout
    #expect(try host.state("forking") == "inactive", "\(end)")
    #expect(try host.run(["kill", "-0", "\(new)"]).code != 0)

    // A unit that takes no word of its main process: refused, with a way out that needs no restart.
    try host.unit("simple", type: "simple", options: "", arguments: "")
    try host.succeed(["systemctl", "start", "simple"])
    let pid = try host.mainPID("simple")
    try host.until { try host.run(["test", "-S", "/run/simple/qmp.sock"]).code == 0 }
    let refused = try host.run([Lab.paths.moult, "upgrade", "simple"])
    #expect(refused.code == 3)
    #expect(refused.stderr.contains("simple.service") && refused.stderr.contains("NotifyAccess=main"))
    #expect(try host.mainPID("simple") == pid)
    #expect(try host.state("simple") == "active")
    try host.listen("main", "simple")
    // Held and rolled back: the unit follows its VM there and back again.
    let held = try host.run([Lab.paths.moult, "upgrade", "simple", "--hold", "--format", "json"])
    #expect(held.code == 0, "\(held.stderr)")
    let second = try #require(try held.json()["to"]["pid"].int)
    #expect(try host.mainPID("simple") == second)
    #expect(try host.state("simple") == "active")
    let back = try host.run([Lab.paths.moult, "rollback", "simple", "--format", "json"])
    #expect(back.code == 0, "\(back.stderr)")
    let third = try host.mainPID("simple")
    #expect(third != second && third != pid)
    #expect(try host.state("simple") == "active")
    #expect(try host.run(["kill", "-0", "\(pid)"]).code != 0)

    // systemd takes the word no more when it is given: the old QEMU stays, stopped, or the unit would end with it.
    let late = try host.start([Lab.paths.moult, "upgrade", "simple"])
    try host.whileStopped(late, at: "launch", in: "simple") { try host.listen("none", "simple") }
    let refusal = try late.wait()
    #expect(refusal.code == 5 && refusal.stderr.contains("systemd did not take it") && refusal.stderr.contains("moult recover simple"), "\(refusal)")
    #expect(try host.mainPID("simple") == third)
    #expect(try host.state("simple") == "active")
    #expect(try host.run(["cut", "-d", " ", "-f3", "/proc/\(third)/stat"]).stdout == "T\n")
    try host.listen("main", "simple")
    try host.succeed([Lab.paths.moult, "recover", "simple"])
    let fourth = try host.mainPID("simple")
    #expect(fourth != third && fourth > 0)
    #expect(try host.state("simple") == "active")
    #expect(try host.run(["kill", "-0", "\(third)"]).code != 0)
    try host.succeed(["systemctl", "stop", "simple"])
    #expect(try host.run(["kill", "-0", "\(fourth)"]).code != 0)

    host.end()
    #expect(Leftovers.snapshot().difference(from: before) == [])
  }
}

/// A systemd in namespaces of its own, and commands run in there.
private final class SystemdHost {
  private let unshare: ChildProcess
  private let pid: pid_t
  private var hasEnded = false

  init() throws {
    let script = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .appendingPathComponent("Lab/guest/systemd-host").path
    let program = URL(fileURLWithPath: Lab.paths.moult).resolvingSymlinksInPath().deletingLastPathComponent().path
    unshare = try ChildProcess([
      "unshare", "--pid", "--fork", "--mount", "--uts", "--ipc", "--cgroup", "--kill-child", script, program, Lab.paths.cache,
    ])
    let deadline = Date().addingTimeInterval(30)
    while true {
      let children = try ChildProcess(["pgrep", "-P", "\(unshare.pid)"]).wait().stdout.split(separator: "\n")
      if let child = children.first.flatMap({ pid_t($0) }),
        try ChildProcess(["nsenter", "-t", "\(child)", "-a", "systemctl", "is-system-running"]).wait().stdout.hasPrefix("running")
      {
        pid = child
        return
      }
      if Date() > deadline { throw LabFailure("systemd did not start") }
      usleep(200_000)
    }
  }

  func run(_ arguments: [String]) throws -> ChildProcess.Outcome { try ChildProcess(["nsenter", "-t", "\(pid)", "-a"] + arguments).wait() }
  func succeed(_ arguments: [String]) throws {
    let outcome = try run(arguments)
    if outcome.code != 0 { throw LabFailure("\(arguments.joined(separator: " ")): \(outcome.stdout)\(outcome.stderr)") }
  }

  func start(_ arguments: [String]) throws -> ChildProcess { try ChildProcess(["nsenter", "-t", "\(pid)", "-a"] + arguments) }

  /// Whose word of its main process systemd takes.
  func listen(_ access: String, _ unit: String) throws {
    try succeed(["sh", "-c", """
      mkdir -p /etc/systemd/system/$1.service.d
      printf '[Service]\\nNotifyAccess=%s\\n' $0 >/etc/systemd/system/$1.service.d/moult.conf
      systemctl daemon-reload
      """, access, unit])
  }

  /// Does something while a moult in there stands still in a step of an upgrade.
  func whileStopped(_ command: ChildProcess, at step: String, in vm: String, _ body: () throws -> Void) throws {
    let moult = try eventually("moult runs") { Processes.all().first { $0.arguments.starts(with: [Lab.paths.moult, "upgrade", vm]) }?.pid }
    let run = "/proc/\(pid)/root/run/moult"
    try eventually("moult comes to \(step)") {
      let directories = Patient.list(run).filter { $0.hasPrefix(vm + "-") }
      let journals = directories.map { String(decoding: FileManager.default.contents(atPath: run + "/" + $0 + "/journal") ?? Data(), as: UTF8.self) }
      return journals.contains { $0.contains("\"step\":\"\(step)\",\"phase\":\"begin\"") }
    }
    kill(moult, SIGSTOP)
    defer {
      // nsenter stops with its child.
      for stopped in [moult, command.pid] { kill(stopped, SIGCONT) }
    }
    try body()
  }

  func unit(_ name: String, type: String, options: String, arguments: String) throws {
    let command =
      "/usr/bin/qemu-system-x86_64 -name \(name) -m 128 -machine pc-q35-5.2 -accel tcg -cpu qemu64 -nodefaults "
      + "-display none -kernel \(Lab.paths.kernel) -initrd \(Lab.paths.initrd) -append \"console=ttyS0 quiet\" "
      + "-qmp unix:/run/\(name)/qmp.sock,server=on,wait=off -pidfile /run/\(name)/qemu.pid \(arguments)"
    let text = "[Service]\nType=\(type)\n\(options)\nRuntimeDirectory=\(name)\nExecStart=\(command)\n"
    try succeed(["sh", "-c", "mkdir -p /run/systemd/system; printf '%s' \"$0\" >/run/systemd/system/\(name).service", text])
    try succeed(["systemctl", "daemon-reload"])
  }

  private func property(_ name: String, _ unit: String) throws -> String {
    try run(["systemctl", "show", "-p", name, "--value", unit]).stdout.trimmingCharacters(in: .whitespacesAndNewlines)
  }
  func mainPID(_ unit: String) throws -> Int { Int(try property("MainPID", unit)) ?? 0 }
  func state(_ unit: String) throws -> String { try property("ActiveState", unit) }

  /// systemd hears of a process's end by SIGCHLD, a moment after it.
  func until(_ condition: () throws -> Bool) throws {
    let deadline = Date().addingTimeInterval(10)
    while try !condition() {
      if Date() > deadline { throw LabFailure("it did not come to that") }
      usleep(50_000)
    }
  }

  func end() {
    if hasEnded { return }
    hasEnded = true
    kill(pid, SIGKILL)
    do { _ = try unshare.wait(seconds: 10) } catch { Issue.record("\(error)") }
  }
}

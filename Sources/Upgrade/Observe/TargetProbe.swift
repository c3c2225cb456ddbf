import Glibc
import Kernel
import QEMU
import Sandbox

/// Starts a QEMU binary without a machine and asks it what it is and what it knows.
enum TargetProbe {
  private static let channel = "socket,id=moult-probe,fd=3"

  /// A QEMU without a guest, that only says what it knows: one that moult asks, or one that writes down its formats.
  static func isProbe(_ commandLine: QEMU.CommandLine) -> Bool {
    commandLine.options.contains { $0.name == "dump-vmstate" || $0.name == "chardev" && $0.value == channel }
  }

  /// In the same sandbox as an upgrade would, as the VM's user, with nothing of the VM.
  static func run(
    _ observation: Observation, _ request: UpgradeRequest, demands: Demands, reactor: Reactor
  ) throws(Failure) -> TargetFacts {
    let messages = DescriptorBox(try OwnedFD.memory(named: "messages"))
    let (child, control) = try spawn(observation, request, messages: messages.raw)
    let handle = try ProcessHandle(pid: child)
    let monitor = QMPConnection(try control.duplicate(), subject: request.binary, reactor: reactor)
    // A process that ends without a word is noticed by its pidfd; the socket's other end is ours, too.
    reactor.add(handle.raw) { () throws(Failure) in
      reactor.remove(handle.raw)
      if monitor.version == nil { throw Self.ended(request.binary, messages: messages.raw) }
    }
    defer {
      reactor.remove(handle.raw)
      do {
        if !handle.hasExited { try handle.kill() }
        try handle.waitForExit()
      } catch { FileDescriptorOutput.error("moult: could not end the probe: \(error)") }
      withExtendedLifetime(messages) {}
    }
    let version: QEMUVersion
    do throws(Failure) { version = try monitor.negotiate(seconds: 30) } catch where error.errno == .connectionReset {
      // A process that ends closes its descriptors before it can be waited for.
      throw Self.ended(request.binary, messages: messages.raw)
    }
    return TargetFacts(
      version: version,
      catalog: try BinaryCatalog.query(monitor, devices: demands.deviceTypes, objects: demands.objectTypes))
  }

  private static func spawn(
    _ observation: Observation, _ request: UpgradeRequest, messages: CInt
  ) throws(Failure) -> (pid: pid_t, control: DescriptorBox) {
    let control = try Channel()
    let status = try ProcessStatus.read(pid: observation.process.pid)
    let process = ProcessPlan(
      executable: .path(request.binary),
      arguments: [
        request.binary, "-machine", "none", "-nodefaults", "-display", "none", "-S", "-chardev", channel,
        "-mon", "chardev=moult-probe,mode=control",
      ],
      environment: try ProcFS.environment(of: observation.process.pid), workingDirectory: "/",
      credentials: status.credentials, standardInput: .null,
      standardOutput: .descriptor(messages), standardError: .descriptor(messages),
      inherited: [.init(source: control.theirs.raw, number: 3)], newSession: true, endsWithParent: true)
    let files = LaunchPlan.keptLayers(request)
    let sandbox =
      request.root.map { SandboxPlan.tree($0, files: files) } ?? SandboxPlan(namespaces: .all, operations: files)
    defer { withExtendedLifetime(control.theirs) {} }
    do throws(Failure) { return (try Sandbox.launch(sandbox, process).pid, control.ours) } catch { throw error.hintingAtLibraries }
  }

  private static func ended(_ binary: String, messages: CInt) -> Failure {
    var bytes = [UInt8](repeating: 0, count: 2000)
    let count = pread(messages, &bytes, bytes.count, 0)
    let text = count > 0 ? String(decoding: bytes[..<count], as: UTF8.self).trimmingWhitespace : ""
    return Failure(
      step: "try", subject: binary, reason: "it is not a QEMU that works" + (text.isEmpty ? ": it ended without a word" : ": \(text.split(separator: "\n").prefix(3).joined(separator: " / "))"),
      hint: "--to names the QEMU binary to change to")
  }
}

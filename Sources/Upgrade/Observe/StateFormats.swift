import Glibc
import Kernel
public import QEMU
import Sandbox

/// What the running and the new binary say of the device state that they save and load.
public struct StateFormats: Sendable, Equatable {
  /// What the new QEMU does not load of what the running one saves.
  public var forward: [VMStateDump.Loss]
  /// What the running version would not load of what the new one saves: on the way back.
  public var backward: [VMStateDump.Loss]
  /// Why one of them could not be asked; nil if both were.
  public var unknown: String?

  public init(forward: [VMStateDump.Loss] = [], backward: [VMStateDump.Loss] = [], unknown: String? = nil) {
    self.forward = forward
    self.backward = backward
    self.unknown = unknown
  }
}

/// Both binaries while they write down their formats, with the VM's machine type. Started first and asked last, they
/// work while the VM and the new binary answer other questions.
final class FormatComparison {
  /// The running one's and the new one's; empty if there is nothing to compare.
  private var dumpers: [StateDumper] = []
  /// Why one could not be started.
  private var failure: Failure?

  /// What it starts is ended by `end`.
  init(_ observation: Observation, _ request: UpgradeRequest) throws(Failure) {
    let running = try OwnedFD.open("/proc/\(observation.process.pid)/exe", O_RDONLY)
    let target: FileStatus
    if let root = request.root { target = try Paths.status(request.binary, inTree: root) } else { target = try Files.status(request.binary) }
    // The same file, with the same libraries around it, says the same.
    if try Files.status(of: running.raw).isSameFile(as: target), observation.root == request.root { return }
    do throws(Failure) {
      dumpers.append(
        try StateDumper(
          observation, binary: observation.binary, executable: observation.binaryDeleted ? .descriptor(running.raw) : .path(observation.binary),
          root: observation.root, layers: []))
      dumpers.append(
        try StateDumper(
          observation, binary: request.binary, executable: .path(request.binary), root: request.root, layers: LaunchPlan.keptLayers(request)))
    } catch where error.errno != .interrupted { failure = error }
  }

  /// Waits for both, and compares what they say of the devices that the VM has.
  func result(_ monitor: QMPConnection) throws(Failure) -> StateFormats {
    if let failure { return StateFormats(unknown: "\(failure)") }
    if dumpers.isEmpty { return StateFormats() }
    do throws(Failure) {
      let devices = try GuestView.deviceTypes(monitor)
      let (old, new) = (try dumpers[0].dump(), try dumpers[1].dump())
      return StateFormats(forward: old.losses(to: new, devices: devices), backward: new.losses(to: old, devices: devices))
    } catch where error.errno != .interrupted {
      return StateFormats(unknown: "\(error)")
    }
  }

  func end() {
    for dumper in dumpers { dumper.end() }
    dumpers = []
  }
}

/// A QEMU that writes down its format of device state, and ends.
private final class StateDumper {
  private let binary: String
  private let output: DescriptorBox
  private let messages: DescriptorBox
  private let process: ProcessHandle

  init(
    _ observation: Observation, binary: String, executable: ProcessPlan.Executable, root: String?, layers: [MountOperation]
  ) throws(Failure) {
    self.binary = binary
    output = DescriptorBox(try OwnedFD.memory(named: "vmstate"))
    messages = DescriptorBox(try OwnedFD.memory(named: "messages"))
    let process = ProcessPlan(
      executable: executable,
      arguments: [
        binary, "-machine", observation.live.machineType, "-nodefaults", "-display", "none", "-dump-vmstate", "/proc/self/fd/3",
      ],
      environment: try ProcFS.environment(of: observation.process.pid), workingDirectory: "/",
      credentials: try ProcessStatus.read(pid: observation.process.pid).credentials, standardInput: .null,
      standardOutput: .null, standardError: .descriptor(messages.raw), inherited: [.init(source: output.raw, number: 3)], newSession: true,
      endsWithParent: true)
    let devices = observation.usesKVM ? ["/dev/kvm"] : []
    let child = try Sandbox.launch(
      root.map { SandboxPlan.tree($0, devices: devices, files: layers) } ?? SandboxPlan(namespaces: .all, operations: layers), process)
    self.process = try ProcessHandle(pid: child.pid)
  }

  func dump() throws(Failure) -> VMStateDump {
    guard process.exits(withinMilliseconds: 20_000) else {
      throw Failure(step: "read the state formats of", subject: binary, errno: .timedOut)
    }
    do { return try VMStateDump(parsing: try Self.contents(of: output.raw)) } catch {
      let said = try Self.contents(of: messages.raw)
      let text = String(decoding: said.prefix(300), as: UTF8.self).trimmingWhitespace
      throw Failure(
        step: "read the state formats of", subject: binary, reason: "-dump-vmstate failed (\(error))\(text.isEmpty ? "" : ": \(text)")")
    }
  }

  /// Ends it, if it has not ended by itself.
  func end() {
    do {
      if !process.hasExited { try process.kill() }
      try process.waitForExit()
    } catch { FileDescriptorOutput.error("moult: could not end \(binary): \(error)") }
  }

  private static func contents(of descriptor: CInt) throws(Failure) -> [UInt8] {
    let size = Int(try Files.status(of: descriptor).size)
    var bytes = [UInt8](repeating: 0, count: min(size, 64 << 20))
    var have = 0
    while have < bytes.count {
      let offset = have
      let count = bytes.withUnsafeMutableBytes { pread(descriptor, $0.baseAddress! + offset, $0.count - offset, off_t(offset)) }
      if count <= 0 { break }
      have += count
    }
    return Array(bytes[..<have])
  }
}

public import Foundation
import Glibc
import Synchronization

/// A running VM with a guest that says how it fares.
public final class LabVM: Sendable {
  public let configuration: VMConfiguration
  /// What the guest says, from its first line on.
  public let serial: SerialReader
  /// The QEMU that booted it, unless that has made itself a daemon.
  private let child: ChildProcess?

  /// Boots the VM and waits until its guest is ready.
  /// - Parameter again: over what one that has ended left, as somebody would who starts it anew.
  public init(_ configuration: VMConfiguration, again: Bool = false, within seconds: Double = 90) throws {
    self.configuration = configuration
    Ending.waitIfBegun()
    LabVM.all.withLock { $0[configuration.name] = configuration }
    if !again { try LabVM.removeRemains(of: configuration) }
    try LabVM.prepare(configuration)
    let serial = try SerialReader(path: configuration.serialSocket)
    self.serial = serial
    var child: ChildProcess?
    do {
      let started = try ChildProcess(try configuration.command(), log: configuration.log)
      child = started
      if configuration.daemonize {
        let outcome = try started.wait(seconds: 30)
        guard outcome.code == 0 else { throw LabFailure("QEMU: exit \(outcome.code)") }
      }
      let ready =
        configuration.restoredFrom != nil ? "tick " : configuration.guest == .linux ? "moult-guest ready" : "beat "
      var heard = 0
      try eventually("\(configuration.name) boots", within: seconds) {
        if !configuration.daemonize && !started.isRunning { throw LabFailure("QEMU has ended") }
        let lines = serial.lines(from: heard)
        heard += lines.count
        return lines.contains { $0.text.contains(ready) }
      }
    } catch {
      let log = FileManager.default.contents(atPath: configuration.log) ?? Data()
      LabVM.kill(configuration)
      child?.reap()
      serial.stop()
      throw LabFailure("\(error)\n\(String(decoding: log.suffix(2000), as: UTF8.self))")
    }
    self.child = configuration.daemonize ? nil : child
  }

  /// The VM's process now, by its pidfile.
  public func pid() throws -> pid_t {
    let text = try String(contentsOfFile: configuration.pidfile, encoding: .utf8)
    guard let pid = pid_t(text.trimmingCharacters(in: .whitespacesAndNewlines)) else {
      throw LabFailure("\(configuration.pidfile): \(text)")
    }
    return pid
  }

  /// Every process of this VM: old twins and new ones.
  public var processes: [pid_t] { LabVM.processes(named: configuration.name) }

  /// One command over a connection of its own, so that the monitor is free again afterwards.
  @discardableResult
  public func qmp(_ command: String, _ arguments: JSON = [:]) throws -> JSON {
    try QMPConnection(configuration.qmpSocket).execute(command, arguments)
  }

  /// `7.2.22`, as the QEMU at the public path says.
  public func version() throws -> String { try QMPConnection(configuration.qmpSocket).version }
  /// `running`, `paused`, `postmigrate`…
  public func status() throws -> String? { try qmp("query-status")["status"].string }

  // What the guest says of itself.

  public var pulse: Pulse { serial.pulse }
  /// Empty if no tick was lost while anybody listened, and none came twice or too early.
  public var discontinuities: [String] { pulse.discontinuities() }
  public var ticksAreContinuous: Bool { discontinuities.isEmpty && !pulse.ticks.isEmpty }
  /// Neither memory nor disk nor kernel complained.
  public var noCorruption: Bool { pulse.complaints.isEmpty }
  public var lastSynced: Int? { pulse.lastSynced }

  /// Waits until the guest ticks `count` more times over whatever answers at the public path now.
  public func ticks(_ count: Int = 10, within seconds: Double = 30) throws {
    let seen = pulse.ticks.count
    try eventually("\(configuration.name): \(count) more ticks", within: seconds) {
      pulse.ticks.count >= seen + count
    }
  }

  /// The guest answers on the console: input reaches it and its output comes back.
  public func echoes(within seconds: Double = 10) throws -> Bool {
    let word = "echo \(UUID().uuidString)"
    let start = serial.lines.count
    try serial.send(word)
    return try serial.line("answers", from: start, within: seconds) { $0 == word }.text == word
  }

  /// Waits until no process of the VM is left and all they had is given up: sockets, locks on images.
  public func waitForEnd(within seconds: Double = 30) throws {
    let pids = processes
    try eventually("\(configuration.name) ends", within: seconds) {
      pids.allSatisfy(Processes.hasEnded) && processes.isEmpty
    }
  }

  /// Ends every process of the VM and removes all it had, its disk kept if asked for.
  public func end(keepDisk: Bool = false) {
    LabVM.kill(configuration)
    child?.reap()
    serial.stop()
    if !keepDisk { LabVM.remove(configuration) }
  }

  /// To be called after the end, before ``remove()``: what is wrong with the disk.
  ///
  /// Every number the guest was told is on the disk is there, in its place, and the image is sound.
  ///
  /// - Parameters:
  ///   - image, format: of the disk, if they are not the configuration's any more.
  public func diskFaults(image: String? = nil, format: String? = nil) throws -> [String] {
    try DiskCheck.faults(
      image: image ?? configuration.diskImage, format: format ?? configuration.disk ?? "raw", synced: lastSynced ?? 0)
  }

  /// Ends the VM, checks its disk, removes everything.
  public func endAndVerifyDisk(image: String? = nil, format: String? = nil) throws -> [String] {
    end(keepDisk: true)
    defer { LabVM.remove(configuration) }
    return try diskFaults(image: image, format: format)
  }

  /// Removes what ``end(keepDisk:)`` kept.
  public func remove() { LabVM.remove(configuration) }

  /// What a snapshot of a whole VM is called in its image.
  public static let snapshot = "boot"

  /// Stores the VM in its image, ends it, and moves the image: others can be restored from it.
  public func store(to path: String) throws {
    let answer = try qmp("human-monitor-command", ["command-line": .text("savevm \(LabVM.snapshot)")])
    guard answer.string == "" else { throw LabFailure("savevm: \(answer)") }
    // Killed, it would not have written all of the image's tables.
    try qmp("quit")
    try waitForEnd()
    end(keepDisk: true)
    defer { remove() }
    try FileManager.default.moveItem(atPath: configuration.diskImage, toPath: path)
  }

  /// All that there have been, by their names.
  private static let all = Mutex<[String: VMConfiguration]>([:])
  static var names: Set<String> { all.withLock { Set($0.keys) } }

  /// Ends whatever VMs there are, and removes what they had.
  public static func endAll() {
    for configuration in all.withLock({ Array($0.values) }) {
      kill(configuration)
      remove(configuration)
    }
  }

  // The VM's things on the host.

  private static func prepare(_ configuration: VMConfiguration) throws {
    for directory in configuration.directories {
      try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
    }
    if configuration.layout == .symlinked {
      symlink("real", configuration.home + "/link")
    }
    if let state = configuration.restoredFrom {
      try succeed(["cp", "--sparse=always", state, configuration.diskImage])
    } else if let disk = configuration.disk {
      let size = "\(configuration.diskMebibytes)M"
      var create = ["qemu-img", "create", "-q", "-f", disk]
      if configuration.diskIsBacked {
        try succeed(["qemu-img", "create", "-q", "-f", disk, configuration.backingImage, size])
        create += ["-b", configuration.backingImage, "-F", disk]
      }
      try succeed(create + [configuration.diskImage, size])
    }
    if configuration.guest == .bootSector {
      try FileManager.default.copyItem(
        atPath: Lab.paths.bootSector, toPath: configuration.home + "/boot-sector")
    }
    if let user = configuration.user {
      // The cache may be where only root can read.
      for (path, copy) in [(Lab.paths.kernel, configuration.kernel), (Lab.paths.initrd, configuration.initrd)] {
        try FileManager.default.copyItem(atPath: path, toPath: copy)
      }
      for directory in configuration.directories { chown(directory, user, user) }
      if configuration.disk != nil { chown(configuration.diskImage, user, user) }
    }
  }

  private static func removeRemains(of configuration: VMConfiguration) throws {
    kill(configuration)
    remove(configuration)
  }

  private static func kill(_ configuration: VMConfiguration) {
    // Again until none is left: one may just be starting another.
    for _ in 0..<1000 {
      let processes = processes(named: configuration.name)
      if processes.isEmpty { return }
      for pid in processes { Glibc.kill(pid, SIGKILL) }
      for pid in processes { while !Processes.hasEnded(pid) { usleep(1000) } }
    }
  }

  private static func remove(_ configuration: VMConfiguration) {
    for path in configuration.belongings where FileManager.default.fileExists(atPath: path) {
      do { try FileManager.default.removeItem(atPath: path) } catch {
        print("could not remove \(path): \(error)")
      }
    }
    // Those that are empty.
    if case .shared(let directory) = configuration.layout { rmdir(directory) }
    rmdir(Lab.paths.run)
  }

  /// Processes whose argv says `-name NAME` and has a path of this process's VMs.
  static func processes(named name: String) -> [pid_t] {
    Processes.all().filter { process in
      let argv = process.arguments
      return process.isQEMU && argv.contains { $0.contains(Lab.paths.run + "/") }
        && argv.indices.dropLast().contains { argv[$0] == "-name" && argv[$0 + 1] == name }
    }.map(\.pid)
  }
}

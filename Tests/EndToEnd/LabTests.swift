import Foundation
import Lab
import Testing

/// The lab itself, before anything is believed that it says of the product.
///
/// Serialised, as everything that boots guests: they would be slow, not wrong, beside each other, and
/// what one leaves behind could not be told from what the other still has.
@Suite(.serialized)
struct LabTests {
  @Test(arguments: QEMUVersion.allCases)
  func `a guest boots, lives and ends without a trace`(_ version: QEMUVersion) throws {
    let before = Leftovers.snapshot()
    let vm = try LabVM(
      VMConfiguration("lab-\(version)") {
        $0.version = version
        $0.disk = "qcow2"
        $0.memory = .file()
        $0.words = ["fill=16"]
        $0.daemonize = version == .v7_2
      })
    defer { vm.end() }
    #expect(try vm.version().hasPrefix(version.rawValue + "."))
    #expect(try vm.status() == "running")
    #expect(try vm.echoes())
    try vm.ticks(100)
    #expect(vm.processes == [try vm.pid()])
    #expect(vm.discontinuities == [])
    #expect(vm.pulse.complaints == [])
    #expect(try #require(vm.lastSynced) > 0)
    #expect(!Leftovers.snapshot().difference(from: before).isEmpty)
    let faults = try vm.endAndVerifyDisk()
    #expect(faults == [])
    #expect(Leftovers.snapshot().difference(from: before) == [])
  }

  @Test(arguments: [
    VMConfiguration("lab-shared") { $0.layout = .shared(Lab.paths.run + "/together") },
    VMConfiguration("lab-apart") { $0.layout = .separateFilesystems },
    VMConfiguration("lab-link") { $0.layout = .symlinked },
    VMConfiguration("lab-user") { $0.user = 65534; $0.memory = .memfd() },
    VMConfiguration("lab-user-tree") { $0.user = 65534; $0.version = .v10_0; $0.daemonize = true },
    VMConfiguration("lab-log") { $0.serialLog = true },
    VMConfiguration("lab-kvm") {
      $0.guest = .bootSector; $0.machine = "pc-i440fx-5.2"
      $0.accelerator = access("/dev/kvm", R_OK | W_OK) == 0 ? .kvm : .tcg
    },
  ])
  func `a VM can be had in every shape`(_ configuration: VMConfiguration) throws {
    let before = Leftovers.snapshot()
    let vm = try LabVM(configuration)
    defer { vm.end() }
    #expect(try vm.status() == "running")
    if configuration.guest == .linux { try vm.ticks(20) }
    vm.end()
    #expect(Leftovers.snapshot().difference(from: before) == [])
  }

  /// QEMU stops the guest's clock with the guest; its hardware clock knows better.
  @Test func `the guest knows how long it was held`() throws {
    let vm = try LabVM(VMConfiguration("lab-held"))
    defer { vm.end() }
    try eventually("two seconds of the guest") { vm.pulse.seconds.count >= 2 }
    let monitor = try QMPConnection(vm.configuration.qmpSocket)
    let before = monotonicNanoseconds()
    try monitor.execute("stop")
    usleep(200_000)
    try monitor.execute("cont")
    let seen = vm.pulse.seconds.count
    try eventually("two more") { vm.pulse.seconds.count >= seen + 2 }
    let held = vm.pulse.heldMilliseconds(from: before)
    let stop = try #require(monitor.events.first { $0.name == "STOP" })
    let resume = try #require(monitor.events.first { $0.name == "RESUME" })
    let truth = Double(resume.microseconds - stop.microseconds) / 1000
    #expect(abs(held.held - truth) < held.within + 3, "\(held), by QMP \(truth)")
    #expect(vm.pulse.largestSilence >= 200)
    #expect(vm.discontinuities == [])
  }

  @Test func `a prober sees a listener, its absence and its name's absence`() throws {
    let vm = try LabVM(VMConfiguration("lab-probe"))
    defer { vm.end() }
    for blocking in [false, true] {
      let prober = try ConnectionProber(path: vm.configuration.qmpSocket, blocking: blocking)
      usleep(300_000)
      let counts = prober.stop()
      #expect(counts.failed == 0 && counts.connected > 0 && counts.attempts > 100, "\(counts)")
    }
    let pid = try vm.pid()
    kill(pid, SIGKILL)
    try eventually("its end") { Processes.hasEnded(pid) }
    for (path, failure) in [
      (vm.configuration.qmpSocket, \ConnectionProber.Counts.refused),
      (Lab.paths.run + "/none", \.missing),
    ] {
      let prober = try ConnectionProber(path: path)
      try eventually("attempts") { prober.attempts > 1000 }
      let counts = prober.stop()
      #expect(counts.attempts == counts[keyPath: failure], "\(counts)")
    }
  }

  @Test(arguments: [
    ("poweroff", "Power down"), ("panic", "Kernel panic"),
  ])
  func `a guest ends as it is told to`(_ command: String, _ sign: String) throws {
    let vm = try LabVM(VMConfiguration("lab-\(command)") { $0.extraArguments = ["-no-reboot"] })
    defer { vm.end() }
    let pid = try vm.pid()
    try vm.serial.send(command)
    try vm.serial.line(sign) { $0.contains(sign) }
    try eventually("QEMU ends") { Processes.hasEnded(pid) }
  }
}

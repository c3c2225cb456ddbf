@testable import QEMU
import Testing

@testable import Upgrade

/// Why an upgrade is refused, each by one change to a VM that could be upgraded.
@Suite struct BlockerTests {
  struct Case: Sendable, CustomTestStringConvertible {
    var what: String
    /// Part of the blocker's option, and of its reason.
    var option: String
    var reason: String
    var change: @Sendable (inout Observation) -> Void
    var testDescription: String { what }
  }

  static let states: [Case] = [
    ("paused", "is paused"), ("suspended", "is suspended"), ("postmigrate", "migrated away"), ("shutdown", "shut down"),
    ("guest-panicked", "not healthy"), ("internal-error", "not healthy"), ("io-error", "not healthy"), ("watchdog", "not healthy"),
    ("inmigrate", "being migrated here"), ("prelaunch", "state prelaunch"), ("finish-migrate", "state finish-migrate"),
    ("debug", "state debug"), ("unknown", "state unknown"), ("", "in state"),
  ].map { state, reason in Case(what: "state \(state)", option: "run state", reason: reason) { $0.live.status = state } }

  static let migrations: [Case] = ["setup", "active", "pre-switchover", "device", "postcopy-active", "cancelling"].map { status in
    Case(what: "migration \(status)", option: "migration", reason: status) { $0.live.migrationStatus = status }
  }

  static let drift: [Case] = [
    .init(what: "a migration blocker", option: "migration", reason: "ivshmem") { $0.live.migrationBlockers = ["ivshmem is not migratable"] },
    .init(what: "a block job", option: "block job j", reason: "(mirror) is ready") { $0.live.blockJobs = [.init(id: "j", type: "mirror", isReady: true)] },
    .init(what: "a block job that has ended", option: "block job j", reason: "result waits to be read") {
      $0.live.blockJobs = [.init(id: "j", type: "mirror", isReady: true, hasEnded: true)]
    },
    .init(what: "a snapshot overlay", option: "drive disk0", reason: "/var/lib/vm1/snap.qcow2") {
      $0.live.drives[0].file = "/var/lib/vm1/snap.qcow2"
      $0.live.nodes.append(.init(name: nil, driver: "qcow2", file: "/var/lib/vm1/snap.qcow2", depth: 1))
    },
    .init(what: "a snapshot overlay that QEMU names as JSON", option: "drive disk0", reason: "/var/lib/vm1/snap.qcow2") {
      $0.live.drives[0].file = #"json:{"driver":"qcow2","file":{"driver":"file","filename":"/var/lib/vm1/snap.qcow2"}}"#
    },
    .init(what: "a JSON name that is none", option: "drive disk0", reason: "json:{") { $0.live.drives[0].file = "json:{broken" },
    .init(what: "an ejected medium", option: "image \(Fixture.disk)", reason: "ejected") {
      $0.live.drives[0].file = nil
      $0.live.nodes = []
    },
    .init(what: "an empty node name", option: "image \(Fixture.disk)", reason: "ejected") {
      $0.live.drives[0].file = nil
      $0.live.nodes = [.init(name: nil, driver: "null-co", file: "", depth: 0)]
    },
    .init(what: "an added device", option: "device hot", reason: "after the start") { $0.live.devices["hot"] = "e1000" },
    .init(what: "a removed device", option: "device blk0", reason: "removed") { $0.live.devices["blk0"] = nil },
    .init(what: "an added device without id", option: "devices without id", reason: "2 are plugged in, the command line makes 1") {
      $0.live.anonymousDevices.append("e1000")
    },
    .init(what: "a removed device without id", option: "devices without id", reason: "0 are") { $0.live.anonymousDevices = [] },
    .init(what: "an added I/O thread", option: "I/O thread io2", reason: "after the start") { $0.live.iothreads["io2"] = 9 },
    .init(what: "a removed object", option: "object io1", reason: "removed") {
      $0.live.objects["io1"] = nil
      $0.live.iothreads = [:]
    },
    .init(what: "an added chardev", option: "character device hot", reason: "added") { $0.live.chardevs.append("hot") },
    .init(what: "an added chardev called like one of QEMU's own", option: "character device serial-extra", reason: "added") {
      $0.live.chardevs.append("serial-extra")
    },
    .init(what: "a removed chardev", option: "character device console", reason: "removed") { $0.live.chardevs = ["compat_monitor0"] },
  ]

  static let host: [Case] = [
    .init(what: "an image that is gone", option: Fixture.disk, reason: "not there any more") { $0.files[0].onHost = nil },
    .init(what: "an image that was replaced", option: Fixture.disk, reason: "replaced") { $0.files[0].isOpen = false },
    .init(what: "another file for QEMU", option: Fixture.disk, reason: "another file there") {
      $0.files[0].forQEMU = FileIdentity(device: 9, inode: 9)
    },
    .init(what: "a name that is another's", option: "/run/vm1/qmp.sock", reason: "another program") {
      $0.names[0].present = FileIdentity(device: 20, inode: 999)
    },
    .init(what: "a name in /dev", option: "/dev/pid", reason: "cannot be staged") {
      $0.names[1] = Fixture.name(.pidfile, "/dev/pid", inode: 11)
    },
    .init(what: "a name in /proc", option: "/proc/1/pid", reason: "cannot be staged") {
      $0.names[1] = Fixture.name(.pidfile, "/proc/1/pid", inode: 11)
    },
    .init(what: "a foreign descriptor", option: "descriptor 33", reason: "/dev/vfio/7") {
      $0.foreign = [ForeignDescriptor(number: 33, what: "/dev/vfio/7")]
    },
    .init(what: "a service manager that takes no word", option: "service manager", reason: "main process of vm1.service (Type=simple)") { $0.supervision = .mainProcess(unit: "vm1.service", type: "simple") },
    .init(what: "an old QEMU", option: "QEMU 5.1.0", reason: "older than 5.2") { $0.version = QEMUVersion(major: 5, minor: 1) },
    .init(what: "no memory for a copy", option: "--memory copy", reason: "the host has 100 MiB") {
      $0.memory = []
      $0.room.host = 100 << 20
    },
  ]

  @Test(arguments: states + migrations + drift + host) func refuses(_ test: Case) {
    var observation = Fixture.observation()
    test.change(&observation)
    let plan = Fixture.plan(observation)
    #expect(
      plan.blockers.contains { $0.option.contains(test.option) && ($0.reason + $0.option).contains(test.reason) && !$0.wayOut.isEmpty },
      "\(plan.blockers)")
    let host = ModelHost(plan)
    #expect(ExecutorTests.run(host).outcome == .refused)
    #expect(host.calls == [])
  }

  /// What differs from the fixture and is no reason to refuse.
  static let harmless: [Case] = [
    .init(what: "a migration that ended", option: "", reason: "") { $0.live.migrationStatus = "completed" },
    .init(what: "one that failed", option: "", reason: "") { $0.live.migrationStatus = "failed" },
    .init(what: "QEMU's own chardevs", option: "", reason: "") { $0.live.chardevs += ["serial0", "parallel0", "compat_monitor1", "moult-control"] },
    .init(what: "a JSON name of the same image", option: "", reason: "") {
      $0.live.drives[0].file = #"json:{"driver":"qcow2","file":{"driver":"file","filename":"/var/lib/vm1/disk.qcow2"}}"#
    },
    .init(what: "a pidfile that is missing", option: "", reason: "") { $0.names[1].present = nil },
    .init(what: "a file that is read once", option: "", reason: "") {
      $0.files[0].isImage = false
      $0.files[0].isOpen = false
    },
  ]

  @Test(arguments: harmless) func doesNotRefuse(_ test: Case) {
    var observation = Fixture.observation()
    test.change(&observation)
    #expect(Fixture.plan(observation).blockers == [])
  }

  @Test func swappedMediaAreRefused() {
    let (a, b) = ("/d/a.iso", "/d/b.iso")
    var observation = Fixture.observation(
      Fixture.arguments + ["-drive", "file=\(a),if=none,id=cda,format=raw", "-drive", "file=\(b),if=none,id=cdb,format=raw"])
    func drive(_ id: String, _ file: String) -> LiveMachine.Drive {
      .init(device: id, qdev: "", file: file, nodeName: nil, driver: "raw", limits: "")
    }
    observation.live.nodes += [a, b].map { .init(name: nil, driver: "file", file: $0, depth: 0) }
    let drives = observation.live.drives
    observation.live.drives = drives + [drive("cda", a), drive("cdb", b)]
    #expect(Fixture.plan(observation).blockers == [])
    observation.live.drives = drives + [drive("cda", b), drive("cdb", a)]
    #expect(Fixture.plan(observation).blockers.map(\.option) == ["drive cda", "drive cdb"])
  }

  /// To hand an image over QEMU opens it anew, by its name.
  @Test(arguments: [
    ("d.qcow2", false, true, ["image d.qcow2"]), ("d.qcow2", true, true, []), ("/vm/d.qcow2", false, true, []), ("d.qcow2", false, false, []),
  ])
  func aDaemonCannotHandOverWhatItKnowsByARelativePath(file: String, isReadOnly: Bool, hasLeftBase: Bool, blockers: [String]) {
    var observation = Fixture.observation()
    var node = BlockGraph.Node(name: "#block1", driver: "file", file: file)
    node.isReadOnly = isReadOnly
    observation.live.graph.nodes = [node.name: node]
    observation.hasLeftBase = hasLeftBase
    #expect(UpgradePlan.lostImageBlockers(observation).map(\.option) == blockers)
  }

  @Test func theTargetMustBeNewEnoughAndKnowTheMachine() {
    func blockers(_ major: Int, _ machines: Set<String>) -> [String] {
      return Fixture.plan(target: Fixture.target(QEMUVersion(major: major, minor: 0), machines: machines)).blockers.map(\.option)
    }
    #expect(blockers(10, ["pc-q35-7.2"]) == [])
    #expect(blockers(10, ["pc-q35-10.0"]) == ["-machine pc-q35-7.2"])
    #expect(blockers(5, ["pc-q35-7.2"]) == ["QEMU 5.0.0"])
    #expect(blockers(4, []) == ["QEMU 4.0.0", "-machine pc-q35-7.2"])
    let older = Fixture.plan(target: Fixture.target(QEMUVersion(major: 6, minor: 0), machines: ["pc-q35-7.2"]))
    #expect(older.warnings.contains { $0.contains("older than") })
    #expect(blockers(10, []) == ["-machine pc-q35-7.2"])
  }

  @Test func theTargetMustKnowWhatTheVMHas() {
    var target = Fixture.target(QEMUVersion(major: 10, minor: 0), machines: ["pc-q35-7.2"])
    target.catalog.types.remove("virtio-rng-pci")
    let blockers = Fixture.plan(target: target).blockers
    #expect(blockers.map(\.option) == ["-device virtio-rng-pci"])
    #expect(blockers.map(\.reason) == ["QEMU 10.0.0 has no device virtio-rng-pci"])
  }

  @Test func adeprecatedMachineTypeAndALostCapabilityAreTold() {
    var target = Fixture.target(QEMUVersion(major: 12, minor: 0), machines: ["pc-q35-7.2"])
    target.catalog.machines["pc-q35-7.2"]?.isDeprecated = true
    target.catalog.capabilities = ["xbzrle"]
    let plan = Fixture.plan(target: target)
    #expect(plan.blockers == [])
    #expect(plan.warnings.contains { $0.contains("pc-q35-7.2 is deprecated") && $0.contains("13.2 is the first without it") })
    #expect(plan.warnings.contains { $0.contains("auto-converge") })
  }

  @Test func standardInputMustBeNull() {
    var observation = Fixture.observation(Fixture.arguments + ["-monitor", "stdio"])
    #expect(!Fixture.plan(observation).blockers.contains { $0.option == "stdio" })
    observation.standardInputIsNull = false
    #expect(Fixture.plan(observation).blockers.contains { $0.option == "stdio" })
  }

  @Test func keysAreReadableUniqueAndStable() {
    // On disk between two versions of moult: must not change.
    #expect(UpgradePlan.key(name: "vm1", monitor: "/run/vm1/qmp.sock") == UpgradePlan.key(name: "vm1", monitor: "/run/vm1/qmp.sock"))
    #expect(UpgradePlan.key(name: "a", monitor: "") == "a-cbf29ce484222325")
    #expect(UpgradePlan.key(name: "a", monitor: "a") == "a-af63dc4c8601ec8c")
    #expect(UpgradePlan.key(name: nil, monitor: "") == "vm-cbf29ce484222325")
    #expect(UpgradePlan.key(name: "../x y/ü", monitor: "") == ".._x_y__-cbf29ce484222325")
    #expect(UpgradePlan.key(name: String(repeating: "x", count: 300), monitor: "").count == 57)
    #expect(UpgradePlan.key(name: "a", monitor: "/1") != UpgradePlan.key(name: "a", monitor: "/2"))
  }
}

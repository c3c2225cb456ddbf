import Kernel
import QEMU
import Sandbox
import Testing

@testable import Upgrade

@Suite struct LaunchPlanTests {
  static let shared: MountOperation = .bind(source: "/run/shared/.moult-u1", target: "/run/shared", recursive: true)
  static let own: MountOperation = .bind(source: "/run/.moult-u1-vm1", target: "/run/vm1", recursive: true)

  @Test func theTwinSharesMemoryByDescriptor() {
    #expect(LaunchPlan.arguments(Fixture.plan()) == [
      "/opt/qemu/bin/qemu-system-x86_64", "-name", "vm1", "-machine", "pc-q35-7.2,memory-backend=ram", "-m", "512",
      "-object", "memory-backend-file,id=ram,size=512M,mem-path=/proc/self/fd/5,share=on", "-object", "iothread,id=io1",
      "-nodefaults", "-display", "none",
      "-drive", "file=/var/lib/vm1/disk.qcow2,if=none,id=disk0,format=qcow2",
      "-device", "virtio-blk-pci,drive=disk0,id=blk0", "-device", "virtio-rng-pci",
      "-chardev", "socket,id=console,path=/run/shared/vm1.serial,server=on,wait=off", "-serial", "chardev:console",
      "-qmp", "unix:/run/vm1/qmp.sock,server=on,wait=off", "-pidfile", "/run/vm1/pid",
      "-chardev", "socket,id=moult-control,fd=3", "-mon", "chardev=moult-control,mode=control",
      "-incoming", "defer", "-S",
    ])
  }

  @Test func aCopyHasMemoryOfItsOwn() {
    let plan = Fixture.plan(Fixture.observation(), Fixture.request(memory: .copy))
    #expect(LaunchPlan.arguments(plan).contains("memory-backend-file,id=ram,size=512M,mem-path=/dev/shm/vm1.ram,share=on"))
    // Its RAM file is staged: never the one that the old QEMU writes.
    #expect(plan.stages.contains { $0.directory == "/dev/shm" && $0.names == ["vm1.ram"] && $0.kind == .shared })
    #expect(!Fixture.plan().stages.contains { $0.directory == "/dev/shm" })
  }

  /// The twin of a twin is started by the same words, with another descriptor's number at most.
  @Test func upgradingTwiceChangesNothingMore() {
    let once = LaunchPlan.arguments(Fixture.plan())
    let twice = LaunchPlan.arguments(Fixture.plan(Fixture.observation(once)))
    #expect(twice == once)
  }

  @Test func onTheHostsRootOnlyTheStagesAreMounted() {
    let sandbox = LaunchPlan.sandbox(Fixture.plan())
    #expect(sandbox.root == .host)
    #expect(sandbox.namespaces == [.mount, .ipc, .uts])
    #expect(sandbox.operations == [Self.shared, Self.own])
  }

  /// Entered through a stage it would be gone with the stage.
  @Test(arguments: [("/", nil), ("/srv", nil), ("/run/vm1", nil), ("/run/shared", 6), ("/run/shared/disks", 6)] as [(String, CInt?)])
  func aWorkingDirectoryBelowASharedStageComesByDescriptor(path: String, descriptor: CInt?) {
    var observation = Fixture.observation()
    observation.base = path
    #expect(LaunchPlan.workingDirectory(Fixture.plan(observation)) == descriptor.map { HiddenDirectory(path: path, descriptor: $0) })
  }

  @Test func aTrialComesNearNothingOfTheVMs() {
    var observation = Fixture.observation()
    observation.files[0].path = "/run/shared/disks/1"
    observation.files[0].realPath = "/run/shared/disks/1"
    var plan = Fixture.plan(observation)
    plan.isTrial = true
    let hidden: [MountOperation] = [
      .tmpfs(target: "/run/vm1", options: "mode=1777"), .tmpfs(target: "/run/shared", options: "mode=1777"),
      .bind(source: "/run/shared/disks", target: "/run/shared/disks", recursive: true),
    ]
    #expect(LaunchPlan.sandbox(plan).operations == hidden)
    #expect(LaunchPlan.sandbox(plan).makesMountPoints)
    plan.request.root = "/srv/tree"
    #expect(Array(LaunchPlan.sandbox(plan).operations.suffix(3)) == hidden)
    // RAM that the real twin would share is an empty file in the trial.
    #expect(LaunchPlan.givenMemory(plan).map(\.source) == [nil])
    #expect(LaunchPlan.arguments(plan).contains("memory-backend-file,id=ram,size=512M,mem-path=/proc/self/fd/5,share=on"))
  }

  @Test func whatAStageHidesIsCarriedThroughIt() {
    var observation = Fixture.observation()
    observation.files[0].path = "/run/shared/disks/1"
    observation.files[0].realPath = "/run/shared/disks/1"
    let operations = LaunchPlan.sandbox(Fixture.plan(observation)).operations
    #expect(operations == [
      .bind(source: "/run/shared/disks", target: "/run/shared/.moult-u1/disks", recursive: true), Self.shared, Self.own,
    ])
  }

  @Test func aTreeGetsTheVMsFilesAndItsPublicDirectories() {
    var observation = Fixture.observation()
    observation.usesKVM = true
    observation.base = "/srv/vm1"
    observation.names[0].path = "/var/run/vm1/qmp.sock"
    observation.files.append(
      ObservedFile(
        path: "/dev/sdx", realPath: "/dev/sdx", onHost: FileIdentity(device: .max, inode: 7),
        forQEMU: FileIdentity(device: .max, inode: 7), isOpen: true, isImage: true))
    let plan = Fixture.plan(observation, Fixture.request(root: "/trees/11.1"))
    let sandbox = LaunchPlan.sandbox(plan)
    let files: [MountOperation] = [
      .symbolicLink(path: "/var/run", target: "/run"),
      .bind(source: Fixture.disk, target: Fixture.disk),
      .directory(path: "/srv/vm1", mode: 0o755),
      // The exclusive stage alone; beneath a shared one, what is seen once it is detached.
      .bind(source: "/run/.moult-u1-vm1", target: "/run/vm1"),
      .bind(source: "/run/shared", target: "/run/shared", recursive: true), Self.shared,
    ]
    #expect(sandbox == .tree("/trees/11.1", namespaces: [.mount, .ipc, .uts], devices: ["/dev/kvm", "/dev/sdx"], files: files))
  }

  @Test func keptFilesLieOverWhatReplacedThem() {
    var request = Fixture.request()
    request.kept = KeptRuntime(directory: "/kept/u0", binary: "/usr/bin/qemu", root: nil, files: [])
    request.keptDirectories = ["/usr/bin", "/usr/lib"]
    #expect(Array(LaunchPlan.sandbox(Fixture.plan(Fixture.observation(), request)).operations.prefix(2)) == [
      .layers(["/kept/u0/usr/bin", "/usr/bin"], target: "/usr/bin"), .layers(["/kept/u0/usr/lib", "/usr/lib"], target: "/usr/lib"),
    ])
    request.root = "/trees/7.2"
    #expect(LaunchPlan.keptLayers(request).first == .layers(["/kept/u0/usr/bin", "/trees/7.2/usr/bin"], target: "/usr/bin"))
  }

  struct LinkCase: Sendable {
    var written: String
    var real: String
    var links: [String]
  }
  static let links: [LinkCase] = [
    .init(written: "/run/vm/a", real: "/run/vm", links: []),
    .init(written: "/var/run/vm/a", real: "/run/vm", links: ["/var/run → /run"]),
    .init(written: "/var/run/a", real: "/run", links: ["/var/run → /run"]),
    .init(written: "/vm/a", real: "/data/other", links: ["/vm → /data/other"]),
    .init(written: "/a/b/x", real: "/c/b", links: ["/a → /c"]),
    .init(written: "/x", real: "/", links: []),
  ]

  @Test(arguments: links) func symbolicLinksOnTheWayAreMadeInATree(_ test: LinkCase) {
    let name = StageTests.name(test.written, in: test.real)
    #expect(LaunchPlan.links([(name.path, name.directory), (name.path, name.directory)]).map { "\($0.path) → \($0.target)" } == test.links)
  }
}

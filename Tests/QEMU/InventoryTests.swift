import QEMU
import Testing

/// What a command line owns, counted and named.
@Suite struct InventoryTests {
  func describe(_ argv: String...) -> MachineDescription {
    MachineDescription(CommandLine(argv: ["qemu", "-nodefaults", "-display", "none"] + argv))
  }

  @Test func identity() {
    let vm = describe(
      "-name", "a,,b,process=p", "-uuid", "u", "-M", "pc", "-machine", "q35,accel=kvm:tcg", "-pidfile", "/run/p",
      "-daemonize", "-runas", "nobody", "-m", "size=2G,slots=4")
    #expect(vm.name == "a,b")
    #expect(vm.uuid == "u")
    #expect(vm.machine == "q35")
    #expect(vm.pidfile == "/run/p")
    #expect(vm.daemonizes && vm.usesKVM)
    #expect(vm.runAs == "nobody")
    #expect(vm.ramSize == 2 << 30)
    #expect(vm.bindings.contains { $0.kind == .pidfile && $0.handover == .swap })
  }

  @Test func monitorsAndPurposesComeFromTheConsumer() {
    let vm = describe(
      "-mon", "chardev=q,mode=control", "-chardev", "socket,id=q,path=/q,server=on,wait=off",
      "-chardev", "socket,id=s,path=/s,server", "-device", "virtserialport,chardev=s",
      "-qmp", "unix:/q2,server,nowait", "-monitor", "unix:/h,server=on", "-serial", "mon:unix:/m,server=on",
      "-chardev", "null,id=unused")
    #expect(vm.qmpSockets == ["/q", "/q2"])
    #expect(vm.hmpSockets == ["/h", "/m"])
    let sockets = vm.bindings.filter { $0.kind == .unixSocket }
    #expect(sockets.map(\.address).sorted() == ["/h", "/m", "/q", "/q2", "/s"])
    #expect(sockets.allSatisfy { $0.role == .listen && $0.handover == .swap })
    #expect(sockets.first { $0.address == "/s" }?.purpose == "device virtserialport")
    #expect(sockets.first { $0.address == "/m" }?.purpose == "hmp, serial")
    #expect(vm.chardevIDs == ["q", "s", "compat_monitor0", "compat_monitor1", "serial0", "unused"])
    #expect(vm.isUpgradable)
  }

  @Test func devicesWithAndWithoutId() {
    let vm = describe(
      "-device", "e1000,id=n", "-device", "e1000", "-device", #"{"driver":"VGA","id":"v"}"#, "-drive", "file=a,if=virtio,id=d",
      "-usbdevice", "tablet", "-watchdog", "i6300esb", "-object", "iothread,id=io", "-netdev", "user,id=net0,restrict=on")
    #expect(vm.deviceIDs == ["n", "v"])
    #expect(vm.anonymousDevices == 3)
    #expect(vm.objectIDs == ["io"])
    #expect(vm.netdevIDs == ["net0"])
    #expect(vm.driveIDs == ["d"])
  }

  struct Image: Sendable {
    var argv: [String]
    var path: String
    var writable: Bool
    var node: String?
  }

  @Test(arguments: [
    Image(argv: ["disk.img"], path: "disk.img", writable: true),
    Image(argv: ["-hda", "file:a:b"], path: "a:b", writable: true),
    Image(argv: ["-hda", "./a:b"], path: "./a:b", writable: true),
    Image(argv: ["-cdrom", "c.iso"], path: "c.iso", writable: false),
    Image(argv: ["-drive", "file=a,,b,media=cdrom"], path: "a,b", writable: false),
    Image(argv: ["-drive", "file=a,readonly"], path: "a", writable: false),
    Image(argv: ["-drive", "file.filename=a,format=qcow2"], path: "a", writable: true),
    Image(argv: ["-drive", "file.driver=qcow2,file.file.filename=a,read-only=on"], path: "a", writable: false),
    Image(argv: ["-drive", #"file=json:{"driver":"raw",,"file":{"driver":"file",,"filename":"a"}}"#], path: "a", writable: true),
    Image(argv: ["-blockdev", "driver=file,filename=a,node-name=n"], path: "a", writable: true, node: "n"),
    Image(argv: ["-blockdev", "driver=file,filename=a,node-name=n,read-only=on"], path: "a", writable: false, node: "n"),
    Image(
      argv: [
        "-blockdev", #"{"driver":"file","filename":"a","node-name":"s","auto-read-only":true}"#,
        "-blockdev", #"{"driver":"raw","file":"s","node-name":"f","read-only":true}"#,
      ], path: "a", writable: false, node: "s"),
    Image(
      argv: [
        "-blockdev", #"{"driver":"file","filename":"a","node-name":"s","auto-read-only":true}"#,
        "-blockdev", #"{"driver":"raw","file":"s","node-name":"f","read-only":false}"#,
      ], path: "a", writable: true, node: "s"),
    Image(
      argv: ["-blockdev", #"{"driver":"throttle","node-name":"t","read-only":true,"file":{"driver":"raw","file":{"driver":"file","filename":"a","node-name":"l"}}}"#],
      path: "a", writable: false, node: "l"),
  ])
  func images(image: Image) {
    let vm = MachineDescription(CommandLine(argv: ["qemu", "-nodefaults", "-display", "none"] + image.argv))
    #expect(vm.images.map(\.path) == [image.path])
    #expect(vm.images.first?.writable == image.writable)
    #expect(vm.images.first?.nodeName == image.node)
    #expect(vm.paths() == [image.path])
    #expect(vm.isUpgradable, "\(vm.blockers)")
  }

  struct Memory: Sendable {
    var argv: [String]
    var kind: MemoryBackend.Kind
    var share: Bool
    var size: UInt64
    var id = "m"
  }

  @Test(arguments: [
    Memory(argv: [], kind: .ram, share: false, size: 128 << 20, id: ""),
    Memory(argv: ["-m", "512"], kind: .ram, share: false, size: 512 << 20, id: ""),
    Memory(argv: ["-m", "512", "-mem-path", "/x"], kind: .file, share: false, size: 512 << 20, id: ""),
    Memory(argv: ["-object", "memory-backend-memfd,id=m,size=1G", "-machine", "memory-backend=m"], kind: .memfd, share: true, size: 1 << 30),
    Memory(argv: ["-object", "memory-backend-memfd,id=m,size=1G,share=off", "-numa", "node,memdev=m"], kind: .memfd, share: false, size: 1 << 30),
    Memory(argv: ["-object", "memory-backend-file,id=m,size=1G,mem-path=/x", "-M", "q35,memory-backend=m"], kind: .file, share: false, size: 1 << 30),
    Memory(
      argv: ["-object", #"{"qom-type":"memory-backend-file","id":"m","size":4096,"mem-path":"/x","share":true}"#, "-M", "memory-backend=m"],
      kind: .file, share: true, size: 4096),
    Memory(argv: ["-object", "memory-backend-shm,id=m,size=1G", "-M", "memory-backend=m"], kind: .shm, share: true, size: 1 << 30),
    Memory(argv: ["-object", "memory-backend-ram,id=m,size=1G", "-M", "memory-backend=m"], kind: .ram, share: false, size: 1 << 30),
  ])
  func guestRAM(memory: Memory) {
    let vm = MachineDescription(CommandLine(argv: ["qemu", "-nodefaults", "-display", "none"] + memory.argv))
    #expect(vm.guestRAM.map(\.id) == [memory.id])
    #expect(vm.guestRAM.first?.kind == memory.kind)
    #expect(vm.guestRAM.first?.share == memory.share)
    #expect(vm.guestRAM.first?.size == memory.size)
    #expect(vm.isUpgradable)
  }

  @Test func aMemoryDeviceIsGuestRAMBesideTheMachinesOwn() {
    let vm = describe("-object", "memory-backend-memfd,id=d,size=1G", "-device", "pc-dimm,id=dimm0,memdev=d", "-object", "memory-backend-ram,id=spare,size=1G")
    #expect(vm.guestRAM.map(\.id) == ["d", ""])
  }

  @Test(arguments: [
    ("", 128 << 20), ("-m 1G", 1 << 30), ("-m 1G,slots=2,maxmem=4G", 1 << 30),
    ("-m 1G -object memory-backend-ram,id=n,size=1G -numa node,memdev=n", 1 << 30),
    ("-m 1G -object memory-backend-ram,id=n,size=1G -machine memory-backend=n", 1 << 30),
    ("-m 1G -object memory-backend-ram,id=d,size=512M -device pc-dimm,memdev=d", 3 << 29),
    ("-m 1G -object memory-backend-ram,id=spare,size=512M", 1 << 30),
    ("-m 1G -object memory-backend-ram,id=v,size=8G -device virtio-mem-pci,memdev=v,requested-size=1G", 2 << 30),
    ("-m 1G -object memory-backend-ram,id=v,size=8G -device virtio-mem-pci,memdev=v", 1 << 30),
  ] as [(String, UInt64)])
  func `the guest has what -m says and its memory devices on top`(options: String, bytes: UInt64) {
    #expect(MachineDescription(CommandLine(argv: ["qemu"] + options.split(separator: " ").map(String.init))).guestMemory == bytes)
  }

  struct Sets: Sendable {
    var argv: [String]
    /// Address and purpose of the bindings of kind `fd`.
    var descriptors: [String] = []
    /// What the blockers say, one word of each.
    var reasons: [String]
  }

  @Test(arguments: [
    Sets(argv: ["-add-fd", "fd=5"], reasons: ["set="]), Sets(argv: ["-add-fd", "set=1"], reasons: ["fd="]),
    Sets(argv: ["-add-fd", "fd=1,set=1"], reasons: ["above 2"]), Sets(argv: ["-add-fd", "fd=5,set=-1"], reasons: ["set="]),
    Sets(argv: ["-chardev", "file,id=c,path=/dev/fdset/3"], reasons: ["descriptor that was passed by number", "no -add-fd"]),
    Sets(argv: ["-add-fd", "fd=5,set=7"], descriptors: ["5 /dev/fdset/7"], reasons: ["no option opens /dev/fdset/7"]),
    Sets(
      argv: ["-add-fd", "fd=5,set=2,opaque=rw", "-blockdev", #"{"driver":"file","filename":"\/dev\/fdset\/2","node-name":"n"}"#, "--add-fd", "set=2,fd=6"],
      descriptors: ["5 /dev/fdset/2, -blockdev n", "6 /dev/fdset/2, -blockdev n"],
      reasons: ["-blockdev n opens /dev/fdset/2, where descriptor 5", "-blockdev n opens /dev/fdset/2, where descriptor 6", "image passed by descriptor"]),
    Sets(
      argv: ["-add-fd", "fd=5,set=12", "-serial", "file:/dev/fdset/12", "-drive", "file=/dev/fdset/12,if=none,id=d"],
      descriptors: ["5 /dev/fdset/12, -serial, -drive d"],
      reasons: ["-serial and -drive d open /dev/fdset/12", "descriptor that was passed by number", "image passed by descriptor"]),
  ])
  func `each descriptor of a set has the options that open it`(sets: Sets) {
    let vm = MachineDescription(CommandLine(argv: ["qemu", "-nodefaults", "-display", "none"] + sets.argv))
    #expect(vm.bindings.filter { $0.kind == .fd }.map { "\($0.address) \($0.purpose)" } == sets.descriptors)
    #expect(vm.blockers.count == sets.reasons.count, "\(vm.blockers)")
    for reason in sets.reasons { #expect(vm.blockers.contains { $0.reason.contains(reason) }, "\(reason): \(vm.blockers)") }
  }

  @Test func everyFileHasItsUse() {
    let vm = describe(
      "-kernel", "k", "-initrd", "i", "-bios", "b", "-option-rom", "o", "-acpitable", "sig=X,file=a1:a2", "-object", "secret,id=s,file=f",
      "-device", "e1000,romfile=r", "-fw_cfg", "opt/x,file=w", "-smbios", "file=sm", "-L", "/l", "-device", "loader,file=ld")
    #expect(
      vm.files.map { "\($0.use) \($0.path)" } == [
        "kernel k", "initrd i", "firmware b", "rom o", "acpi a1", "acpi a2", "secret f", "rom r", "other w", "acpi sm", "firmware /l", "rom ld",
      ])
    #expect(vm.files.filter(\.isSearched).map(\.path) == ["b", "o", "r"])
    #expect(vm.files.filter(\.isDirectory).map(\.path) == ["/l"])
  }
}

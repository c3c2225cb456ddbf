import Testing

@testable import QEMU

/// What a binary must know to be a VM's twin, against a small catalog as QEMU 11.1 would give it.
@Suite struct CompatibilityTests {
  static let catalog = BinaryCatalog(
    machines: ["pc-q35-5.2": .init(isDeprecated: true), "pc-q35-11.1": .init(alias: "q35")],
    types: [
      "pc-q35-5.2-machine", "virtio-blk-pci", "virtio-net-pci", "memory-backend-file", "tcg-accel", "qemu64-x86_64-cpu",
      "VGA", "virtio-pci", "unseen",
    ],
    properties: [
      "pc-q35-5.2-machine": ["hpet", "acpi", "memory-backend", "usb"], "virtio-blk-pci": ["drive", "addr", "iothread-vq-mapping"],
      "memory-backend-file": ["size", "mem-path", "share"], "tcg-accel": ["tb-size"], "qemu64-x86_64-cpu": ["x2apic", "tsc-frequency"],
    ],
    variants: [
      .netdev: ["user": ["id", "type", "restrict"], "tap": ["id", "type", "ifname"]], .chardev: ["socket": [], "null": [], "serial": []],
      .blockdev: ["qcow2": ["node-name", "driver", "file", "cache"], "file": ["filename"]],
    ],
    keys: ["chardev": ["backend", "path", "server", "wait", "nodelay", "reconnect-ms"], "smp-opts": ["cpus", "cores"], "memory": ["size"]])

  static func unmet(_ words: [String], version: QEMUVersion = QEMUVersion(major: 11, minor: 1), _ change: (inout LiveMachine) -> Void = { _ in }) -> [String] {
    var live = LiveMachine.empty
    change(&live)
    let line = CommandLine(argv: ["qemu-system-x86_64"] + words)
    return Demands(line, live: live).unmet(by: catalog, version: version).map(\.reason)
  }

  static let known: [[String]] = [
    [],
    ["-machine", "pc-q35-5.2,accel=kvm,usb=off,memory_backend=x,kernel_irqchip=split"],
    ["-accel", "tcg,tb-size=64"], ["-enable-kvm"],
    ["-cpu", "qemu64,+x2apic,-x2apic,x2apic=off,tsc_frequency=1,enforce"],
    ["-device", "virtio-blk-pci,drive=a,id=b,bus=pci.0,addr=3"],
    ["-device", #"{"driver":"virtio-blk-pci","iothread-vq-mapping":[{"iothread":"a"}]}"#],
    // Not described: nothing can be said of its properties.
    ["-device", "unseen,x=1"],
    ["-object", "memory-backend-file,id=a,size=1G,mem-path=/a,share=on"],
    ["-netdev", "user,id=a,restrict=on"], ["-nic", "none"], ["-nic", "user,model=e1000"],
    ["-chardev", "socket,id=a,path=/a,server,nowait,nodelay"], ["-chardev", "tty,id=a,path=/dev/ttyS0"],
    ["-blockdev", "qcow2,node-name=a,file.driver=file,file.filename=/a,cache.direct=on"],
    ["-m", "4G"], ["-smp", "4,cores=2"], ["-vga", "std"], ["-vga", "none"], ["-spice", "port=1"],
    ["-global", "virtio-blk-pci.addr=1"], ["-global", "nothing.x=1"], ["-global", "driver=virtio-pci,property=x,value=1"],
  ]
  @Test(arguments: known) func isKnown(words: [String]) { #expect(Self.unmet(words) == []) }

  static let unknown: [(words: [String], reason: String)] = [
    (["-machine", "pc-q35-5.2,pit=off"], "machine pc-q35-5.2 has no property pit in QEMU 11.1.0"),
    (["-accel", "xen"], "QEMU 11.1.0 has no accelerator xen"),
    (["-accel", "tcg,threads=2"], "accelerator tcg has no property threads in QEMU 11.1.0"),
    (["-cpu", "Icelake-Client"], "QEMU 11.1.0 has no CPU model Icelake-Client"),
    (["-cpu", "qemu64,+sse9"], "CPU model qemu64 has no property sse9 in QEMU 11.1.0"),
    (["-device", "ide-drive,drive=a"], "QEMU 11.1.0 has no device ide-drive"),
    (["-device", "virtio-blk-pci,drive=a,serial=b"], "device virtio-blk-pci has no property serial in QEMU 11.1.0"),
    (["-device", #"{"driver":"virtio-blk-pci","queues":{"a":1}}"#], "device virtio-blk-pci has no property queues in QEMU 11.1.0"),
    (["-object", "memory-backend-epc,id=a"], "QEMU 11.1.0 has no object memory-backend-epc"),
    (["-object", "memory-backend-file,id=a,rom=on"], "object memory-backend-file has no property rom in QEMU 11.1.0"),
    (["-netdev", "passt,id=a"], "QEMU 11.1.0 was built without the network backend passt"),
    (["-netdev", "user,id=a,ipv7=on"], "network backend user has no option ipv7 in QEMU 11.1.0"),
    (["-chardev", "memory,id=a"], "QEMU 11.1.0 was built without the character device memory"),
    (["-chardev", "socket,id=a,path=/a,reconnect=1"], "the option has no reconnect in QEMU 11.1.0"),
    (["-blockdev", "sheepdog,node-name=a"], "QEMU 11.1.0 was built without the block driver sheepdog"),
    (["-blockdev", "qcow2,node-name=a,shape=round"], "block driver qcow2 has no option shape in QEMU 11.1.0"),
    (["-smp", "4,modules=2"], "the option has no modules in QEMU 11.1.0"),
    (["-vga", "qxl"], "QEMU 11.1.0 has no graphics card qxl"),
    (["-soundhw", "hda"], "QEMU 11.1.0 does not know -soundhw any more"),
    (["-runas", "nobody"], "QEMU 11.1.0 does not know -runas any more"),
  ]
  @Test(arguments: unknown) func isNotKnown(words: [String], reason: String) { #expect(Self.unmet(words) == [reason]) }

  @Test(arguments: [
    ("virtio-blk-pci.x=1", "-global virtio-blk-pci.x=1: virtio-blk-pci has no property x in QEMU 11.1.0; the VM has no such device, so it passes over this"),
    ("nothing.x=1", "-global nothing.x=1: QEMU 11.1.0 has no device nothing; it passes over this"), ("virtio-blk-pci.addr=1", nil),
  ] as [(String, String?)])
  func aDefaultForDevicesThatTheVMHasNotIsPassedOver(value: String, warning: String?) {
    let demands = Demands(CommandLine(argv: ["qemu", "-global", value]), live: .empty)
    #expect(demands.unmet(by: Self.catalog, version: QEMUVersion(major: 11, minor: 1)) == [])
    #expect(demands.unheeded(by: Self.catalog, version: QEMUVersion(major: 11, minor: 1)) == [warning].compactMap(\.self))
  }

  @Test func aDefaultForADeviceThatTheVMHasMustBeKnown() {
    // QEMU would not start.
    #expect(Self.unmet(["-global", "virtio-blk-pci.x=1"]) { $0.devices = ["a": "virtio-blk-pci"] }
      == ["device virtio-blk-pci has no property x in QEMU 11.1.0"])
    #expect(Self.unmet(["-global", "virtio-blk-pci.x=1"]) { $0.anonymousDevices = ["virtio-blk-pci"] }.count == 1)
    let global = CommandLine(argv: ["qemu", "-global", "virtio-blk-pci.x=1"])
    let ownDevices = Demands(global, live: .empty, present: ["virtio-blk-pci"])
    #expect(ownDevices.unmet(by: Self.catalog, version: QEMUVersion(major: 11, minor: 1)).count == 1)
    // Newer ones make one of each network card, whether the VM has it or not.
    var catalog = Self.catalog
    catalog.properties["virtio-blk-pci"] = ["netdev"]
    let version = { (major: Int) in Demands(global, live: .empty).unmet(by: catalog, version: QEMUVersion(major: major, minor: 2)).count }
    #expect(version(7) == 0 && version(8) == 1)
  }

  @Test func anOptionCanBeTooNew() {
    let old = QEMUVersion(major: 5, minor: 2)
    #expect(Self.unmet(["-compat", "x"], version: old) == ["QEMU 5.2.0 does not know -compat yet"])
    #expect(Self.unmet(["-soundhw", "hda"], version: old) == [])
    #expect(Self.unmet(["-async-teardown"], version: QEMUVersion(major: 8, minor: 0)) == [])
  }

  @Test func theRunningQEMUResolvesNames() {
    #expect(Self.unmet(["-device", "virtio-blk,id=a"]) == ["QEMU 11.1.0 has no device virtio-blk"])
    #expect(Self.unmet(["-device", "virtio-blk,id=a"]) { $0.devices = ["a": "virtio-blk-pci"] } == [])
    #expect(Self.unmet(["-device", "virtio-blk", "-device", "virtio-net"]) { $0.anonymousDevices = ["virtio-blk-pci", "virtio-net-pci"] } == [])
    // Those of `-drive if=virtio` have no id either: which is which is known only if there is no choice.
    #expect(Self.unmet(["-device", "virtio-net"]) { $0.anonymousDevices = ["virtio-blk-pci", "virtio-net-pci"] } == [])
    #expect(
      Self.unmet(["-device", "virtio-blk"]) { $0.anonymousDevices = ["a", "virtio-blk-ccw", "virtio-blk-pci"] } == ["QEMU 11.1.0 has no device virtio-blk"])
  }

  @Test func theDriversOfLiveNodesMustBeThere() {
    #expect(Self.unmet([]) { $0.nodes = [.init(name: nil, driver: "qcow2", file: "", depth: 0), .init(name: nil, driver: "vdi", file: "", depth: 0)] }
      == ["QEMU 11.1.0 was built without the block driver vdi"])
  }

  @Test func whenAMachineTypeWillBeDropped() {
    #expect(BinaryCatalog.release(droppingMachine: "pc-q35-5.2") == "11.2")
    #expect(BinaryCatalog.release(droppingMachine: "pc-q35-4.0.1") == "10.0")
    #expect(BinaryCatalog.release(droppingMachine: "microvm") == nil)
    #expect(BinaryCatalog.release(droppingMachine: "isapc") == nil)
    #expect(Self.catalog.machine(alias: "q35") == "pc-q35-11.1")
  }

  @Test func whatQEMUSaysBecomesACatalog() throws {
    let answers: [String?] = [
      #"[{"name":"pc-q35-5.2","deprecated":true},{"name":"pc-q35-11.1","alias":"q35"}]"#,
      #"[{"name":"virtio-blk-pci","parent":"x"}]"#,
      #"""
      [{"name":"netdev_add","meta-type":"command","arg-type":"1"},
       {"name":"1","meta-type":"object","tag":"type","members":[{"name":"id","type":"str"}],"variants":[{"case":"user","type":"2"}]},
       {"name":"2","meta-type":"object","members":[{"name":"restrict","type":"bool"}]},
       {"name":"chardev-add","meta-type":"command","arg-type":"3"},
       {"name":"3","meta-type":"object","members":[{"name":"id","type":"str"},{"name":"backend","type":"4"}]},
       {"name":"4","meta-type":"object","tag":"type","members":[],"variants":[{"case":"null","type":"5"}]},
       {"name":"query-audiodevs","meta-type":"command","ret-type":"[6]"},
       {"name":"[6]","meta-type":"array","element-type":"6"},
       {"name":"6","meta-type":"object","tag":"driver","members":[],"variants":[{"case":"none","type":"2"}]}]
      """#,
      #"[{"option":"memory","parameters":[{"name":"size"}]},{"option":"device","parameters":[]}]"#,
      #"[{"capability":"events","state":false}]"#, #"[{"name":"drive"}]"#, nil,
    ]
    let values = try answers.map { try $0.map { try JSONValue(parsing: Array($0.utf8)) } }
    let catalog = BinaryCatalog(values, types: ["virtio-blk-pci", "missing"])
    #expect(catalog.machines == ["pc-q35-5.2": .init(isDeprecated: true), "pc-q35-11.1": .init(alias: "q35")])
    #expect(catalog.types == ["virtio-blk-pci"])
    #expect(catalog.variants == [.netdev: ["user": ["id", "restrict"]], .chardev: ["null": []], .audiodev: ["none": ["restrict"]]])
    #expect(catalog.keys == ["memory": ["size"]])
    #expect(catalog.capabilities == ["events"])
    #expect(catalog.properties == ["virtio-blk-pci": ["drive"]])
    #expect(BinaryCatalog([nil, nil, nil, nil, nil], types: []) == BinaryCatalog())
  }
}

extension LiveMachine {
  /// A machine without anything.
  static var empty: LiveMachine {
    LiveMachine(
      status: "running", machineType: "pc-q35-5.2", drives: [], nodes: [], devices: [:], anonymousDevices: [], objects: [:],
      chardevs: [], vcpuThreads: [], iothreads: [:], memoryDevices: 0, migrationStatus: nil,
      migrationBlockers: [], migrationCapabilities: [:], migrationParameters: [:])
  }
}

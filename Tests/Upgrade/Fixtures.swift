import Kernel

@testable import QEMU
@testable import Upgrade

/// A healthy VM, `vm1`, as an observation finds it: tests change what they are about.
enum Fixture {
  static let ram = FileIdentity(device: 20, inode: 1)
  static let disk = "/var/lib/vm1/disk.qcow2"

  static let arguments = [
    "/usr/bin/qemu-system-x86_64", "-name", "vm1", "-machine", "pc-q35-7.2,memory-backend=ram", "-m", "512",
    "-object", "memory-backend-file,id=ram,size=512M,mem-path=/dev/shm/vm1.ram,share=on",
    "-object", "iothread,id=io1", "-nodefaults", "-display", "none",
    "-drive", "file=/var/lib/vm1/disk.qcow2,if=none,id=disk0,format=qcow2",
    "-device", "virtio-blk-pci,drive=disk0,id=blk0", "-device", "virtio-rng-pci",
    "-chardev", "socket,id=console,path=/run/shared/vm1.serial,server=on,wait=off", "-serial", "chardev:console",
    "-qmp", "unix:/run/vm1/qmp.sock,server=on,wait=off", "-pidfile", "/run/vm1/pid",
  ]

  static let agent = [
    "-chardev", "socket,id=qga0,path=/run/vm1/qga.sock,server=on,wait=off",
    "-device", "virtserialport,chardev=qga0,name=org.qemu.guest_agent.0",
  ]

  static func name(_ kind: PublicName.Kind, _ path: String, inode: UInt64, directory: String? = nil) -> PublicName {
    let identity = FileIdentity(device: 20, inode: inode)
    return PublicName(
      kind: kind, path: path, directory: directory ?? Paths.parent(path), base: Paths.base(path), present: identity,
      owned: kind == .socket ? identity : nil)
  }

  static var live: LiveMachine {
    LiveMachine(
      status: "running", machineType: "pc-q35-7.2",
      drives: [.init(device: "disk0", qdev: "/machine/peripheral/blk0/virtio-backend", file: disk, nodeName: nil, driver: "qcow2", limits: "bps=0 ")],
      nodes: [
        .init(name: nil, driver: "qcow2", file: disk, depth: 0), .init(name: nil, driver: "file", file: disk, depth: 0),
      ],
      devices: ["blk0": "virtio-blk-pci"], anonymousDevices: ["virtio-rng-pci"],
      objects: ["ram": "memory-backend-file", "io1": "iothread"], chardevs: ["compat_monitor0", "console"],
      vcpuThreads: [101, 102], iothreads: ["io1": 103], memoryDevices: 0, migrationStatus: nil,
      migrationBlockers: [],
      migrationCapabilities: [
        "events": false, "return-path": false, "x-ignore-shared": false, "pause-before-switchover": false,
        "auto-converge": true, "xbzrle": false,
      ],
      migrationParameters: ["max-bandwidth": .integer(134_217_728), "downtime-limit": .integer(300), "tls-creds": ""])
  }

  static func observation(_ arguments: [String] = arguments, base: String = "/") -> Observation {
    Observation(
      process: ProcessIdentity(pid: 100, startTime: 1), arguments: arguments, commandLine: CommandLine(argv: arguments), drift: [],
      base: base, binary: arguments[0],
      binaryDeleted: false, root: nil, description: MachineDescription(CommandLine(argv: arguments)),
      version: QEMUVersion(major: 7, minor: 2, micro: 22), live: live, monitor: "/run/vm1/qmp.sock",
      names: [
        name(.socket, "/run/vm1/qmp.sock", inode: 10), name(.pidfile, "/run/vm1/pid", inode: 11),
        name(.socket, "/run/shared/vm1.serial", inode: 12), name(.memory, "/dev/shm/vm1.ram", inode: 1),
      ],
      directories: [
        NameDirectory(path: "/run/vm1", entries: ["qmp.sock", "pid"], isMountPoint: false),
        NameDirectory(path: "/run/shared", entries: ["vm1.serial", "vm2.serial"], isMountPoint: false),
        NameDirectory(path: "/dev/shm", entries: ["vm1.ram"], isMountPoint: true),
      ],
      files: [
        ObservedFile(
          path: disk, realPath: disk, onHost: FileIdentity(device: 8, inode: 5), forQEMU: FileIdentity(device: 8, inode: 5),
          isOpen: true, isImage: true)
      ],
      memory: [ObservedMemory(id: "ram", bytes: 512 << 20, descriptor: 9, isNamedFile: true, whyPrivate: nil)],
      foreign: [], standardInputIsNull: true, usesKVM: false,
      room: MemoryRoom(host: 4 << 30, cgroup: nil, cgroupPath: nil), clients: [:], supervision: .none)
  }

  /// The same VM with a tap of two queues, VNC on a port of IPv4 and IPv6, and a console on a port that has a client.
  static func networked() -> Observation {
    let words = ["-vnc", ":1", "-netdev", "tap,id=n0,ifname=tap0,queues=2,script=no", "-debugcon", "tcp:127.0.0.1:4444,server=on,wait=off"]
    var observation = observation(arguments + words)
    observation.live.chardevs.append("debugcon")
    let endpoints = CommandLine(argv: arguments + words).networkEndpoints
    func find(_ purpose: String) -> NetworkEndpoint { endpoints.first { $0.purpose == purpose }! }
    observation.network.listeners = [
      .init(
        endpoint: find("vnc"),
        sockets: [.init(descriptor: 11, inode: 1011, address: "0.0.0.0"), .init(descriptor: 12, inode: 1012, address: "::")],
        connections: [.init(descriptor: 13, inode: 1013)]),
      .init(
        endpoint: find("debugcon"), sockets: [.init(descriptor: 14, inode: 1014, address: "127.0.0.1")],
        connections: [.init(descriptor: 15, inode: 1015)]),
    ]
    observation.network.taps = CommandLine(argv: arguments + words).taps.map {
      .init(tap: $0, interface: "tap0", flags: [.tap, .multipleQueues], descriptors: [16, 17])
    }
    return observation
  }

  /// A VM whose vsock the kernel serves.
  static func vsock() -> Observation {
    var observation = observation(arguments + ["-device", "vhost-vsock-pci,guest-cid=3"])
    observation.live.anonymousDevices.append("vhost-vsock-pci")
    observation.network.vsock = .init(option: observation.commandLine.options.count - 1, cid: 3, descriptor: 18, connections: 2)
    return observation
  }

  /// A VM with a disk that qemu-storage-daemon serves.
  static func served() -> Observation {
    var observation = observation(arguments + ["-chardev", "socket,id=c,path=/run/disk", "-device", "vhost-user-blk-pci,chardev=c"])
    observation.live.chardevs.append("c")
    observation.live.anonymousDevices.append("vhost-user-blk-pci")
    let disk = servedDisk
    observation.network.outgoing = observation.commandLine.outgoingConnections.map {
      var outgoing = ObservedNetwork.Outgoing(peer: $0, socket: .init(descriptor: 40, inode: 40), path: "/run/disk")
      (outgoing.backEnd, outgoing.channels) = (.vhostUser(disk.answers), [.init(descriptor: 41, inode: 41)])
      return outgoing
    }
    observation.network.servedDisks = [disk]
    return observation
  }
  static let servedDisk = VhostUserDevice(
    path: "/machine/peripheral-anon/device[0]/virtio-backend", chardev: "c",
    answers: .init(features: 1, protocolFeatures: 0x20, queues: 1, configuration: [0]), queues: 1, obstacle: nil)

  /// Of a disk that a client may write to, and of one that is only read.
  static let exports = ExportServer(
    server: NBDServer(
      exports: [
        .init(id: "e1", node: "disk", drive: nil, name: "scratch", description: nil, isWritable: true, tellsDepth: false),
        .init(id: "e2", node: nil, drive: "disk0", name: "backup", description: "nightly", isWritable: false, tellsDepth: true),
      ], servesOne: false),
    descriptor: 21, inode: 1021, address: "127.0.0.1:10809", clients: 0)

  /// The same VM with a display adapter that has memory of its own.
  static func withScreen() -> Observation {
    var observation = observation()
    observation.live.memoryBlocks = [
      RAMBlock(name: "ram", used: 512 << 20, total: 512 << 20), RAMBlock(name: "pc.bios", used: 256 << 10, total: 256 << 10),
      RAMBlock(name: "0000:00:01.0/vga.vram", used: 16 << 20, total: 16 << 20),
    ]
    return observation
  }

  /// A plan that copies RAM while the guest runs: it is on KVM.
  static var livePlan: UpgradePlan {
    var observation = observation()
    observation.usesKVM = true
    return plan(observation, request(memory: .copy))
  }

  static func request(
    memory: MemoryStrategy = .auto, hold: Bool = false, probation: Double? = nil, root: String? = nil
  ) -> UpgradeRequest {
    UpgradeRequest(binary: "/opt/qemu/bin/qemu-system-x86_64", root: root, memory: memory, hold: hold, probation: probation)
  }

  /// A binary that knows these machine types and all that the VM has.
  static func target(_ version: QEMUVersion, machines: Set<String>) -> TargetFacts {
    TargetFacts(
      version: version,
      catalog: BinaryCatalog(
        machines: Dictionary(uniqueKeysWithValues: machines.map { ($0, BinaryCatalog.Machine()) }),
        types: ["pc-q35-7.2-machine", "memory-backend-file", "iothread", "virtio-blk-pci", "virtio-rng-pci"],
        capabilities: ["auto-converge"]))
  }

  static func plan(
    _ observation: Observation = observation(), _ request: UpgradeRequest = request(), target: TargetFacts? = nil
  ) -> UpgradePlan {
    UpgradePlan.make(id: "u1", observation: observation, request: request, target: target)
  }
}

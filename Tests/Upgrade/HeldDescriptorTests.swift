import Glibc
import Testing

@testable import Kernel
@testable import QEMU
@testable import Upgrade

/// What a descriptor is, which binding it holds, and who is at its other end.
@Suite struct HeldDescriptorTests {
  static func status(_ type: UInt32, inode: UInt64 = 1, special: UInt64 = 0) -> FileStatus {
    var raw = stat()
    raw.st_mode = type
    raw.st_ino = ino_t(inode)
    raw.st_dev = 5
    raw.st_rdev = dev_t(special)
    return FileStatus(raw)
  }
  static func open(_ number: Int32, _ target: String, _ type: UInt32 = S_IFREG, inode: UInt64 = 1, interface: String? = nil) -> OpenDescriptor {
    OpenDescriptor(number: number, target: target, flags: O_RDWR, position: 0, status: status(type, inode: inode), interface: interface)
  }
  static let nothing = SocketTables(unix: [], internet: [])

  struct Case: Sendable {
    var descriptor: OpenDescriptor
    var type: String
    var kind: Binding.Kind?
    var address: String?
  }

  @Test(arguments: [
    Case(descriptor: open(3, "anon_inode:[eventfd]", 0), type: "eventfd"),
    Case(descriptor: open(3, "anon_inode:kvm-vcpu:1", 0), type: "kvm"),
    Case(descriptor: open(3, "anon_inode:[io_uring]", 0), type: "io_uring"),
    Case(descriptor: open(3, "anon_inode:[vfio-device]", 0), type: "vfio", kind: .vfio),
    Case(descriptor: open(3, "anon_inode:kvm-vfio", 0), type: "vfio", kind: .vfio),
    Case(descriptor: open(3, "anon_inode:bpf-prog", 0), type: "bpf-prog", kind: .fd),
    Case(descriptor: open(3, "pipe:[7]", S_IFIFO), type: "pipe"),
    Case(descriptor: open(3, "/run/fifo", S_IFIFO), type: "pipe", kind: .file),
    Case(descriptor: open(3, "/dev/net/tun", S_IFCHR, interface: "tap7"), type: "tap", kind: .tap, address: "tap7"),
    Case(descriptor: open(3, "/dev/vhost-net", S_IFCHR), type: "vhost-net", kind: .vhostNet),
    Case(descriptor: open(3, "/dev/vhost-vdpa-0", S_IFCHR), type: "vhost-vdpa", kind: .vhostVdpa),
    Case(descriptor: open(3, "/dev/vfio/7", S_IFCHR), type: "vfio", kind: .vfio),
    Case(descriptor: open(3, "/dev/bus/usb/001/002", S_IFCHR), type: "usb device", kind: .usbHost),
    Case(descriptor: open(3, "/dev/ptmx", S_IFCHR), type: "pseudo terminal", kind: .pty),
    Case(descriptor: open(1, "/dev/pts/3", S_IFCHR), type: "terminal", kind: .pty),
    Case(descriptor: open(3, "/dev/kvm", S_IFCHR), type: "kvm"),
    Case(descriptor: open(3, "/dev/urandom", S_IFCHR), type: "random numbers"),
    Case(descriptor: open(3, "/dev/sev", S_IFCHR), type: "device", kind: .fd),
    Case(descriptor: open(3, "/dev/vda", S_IFBLK), type: "block device", kind: .disk),
    Case(descriptor: open(3, "/srv/share", S_IFDIR), type: "directory", kind: .directory),
    Case(descriptor: open(3, "/memfd:ram (deleted)"), type: "memfd", kind: .memory, address: "/memfd:ram"),
    Case(descriptor: open(3, "/a.img"), type: "file", kind: .file),
    Case(descriptor: open(3, "/a.img (deleted)"), type: "deleted file", kind: .file, address: "/a.img"),
    Case(descriptor: open(2, "/var/log/vm.log"), type: "file"),
    Case(descriptor: open(3, "socket:[99]", S_IFSOCK), type: "socket", kind: .fd),
  ])
  func `is what the kernel says`(test: Case) {
    let held = HeldDescriptor.classify(test.descriptor, Self.nothing)
    #expect(held.type == test.type && held.kind == test.kind)
    if let address = test.address { #expect(held.address == address) }
  }

  static func unix(_ inode: UInt64, _ state: UnixSocketEntry.State, path: String? = nil, peer: UInt64? = nil, file: UInt32? = nil) -> UnixSocketEntry {
    UnixSocketEntry(inode: inode, type: 1, state: state, path: path, fileInode: file, fileDevice: file == nil ? nil : 5, peerInode: peer)
  }
  static func tcp(_ inode: UInt64, _ local: UInt16, _ remote: UInt16, listens: Bool = false, host: String = "127.0.0.1") -> InternetSocketEntry {
    InternetSocketEntry(
      transport: .tcp, local: .init(host: "127.0.0.1", port: local), remote: .init(host: remote == 0 ? "0.0.0.0" : host, port: remote), isListening: listens, inode: inode)
  }

  /// A VM with a listening unix and TCP socket that each have a client, a connection to another program's socket,
  /// a backing file, and a control channel whose other end is gone.
  static let tables = SocketTables(
    unix: [
      unix(10, .listening, path: "/run/q", file: 70), unix(11, .established, path: "/run/q", peer: 12), unix(12, .established, peer: 11),
      unix(13, .established, peer: 14), unix(14, .established, path: "/run/ext", peer: 13), unix(15, .established),
    ],
    internet: [tcp(20, 5977, 0, listens: true), tcp(21, 5977, 60000), tcp(22, 60000, 5977), tcp(23, 5977, 61000, host: "192.0.2.1")])
  static let held = HeldDescriptor.joined(
    [10, 11, 13, 15, 20, 21, 23].map { HeldDescriptor.classify(open(Int32($0), "socket:[\($0)]", S_IFSOCK), tables) }
      + [HeldDescriptor.classify(open(30, "/top", inode: 71), tables), HeldDescriptor.classify(open(31, "/base", inode: 72), tables),
        HeldDescriptor.classify(open(32, "/memfd:ram (deleted)", inode: 73), tables), HeldDescriptor.classify(open(33, "anon_inode:[eventfd]", 0), tables)],
    peers: [11: "nc (pid 5)", 21: "viewer (pid 6)"])

  @Test func `peers are told by either end`() {
    #expect(Self.tables.peer(of: 11) == 12 && Self.tables.peer(of: 13) == 14)
    #expect(Self.tables.peer(of: 21) == 22 && Self.tables.peer(of: 22) == 21)
    #expect(Self.tables.peer(of: 23) == nil && Self.tables.peer(of: 99) == nil)
    func held(_ number: Int32) -> HeldDescriptor? { Self.held.first { $0.number == number } }
    #expect(held(11)?.peer == "nc (pid 5)" && held(11)?.listener == 10)
    #expect(held(21)?.peer == "127.0.0.1:60000, viewer (pid 6)" && held(21)?.listener == 20)
    #expect(held(23)?.peer == "192.0.2.1:61000")
    #expect(held(13)?.address == "/run/ext" && held(13)?.listener == nil)
    #expect(held(15)?.kind == nil && held(15)?.type.contains("gone") ?? false)
  }

  @Test func `a socket pair of QEMU's own is nobody else's`() {
    // SPICE's display worker: both ends are in the process.
    let tables = SocketTables(unix: [Self.unix(40, .established, peer: 41), Self.unix(41, .established, peer: 40), Self.unix(42, .established, peer: 43)], internet: [])
    func held(_ inode: UInt64, own: Set<UInt64>) -> HeldDescriptor {
      HeldDescriptor.classify(Self.open(9, "socket:[\(inode)]", S_IFSOCK), tables, own: own)
    }
    #expect(held(40, own: [40, 41]).kind == nil && held(40, own: [40, 41]).type == "socket pair of its own")
    #expect(held(40, own: [40]).kind == .unixSocket, "the other end is another process's")
    #expect(held(42, own: [40, 41, 42]).kind == .unixSocket)
  }

  @Test func `RAM that came by descriptor is all descriptors of that file, and has its name`() {
    let option = "-object memory-backend-file,id=m,size=1G,mem-path=/proc/self/fd/5,share=on"
    var description = MachineDescription(CommandLine(argv: ["qemu", "-nodefaults", "-object", String(option.dropFirst(8)), "-machine", "memory-backend=m"]))
    let open = [Self.open(5, "/dev/shm/vm.ram", inode: 80), Self.open(13, "/dev/shm/vm.ram", inode: 80), Self.open(14, "/memfd:displaysurface (deleted)", inode: 81)]
    Observer.nameMemory(&description, descriptors: open)
    let match = BindingMatch(
      descriptors: open.map { HeldDescriptor.classify($0, Self.nothing) }, identity: { _ in nil }, memory: [option: FileIdentity(device: 5, inode: 80)])
    let result = match.match(description.bindings.filter { $0.kind == .memory }, nodes: [:])
    #expect(result.map(\.binding.address) == ["/dev/shm/vm.ram"] && result.map { $0.descriptors.map(\.number) } == [[5, 13]])
    var nameless = MachineDescription(CommandLine(argv: ["qemu", "-object", String(option.dropFirst(8)), "-machine", "memory-backend=m"]))
    Observer.nameMemory(&nameless, descriptors: [Self.open(5, "/memfd:moult-m (deleted)")])
    #expect(nameless.bindings.first { $0.kind == .memory }?.address == "memfd:m")
  }

  @Test func `bindings have their descriptors, and what is left over is a binding`() {
    let bindings = MachineDescription(
      CommandLine(argv: [
        "qemu", "-nodefaults", "-display", "none", "-qmp", "unix:q,server=on,wait=off", "-vnc", "127.0.0.1:77", "-chardev", "socket,id=c,path=/run/ext",
        "-device", "virtserialport,chardev=c", "-drive", "file=/top,if=virtio", "-object", "memory-backend-memfd,id=m,size=1G", "-machine", "memory-backend=m",
      ])
    ).bindings
    let identities = ["q": UInt64(0x1_0000_0046), "/top": 71].mapValues { FileIdentity(device: 5, inode: $0) }
    let match = BindingMatch(descriptors: Self.held, identity: { identities[$0] }, memory: ["-object memory-backend-memfd,id=m,size=1G": FileIdentity(device: 5, inode: 73)])
    let result = match.match(bindings, nodes: ["/top": false, "/base": true])
    func numbers(_ address: String) -> [Int32]? { result.first { $0.binding.address == address }?.descriptors.map(\.number) }
    #expect(numbers("q") == [10, 11])
    #expect(numbers("127.0.0.1:5977") == [20, 21, 23])
    #expect(numbers("/run/ext") == [13])
    #expect(numbers("/top") == [30])
    #expect(numbers("memfd:m") == [32])
    let extra = result.dropFirst(bindings.count)
    #expect(extra.map(\.binding.address) == ["/base"])
    #expect(extra.first?.binding.role == .share, "QEMU reads it, whatever right it has it open with")
    #expect(extra.first?.binding.kind == .disk && extra.first?.binding.handover == .reopen && extra.first?.binding.option == "")
    // Nobody was asked about block nodes: a file is all that is known.
    #expect(match.match(bindings, nodes: nil).last?.binding.kind == .file)
    // Without options everything that is the outside's is one.
    #expect(match.match([], nodes: nil).map { $0.descriptors[0].number } == [10, 11, 13, 20, 21, 23, 30, 31], "a memory file is its own")
    #expect(match.match([], nodes: nil).filter { $0.binding.handover == .refuse }.count == 6)
  }

  /// An upgrade gives it another number than its words say, and a bridge helper's has none in them.
  @Test func `a tap that went over is that of its option`() {
    let taps = [9, 11].map { HeldDescriptor.classify(Self.open($0, "/dev/net/tun", S_IFCHR, interface: "tap\($0)"), Self.nothing) }
    let match = BindingMatch(descriptors: taps, identity: { _ in nil }, memory: [:], taps: ["-netdev tap,id=a,fd=33": [11], "-netdev bridge,id=b": [9]])
    let bindings = [("fd=33", "-netdev tap,id=a,fd=33", Binding.Kind.tap), ("br0", "-netdev bridge,id=b", .bridgeHelper)].map { address, option, kind in
      Binding(kind: kind, role: .own, address: address, option: option, handover: .duplicate, why: "", purpose: "")
    }
    #expect(match.match(bindings, nodes: nil).map { $0.descriptors.map(\.number) } == [[11], [9]])
  }

  /// The second has no address: it was opened over the first.
  @Test func `a back end has all its connections`() {
    let option = "-chardev socket,id=c,path=/run/tpm,logfile=/l"
    let sockets = [13, 14].map { HeldDescriptor.classify(Self.open($0, "socket:[\($0)]", S_IFSOCK, inode: UInt64($0)), Self.nothing) }
    let bindings = [Binding(kind: .tpm, role: .connect, address: "/run/tpm", option: option, handover: .duplicate, why: ""),
      Binding(kind: .file, role: .own, address: "/l", option: option, handover: .share, why: "")]
    let match = BindingMatch(descriptors: sockets, identity: { _ in nil }, memory: [:], connections: [option: [13, 14]])
    #expect(match.match(bindings, nodes: nil).map { $0.descriptors.map(\.number) } == [[13, 14], []])
  }

  @Test func `what a user network has open for the guest is its`() {
    let socket = HeldDescriptor(number: 29, type: "tcp connection", kind: .tcpSocket, address: "127.0.0.1:59382")
    let user = Binding(kind: .netdevUser, role: .own, address: "u", option: "-netdev user,id=u", handover: .relaunch, why: "")
    let match = BindingMatch(descriptors: [socket], identity: { _ in nil }, memory: [:], passing: [29])
    #expect(match.match([user], nodes: nil).map { $0.descriptors.map(\.number) } == [[29]])
  }

  /// The port alone does not tell whose it is.
  @Test func `a connection is that of one option`() {
    var connection = HeldDescriptor(number: 5, type: "tcp connection", kind: .tcpSocket, address: "10.0.0.1:9")
    (connection.role, connection.remotePort) = (.connect, 7)
    let bindings = ["one", "two"].map { host in
      Binding(kind: .tcpSocket, role: .connect, address: "\(host):7", option: "-serial tcp:\(host):7,reconnect=1", handover: .duplicate, why: "", purpose: "")
    }
    func found(_ connections: [String: [Int32]]) -> [[Int32]] {
      BindingMatch(descriptors: [connection], identity: { _ in nil }, memory: [:], connections: connections).match(bindings, nodes: nil).map { $0.descriptors.map(\.number) }
    }
    #expect(found([bindings[1].option: [5]]) == [[], [5]])
    #expect(found([:]) == [[5], [5]], "of a QEMU that does not answer")
  }

  @Test func `a tap by its interface or its number`() {
    let tap = HeldDescriptor.classify(Self.open(9, "/dev/net/tun", S_IFCHR, interface: "tap0"), Self.nothing)
    let match = BindingMatch(descriptors: [tap], identity: { _ in nil }, memory: [:])
    for address in ["tap0", "fd=9", "fds=8:9"] {
      let binding = Binding(kind: .tap, role: .own, address: address, option: "", handover: .duplicate, why: "")
      #expect(match.match([binding], nodes: nil).map { $0.descriptors.map(\.number) } == [[9]], "\(address)")
    }
    let other = Binding(kind: .tap, role: .own, address: "tap1", option: "-netdev tap,id=n,ifname=tap1", handover: .duplicate, why: "")
    #expect(match.match([other], nodes: nil).count == 2)
  }

  @Test(arguments: [
    ("127.0.0.1:5900", [5900]), (":4444", [4444]), ("[::1]:80", [1, 80]), ("10.0.0.1:7@10.0.0.2:8", [7, 8]), ("nbd://h:10809/x", [10809]),
    ("h", []), ("h:http", []), ("h:99999", []),
  ] as [(String, Set<UInt16>)])
  func `ports of an address`(address: String, ports: Set<UInt16>) { #expect(BindingMatch.ports(address) == ports) }

  @Test func `a descriptor of a set is where QEMU says, not at the number it came by`() {
    let held = [5, 6, 7].map { HeldDescriptor.classify(Self.open($0, "/disk\($0)"), SocketTables(unix: [], internet: [])) }
    let line = CommandLine(argv: ["qemu", "-add-fd", "fd=7,set=2", "-add-fd", "fd=8,set=2", "-add-fd", "fd=9,set=3"])
    let bindings = MachineDescription(line).bindings.filter { $0.kind == .fd }
    func numbers(_ sets: [Int: [Int32]]) -> [[Int32]] {
      BindingMatch(descriptors: held, identity: { _ in nil }, memory: [:], sets: sets).match(bindings, nodes: nil).prefix(3).map { $0.descriptors.map(\.number) }
    }
    #expect(numbers([2: [5, 6]]) == [[5], [6], []])
    // QEMU was not asked: another one may be at the number by now.
    #expect(numbers([:]) == [[], [], []])
  }

  @Test func `a remote disk over a unix socket is known by its path`() {
    let tables = SocketTables(unix: [Self.unix(1, .established, peer: 2), Self.unix(2, .established, path: "/x", peer: 1)], internet: [])
    let held = HeldDescriptor.classify(Self.open(4, "socket:[1]", S_IFSOCK), tables)
    let binding = Binding(kind: .blockRemote, role: .connect, address: "nbd+unix:///?socket=/x", option: "", handover: .refuse, why: "")
    #expect(BindingMatch(descriptors: [held], identity: { _ in nil }, memory: [:]).match([binding], nodes: nil).map(\.descriptors.count) == [1])
  }
}

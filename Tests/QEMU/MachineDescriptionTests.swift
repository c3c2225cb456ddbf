import QEMU
import Testing

@Suite struct MachineDescriptionTests {
  /// Nothing here stands against an upgrade.
  static let base = ["qemu", "-nodefaults", "-display", "none"]

  static func describe(_ argv: [String]) -> MachineDescription {
    MachineDescription(CommandLine(argv: base + argv))
  }

  /// Options that something here carries over, or that hold nothing.
  @Test(arguments: [
    [], ["-M", "q35", "-enable-kvm", "-cpu", "host", "-smp", "2", "-m", "1G", "-rtc", "base=utc"],
    ["-drive", "file=a.qcow2,if=virtio"], ["-hda", "a", "-cdrom", "b.iso", "c.img"],
    ["-blockdev", #"{"driver":"qcow2","node-name":"n","file":{"driver":"file","filename":"json:x"}}"#],
    ["-qmp", "unix:q,server=on,wait=off", "-serial", "null", "-parallel", "none", "-serial", "vc"],
    ["-chardev", "socket,id=a,path=p,server", "-device", "virtserialport,chardev=a"],
    ["-chardev", "file,id=a,path=p,logfile=l"], ["-chardev", "ringbuf,id=a"],
    ["-vnc", "unix:v"], ["-vnc", "none"], ["-display", "vnc=unix:v"], ["-spice", "unix=on,addr=s"],
    ["-display", "egl-headless"], ["-audiodev", "none,id=a"], ["-nic", "none"], ["-net", "none"],
    ["-nic", "user"], ["-netdev", "user,id=n,guestfwd=tcp:10.0.2.1:1-cmd:cat"], ["-netdev", "user,id=n,restrict=on"], ["-netdev", #"{"type":"user","id":"n","restrict":true}"#],
    ["-object", "rng-random,id=r,filename=/dev/urandom"], ["-object", "secret,id=s,file=f"],
    ["-usbdevice", "tablet"], ["-S", "-daemonize", "-incoming", "tcp:0:1"], ["-d", "int"], ["-D", "log"],
    ["-chardev", "socket,id=moult-control,fd=3", "-mon", "chardev=moult-control,mode=control"],
    ["-device", "virtio-net-pci"], ["-sandbox", "on,spawn=deny"], ["-icount", "shift=1"],
  ])
  func accepted(argv: [String]) {
    #expect(Self.describe(argv).blockers == [])
  }

  struct Refused: Sendable {
    var argv: [String]
    var kind: Binding.Kind?
    var address = ""
  }

  static let refusals: [Refused] = [
    .init(argv: ["-netdev", "user,id=n,hostfwd=unix:/a-b-:2"], kind: .unixSocket, address: "/a-b"),
    .init(argv: ["-netdev", "user,id=n,hostfwd=tcp::0-:2"]), .init(argv: ["-nic", "user,hostfwd=tcp::http-:2"]), .init(argv: ["-nic", "hostfwd=tcp:h:1-:2"]),
    .init(argv: ["-netdev", #"{"type":"user","id":"n","restrict":true,"guestfwd":[{"str":"tcp:10.0.2.1:1-null"}]}"#]),
    .init(argv: ["-netdev", "user,id=n,restrict=y,smb=/t"], kind: .directory, address: "/t"),
    .init(argv: ["-netdev", "dgram,id=n,local.type=unix,local.path=/p"], kind: .netdevSocket, address: "/p"),
    .init(argv: ["-netdev", "socket,id=n,listen=:1"], kind: .netdevSocket, address: ":1"),
    .init(argv: ["-netdev", "vhost-vdpa,id=n,vhostdev=/dev/v"], kind: .vhostVdpa, address: "/dev/v"),
    .init(argv: ["-netdev", "l2tpv3,id=n,src=h1,dst=h2,dstport=5"], kind: .netdevSocket, address: "h2:5@h1"),
    .init(argv: ["-netdev", "nonsense,id=n"]),
    .init(argv: ["-chardev", "socket,id=a,path=/p,telnet=on"], kind: .unixSocket, address: "/p"),
    .init(argv: ["-chardev", "socket,id=a,host=h,port=1,reconnect-ms=5000,telnet=on"], kind: .tcpSocket, address: "h:1"),
    .init(argv: ["-chardev", "socket,id=a,fd=9,server=on"], kind: .fd, address: "9"),
    .init(argv: ["-serial", "pty"], kind: .pty, address: "pty"),
    .init(argv: ["-serial", "/dev/ttyS0"], kind: .file, address: "/dev/ttyS0"),
    .init(argv: ["-chardev", "pipe,id=a,path=/p"], kind: .file, address: "/p"),
    .init(argv: ["-chardev", "qemu-vdagent,id=a"]),
    .init(argv: ["-chardev", "nonsense,id=a"]),
    .init(argv: ["-mon", "chardev=missing,mode=control"]),
    .init(argv: ["-display", "gtk"], kind: .display, address: "gtk"),
    .init(argv: ["-display", "dbus,addr=unix:path=/d"], kind: .display, address: "unix:path=/d"),
    .init(argv: ["-audiodev", "pa,id=a"], kind: .display, address: "pa"),
    .init(argv: ["-device", "vfio-pci,host=01:00.0"], kind: .vfio, address: "0000:01:00.0"),
    .init(argv: ["-device", #"{"driver":"vfio-pci","host":"0000:01:00.0"}"#], kind: .vfio, address: "0000:01:00.0"),
    .init(argv: ["-device", #"{"driver":"vfio-user-pci","socket":{"path":"/v"}}"#], kind: .unixSocket, address: "/v"),
    .init(argv: ["-device", "usb-host,hostdevice=/dev/bus/usb/1"], kind: .usbHost, address: "/dev/bus/usb/1"),
    .init(argv: ["-chardev", "socket,id=c,path=/p", "-device", "vhost-user-vsock-pci,chardev=c"], kind: .vhostUser, address: "/p"),
    .init(argv: ["-chardev", "socket,id=c,path=/p", "-device", "vhost-user-scsi-pci,chardev=c"], kind: .vhostUser, address: "/p"),
    .init(argv: ["-fsdev", "local,id=f,path=/x", "-device", "virtio-9p-pci,fsdev=f"], kind: .directory, address: "/x"),
    .init(argv: ["-virtfs", "local,path=/x,mount_tag=t"], kind: .directory, address: "/x"),
    .init(argv: ["-object", "memory-backend-file,id=m,size=1M,mem-path=/m", "-device", "ivshmem-plain,memdev=m"], kind: .memory, address: "/m"),
    .init(argv: ["-object", "memory-backend-file,id=m,size=1M,mem-path=/m", "-device", "nvdimm,memdev=m"], kind: .memory, address: "/m"),
    .init(argv: ["-drive", "file=/dev/sdz,id=d,if=none", "-device", "scsi-generic,drive=d"], kind: .disk, address: "/dev/sdz"),
    .init(argv: ["-device", "future-thing,vhostfd=4"]),
    .init(argv: ["-tpmdev", "passthrough,id=t,path=/dev/tpm0"], kind: .tpm, address: "/dev/tpm0"),
    .init(argv: ["-object", "memory-backend-memfd,id=m,size=1G,hugetlb=on"]),
    .init(argv: ["-object", "memory-backend-file,id=m,size=1G,mem-path=/m,discard-data=on"]),
    .init(argv: ["-object", "memory-backend-file,id=m,size=1G,mem-path=/m,readonly=on"]),
    .init(argv: ["-object", "memory-backend-ram,id=m"]),
    .init(argv: ["-object", "filter-dump,id=f,netdev=n,file=/c"], kind: .file, address: "/c"),
    .init(argv: ["-object", "sev-guest,id=s"]),
    .init(argv: ["-object", "nonsense,id=s"]),
    .init(argv: ["-blockdev", "driver=nbd,server.type=unix,server.path=/s,tls-creds=t"], kind: .blockRemote, address: "nbd+unix:///?socket=/s"),
    .init(argv: ["-drive", "file=nbd://h/e,file.tls-creds=t"]),
    .init(argv: ["-drive", "file=rbd:pool/image:id=x"], kind: .blockRemote, address: "rbd:pool/image:id=x"),
    .init(argv: ["-drive", "file=gluster+unix://h/i?socket=/s"], kind: .blockRemote, address: "gluster+unix://h/i?socket=/s"),
    .init(argv: ["-drive", #"file=json:{"driver":"qcow2",,"file":{"driver":"ftp",,"url":"ftp://x"}}"#], kind: .blockRemote, address: "ftp://x"),
    .init(argv: ["-drive", "file=json:{broken"]),
    .init(argv: ["-blockdev", #"{"driver":"throttle","file":{"driver":"qcow2","file":{"driver":"rbd","pool":"p","image":"i"}}}"#], kind: .blockRemote, address: "rbd:p/i"),
    .init(argv: ["-drive", "file=iscsi://p/t/0,if=none,id=d", "-device", "scsi-block,drive=d"], kind: .blockRemote, address: "iscsi://p/t/0"),
    .init(argv: ["-drive", "file=fat:rw:/d"], kind: .directory, address: "/d"),
    .init(argv: ["-drive", "file=/dev/fdset/1"], kind: .disk, address: "/dev/fdset/1"),
    .init(argv: ["-cdrom", "/dev/sr0"], kind: .disk, address: "/dev/sr0"),
    .init(argv: ["-blockdev", "driver=nvme,device=0000:01:00.0,namespace=1"], kind: .vfio, address: "0000:01:00.0"),
    .init(argv: ["-blockdev", "driver=nonsense,node-name=x"]),
    .init(argv: ["-drive", "file=x,snapshot=on"]),
    .init(argv: ["-snapshot"]), .init(argv: ["-add-fd", "fd=3,set=1"], kind: .fd, address: "3"),
    .init(argv: ["-readconfig", "c"]), .init(argv: ["-set", "drive.a.file=b"]), .init(argv: ["-chroot", "/x"]),
    .init(argv: ["-run-with", "chroot=/x"]), .init(argv: ["-plugin", "p"]), .init(argv: ["-qtest", "stdio"]),
    .init(argv: ["-icount", "shift=auto,rr=record,rrfile=r"]), .init(argv: ["-xen-attach"]),
    .init(argv: ["-D", "log", "-d", "int"], kind: .file, address: "log"),
    .init(argv: ["-trace", "enable=x,file=t"], kind: .file, address: "t"),
    .init(argv: ["-semihosting"]), .init(argv: ["-machine", "q35,confidential-guest-support=s"]),
    // Deliberately broken ones.
    .init(argv: ["-unknown", "parameter"]), .init(argv: ["---S"]), .init(argv: ["-m"]), .init(argv: ["-m", "lots"]),
    .init(argv: ["-device", "{broken"]), .init(argv: ["-device", ""]), .init(argv: ["-chardev", ""]),
    .init(argv: ["-serial", "nonsense"]), .init(argv: ["-machine", "memory-backend=missing"]),
  ]

  @Test(arguments: refusals) func refused(refused: Refused) {
    let description = Self.describe(refused.argv)
    #expect(!description.blockers.isEmpty)
    for blocker in description.blockers {
      #expect(!blocker.reason.isEmpty && !blocker.wayOut.isEmpty)
    }
    if let kind = refused.kind {
      #expect(
        description.bindings.contains {
          $0.kind == kind && $0.address == refused.address && $0.handover == .refuse
        }, "\(description.bindings)")
    }
  }

  /// What the running QEMU has open, and the new one gets.
  static let duplicated: [Refused] = [
    .init(argv: ["-netdev", "tap,id=n,ifname=t0"], kind: .tap, address: "t0"),
    .init(argv: ["-netdev", "type=tap,id=n"], kind: .tap, address: "tap%d"),
    .init(argv: ["-netdev", "tap,id=n,fd=5"], kind: .tap, address: "fd=5"),
    .init(argv: ["-netdev", "bridge,id=n,br=b0"], kind: .bridgeHelper, address: "b0"),
    .init(argv: ["-net", "tap,helper=/h"], kind: .bridgeHelper, address: "br0"),
    .init(argv: ["-chardev", "socket,id=a,host=h,port=1,server=on"], kind: .tcpSocket, address: "h:1"),
    .init(argv: ["-serial", "tcp::4444,server"], kind: .tcpSocket, address: ":4444"),
    .init(argv: ["-monitor", "telnet:127.0.0.1:55,server,nowait"], kind: .tcpSocket, address: "127.0.0.1:55"),
    .init(argv: ["-chardev", "socket,id=a,path=p,server=on,abstract=on"], kind: .unixSocket, address: "@p"),
    .init(argv: ["-gdb", "tcp::1234"], kind: .tcpSocket, address: ":1234"),
    .init(argv: ["-s"], kind: .tcpSocket, address: ":1234"),
    .init(argv: ["-vnc", ":0"], kind: .tcpSocket, address: ":5900"),
    .init(argv: ["-vnc", "[::]:59630"], kind: .tcpSocket, address: "[::]:65530"),
    .init(argv: ["-vnc", "unix:v,websocket=5700"], kind: .tcpSocket, address: ":5700"),
    .init(argv: ["-netdev", "user,id=n,restrict=on,hostfwd=tcp::1-:2"], kind: .tcpSocket, address: ":1"),
    .init(argv: ["-nic", "hostfwd=udp:10.0.0.1:1-:2"], kind: .udpSocket, address: "10.0.0.1:1"),
  ]

  @Test(arguments: duplicated) func isDuplicated(item: Refused) {
    let description = Self.describe(item.argv)
    #expect(description.blockers == [])
    #expect(
      description.bindings.contains { $0.kind == item.kind && $0.address == item.address && $0.handover == .duplicate }, "\(description.bindings)")
  }

  @Test func theDefaultNetworkIsOfTheUser() {
    #expect(MachineDescription(CommandLine(argv: ["qemu", "-display", "none"])).bindings.map(\.kind) == [.netdevUser])
    for argv in [["-nic", "none"], ["-net", "none"], ["-nodefaults"]] {
      #expect(MachineDescription(CommandLine(argv: ["qemu"] + argv)).isUpgradable)
    }
  }

  @Test(arguments: [
    (["-nographic"], false), (["-serial", "stdio"], true), (["-serial", "mon:stdio"], true), (["-chardev", "stdio,id=a"], true), (["-serial", "null"], false),
  ])
  func standardInput(argv: [String], isUsed: Bool) {
    #expect(Self.describe(argv).usesStandardInput == isUsed)
  }

  @Test func nographicTakesStandardInputUnlessPortsAreGiven() {
    func uses(_ argv: String...) -> Bool {
      MachineDescription(CommandLine(argv: ["qemu", "-nographic"] + argv)).usesStandardInput
    }
    #expect(uses())
    #expect(uses("-serial", "null"))
    #expect(!uses("-serial", "null", "-monitor", "none"))
    #expect(!uses("-nodefaults"))
  }

  @Test func theDefaultDisplayIsNoted() {
    func isDefault(_ argv: String...) -> Bool {
      MachineDescription(CommandLine(argv: ["qemu", "-nodefaults"] + argv)).usesDefaultDisplay
    }
    #expect(isDefault())
    #expect(isDefault("-display", "default"))
    for argv in [["-nographic"], ["-vnc", "unix:v"], ["-display", "none"], ["-spice", "port=1"]] {
      #expect(!MachineDescription(CommandLine(argv: ["qemu"] + argv)).usesDefaultDisplay)
    }
  }
}

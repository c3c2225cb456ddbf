import QEMU
import Testing

/// Each row of docs/bindings.md that the corpus has no example of, and its edge cases.
@Suite struct BindingTests {
  struct Case: Sendable, CustomTestStringConvertible {
    var argv: [String]
    /// Kind, role, address, handover; purpose after it if it matters.
    var bindings: [String]
    var testDescription: String { argv.joined(separator: " ") }

    init(_ argv: String..., is bindings: String...) {
      self.argv = argv
      self.bindings = bindings
    }
  }

  static let sockets = [
    Case("-serial", "udp:h:5@l:6", is: "udp-socket connect h:5@l:6 duplicate"),
    Case("-serial", "udp::5", is: "udp-socket connect :5 duplicate"),
    Case("-serial", "udp::5@:6", is: "udp-socket connect :5@:6 duplicate"),
    Case("-serial", "tcp:[::1]:4444,server=on", is: "tcp-socket listen [::1]:4444 duplicate"),
    Case("-serial", "telnet:h:5,server,nowait", is: "tcp-socket listen h:5 duplicate"),
    Case("-serial", "tcp:h:5", is: "tcp-socket connect h:5 duplicate"),
    Case("-gdb", "tcp::1234", is: "tcp-socket listen :1234 duplicate"),
    Case("-gdb", "unix:/g,server=on", is: "unix-socket listen /g swap"),
    Case("-chardev", "socket,id=c,host=::1,port=5,server=on", is: "tcp-socket listen [::1]:5 duplicate"),
    Case("-chardev", "socket,id=c,path=/p,server=on,logfile=/l", is: "file own /l share", "unix-socket listen /p swap"),
    Case("-chardev", "socket,id=c,path=n,abstract=on", is: "unix-socket connect @n duplicate"),
    Case("-chardev", "socket,id=c,fd=5", "-device", "vhost-user-blk,chardev=c", is: "vhost-user connect fd=5 refuse"),
    Case("-chardev", "socket,id=c,path=/p", "-device", "vhost-user-blk-pci,chardev=c", is: "vhost-user connect /p duplicate"),
    Case("-chardev", "socket,id=c,path=/p,reconnect=1", "-device", "vhost-user-blk-pci,chardev=c", is: "vhost-user connect /p refuse"),
    Case("-chardev", "socket,id=c,path=/p,server=on", "-device", "vhost-user-blk-pci,chardev=c", is: "vhost-user listen /p refuse"),
    Case("-chardev", "socket,id=c,path=/p", "-device", "vhost-user-scsi-pci,chardev=c", is: "vhost-user connect /p refuse"),
    Case("-chardev", "socket,id=c,path=/p", "-netdev", "vhost-user,id=n,chardev=c,queues=2", is: "vhost-user connect /p duplicate"),
    Case("-netdev", "vhost-user,id=n,chardev=c", "-chardev", "socket,id=c,path=/p,server=on", is: "vhost-user listen /p swap"),
    Case("-chardev", "socket,id=c,path=/p,reconnect=1", "-netdev", "vhost-user,id=n,chardev=c", is: "vhost-user connect /p refuse"),
    Case("-chardev", "socket,id=c,path=p,abstract=on,server=on", "-netdev", "vhost-user,id=n,chardev=c", is: "vhost-user listen @p refuse"),
    Case("-chardev", "socket,id=c,fd=5", "-netdev", "vhost-user,id=n,chardev=c", is: "vhost-user connect fd=5 refuse"),
    Case("-chardev", "socket,id=c,path=/p", "-nic", "vhost-user,chardev=c", is: "vhost-user connect /p refuse"),
    Case("-chardev", "socket,id=c,path=/p", "-device", "vhost-user-fs-pci,chardev=c,tag=t", is: "vhost-user connect /p relaunch"),
    Case("-chardev", "socket,id=c,path=/p,reconnect=1", "-device", "vhost-user-fs-pci,chardev=c,tag=t", is: "vhost-user connect /p refuse"),
    Case("-chardev", "socket,id=c,fd=5", "-device", "vhost-user-fs-pci,chardev=c,tag=t", is: "vhost-user connect fd=5 refuse"),
    Case("-device", "vhost-user-gpu-pci,chardev=c", "-chardev", "socket,id=c,path=/p,server=on", is: "vhost-user listen /p refuse"),
    Case("-object", "cryptodev-vhost-user,id=o,chardev=c", "-chardev", "socket,id=c,path=/p", is: "vhost-user connect /p refuse"),
    Case("-tpmdev", "emulator,id=t,chardev=c", "-chardev", "socket,id=c,path=/p", "-device", "tpm-crb,tpmdev=t", is: "tpm connect /p duplicate"),
    Case("-tpmdev", "emulator,id=t,chardev=c", "-chardev", "socket,id=c,path=/p,reconnect=1", is: "tpm connect /p refuse"),
    Case("-tpmdev", "emulator,id=t,chardev=c", "-chardev", "socket,id=c,host=h,port=5", is: "tpm connect h:5 refuse"),
    Case("-tpmdev", "emulator,id=t,chardev=c", "-chardev", "socket,id=c,fd=5", is: "tpm connect fd=5 refuse"),
    Case("-object", "monitor-qmp,id=m,chardev=c", "-chardev", "socket,id=c,path=/p,server=on", is: "unix-socket listen /p swap"),
    Case("-chardev", "pty,id=c,path=/link", is: "pty own /link refuse"),
    Case("-chardev", "file,id=c,path=/f,input-path=/i", is: "file own /f share", "file share /i refuse"),
    Case("-parallel", "/dev/parport0", is: "file own /dev/parport0 refuse"),
    Case("-add-fd", "fd=3,set=2", is: "fd own 3 refuse"),
    Case("-readconfig", "vm.cfg", is: "file share vm.cfg refuse"),
    Case("-qtest", "unix:/q", is: "unix-socket connect /q refuse"),
    Case("-chardev", "spicevmc,id=c,name=vdagent"), Case("-chardev", "dbus,id=c,name=x"), Case("-monitor", "stdio"),
    Case("-object", "vhost-user-blk-server,id=o,addr.type=unix,addr.path=/b,node-name=n", is: "unix-socket listen /b refuse"),
    Case("-object", "x-vfio-user-server,id=o,type=unix,path=/v,device=d", is: "unix-socket listen /v refuse"),
    Case("-object", "input-barrier,id=b,name=n,server=h", is: "tcp-socket connect h:24800 refuse"),
  ]

  static let displays = [
    Case("-vnc", "127.0.0.1:1", is: "tcp-socket listen 127.0.0.1:5901 duplicate"),
    Case("-vnc", "vnc=[::]:2,websocket=on", is: "tcp-socket listen [::]:5702 duplicate", "tcp-socket listen [::]:5902 duplicate"),
    Case("-vnc", ":0,websocket=h:80", is: "tcp-socket listen :5900 duplicate", "tcp-socket listen h:80 duplicate"),
    Case("-vnc", "password=on"), Case("-vnc", "h:5500,reverse=on", is: "tcp-socket connect h:5500 refuse"),
    Case("-vnc", "vnc=unix:/foo=bar.sock,password=on", is: "unix-socket listen /foo=bar.sock swap"),
    Case("-vnc", ":0,tls,x509=/x", is: "directory share /x reopen", "tcp-socket listen :5900 duplicate"),
    Case("-display", "vnc=:3", is: "tcp-socket listen :5903 duplicate"),
    Case("-spice", "port=5900,tls-port=5901,addr=::", is: "tcp-socket listen [::]:5900 duplicate", "tcp-socket listen [::]:5901 duplicate"),
    Case("-spice", "port=0,gl=on,rendernode=/dev/dri/renderD129", is: "display share /dev/dri/renderD129 reopen"),
    Case("-spice", "unix,addr=/s", is: "unix-socket listen /s swap"),
    Case("-display", "egl-headless", is: "display share /dev/dri/renderD* reopen"),
    Case("-display", "dbus", is: "display connect session bus refuse"),
    Case("-display", "dbus,p2p=on", is: "display listen p2p refuse"),
    Case("-display", "gtk,gl=on", is: "display own gtk refuse"),
    Case("-curses", is: "display own curses refuse"),
    Case("-audiodev", "pa,id=a,server=/run/p", is: "display own /run/p refuse"),
    Case("-audiodev", "wav,id=a", is: "file own qemu.wav refuse"), Case("-audiodev", "spice,id=a"),
  ]

  static let disks = [
    Case("-drive", "if=pflash,file=/f,readonly=on", is: "file share /f reopen"), Case("-pflash", "/f", is: "file own /f reopen"),
    Case(
      "-blockdev", "driver=qcow2,node-name=v,file.driver=file,file.filename=/v", "-machine", "pflash1=v", is: "file own /v reopen"),
    Case("-drive", "file=/d,snapshot=on", is: "disk share /d reopen"), Case("-snapshot", "/d", is: "disk share /d reopen"),
    Case(
      "-blockdev", #"{"driver":"qcow2","node-name":"t","file":{"driver":"file","filename":"/t"},"backing":{"driver":"raw","read-only":false,"file":{"driver":"file","filename":"/b"}}}"#,
      is: "disk own /t reopen", "disk share /b reopen"),
    Case(
      "-blockdev", "driver=raw,node-name=b,file.driver=file,file.filename=/b", "-blockdev", "driver=qcow2,node-name=t,backing=b,file.driver=file,file.filename=/t",
      is: "disk own /t reopen", "disk share /b reopen"),
    Case("-drive", "file.filename=nbd://h/e", is: "disk own nbd://h/e reopen"), Case("-drive", "if=none,id=empty,media=cdrom"),
    Case("-drive", "file=nbd://h/e", is: "block-remote connect nbd://h/e reopen"),
    Case("-blockdev", #"{"driver":"nbd","node-name":"n","server":{"type":"inet","host":"::1","port":"10809"},"export":"e"}"#, is: "block-remote connect nbd://[::1]:10809/e reopen"),
    Case("-blockdev", "driver=nbd,server.type=unix,server.path=/s,export=e", is: "block-remote connect nbd+unix:///e?socket=/s reopen"),
    Case("-blockdev", "driver=ssh,server.host=h,server.port=22,user=u,path=/p", is: "block-remote connect ssh://u@h:22/p reopen"),
    Case("-blockdev", "driver=nfs,server.type=inet,server.host=h,path=/p/i", is: "block-remote connect nfs://h/p/i refuse"),
    Case("-blockdev", "driver=rbd,pool=p,namespace=n,image=i", is: "block-remote connect rbd:p/n/i refuse"),
    Case("-blockdev", "driver=iscsi,transport=iser,portal=h:1,target=iqn,lun=3", is: "block-remote connect iser://h:1/iqn/3 refuse"),
    Case("-blockdev", "driver=https,url=https://h/x", is: "block-remote connect https://h/x reopen"),
    Case("-drive", "file=nvme://0000:01:00.0/1", is: "vfio own 0000:01:00.0 refuse"),
    Case("-drive", "file=fat:floppy:12:rw:/d", is: "directory share /d refuse"),
    Case("-cdrom", "/dev/sr0", is: "disk share /dev/sr0 refuse"),
    Case("-drive", "file=/dev/sda,if=none,id=d,format=raw", "-device", "scsi-block,drive=d", is: "disk own /dev/sda refuse"),
    Case("-device", "vhost-scsi-pci,wwpn=naa.1", is: "disk own naa.1 refuse"), Case("-drive", "driver=null-co,id=n"),
  ]

  static let files = [
    Case("-boot", "splash=/s", is: "file share /s reopen"), Case("-D", "/l", is: "file own /l reopen"),
    Case("-D", "/l", "-d", "int", is: "file own /l refuse"), Case("-icount", "shift=7,rr=replay,rrfile=/r", is: "file share /r refuse"),
    Case("-plugin", "file=/p.so,arg=1", is: "file share /p.so refuse"), Case("-object", "rng-random,id=r", is: "file share /dev/urandom reopen"),
    Case("-object", "tls-creds-psk,id=t,dir=/k", is: "directory share /k reopen"), Case("-object", "secret,id=s,data=x"),
    Case("-fsdev", "proxy,id=f,socket=/s", is: "unix-socket connect /s refuse"), Case("-fsdev", "synth,id=f"),
    Case("-tpmdev", "passthrough,id=t", is: "tpm own /dev/tpm0 refuse"),
  ]

  static let memory = [
    Case("-m", "1G"), Case("-object", "memory-backend-ram,id=m,size=1G", "-machine", "memory-backend=m"),
    Case("-m", "1G", "-mem-path", "/h", is: "memory own /h reopen"),
    Case("-object", "memory-backend-epc,id=m,size=1M", is: "memory own /dev/sgx_vepc refuse"),
    Case("-object", "memory-backend-memfd,id=m,size=1G", is: "memory share memfd:m share"),
    Case("-object", "memory-backend-memfd,id=m,size=1G,hugetlb=on", is: "memory share memfd:m refuse"),
    Case("-object", "memory-backend-file,id=m,size=1G,mem-path=/x,discard-data=on", is: "memory own /x refuse"),
    Case("-object", "memory-backend-file,id=m,size=1G,mem-path=/x,share=on", "-device", "virtio-pmem-pci,memdev=m", is: "memory share /x refuse"),
  ]

  static let networks = [
    Case("-netdev", "tap,id=n,vhost=off,vhostfd=3", is: "tap own tap%d duplicate"),
    Case("-nic", "tap,ifname=t0,vhost=on", is: "tap own t0 duplicate", "vhost-net own /dev/vhost-net reopen"),
    Case("-net", "tap,fd=3,vhostfd=4", is: "tap own fd=3 duplicate", "vhost-net own fd=4 reopen"),
    Case("-netdev", "tap,id=n,br=b0", is: "tap own tap%d duplicate"), Case("-nic", "model=e1000", is: "netdev-user own user relaunch"), Case("-nic", "bridge", is: "bridge-helper own br0 duplicate"),
    Case("-netdev", "bridge,id=n,br=b1,helper=/h", is: "bridge-helper own b1 duplicate"),
    Case(
      "-netdev", "user,id=n,hostfwd=tcp:127.0.0.1:1-:2,hostfwd=udp::3-10.0.2.15:4,hostfwd=unix:/a-b.sock-:5",
      is: "netdev-user own n relaunch", "tcp-socket listen 127.0.0.1:1 duplicate", "udp-socket listen :3 duplicate", "unix-socket listen /a-b.sock refuse"),
    Case(
      "-netdev", #"{"type":"user","id":"n","hostfwd":[{"str":"tcp::1-:2"},{"str":"::3-:4"}]}"#,
      is: "netdev-user own n relaunch", "tcp-socket listen :1 duplicate", "tcp-socket listen :3 duplicate"),
    Case("-netdev", "user,id=n,guestfwd=tcp:10.0.2.100:80-cmd:nc h 80", is: "netdev-user own n relaunch"),
    Case(
      "-netdev", "user,id=n,guestfwd=tcp:10.0.2.100:80-chardev:c", "-chardev", "socket,id=c,path=/c,server=on,wait=off",
      is: "netdev-user own n relaunch", "unix-socket listen /c swap"),
    Case("-netdev", "user,id=n,guestfwd=tcp:10.0.2.100:80-tcp:h:81", is: "netdev-user own n relaunch", "tcp-socket connect h:81 refuse"),
    Case("-netdev", "user,id=n,smb=/s,tftp=/t", is: "directory share /s refuse", "directory share /t reopen", "netdev-user own n relaunch"),
    Case("-netdev", "user,id=n,restrict=on", is: "netdev-user own n relaunch"),
    Case("-netdev", "socket,id=n,mcast=230.0.0.1:1,localaddr=h", is: "netdev-socket share 230.0.0.1:1@h duplicate"),
    Case("-netdev", "socket,id=n,fd=3", is: "netdev-socket connect fd=3 refuse"),
    Case("-netdev", "stream,id=n,server=on,addr.type=inet,addr.host=h,addr.port=1", is: "netdev-socket listen h:1 duplicate"),
    Case("-netdev", "stream,id=n,addr.type=fd,addr.str=5", is: "netdev-socket connect fd=5 refuse"),
    Case(
      "-netdev", "dgram,id=n,remote.type=inet,remote.host=224.0.0.1,remote.port=1,local.type=inet,local.host=h,local.port=2",
      is: "netdev-socket share 224.0.0.1:1@h:2 duplicate"),
    Case("-netdev", "dgram,id=n,local.type=unix,local.path=/l,remote.type=unix,remote.path=/r", is: "netdev-socket connect /r@/l refuse"),
    Case("-netdev", "vde,id=n,sock=/s", is: "netdev-socket connect /s refuse"), Case("-netdev", "passt,id=n", is: "netdev-socket own passt refuse"),
    Case("-netdev", "vhost-vdpa,id=n,vhostfd=3", is: "vhost-vdpa own fd=3 refuse"),
  ]

  static let devices = [
    Case("-device", "vfio-pci,host=55aa:01:00.0", is: "vfio own 55aa:01:00.0 refuse"), Case("-device", "vfio-pci,fd=3", is: "vfio own fd=3 refuse"),
    Case("-device", "vfio-ccw,sysfsdev=/sys/x", is: "vfio own /sys/x refuse"), Case("-device", "vfio-pci-igd-lpc-bridge"),
    Case("-object", "iommufd,id=i", is: "vfio own /dev/iommu refuse"), Case("-object", "iommufd,id=i,fd=3", is: "fd own 3 refuse"),
    Case("-device", "usb-host,hostbus=1,hostport=2.3", is: "usb-host own 1-2.3 refuse"),
    Case("-device", "usb-host,vendorid=0x46d,productid=50475", is: "usb-host own 046d:c52b refuse"),
    Case("-usbdevice", "host:1.2", is: "usb-host own 1.2 refuse"),
    Case("-device", "vhost-vsock-pci-non-transitional,guest-cid=5,vhostfd=9", is: "vhost-vsock own 5 reopen"),
    Case("-device", "vhost-vdpa-device-pci,vhostdev=/dev/v", is: "vhost-vdpa own /dev/v refuse"),
    Case("-device", "virtio-input-host-device,evdev=/dev/e", is: "input-host own /dev/e refuse"),
    Case("-object", "input-linux,id=i,evdev=/dev/e", is: "input-host own /dev/e refuse"),
    Case("-device", "ccid-card-emulated", is: "directory share /etc/pki/nssdb refuse"),
    Case("-device", "usb-redir,chardev=c", "-chardev", "spicevmc,id=c,name=usbredir"),
  ]

  @Test(arguments: [sockets, displays, disks, files, memory, networks, devices].flatMap(\.self))
  func made(of options: Case) {
    let vm = MachineDescription(CommandLine(argv: ["qemu", "-nodefaults"] + options.argv))
    let found = vm.bindings.map { "\($0.kind.rawValue) \($0.role) \($0.address) \($0.handover)" }
    #expect(found.sorted() == options.bindings.sorted())
    // What is refused says why in the blockers, too.
    for binding in vm.bindings {
      #expect(!binding.why.isEmpty)
      #expect(binding.handover != .refuse || vm.blockers.contains { $0.reason == binding.why }, "\(binding)")
    }
    #expect(vm.unknown.isEmpty)
  }

  @Test func theGuestsNetworkIsOneMoreWhenNoneIsSaid() {
    let vm = MachineDescription(CommandLine(argv: ["qemu", "-display", "none"]))
    #expect(vm.bindings.map(\.kind) == [.netdevUser])
    #expect(vm.bindings.map(\.option) == [""])
    #expect(MachineDescription(CommandLine(argv: ["", "-display", "none"]), isPart: true).bindings.isEmpty)
  }

  /// What no QEMU has is reported as it is written.
  @Test(arguments: [
    ["-device", "idontexist,id=x"], ["-device", #"{"driver":"testdev"}"#], ["-object", "nonsense,id=x"], ["-netdev", "nonsense,id=x"],
    ["-display", "nonsense"], ["-audiodev", "nonsense,id=a"], ["-tpmdev", "nonsense,id=t"], ["-fsdev", "nonsense,id=f"], ["-unknown", "parameter"],
    ["-blockdev", "driver=nonsense,node-name=x"], ["-drive", "file=nonsense:x"], ["-serial", "nonsense"], ["-chardev", "nonsense,id=c"],
  ])
  func unknown(argv: [String]) {
    let vm = MachineDescription(CommandLine(argv: ["qemu", "-nodefaults"] + argv))
    #expect(vm.unknown == [argv.joined(separator: " ")])
    #expect(!vm.isUpgradable)
  }

  /// Models of other targets, aliases, CPUs.
  @Test(arguments: [
    "virtio-net", "virtio-blk-ccw", "virtio-scsi-device", "lsi", "ahci", "spapr-vscsi", "zpci", "qemu64-x86_64-cpu", "host-x86_64-cpu",
    "virtio-blk-pci-transitional", "vmgenid", "isa-applesmc", "nvme", "riscv-iommu-pci",
  ])
  func knownDevices(driver: String) {
    #expect(MachineDescription(CommandLine(argv: ["qemu", "-nodefaults", "-device", driver])).unknown == [])
  }
}

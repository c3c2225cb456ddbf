import QEMU
import Testing

/// What is wrong with a command line that nobody runs.
@Suite struct CommandLineDoubtTests {
  static let program = "/usr/bin/qemu-system-x86_64"

  @Test(arguments: [
    // Keys.
    (["-drive", "file=/a,formt=raw"], "the key formt here; is it format?"),
    (["-drive", "file=/a,cache.diret=on,cahe=none"], "the key cahe here; is it cache?"),
    (["-blockdev", "driver=file,filname=/a,node-name=n"], "the key filname here; is it filename?"),
    (["-blockdev", #"{"driver":"file","filname":"/a","node-name":"n"}"#], "the key filname"),
    (["-netdev", "user,id=n,hostfw=tcp::1-:1"], "the key hostfw here; is it hostfwd?"),
    (["-netdev", "tap,id=n,scriptt=no"], "is it script?"), (["-netdev", #"{"type":"tap","id":"n","ifnam":"t"}"#], "is it ifname?"),
    (["-nic", "user,modle=e1000"], "is it model?"),
    (["-machine", "q35,acel=kvm"], "the key acel here; is it accel?"), (["-M", "q35,zzzzzz=1"], "the key zzzzzz here"),
    (["-M", "q35,kernel_irqchp=on"], "the key kernel_irqchp here; is it kernel-irqchip?"),
    (["-vnc", ":1,websockt=on"], "is it websocket?"), (["-spice", "prot=1"], "is it port?"),
    (["-M", ",,,="], "a key is missing before ="), (["-M", ",,,="], ", is no machine type"), (["-netdev", "user,id=n,=x"], "a key is missing"),
    (["-drive", "=,file=/a"], "a key is missing"),
    // Values.
    (["-M", "q53"], "q53 is no machine type of an x86 QEMU"), (["-M", "virt"], "virt is no machine type"), (["-M", "q35,accel=kvmm:tcg"], "kvmm is no accelerator; is it kvm?"),
    (["-accel", "tgc"], "tgc is no accelerator"), (["-vga", "cirus"], "is it cirrus?"), (["-drive", "file=/a,if=virtoi"], "virtoi is no value of if=; is it virtio?"),
    (["-drive", "file=/a,cache=writeback2"], "value of cache="),
    (["-smp", "0"], "cpus=0 is no number from 1 to 4096"), (["-smp", "99999999999999999999"], "is no number"), (["-smp", "4097"], "is no number"),
    (["-smp", "2,cores=x"], "cores=x is no number"), (["-smp", "-1"], "is no number"), (["-smp", "4,maxcpus=2"], "cpus=4 is more than maxcpus=2"),
    (["-mon", "chardev=c,mode=contrl"], "contrl is no value of mode=; is it control?"), (["-action", "panic=puase"], "is it pause?"),
    (["-watchdog-action", "foo"], "foo is no action"), (["-rtc", "base=foo"], "neither utc nor localtime nor a date"), (["-rtc", "clock=hst"], "is it host?"),
    (["-boot", "order=cZ"], "drives are letters from a to p"), (["-boot", "once=aa"], "has a drive twice"), (["-uuid", "6a3c3f3e"], "is no UUID"),
    (["-incoming", "foo:bar"], "nothing that a migration comes from"), (["-global", "foo"], "not of the form"), (["-global", "a.b"], "not of the form"),
    (["-m", "1G,maxmem=512M"], "size=1G is more than maxmem=512M"), (["-daemonize", "-serial", "mon:stdio"], "not there with -daemonize"),
    (["-daemonize", "-chardev", "stdio,id=c"], "not there with -daemonize"),
    // What is missing.
    (["-netdev", "user"], "id= is missing"), (["-blockdev", "node-name=n,filename=/a"], "driver= is missing"), (["-blockdev", "driver=file,filename=/a"], "node-name= is missing"),
    (["-object", "iothread"], "id= is missing"), (["-object", #"{"qom-type":"iothread"}"#], "id= is missing"), (["-chardev", "socket,path=/a"], "id= is missing"),
    (["-chardev", "socket,id=c"], "neither path= nor port= nor fd="), (["-audiodev", "none"], "id= is missing"), (["-fsdev", "local,path=/a"], "id= is missing"),
    (["-tpmdev", "passthrough"], "id= is missing"),
    // Names.
    (["-device", "virtio-blk-pci,drive=d0", "-drive", "if=none,file=/a,id=do"], "drive=d0: no option makes a drive or block node d0"),
    (["-device", #"{"driver":"virtio-blk-pci","drive":"x"}"#], "drive=x: no option"),
    (["-device", "e1000,netdev=n0"], "netdev=n0: no option makes a network n0"),
    (["-device", "virtserialport,chardev=c9", "-device", "virtio-serial"], "names a chardev (c9) that no option makes"),
    (["-device", "virtio-blk-pci,iothread=io9"], "iothread=io9"), (["-device", "virtio-9p-pci,fsdev=f,mount_tag=t"], "fsdev=f"),
    (["-device", "tpm-tis,tpmdev=t"], "tpmdev=t"), (["-device", "hda-duplex,audiodev=a"], "audiodev=a"),
    (["-blockdev", "driver=qcow2,file=f0,node-name=q"], "file=f0: no option makes a block node f0"),
    (["-blockdev", #"{"driver":"qcow2","node-name":"q","file":{"driver":"file","filename":"/a"},"backing":"b0"}"#], "backing=b0"),
    (["-blockdev", "driver=luks,key-secret=s,node-name=l,file.driver=file,file.filename=/a"], "key-secret=s: no option makes an object s"),
  ] as [([String], String)])
  func `each is named`(argv: [String], reason: String) {
    let line = CommandLine(argv: [Self.program, "-nodefaults", "-display", "none"] + argv)
    let found = line.doubts(isPart: false) + MachineDescription(line).blockers
    #expect(found.contains { $0.reason.contains(reason) && !$0.wayOut.isEmpty && !$0.option.isEmpty }, "\(found)")
  }

  @Test(arguments: [
    ["-M", "pc-q35-9.2+pve1,kernel_irqchip=on,sgx-epc.0.memdev=m,smm=off,usb", "-smp", "2,sockets=1,cores=2,maxcpus=4096"],
    ["-M", "none"], ["-machine", "memory-backend=x", "-machine", "q35"], ["-vga", "none", "-accel", "kvm,kernel-irqchip=split"],
    ["-drive", "file=/a,if=none,id=a,node-name=b,cache.direct=on,file.locking=off,backing.file.filename=/b,werror=stop", "-device", "ide-hd,drive=a", "-device", "ide-cd,drive=b"],
    ["-blockdev", #"{"driver":"qcow2","node-name":"q","file":{"driver":"file","node-name":"in","filename":"/a"},"backing":null}"#, "-device", "ide-hd,drive=in"],
    ["-hda", "/a", "-device", "ide-hd,drive=ide0-hd1", "-drive", "file=/b,media=cdrom,readonly"],
    ["-netdev", "user,id=n,net=10.0.0.0/8,hostfwd=tcp::1-:1,hostfwd=tcp::2-:2,dnssearch=a,restrict", "-device", "e1000,netdev=n"],
    ["-nic", "tap,id=x,model=e1000,mac=52:54:00:00:00:01,vhost=on", "-netdev", "passt,id=p,anything=1", "-netdev", "stream,id=s,addr.type=unix,addr.path=/p,server=off"],
    ["-chardev", "socket,id=c,path=/c,server,nowait", "-vnc", "none", "-spice", "port=1,disable-ticketing"],
    ["-object", "iothread,id=io", "-device", "virtio-blk-pci,drive=,iothread=io", "-object", "secret,id=s,file=/s", "-drive", "file=/a,encrypt.key-secret=s"],
    ["-netdev", "help", "-object", "help", "-chardev", "?", "-audiodev", "help", "-object", "iothread,help"],
    ["-rtc", "2020-01-01", "-rtc", "base=utc,clock=vm,driftfix=slew", "-boot", "dc", "-boot", "menu=on,strict=on", "-m", "64,maxmem=64M,slots=2"],
    ["-global", "driver=a,property=b,value=c", "-global", "kvm-pit.lost_tick_policy=delay", "-incoming", "defer", "-incoming", "exec:cat /a", "-incoming", #"{"channel-type":"main"}"#],
    ["-uuid", "6A3c3f3e-1111-2222-3333-444455556666", "-mon", "chardev=c", "-chardev", "null,id=c", "-daemonize", "-serial", "null", "-chardev", "socket,id=s,port=1"],
    ["-readconfig", "/c", "-device", "e1000,netdev=there"],
  ])
  func `nothing else is`(argv: [String]) {
    #expect(CommandLine(argv: [Self.program, "-nodefaults", "-display", "none"] + argv).doubts(isPart: false) == [])
  }

  @Test func `machines that are no PC have keys and types of their own`() {
    let line = CommandLine(argv: ["qemu-system-aarch64", "-M", "virt,gic-version=3,its=off", "-smp", "500"])
    #expect(line.doubts(isPart: false) == [])
    #expect(CommandLine(argv: ["kvm", "-M", "virt,gic-version=3"]).doubts(isPart: false) == [])
  }

  @Test func `what a part of a command line names may be in the rest`() {
    #expect(CommandLine(argv: ["", "-device", "e1000,netdev=n0"]).doubts(isPart: true) == [])
  }

  @Test func `no command line of the corpus is doubted`() throws {
    for path in CorpusTests.commandLineFiles(below: CorpusTests.corpus) {
      let line = try CommandLine(reading: try #require(CorpusTests.contents(path)), subject: path)
      let doubts = line.doubts(isPart: line.program.isEmpty)
      #expect(doubts == [], "\(path)")
    }
  }
}

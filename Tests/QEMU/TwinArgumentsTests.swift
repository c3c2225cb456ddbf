import QEMU
import Testing

@Suite struct TwinArgumentsTests {
  struct Golden: Sendable {
    var before: [String]
    var after: [String]
  }

  static let arguments = TwinArguments(
    machine: "pc-q35-7.2", control: 7, memory: ["ram": .descriptor(9)], sharedMemory: true)

  /// What every twin ends with.
  static let tail = [
    "-chardev", "socket,id=moult-control,fd=7", "-mon", "chardev=moult-control,mode=control",
    "-incoming", "defer", "-S",
  ]

  static let machines: [Golden] = [
    .init(before: [], after: ["-machine", "pc-q35-7.2"]),
    .init(before: ["-M", "q35"], after: ["-M", "pc-q35-7.2"]),
    .init(before: ["-M", "pc-q35-7.2"], after: ["-M", "pc-q35-7.2"]),
    .init(before: ["--machine", "type=q35,accel=kvm"], after: ["--machine", "type=pc-q35-7.2,accel=kvm"]),
    .init(before: ["-machine", "accel=kvm,type=q35+pve0"], after: ["-machine", "accel=kvm,type=pc-q35-7.2"]),
    .init(before: ["-machine", "q35", "-machine", "usb=off", "-M", "pc"],
      after: ["-machine", "pc-q35-7.2", "-machine", "usb=off", "-M", "pc-q35-7.2"]),
    .init(before: ["-machine", "usb=off"], after: ["-machine", "usb=off,type=pc-q35-7.2"]),
  ]

  @Test(arguments: machines) func pinsTheMachine(golden: Golden) { check(golden, [], []) }

  static let others: [Golden] = [
    // What belonged to the start of the original only.
    .init(before: ["-S", "-daemonize", "-incoming", "tcp:0:1", "-loadvm", "snap", "--daemonize"], after: []),
    .init(before: ["-pidfile", "/run/a.pid", "-name", "a,,b"], after: ["-pidfile", "/run/a.pid", "-name", "a,,b"]),
    .init(before: ["-unknown", "parameter", "disk.img"], after: ["-unknown", "parameter", "disk.img"]),
    // Removed since, in the words that took their place.
    .init(before: ["-watchdog", "i6300esb"], after: ["-device", "i6300esb"]),
    .init(before: ["--realtime", "mlock=on"], after: ["--overcommit", "mem-lock=on"]),
    .init(before: ["-no-acpi", "-no-hpet"], after: ["-machine", "acpi=off", "-machine", "hpet=off"]),
    // The private monitor of an earlier upgrade.
    .init(
      before: ["-chardev", "socket,id=moult-control,fd=3", "-mon", "chardev=moult-control,mode=control", "-incoming", "defer", "-S"],
      after: []),
    .init(before: ["-chardev", "null,id=moult"], after: ["-chardev", "null,id=moult"]),
    // Files that the second opener must not truncate.
    .init(before: ["-chardev", "file,id=a,path=x"], after: ["-chardev", "file,id=a,path=x,append=on"]),
    .init(before: ["-chardev", "file,id=a,path=x,append=off"], after: ["-chardev", "file,id=a,path=x,append=on"]),
    .init(before: ["-chardev", "file,id=a,path=x,append"], after: ["-chardev", "file,id=a,path=x,append"]),
    .init(before: ["-chardev", "null,id=a,logfile=l"], after: ["-chardev", "null,id=a,logfile=l,logappend=on"]),
    .init(before: ["-serial", "file:a,b.log"],
      after: ["-chardev", "file,id=serial0,path=a,,b.log,append=on", "-serial", "chardev:serial0"]),
    .init(before: ["-serial", "null", "-serial", "file:b"],
      after: ["-serial", "null", "-chardev", "file,id=serial1,path=b,append=on", "-serial", "chardev:serial1"]),
    // `-serial none` counts in some versions only.
    .init(before: ["-serial", "none", "-serial", "null", "-serial", "file:b"],
      after: ["-serial", "none", "-serial", "null", "-chardev", "file,id=moult-serial2,path=b,append=on", "-serial", "chardev:moult-serial2"]),
    // QEMU insists on the id `debugcon`.
    .init(before: ["-serial", "none", "-debugcon", "file:d"],
      after: ["-serial", "none", "-chardev", "file,id=debugcon,path=d,append=on", "-debugcon", "chardev:debugcon"]),
    .init(before: ["-serial", "mon:file:b"],
      after: ["-chardev", "file,id=serial0,path=b,append=on,mux=on", "-serial", "chardev:serial0", "-mon", "chardev=serial0,mode=readline"]),
    .init(before: ["-parallel", "none", "-parallel", "file:p", "-debugcon", "file:d"],
      after: [
        "-parallel", "none", "-chardev", "file,id=parallel0,path=p,append=on", "-parallel", "chardev:parallel0",
        "-chardev", "file,id=debugcon,path=d,append=on", "-debugcon", "chardev:debugcon",
      ]),
    .init(before: ["-monitor", "none", "-qmp", "null", "-monitor", "file:m"],
      after: ["-monitor", "none", "-qmp", "null", "-chardev", "file,id=compat_monitor1,path=m,append=on", "-monitor", "chardev:compat_monitor1"]),
    // Listeners must not wait for a client.
    .init(before: ["-chardev", "socket,id=a,path=p,server"], after: ["-chardev", "socket,id=a,path=p,server,wait=off"]),
    .init(before: ["-chardev", "socket,id=a,path=p,server,nowait"], after: ["-chardev", "socket,id=a,path=p,server,nowait"]),
    .init(before: ["-chardev", "socket,id=a,path=p,server=on,wait=on"], after: ["-chardev", "socket,id=a,path=p,server=on,wait=off"]),
    .init(before: ["-chardev", "socket,id=a,path=p"], after: ["-chardev", "socket,id=a,path=p"]),
    .init(before: ["-serial", "unix:p,server"], after: ["-serial", "unix:p,server,wait=off"]),
    .init(before: ["-qmp", "unix:p,server,nowait"], after: ["-qmp", "unix:p,server,nowait"]),
    .init(before: ["-serial", "mon:unix:p,server=on"], after: ["-serial", "mon:unix:p,server=on,wait=off"]),
    // Memory.
    .init(before: ["-object", "memory-backend-memfd,id=ram,size=1G,seal=on,hugetlb=off,prealloc=on,merge=off"],
      after: ["-object", "memory-backend-file,id=ram,size=1G,merge=off,mem-path=/proc/self/fd/9,share=on"]),
    .init(before: ["-object", "memory-backend-file,id=ram,size=1G,mem-path=/proc/self/fd/4,share=on"],
      after: ["-object", "memory-backend-file,id=ram,size=1G,mem-path=/proc/self/fd/9,share=on"]),
    .init(before: ["-object", #"{"qom-type":"memory-backend-memfd","id":"ram","size":1073741824,"prealloc":true,"policy":"bind","host-nodes":[0]}"#],
      after: ["-object", #"{"qom-type":"memory-backend-file","id":"ram","size":1073741824,"policy":"bind","host-nodes":[0],"mem-path":"/proc/self/fd/9","share":true}"#]),
    .init(before: ["-object", "memory-backend-ram,id=other,size=1G,prealloc=yes,prealloc-threads=4"],
      after: ["-object", "memory-backend-ram,id=other,size=1G"]),
    .init(before: ["-object", "iothread,id=ram", "-mem-prealloc", "-mem-path", "/x"],
      after: ["-object", "iothread,id=ram", "-mem-path", "/x"]),
    .init(before: ["-device", "virtio-mem-pci,id=m,memdev=ram,prealloc=on"], after: ["-device", "virtio-mem-pci,id=m,memdev=ram"]),
  ]

  @Test(arguments: others) func rewritesWhatItMustAndNothingElse(golden: Golden) {
    check(golden, ["-M", "pc-q35-7.2"], ["-M", "pc-q35-7.2"])
  }

  private func check(_ golden: Golden, _ headBefore: [String], _ headAfter: [String]) {
    let line = CommandLine(argv: ["qemu"] + headBefore + golden.before)
    let twin = Self.arguments.applied(to: line)
    #expect(twin.argv == ["qemu"] + headAfter + golden.after + Self.tail)
    #expect(Self.arguments.applied(to: twin) == twin)
  }

  @Test func switchesCPUFeaturesOff() {
    var twin = TwinArguments()
    twin.maskedFeatures = ["x2apic", "avx2"]
    let once = twin.applied(to: CommandLine(argv: ["qemu", "-cpu", "Haswell,x2apic=off"]))
    #expect(once.argv == ["qemu", "-cpu", "Haswell,x2apic=off,avx2=off", "-incoming", "defer", "-S"])
    #expect(twin.applied(to: once) == once)
  }

  @Test func leavesMemoryAloneWhenItIsCopied() {
    let argv = ["qemu", "-M", "q35", "-mem-prealloc", "-object", "memory-backend-memfd,id=ram,size=1G,prealloc=on"]
    let twin = TwinArguments().applied(to: CommandLine(argv: argv))
    #expect(twin.argv == argv + ["-incoming", "defer", "-S"])
  }

  @Test func dropsTheUserOnDemandOnly() {
    let line = CommandLine(argv: ["qemu", "-runas", "a", "-run-with", "user=a", "-run-with", "async-teardown=on,user=a"])
    #expect(TwinArguments().applied(to: line).argv.contains("-runas"))
    let twin = TwinArguments(switchesUser: false).applied(to: line)
    #expect(twin.argv == ["qemu", "-run-with", "async-teardown=on", "-incoming", "defer", "-S"])
  }

  @Test func aSecondUpgradeGivesWhatTheFirstGave() {
    let line = CommandLine(argv: [
      "qemu", "-serial", "file:a", "-object", "memory-backend-memfd,id=ram,size=1G", "-daemonize",
    ])
    let first = TwinArguments.twin(of: line, machine: "pc-q35-5.2", control: 3, memory: ["ram": .descriptor(4)], sharedMemory: true)
    let second = TwinArguments.twin(of: first, machine: "pc-q35-5.2", control: 8, memory: ["ram": .path("/dev/shm/x")], sharedMemory: true)
    #expect(
      second.argv == [
        "qemu", "-machine", "pc-q35-5.2", "-chardev", "file,id=serial0,path=a,append=on", "-serial", "chardev:serial0",
        "-object", "memory-backend-file,id=ram,size=1G,mem-path=/dev/shm/x,share=on",
        "-chardev", "socket,id=moult-control,fd=8", "-mon", "chardev=moult-control,mode=control", "-incoming", "defer", "-S",
      ])
  }
}

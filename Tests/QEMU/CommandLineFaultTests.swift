import QEMU
import Testing

/// Command lines that QEMU itself refuses, and options that come twice.
@Suite struct CommandLineFaultTests {
  func describe(_ argv: [String]) -> MachineDescription {
    MachineDescription(CommandLine(argv: ["qemu", "-nodefaults", "-display", "none"] + argv))
  }

  @Test(arguments: [
    (["-nonsense", "x"], "-nonsense x", "to have this option"),
    (["-unknown", "parameter"], "-unknown parameter", "to have this option"),
    (["-S", "-m"], "-m", "command line ends here"),
    (["-device", "{\"driver\":"], "-device {\"driver\":", "not valid JSON"),
    (["-m", "1G,slot=2"], "-m 1G,slot=2", "the key slot"),
    (["-name", "a,debug_threads=on"], "-name a,debug_threads=on", "the key debug_threads"),
    (["-smp", "2,thread=1"], "-smp 2,thread=1", "the key thread"),
    (["-chardev", "null,id=a,bakend=x"], "-chardev null,id=a,bakend=x", "the key bakend"),
    (["-chardev", "null,id=a", "-chardev", "null,id=a"], "-chardev null,id=a", "id=a is given twice"),
    (["-device", "e1000,id=a", "-device", #"{"driver":"e1000","id":"a"}"#], #"-device {"driver":"e1000","id":"a"}"#, "id=a is given twice"),
    (["-blockdev", "null-co,node-name=n", "-drive", "if=none,id=d,driver=null-co,node-name=n"], "-drive if=none,id=d,driver=null-co,node-name=n", "node-name=n is given twice"),
    (["-object", "iothread,id=1"], "-object iothread,id=1", "no id"),
    (["-device", "e1000,id=a b"], "-device e1000,id=a b", "no id"),
  ] as [([String], String, String)])
  func `each fault is named`(argv: [String], option: String, reason: String) {
    let vm = describe(argv)
    #expect(vm.blockers.contains { $0.option == option && $0.reason.contains(reason) && !$0.wayOut.isEmpty }, "\(vm.blockers)")
  }

  @Test(arguments: [
    ["-chardev", "socket,id=a,path=/p,server,nowait,nodelay"], ["-chardev", "null,id=a", "-device", "e1000,id=a", "-object", "iothread,id=a"],
    ["-device", "e1000", "-device", "e1000"], ["-smp", "2,sockets=1", "-m", "size=1G,maxmem=2G,slots=2"], ["-mon", "id=m,chardev=c", "-chardev", "null,id=c"],
  ])
  func `nothing else is`(argv: [String]) {
    #expect(describe(argv).blockers == [])
  }

  @Test func `of options that QEMU merges the last of each key counts`() {
    let vm = describe([
      "-name", "guest=a", "-name", "debug-threads=on", "-m", "1G", "-m", "slots=2", "-m", "size=2G", "-M", "pc,accel=kvm,kernel=/old",
      "--machine", "q35,accel=tcg", "-machine", "kernel=/new", "-object", "memory-backend-ram,id=x,size=2G", "-machine", "memory-backend=gone",
      "-machine", "memory-backend=x",
    ])
    #expect(vm.name == "a" && vm.ramSize == 2 << 30 && vm.machine == "q35" && !vm.usesKVM)
    #expect(vm.files.map(\.path) == ["/new"])
    #expect(vm.guestRAM.map(\.id) == ["x"])
    #expect(vm.blockers == [])
  }

  @Test func `of options with one value the last counts`() {
    let vm = describe(["-pidfile", "/a", "-kernel", "/k1", "-uuid", "1", "-pidfile", "/b", "-kernel", "/k2", "-uuid", "2", "-append", "x"])
    #expect(vm.pidfile == "/b" && vm.uuid == "2")
    #expect(vm.paths() == ["/b", "/k2"])
  }
}

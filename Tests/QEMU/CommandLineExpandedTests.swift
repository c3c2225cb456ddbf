import Kernel
import QEMU
import Testing

/// `-readconfig` and `-set`.
@Suite struct CommandLineExpandedTests {
  @Test(arguments: [
    ("", []), ("# nothing\n\n", []), ("[machine]\n", []),
    ("[machine]\ntype = \"q35\"\n  accel=\"kvm\"\n", nil), ("[machine]\ntype = \"q35\"\n  accel =\"kvm\"\n", ["-machine", "type=q35,accel=kvm"]),
    ("[device \"d0\"]\n driver = \"e1000\"\n\n[device]\ndriver = \"VGA\"", ["-device", "id=d0,driver=e1000", "-device", "driver=VGA"]),
    ("[drive \"a\"]\nfile = \"x,y=z\"\r\nif = \"\"\n", ["-drive", "id=a,file=x,,y=z,if="]),
    ("[memory]\nsize = \"1G\"\n[smp-opts]\ncpus = \"2\"\n[boot-opts]\nmenu = \"on\"\n", ["-m", "size=1G", "-smp", "cpus=2", "-boot", "menu=on"]),
    ("[global]\ndriver = \"isa-fdc\"\nproperty = \"fdtypeA\"\nvalue = \"auto\"", ["-global", "driver=isa-fdc,property=fdtypeA,value=auto"]),
    ("[object \"m\"]\nqom-type = \"memory-backend-ram\"\nsize = \"1M\"", ["-object", "id=m,qom-type=memory-backend-ram,size=1M"]),
    ("key = \"v\"", nil), ("[device \"d0]\n", nil), ("[global][1]\ndriver = \"a\"", ["-global", "driver=a"]), ("[]\n", nil), ("[device \"\"]\n", nil),
    ("[device]\ndriver = e1000\n", nil), ("[device]\ndriver = \"e1000\n", nil), ("[device]\ndriver = \"e1000\" # card\n", ["-device", "driver=e1000"]),
    ("[device]\n \n", nil), ("[device]\n# ok\n # not\n", nil), ("[device]\na = \"1\"\na = \"2\"\n", nil), ("[device]\na,b = \"1\"\n", nil),
    ("[nonsense]\n", ["-[nonsense]"]), ("[rtc]\nbase = \"utc\"\n", ["-[rtc]", "base=utc"]), ("\0", nil),
    ("[device \"" + String(repeating: "x", count: 64) + "\"]\n", nil), ("[device]\nx = \"" + String(repeating: "x", count: 1020) + "\"\n", nil),
  ] as [(String, [String]?)])
  func `a file gives the options that say the same`(text: String, words: [String]?) {
    let options = try? ConfigFile(parsing: Array(text.utf8), path: "f").options.flatMap(\.words)
    #expect(options == words)
  }

  @Test func `failures name file and line, and unknown groups are reported as they are`() throws {
    let failure = #expect(throws: Failure.self) { try ConfigFile(parsing: Array("[device]\n\nx\n".utf8), path: "/etc/vm.cfg") }
    #expect(failure?.subject == "/etc/vm.cfg:3")
    let unknown = MachineDescription(try CommandLine(reading: Array("[nonsense \"x\"]\na = \"b\"\n".utf8), subject: "g"))
    #expect(unknown.unknown == ["-[nonsense] id=x,a=b"])
  }

  static let files = ["a": "[device \"d\"]\ndriver = \"e1000\"\n", "b": "[netdev \"n\"]\ntype = \"user\"\n", "c": "[vnc]\nvnc = \"none\"\n", "bad": "x"]

  struct Expansion: Sendable {
    var before: [String]
    var after: [String]
    /// In a blocker's reason; nil for no blocker.
    var blocker: String?
  }

  @Test(arguments: [
    Expansion(before: ["-S", "-readconfig", "a", "-m", "1G"], after: ["-S", "-device", "id=d,driver=e1000", "-m", "1G"]),
    Expansion(before: ["--readconfig", "a", "-readconfig", "a"], after: ["-device", "id=d,driver=e1000", "-device", "id=d,driver=e1000"]),
    Expansion(before: ["-readconfig", "none"], after: ["-readconfig", "none"], blocker: "No such file"),
    Expansion(before: ["-readconfig", "bad"], after: ["-readconfig", "bad"], blocker: "bad:1"),
    Expansion(before: ["-readconfig"], after: ["-readconfig"]),
    // QEMU adds a card of its own beside the file's, and does not beside the option.
    Expansion(before: ["-readconfig", "b"], after: ["-netdev", "id=n,type=user"], blocker: "[netdev]"),
    Expansion(before: ["-nodefaults", "-readconfig", "b"], after: ["-nodefaults", "-netdev", "id=n,type=user"]),
    Expansion(before: ["-nodefaults", "-readconfig", "c"], after: ["-nodefaults", "-vnc", "vnc=none"], blocker: "[vnc]"),
    Expansion(before: ["-display", "none", "-readconfig", "c"], after: ["-display", "none", "-vnc", "vnc=none"]),
    // -set
    Expansion(before: ["-device", "e1000,id=d", "-set", "device.d.mac=1,2"], after: ["-device", "e1000,id=d,mac=1,,2"]),
    Expansion(before: ["-device", "e1000,id=d,mac=1", "-set", "device.d.mac=a=b"], after: ["-device", "e1000,id=d,mac=1,mac=a=b"]),
    Expansion(before: ["-readconfig", "a", "-set", "device.d.x-y.z="], after: ["-device", "id=d,driver=e1000,x-y.z="]),
    Expansion(before: ["-drive", "id=a", "-drive", "id=b", "-set", "drive.b.file=x"], after: ["-drive", "id=a", "-drive", "id=b,file=x"]),
    Expansion(before: ["-set", "device.d.a=b", "-device", "e1000,id=d"], after: ["-set", "device.d.a=b", "-device", "e1000,id=d"], blocker: "no -device before it"),
    Expansion(before: ["-netdev", "user,id=d", "-set", "device.d.a=b"], after: ["-netdev", "user,id=d", "-set", "device.d.a=b"], blocker: "id d"),
    Expansion(before: ["-device", #"{"driver":"e1000","id":"d"}"#, "-set", "device.d.a=b"], after: ["-device", #"{"driver":"e1000","id":"d"}"#, "-set", "device.d.a=b"], blocker: "JSON"),
    Expansion(before: ["-set", "blockdev.d.a=b"], after: ["-set", "blockdev.d.a=b"], blocker: "group blockdev"),
    Expansion(before: ["-set", "device.d=b"], after: ["-set", "device.d=b"], blocker: "form"),
    Expansion(before: ["-set", "..="], after: ["-set", "..="], blocker: "form"),
    Expansion(before: ["-set"], after: ["-set"]),
    Expansion(before: ["-global", "e1000.mac=x"], after: ["-global", "e1000.mac=x"]),
  ])
  func `options are put where they count`(_ expansion: Expansion) {
    let expanded = CommandLine(argv: ["qemu"] + expansion.before).expanded { path throws(Failure) in
      guard let text = Self.files[path] else { throw Failure(step: "read", subject: path, errno: .noSuchFileOrDirectory) }
      return Array(text.utf8)
    }
    #expect(expanded.commandLine.argv == ["qemu"] + expansion.after)
    #expect(expanded.blockers.count == (expansion.blocker == nil ? 0 : 1))
    if let reason = expansion.blocker { #expect(expanded.blockers.first?.reason.contains(reason) ?? false, "\(expanded.blockers)") }
    #expect(Array(MachineDescription(expanded).blockers.prefix(expanded.blockers.count)) == expanded.blockers)
  }

  @Test func `what a file binds is described`() {
    let line = CommandLine(argv: ["qemu", "-nodefaults", "-display", "none", "-readconfig", "f"])
    let text = """
      [name]
      guest = "vm"
      [drive "d"]
      file = "/disk"
      if = "none"
      [chardev "q"]
      backend = "socket"
      path = "/q"
      server = "on"
      wait = "off"
      [mon]
      chardev = "q"
      mode = "control"
      """
    let vm = MachineDescription(line.expanded { _ in Array(text.utf8) })
    #expect(vm.name == "vm" && vm.qmpSockets == ["/q"] && vm.images.map(\.path) == ["/disk"] && vm.isUpgradable, "\(vm.blockers)")
    #expect(vm.bindings.first { $0.address == "f" }.map { "\($0.kind) \($0.role) \($0.handover) \($0.option)" } == "file share reopen -readconfig f")
    let alone = MachineDescription(line)
    #expect(alone.bindings.map(\.handover) == [.refuse])
    #expect(alone.blockers.map(\.option) == ["-readconfig f"])
  }
}

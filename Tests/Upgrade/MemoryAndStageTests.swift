@testable import QEMU
import Testing

@testable import Upgrade

@Suite struct MemoryDecisionTests {
  struct Case: Sendable, CustomTestStringConvertible {
    var asked: MemoryStrategy
    var memory: [ObservedMemory]
    var sender = QEMUVersion(major: 7, minor: 2)
    var ram: UInt64 = 512 << 20
    var room = MemoryRoom(host: 4 << 30, cgroup: nil, cgroupPath: nil)
    var strategy: MemoryStrategy
    /// Part of the only blocker's reason; nil for none.
    var blocker: String?
    /// Part of why not shared.
    var against: String?
    var testDescription: String { "\(asked) of \(memory.map(\.id)) by \(sender) → \(strategy)" }
  }

  static func backend(_ id: String = "ram", fd: CInt? = 9, named: Bool = true, why: String? = nil) -> ObservedMemory {
    ObservedMemory(id: id, bytes: 512 << 20, descriptor: fd, isNamedFile: named, whyPrivate: why)
  }
  static let file = [backend()]
  static let memfd = [backend(named: false)]
  static let hidden = [backend(fd: nil, named: false, why: "share=off")]
  static func room(_ host: UInt64, _ cgroup: UInt64? = nil) -> MemoryRoom {
    MemoryRoom(host: host << 20, cgroup: cgroup.map { $0 << 20 }, cgroupPath: cgroup == nil ? nil : "/vm.slice")
  }

  static let cases: [Case] = [
    .init(asked: .auto, memory: file, strategy: .shared),
    .init(asked: .shared, memory: file, strategy: .shared),
    .init(asked: .copy, memory: file, strategy: .copy),
    .init(asked: .auto, memory: memfd, strategy: .shared),
    // From 10.0 on the sender leaves out named files only, whatever its micro version or package.
    .init(asked: .auto, memory: memfd, sender: .init(major: 9, minor: 2, micro: 99), strategy: .shared),
    .init(asked: .auto, memory: memfd, sender: .init(major: 10, minor: 0), strategy: .copy, against: "memfd"),
    .init(asked: .shared, memory: memfd, sender: .init(major: 11, minor: 1), strategy: .shared, blocker: "memfd"),
    .init(asked: .auto, memory: file, sender: .init(major: 11, minor: 1), strategy: .shared),
    .init(asked: .auto, memory: [], strategy: .copy, against: "private anonymous"),
    .init(asked: .shared, memory: [], strategy: .shared, blocker: "private anonymous"),
    .init(asked: .auto, memory: hidden, strategy: .copy, against: "RAM backend ram: share=off"),
    // One private backend among shared ones.
    .init(asked: .auto, memory: file + [backend("ram2", fd: nil, why: "share=off")], strategy: .copy, against: "ram2"),
    .init(asked: .cpr, memory: file, strategy: .cpr, blocker: "does not do it yet"),
    .init(asked: .file, memory: file, strategy: .file, blocker: "does not do it yet"),
    // Room: 512 MiB of RAM and 96 for QEMU.
    .init(asked: .copy, memory: file, room: room(608), strategy: .copy),
    .init(asked: .copy, memory: file, room: room(607), strategy: .copy,
      blocker: "up to 608 MiB (512 MiB guest RAM and 96 MiB for QEMU), the host has 607 MiB"),
    .init(asked: .auto, memory: [], room: room(4096, 607), strategy: .copy, blocker: "cgroup /vm.slice has 607 MiB left"),
    .init(asked: .auto, memory: [], room: room(4096, 608), strategy: .copy),
    // Shared memory needs no second copy.
    .init(asked: .auto, memory: file, room: room(10, 10), strategy: .shared),
    .init(asked: .auto, memory: [], ram: 0, room: room(96), strategy: .copy),
    .init(asked: .auto, memory: [], ram: 0, room: room(0), strategy: .copy, blocker: "the host has 0 MiB"),
  ]

  @Test(arguments: cases) func decides(_ test: Case) {
    let (decision, blockers) = MemoryDecision.decide(
      asked: test.asked, memory: test.memory, ramBytes: test.ram, sender: test.sender, room: test.room)
    #expect(decision.strategy == test.strategy)
    #expect(!decision.why.isEmpty || test.blocker != nil)
    #expect(decision.extraBytes == (test.strategy == .shared && test.blocker == nil ? 96 << 20 : test.ram + 96 << 20))
    if let blocker = test.blocker {
      #expect(blockers.count == 1 && blockers[0].reason.contains(blocker), "\(blockers)")
      #expect(blockers.allSatisfy { !$0.wayOut.isEmpty })
    } else {
      #expect(blockers == [])
    }
    if let against = test.against { #expect(decision.against["shared"]?.contains(against) == true, "\(decision.against)") }
    #expect(decision.against[decision.strategy.rawValue] == nil || !blockers.isEmpty)
  }
}

@Suite struct StageTests {
  struct Case: Sendable, CustomTestStringConvertible {
    var what: String
    var names: [PublicName]
    var directories: [NameDirectory]
    var needed: [String] = []
    var stages: [Stage]
    var testDescription: String { what }
  }

  static func name(_ path: String, in directory: String? = nil) -> PublicName { Fixture.name(.socket, path, inode: 1, directory: directory) }
  static func directory(_ path: String, _ entries: Set<String>, mount: Bool = false) -> NameDirectory {
    NameDirectory(path: path, entries: entries, isMountPoint: mount)
  }
  static func exclusive(_ directory: String, _ path: String, _ names: [String]) -> Stage {
    Stage(kind: .exclusive, directory: directory, path: path, names: names, carried: [])
  }
  static func shared(_ directory: String, _ names: [String], carried: [String] = []) -> Stage {
    Stage(kind: .shared, directory: directory, path: (directory == "/" ? "" : directory) + "/.moult-u1", names: names, carried: carried)
  }

  static let cases: [Case] = [
    .init(what: "no names", names: [], directories: [], stages: []),
    .init(what: "a directory that the VM owns alone", names: [name("/run/vm/b"), name("/run/vm/a")],
      directories: [directory("/run/vm", ["a", "b"])], stages: [exclusive("/run/vm", "/run/.moult-u1-vm", ["a", "b"])]),
    .init(what: "a name that is gone from it", names: [name("/run/vm/a"), name("/run/vm/b")],
      directories: [directory("/run/vm", ["a"])], stages: [exclusive("/run/vm", "/run/.moult-u1-vm", ["a", "b"])]),
    .init(what: "an empty one", names: [name("/run/vm/a")], directories: [directory("/run/vm", [])],
      stages: [exclusive("/run/vm", "/run/.moult-u1-vm", ["a"])]),
    .init(what: "a stranger's file in it", names: [name("/run/vm/a")], directories: [directory("/run/vm", ["a", "x"])],
      stages: [shared("/run/vm", ["a"])]),
    .init(what: "a mount point", names: [name("/run/vm/a")], directories: [directory("/run/vm", ["a"], mount: true)],
      stages: [shared("/run/vm", ["a"])]),
    .init(what: "a directory nobody looked into", names: [name("/run/vm/a")], directories: [], stages: [shared("/run/vm", ["a"])]),
    .init(what: "two VMs' names in one directory", names: [name("/run/t/1.qmp"), name("/run/t/1.pid")],
      directories: [directory("/run/t", ["1.qmp", "1.pid", "2.qmp", "2.pid"])], stages: [shared("/run/t", ["1.pid", "1.qmp"])]),
    .init(what: "a symlinked directory counts as what it leads to",
      names: [name("/var/run/vm/a", in: "/run/vm"), name("/run/vm/b")], directories: [directory("/run/vm", ["a", "b"])],
      stages: [exclusive("/run/vm", "/run/.moult-u1-vm", ["a", "b"])]),
    .init(what: "a disk beside the socket is carried", names: [name("/vm/a")], directories: [directory("/vm", ["a", "disk", "x"])],
      needed: ["/vm/disk", "/other/disk", "/vmx/y", "/vm"], stages: [shared("/vm", ["a"], carried: ["disk"])]),
    .init(what: "by its first component", names: [name("/vm/a")], directories: [directory("/vm", ["a", "images"])],
      needed: ["/vm/images/1/disk", "/vm/images/2"], stages: [shared("/vm", ["a"], carried: ["images"])]),
    .init(what: "a path that leaves it at once needs nothing of it", names: [name("/vm/a")], directories: [directory("/vm", ["a", "in"])],
      needed: ["/vm/../other/disk", "/vm/./in/../disk"], stages: [shared("/vm", ["a"], carried: ["in"])]),
    .init(what: "a public name is not carried though it is needed", names: [name("/vm/ram")], directories: [directory("/vm", ["ram", "x"])],
      needed: ["/vm/ram"], stages: [shared("/vm", ["ram"])]),
    .init(what: "nested: inner first, and carried by the outer", names: [name("/run/vm/a"), name("/run/vm/in/b")],
      directories: [directory("/run/vm", ["a", "in"]), directory("/run/vm/in", ["b"])],
      stages: [exclusive("/run/vm/in", "/run/vm/.moult-u1-in", ["b"]), shared("/run/vm", ["a"], carried: ["in"])]),
    .init(what: "directories of one depth by name", names: [name("/b/x"), name("/a/x")],
      directories: [directory("/a", ["x", "y"]), directory("/b", ["x", "y"])], stages: [shared("/a", ["x"]), shared("/b", ["x"])]),
    .init(what: "the root directory", names: [name("/a")], directories: [directory("/", ["a"], mount: true)],
      needed: ["/disk/1"], stages: [shared("/", ["a"], carried: ["disk"])]),
  ]

  @Test(arguments: cases) func plans(_ test: Case) {
    #expect(Stage.plan(names: test.names, directories: test.directories, needed: test.needed, id: "u1") == test.stages)
  }

  @Test func exchangesAreOneForADirectoryAndElseOneForEachName() {
    let own = Self.exclusive("/run/vm", "/run/.moult-u1-vm", ["a", "b"])
    #expect(own.exchanges == [NameExchange(published: "/run/vm", staged: "/run/.moult-u1-vm")])
    #expect(Self.shared("/t", ["a", "b"]).exchanges == [
      NameExchange(published: "/t/a", staged: "/t/.moult-u1/a"), NameExchange(published: "/t/b", staged: "/t/.moult-u1/b"),
    ])
    #expect(Self.shared("/", ["a"]).exchanges == [NameExchange(published: "/a", staged: "/.moult-u1/a")])
  }
}

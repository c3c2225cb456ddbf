import Glibc
import Testing

@testable import Kernel

@Suite struct CgroupTests {
  static let hybrid = MountInfo.parse(
    """
    27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
    35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
    36 31 0:33 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:7 master:3 - cgroup cgroup rw,cpu,cpuacct
    40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
    41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
    """)
  static let unified = MountInfo.parse("31 23 0:29 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup rw,nsdelegate")
  static let container = MountInfo.parse("31 23 0:29 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup rw")

  @Test(arguments: [
    ("4:memory:/machine/vm1", hybrid, "/sys/fs/cgroup/memory/machine/vm1"),
    ("3:cpu,cpuacct:/", hybrid, "/sys/fs/cgroup/cpu,cpuacct"),
    ("3:cpuacct,cpu:/a", hybrid, "/sys/fs/cgroup/cpu,cpuacct/a"),
    ("9:name=systemd:/x.service", hybrid, "/sys/fs/cgroup/systemd/x.service"),
    ("0::/machine.slice/vm1.scope", hybrid, "/sys/fs/cgroup/unified/machine.slice/vm1.scope"),
    ("0::/machine.slice/a:b", unified, "/sys/fs/cgroup/machine.slice/a:b"),
    ("0::/docker/abc/vm", container, "/sys/fs/cgroup/vm"),
    ("0::/docker/other", container, nil),
    ("5:devices:/", unified, nil),
  ])
  func directories(line: String, mounts: [MountInfo], expected: String?) throws {
    let membership = try #require(CgroupMembership.parse(line).first)
    #expect(membership.directory(in: mounts) == expected)
  }

  @Test func ownGroups() throws {
    let groups = try CgroupMembership.of(process: getpid())
    #expect(!groups.isEmpty)
    #expect(try CgroupMembership.of(thread: getpid(), in: getpid()) == groups)
  }

  typealias Level = MemoryHeadroom.Level
  @Test(arguments: [
    ([], nil),
    ([Level(cgroup: "/a", limit: nil, usage: 5, reclaimable: 0)], nil),
    ([Level(cgroup: "/a", limit: 100, usage: 30, reclaimable: 10)], MemoryHeadroom(bytes: 80, cgroup: "/a", limit: 100)),
    ([Level(cgroup: "/a", limit: 100, usage: 130, reclaimable: 10)], MemoryHeadroom(bytes: 0, cgroup: "/a", limit: 100)),
    (
      [Level(cgroup: "/a/b", limit: 100, usage: 30, reclaimable: 0), Level(cgroup: "/a", limit: 150, usage: 120, reclaimable: 5)],
      MemoryHeadroom(bytes: 35, cgroup: "/a", limit: 150)
    ),
  ])
  func theTightestLevelCounts(levels: [Level], expected: MemoryHeadroom?) {
    #expect(MemoryHeadroom.least(of: levels) == expected)
  }

  @Test func version1Figures() {
    let level = MemoryHeadroom.parse(
      cgroup: "/g", limits: ["1073741824\n"], usage: "500000\n",
      stat: "cache 9\ntotal_dirty 4096\ntotal_writeback 0\ntotal_inactive_file 40960\ntotal_active_file 8192\n",
      unified: false)
    #expect(level == Level(cgroup: "/g", limit: 1 << 30, usage: 500_000, reclaimable: 45056))
    let free = MemoryHeadroom.parse(
      cgroup: "/g", limits: ["9223372036854771712\n"], usage: "1\n", stat: "", unified: false)
    #expect(free.limit == nil)
  }

  @Test(arguments: [
    (["max\n", "max\n"], nil), (["2000\n", "max\n"], 2000), (["2000\n", "1500\n"], 1500), (["max\n", "1500\n"], 1500),
  ] as [([String], UInt64?)])
  func version2Limits(limits: [String], expected: UInt64?) {
    let level = MemoryHeadroom.parse(
      cgroup: "/g", limits: limits, usage: "10\n", stat: "inactive_file 4\nactive_file 3\nfile_dirty 2\n", unified: true)
    #expect(level.limit == expected)
    #expect(level.reclaimable == 5)
  }

  @Test func hostMemory() throws {
    #expect(HostMemory.parseAvailable("MemTotal: 5 kB\nMemAvailable:   2048 kB\n") == 2_097_152)
    #expect(try HostMemory.available() > 0)
    _ = try MemoryHeadroom.of(process: getpid())
  }
}

@Suite struct MountInfoTests {
  @Test func everyFieldIsParsed() throws {
    let mounts = MountInfo.parse(
      "36 35 98:4096 /mnt1 /mnt\\0402 rw,noatime master:1 shared:9 - ext3 /dev/root rw,errors=continue\nbroken line\n")
    #expect(mounts.count == 1)
    let mount = try #require(mounts.first)
    #expect(mount.id == 36 && mount.parent == 35)
    #expect(mount.device == DeviceNumber.make(major: 98, minor: 4096))
    #expect(mount.root == "/mnt1" && mount.mountPoint == "/mnt 2")
    #expect(mount.propagation == ["master:1", "shared:9"])
    #expect(mount.filesystem == "ext3" && mount.source == "/dev/root")
    #expect(mount.superOptions == ["rw", "errors=continue"])
  }

  @Test(arguments: [
    ("/run/vm/x", "/run/vm"), ("/run/vm", "/run/vm"), ("/run/vm2", "/run"), ("/etc", "/"), ("/runner", "/"),
  ])
  func theDeepestMountContains(path: String, expected: String) {
    let mounts = MountInfo.parse(
      "1 0 0:1 / / rw - a a rw\n2 1 0:2 / /run rw - a a rw\n3 2 0:3 / /run/vm rw - a a rw\n")
    #expect(MountInfo.containing(path, in: mounts)?.mountPoint == expected)
  }

  @Test func ownMounts() throws { #expect(try MountInfo.ofSelf().contains { $0.mountPoint == "/" }) }

  @Test(arguments: [("/a/b", "/a", "b"), ("/a", "/", "a"), ("a", ".", "a")])
  func paths(path: String, parent: String, base: String) {
    #expect(Paths.parent(path) == parent)
    #expect(Paths.base(path) == base)
  }
}

import Glibc
import SystemPackage
import Testing

@testable import Kernel

/// What is gone meanwhile is no failure; everything else is.
@Suite struct GoneTests {
  @Test(arguments: [(Errno.noSuchFileOrDirectory, true), (.noSuchProcess, true), (.notDirectory, true), (.permissionDenied, false), (.ioError, false), (.noMemory, false)])
  func onlyGoneIsNil(errno: Errno, isGone: Bool) throws {
    func look() throws(Failure) -> Int? {
      try unlessGone { () throws(Failure) -> Int in throw Failure(step: "look at", subject: "x", errno: errno) }
    }
    if isGone { #expect(try look() == nil) } else { #expect(throws: Failure.self) { try look() } }
  }
}

@Suite struct ProcessStatusTests {
  static let status = """
    Name:\tqemu (x) y
    Umask:\t0027
    State:\tS (sleeping)
    Tgid:\t4711
    Pid:\t4711
    PPid:\t1
    Uid:\t64055\t64055\t64055\t64055
    Gid:\t107\t108\t109\t110
    Groups:\t107 64055 
    Threads:\t5
    SigIgn:\t0000000000001001
    CapInh:\t0000000000000000
    CapPrm:\t000001ffffffffff
    CapEff:\t0000000000000400
    CapBnd:\t000001ffffffffff
    CapAmb:\t0000000000000400
    NoNewPrivs:\t1
    Seccomp:\t2

    """
  static let stat = "4711 (qemu (x) y) S 1 4710 4709 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 5 0 123456789 1 2 3\n"

  @Test func everyFieldIsParsed() throws {
    let status = try ProcessStatus.parse(status: Self.status, stat: Self.stat)
    #expect(status.pid == 4711)
    #expect(status.parent == 1)
    #expect(status.name == "qemu (x) y")
    #expect(status.state == "S")
    #expect(status.processGroup == 4710)
    #expect(status.session == 4709)
    #expect(status.startTime == 123_456_789)
    #expect(status.umask == 0o027)
    #expect(status.seccompMode == 2)
    #expect(status.threadCount == 5)
    #expect(status.ignoredSignals == 0x1001)
    #expect(status.credentials.user == Identities(64055))
    #expect(status.credentials.group == Identities(real: 107, effective: 108, saved: 109, filesystem: 110))
    #expect(status.credentials.supplementaryGroups == [107, 64055])
    #expect(
      status.credentials.capabilities
        == CapabilitySets(
          inheritable: 0, permitted: 0x1ff_ffff_ffff, effective: 0x400, bounding: 0x1ff_ffff_ffff, ambient: 0x400))
    #expect(status.credentials.noNewPrivileges)
  }

  /// State, the kernel's flags, signals of the thread and of the process that wait.
  @Test(arguments: [
    ("S", 4_194_560, "0", "0", false), ("T", 4_194_560, "4000", "4000", false), ("Z", 4_194_560, "0", "0", true),
    ("R", 4_194_564, "0", "0", true), ("S", 4_194_560, "100", "0", true), ("T", 4_194_560, "0", "100", true),
  ])
  func oneThatEndsIsKnown(state: String, flags: Int, thread: String, process: String, isEnding: Bool) throws {
    let stat = Self.stat.replacing(") S ", with: ") \(state) ").replacing(" 4194560 ", with: " \(flags) ")
    let status = Self.status + "SigPnd:\t\(thread)\nShdPnd:\t\(process)\n"
    #expect(try ProcessStatus.parse(status: status, stat: stat).isEnding == isEnding)
  }

  @Test(arguments: ["", "1 (x", "1 (x) S 1", "1 x S 1 2 3 4"])
  func brokenStatIsAFailure(stat: String) {
    #expect(throws: Failure.self) { try ProcessStatus.parse(status: Self.status, stat: stat) }
  }

  @Test func ownStatus() throws {
    let status = try ProcessStatus.read(pid: getpid())
    #expect(status.pid == getpid())
    #expect(status.parent == getppid())
    #expect(status.credentials.user.effective == geteuid())
    #expect(status.startTime > 0)
  }

  @Test func noSuchProcess() {
    #expect {
      try ProcessStatus.read(pid: 0x7fff_fff0)
    } throws: { ($0 as? Failure)?.errno == .noSuchFileOrDirectory }
  }
}

@Suite struct ProcFSTests {
  @Test(arguments: [
    ("", []),
    ("a\0b\0", ["a", "b"]),
    ("a\0\0b\0", ["a", "", "b"]),
    ("title without end", ["title without end"]),
    ("\0", [""]),
  ])
  func argumentsAreSplit(text: String, expected: [String]) {
    #expect(ProcFS.splitStrings(Array(text.utf8)) == expected)
  }

  @Test func argumentsThatAreNotTextAreNotChanged() {
    #expect(ProcFS.splitStrings([0x66, 0xff, 0]) == nil)
  }

  @Test func ownProcess() throws {
    let pid = getpid()
    #expect(try ProcFS.arguments(of: pid).count == CommandLine.arguments.count)
    #expect(try ProcFS.executable(of: pid).deleted == false)
    #expect(try ProcFS.allPids().contains(pid))
    #expect(try ProcFS.threads(of: pid).contains(pid))
    #expect(try ProcFS.mappedFiles(of: pid).contains { $0.permissions == "r-x" })
  }

  @Test func openDescriptorsTellFlagsAndFiles() throws {
    let pair = try UnixSocket.pair()
    let null = try OwnedFD.open("/dev/null", O_WRONLY | O_APPEND)
    let descriptors = try ProcFS.openDescriptors(of: getpid())
    let found = try #require(descriptors.first { $0.number == null.raw })
    #expect(found.target == "/dev/null")
    #expect(found.isWritable && !found.isReadable && found.isAppending && found.isCloseOnExec)
    #expect(found.status.isCharacterDevice)
    #expect(found.status.specialDevice == DeviceNumber.make(major: 1, minor: 3))
    let socket = try #require(descriptors.first { $0.number == pair.first.raw })
    #expect(socket.socketInode == socket.status.inode)
  }

  @Test func maps() {
    let maps = """
      55d0c0000000-55d0c0021000 r--p 00000000 fe:00 1234                       /usr/bin/qemu x
      7f0000000000-7f0020000000 rw-s 00001000 00:01 77                         /memfd:ram (deleted)
      7f0020000000-7f0020001000 rw-p 00000000 00:00 0
      7ffd00000000-7ffd00021000 rw-p 00000000 00:00 0                          [stack]

      """
    let files = MappedFile.parse(maps: maps)
    #expect(files.count == 2)
    #expect(files[0].path == "/usr/bin/qemu x")
    #expect(files[0].device == DeviceNumber.make(major: 254, minor: 0))
    #expect(!files[0].isShared && !files[0].isDeleted)
    #expect(files[1].path == "/memfd:ram")
    #expect(files[1].isShared && files[1].isDeleted)
    #expect(files[1].size == 0x2000_0000)
    #expect(files[1].offset == 4096)
    #expect(files[1].linkPath(pid: 5) == "/proc/5/map_files/7f0000000000-7f0020000000")
  }

  @Test(arguments: [("/a\\040b", "/a b"), ("/a\\134", "/a\\"), ("plain", "plain"), ("end\\04", "end\\04")])
  func octalEscapes(text: String, expected: String) { #expect(Octal.unescape(text) == expected) }

  @Test(arguments: [
    (UInt32(0x0fe0_0001), UInt32(254), UInt32(1)), (0x0010_0003, 1, 3), (0x1031_2345, 0x103, 0x12345),
  ])
  func kernelDeviceNumbers(encoded: UInt32, major: UInt32, minor: UInt32) {
    #expect(DeviceNumber.fromKernel(encoded) == DeviceNumber.make(major: major, minor: minor))
  }

  @Test func devicesAreAsStatHasThem() throws {
    #expect(try Files.status("/dev/null").specialDevice == DeviceNumber.make(major: 1, minor: 3))
  }
}

@Suite struct PidfdTests {
  @Test func duplicatesAnOwnDescriptor() throws {
    let pidfd = try Pidfd(pid: getpid())
    let null = try OwnedFD.open("/dev/null", O_RDONLY)
    let copy = try pidfd.duplicate(descriptor: null.raw)
    #expect(copy.raw != null.raw)
    #expect(try Files.status(of: copy.raw) == Files.status(of: null.raw))
    let ended = pidfd.hasExited
    #expect(!ended)
  }

  @Test func failuresNameThePidAndTheDescriptor() throws {
    let pidfd = try Pidfd(pid: getpid())
    #expect {
      _ = try pidfd.duplicate(descriptor: 99999)
    } throws: {
      "\($0)" == "duplicate descriptor 99999 of process \(getpid()): Bad file descriptor"
    }
    #expect(throws: Failure.self) { _ = try Pidfd(pid: 0x7fff_fff0) }
  }
}

@Suite struct SystemCallTests {
  @Test func interruptedCallsAreRepeated() throws {
    var calls = 0
    let value: CInt = try valueOrErrno("read", "x") {
      calls += 1
      if calls < 3 {
        errno = EINTR
        return -1
      }
      return 7
    }
    #expect(value == 7 && calls == 3)
  }

  @Test func aTestCanMakeACallFail() {
    SystemCall.$fault.withValue({ step, _ in step == "open process" ? .permissionDenied : nil }) {
      #expect {
        _ = try Pidfd(pid: getpid())
      } throws: {
        ($0 as? Failure) == Failure(step: "open process", subject: "\(getpid())", errno: .permissionDenied)
      }
    }
  }
}

@Suite struct LimitTests {
  @Test func ownLimits() throws {
    let limits = try ResourceLimits.read(pid: getpid())
    #expect(limits.limits.count == 16)
    let files = try #require(limits.limits[.openFiles])
    #expect(files.soft > 0 && files.soft <= files.hard)
    #expect(limits.limits[.openFiles]?.soft == softLimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue)))
    #expect(limits.limits[.coreSize]?.soft == softLimit(__rlimit_resource_t(RLIMIT_CORE.rawValue)))
    try limits.apply(to: getpid())
  }

  private func softLimit(_ resource: __rlimit_resource_t) -> UInt64 {
    var limit = rlimit()
    getrlimit(resource, &limit)
    return UInt64(limit.rlim_cur)
  }

  @Test func ownScheduling() throws {
    let scheduling = try Scheduling.read(thread: 0)
    #expect(!scheduling.cpus.isEmpty)
    try scheduling.apply(to: 0)
    #expect(try Scheduling.read(thread: 0) == scheduling)
  }

  @Test func cpusOfAMask() { #expect(Scheduling(affinity: [0b101, 0, 0x80]).cpus == [0, 2, 23]) }
}

import Glibc
import Kernel
import SystemPackage
import Testing

@testable import Sandbox

func withTemporaryDirectory<Result>(_ body: (String) throws -> Result) throws -> Result {
  var template = Array("/tmp/moult-sandbox-XXXXXX".utf8CString)
  let path = try #require(mkdtemp(&template).map { String(cString: $0) })
  defer { removeTree(path) }
  return try body(path)
}

func removeTree(_ path: String) {
  if let status = try? Files.status(path, noFollow: true), status.isDirectory {
    for name in (try? Files.names(in: path)) ?? [] { removeTree(path + "/" + name) }
    rmdir(path)
  } else {
    unlink(path)
  }
}

/// Runs a shell command in a sandbox and gives what it printed.
func output(
  _ script: String, in sandbox: SandboxPlan = SandboxPlan(), _ change: (inout ProcessPlan) -> Void = { _ in }
) throws -> (text: String, status: ProcessExit?) {
  try withTemporaryDirectory { directory in
    let file = try OwnedFD.open(directory + "/out", O_CREAT | O_RDWR | O_APPEND, mode: 0o600)
    var plan = ProcessPlan(
      executable: .path("/bin/sh"), arguments: ["sh", "-c", script], environment: ["PATH=/usr/bin:/bin"],
      standardInput: .null, standardOutput: .descriptor(file.raw), standardError: .descriptor(file.raw))
    change(&plan)
    let child = try launch(sandbox, plan)
    let status = try child.wait()
    return (try Files.readText(directory + "/out"), status)
  }
}

func openDescriptors() throws -> Int { try Files.names(in: "/proc/self/fd").count }

// Namespaces belong to threads, and the tests run on several: each of these tests stays on one from start to end,
// and they run one after the other.
@Suite(.serialized, .enabled(if: getuid() == 0)) struct LaunchTests {
  @Test func environmentWorkingDirectoryAndUmask() throws {
    let (text, status) = try output("pwd; umask; echo $MARK; echo $0") {
      $0.workingDirectory = "/usr"
      $0.umask = 0o077
      $0.environment.append("MARK=here we are")
    }
    #expect(text == "/usr\n0077\nhere we are\nsh\n")
    #expect(status == .exited(0))
  }

  @Test(arguments: [("exit 7", ProcessExit.exited(7)), ("kill -9 $$", .signalled(9)), ("kill -TERM $$", .signalled(15))])
  func exitStatus(script: String, expected: ProcessExit) throws {
    #expect(try output(script).status == expected)
  }

  @Test func credentials() throws {
    let own = try ProcessStatus.read(pid: getpid()).credentials.capabilities
    let netAdmin: UInt64 = 1 << 12
    let text = try output("cat /proc/self/status") {
      $0.umask = 0o027
      $0.newSession = true
      $0.credentials = Credentials(
        user: Identities(64055), group: Identities(107), supplementaryGroups: [5, 1234],
        capabilities: CapabilitySets(
          inheritable: netAdmin, bounding: own.bounding & ~(1 << 21), ambient: netAdmin), noNewPrivileges: true)
      $0.ignoredSignals = 1 << (SIGHUP - 1)
    }.text
    let status = try ProcessStatus.parse(status: text, stat: ProcessStatusStub.stat)
    #expect(status.credentials.user == Identities(64055))
    #expect(status.credentials.group == Identities(107))
    #expect(status.credentials.supplementaryGroups == [5, 1234])
    #expect(
      status.credentials.capabilities
        == CapabilitySets(
          inheritable: netAdmin, permitted: netAdmin, effective: netAdmin, bounding: own.bounding & ~(1 << 21),
          ambient: netAdmin))
    #expect(status.credentials.noNewPrivileges)
    #expect(status.umask == 0o027)
    #expect(status.ignoredSignals & 1 == 1)
  }

  @Test func limitsSchedulingAndOOM() throws {
    let text = try output("cat /proc/self/limits; cat /proc/self/oom_score_adj; nice; grep Cpus_allowed: /proc/self/status") {
      $0.limits.limits[.openFiles] = ResourceLimit(soft: 333, hard: 444)
      $0.oomScoreAdjustment = 321
      $0.scheduling = Scheduling(policy: 3, nice: 5, affinity: [1, 0, 0, 0, 0, 0, 0, 0])
    }.text
    #expect(text.contains("Max open files            333                  444"))
    #expect(text.contains("\n321\n5\n"))
    #expect(text.contains("Cpus_allowed:\t1\n"))
  }

  @Test func cgroup() throws {
    guard
      let group = try CgroupMembership.of(process: getpid()).first(where: {
        $0.controllers == ["pids"] || $0.controllers == ["name=systemd"]
      })
    else { return }
    var target = group
    target.path = Paths.join(group.path, "moult-test-\(getpid())")
    let directory = try target.directory()
    try #require(mkdir(directory, 0o755) == 0)
    defer { rmdir(directory) }
    let text = try output("cat /proc/self/cgroup") { $0.cgroups = [target] }.text
    #expect(CgroupMembership.parse(text).contains(target))
  }

  @Test func onlyGivenDescriptorsAreInherited() throws {
    let null = try OwnedFD.open("/dev/null", O_RDONLY)
    let leak = open("/dev/zero", O_RDONLY)  // not close-on-exec
    defer { close(leak) }
    let text = try output("ls -l /proc/self/fd") {
      $0.inherited = [.init(source: null.raw, number: 33)]
    }.text
    #expect(text.contains("33 -> /dev/null"))
    #expect(!text.contains("/dev/zero"))
    #expect(!text.contains("pipe:"))
  }

  @Test func namespacesAreNewAndTheParentGoesBack() throws {
    let before = try ["mnt", "net", "ipc", "uts"].map { try ProcFS.namespace($0, of: gettid_()) }
    let mounts = try Files.readText("/proc/thread-self/mountinfo")
    let directory = try Files.link("/proc/thread-self/cwd")
    let text = try output(
      "for n in mnt net ipc uts; do readlink /proc/self/ns/$n; done; cat /sys/class/net/lo/operstate; ls /proc/self/net/dev",
      in: SandboxPlan(namespaces: .all)
    ).text
    for namespace in before { #expect(!text.contains(namespace)) }
    #expect(try ["mnt", "net", "ipc", "uts"].map { try ProcFS.namespace($0, of: gettid_()) } == before)
    #expect(try Files.readText("/proc/thread-self/mountinfo") == mounts)
    #expect(try Files.link("/proc/thread-self/cwd") == directory)
  }

  @Test func bindsCoverAndReadOnlyHolds() throws {
    try withTemporaryDirectory { directory in
      for name in ["public", "stage"] { mkdir(directory + "/" + name, 0o755) }
      let marker = try OwnedFD.open(directory + "/stage/marker", O_CREAT | O_WRONLY, mode: 0o644)
      let other = try OwnedFD.open(directory + "/public/other", O_CREAT | O_WRONLY, mode: 0o644)
      let empty = try OwnedFD.open(directory + "/stage/other", O_CREAT | O_WRONLY, mode: 0o644)
      try Files.write("shared", to: directory + "/public/other")
      _ = marker.raw + other.raw + empty.raw
      let text = try output(
        "ls \(directory)/public; cat \(directory)/public/other; touch \(directory)/public/x && echo written; touch /usr/x; echo; id -u",
        in: SandboxPlan(
          namespaces: [.mount],
          operations: [
            .bind(source: directory + "/stage", target: directory + "/public"),
            .bind(source: directory + "/public/other", target: directory + "/public/other"),
            .readOnly(path: "/usr"),
          ])
      ).text
      #expect(text.contains("marker\nother\nsharedwritten\n"))
      #expect(text.contains("Read-only file system"))
      #expect(try Files.names(in: directory + "/public") == ["other"])
      #expect(try Files.names(in: directory + "/stage").contains("x"))
    }
  }

  @Test func aPlantedLinkDoesNotRedirectAMount() throws {
    try withTemporaryDirectory { directory in
      mkdir(directory + "/stage", 0o755)
      mkdir(directory + "/victim", 0o755)
      symlink(directory + "/victim", directory + "/public")
      let before = try openDescriptors()
      #expect {
        try output(
          "true",
          in: SandboxPlan(
            namespaces: [.mount],
            operations: [.bind(source: directory + "/stage", target: directory + "/public")]))
      } throws: { ($0 as? Failure)?.errno == .tooManySymbolicLinkLevels }
      #expect(try openDescriptors() == before)
    }
  }

  @Test func theWayToATree() throws {
    try withTemporaryDirectory { directory in
      // A merged-usr tree out of the host's own programs, with links as distributions have them.
      let tree = directory + "/tr:ee,1"
      for name in ["", "/usr", "/etc", "/var", "/proc", "/sys", "/dev", "/tmp"] { mkdir(tree + name, 0o755) }
      for name in ["bin", "lib", "lib64", "sbin"] { symlink("usr/" + name, tree + "/" + name) }
      symlink("/run", tree + "/var/run")
      symlink("/nowhere/at/all", tree + "/dangling")
      mkdir(directory + "/vm", 0o755)
      let file = try OwnedFD.open(directory + "/vm/name", O_CREAT | O_WRONLY, mode: 0o644)
      _ = file.raw
      let plan = SandboxPlan.tree(
        tree,
        files: [
          .bind(source: "/usr", target: "/usr", readOnly: true),
          .bind(source: directory + "/vm", target: "/var/run/vm"),
          .bind(source: directory + "/vm/name", target: "/dangling"),
          .bind(source: directory + "/vm", target: directory + "/vm"),
          .bind(source: directory + "/vm/name", target: "/opt/./link/../spelled/./name"),
          .bind(source: directory + "/vm/name", target: "/opt/other/../spelled/name"),
        ])
      let (text, status) = try output(
        """
        ls /; ls /run/vm; ls \(directory)/vm; test -f /dangling && test -f /opt/spelled/name && echo file; ls /nowhere/at
        for d in null zero full random urandom tty ptmx pts/ptmx; do test -c /dev/$d || echo missing $d; done
        echo x >/etc/new; touch /sys/x; stat -f -c %T /tmp /run /dev/shm; grep -c . /proc/self/mountinfo
        test -e /proc/1/status && pwd; echo done
        """, in: plan)
      #expect(status == .exited(0), "\(text)")
      #expect(text.contains("name\nname\nfile\nall\n"), "\(text)")
      #expect(!text.contains("missing"), "\(text)")
      #expect(text.contains("tmpfs\ntmpfs\ntmpfs\n"), "\(text)")
      #expect(text.contains("/\ndone\n"), "\(text)")
      #expect(try Files.names(in: tree + "/etc").isEmpty)
      #expect(throws: Failure.self) { try Files.status("/nowhere/at") }
    }
  }

  /// Of this process, zombies with them.
  private static func children() throws -> Set<Substring> {
    // A thread may end meanwhile: its children are another's then.
    try Set(Files.names(in: "/proc/self/task").flatMap { ((try? Files.readText("/proc/self/task/\($0)/children")) ?? "").split(separator: " ") })
  }

  @Test func failuresNameTheStageAndLeaveNothing() throws {
    let mounts = try Files.readText("/proc/thread-self/mountinfo")
    let children = try Self.children()
    let descriptors = try openDescriptors()
    let cases: [(SandboxPlan, (inout ProcessPlan) -> Void, String)] = [
      (SandboxPlan(), { $0.executable = .path("/no/such") }, "execute /no/such: No such file or directory"),
      (SandboxPlan(namespaces: .all), { $0.executable = .path("/etc/passwd") }, "execute /etc/passwd: Permission denied"),
      (SandboxPlan(), { $0.workingDirectory = "/no" }, "enter working directory /no: No such file or directory"),
      (SandboxPlan.tree("/no/tree"), { _ in }, "open root tree /no/tree: No such file or directory"),
      (SandboxPlan.tree("/etc/passwd"), { _ in }, "open root tree /etc/passwd: Not a directory"),
      (
        SandboxPlan(namespaces: [.mount], operations: [.bind(source: "/no", target: "/mnt")]), { _ in },
        "open source of bind mount /no: No such file or directory"
      ),
      (
        SandboxPlan(namespaces: [.mount], operations: [.bind(source: "/etc/passwd", target: "/mnt")]), { _ in },
        "bind mount /etc/passwd at /mnt: Not a directory"
      ),
      (
        SandboxPlan(namespaces: [.mount], operations: [.device(source: "/etc/passwd", target: "/dev/null")]), { _ in },
        "open device /etc/passwd: not a device file"
      ),
      (
        SandboxPlan(), { $0.cgroups = [CgroupMembership(hierarchy: 99, controllers: ["none"], path: "/")] },
        "find control group none:/: its hierarchy is not mounted here"
      ),
      (SandboxPlan(), { $0.inherited = [.init(source: 9999, number: 5)] }, "duplicate descriptor 9999: Bad file descriptor"),
    ]
    for (sandbox, change, expected) in cases {
      do {
        _ = try output("true", in: sandbox, change)
        Issue.record("no failure: \(expected)")
      } catch { #expect("\(error)" == expected) }
    }
    #expect(try Files.readText("/proc/thread-self/mountinfo") == mounts)
    #expect(try openDescriptors() == descriptors)
    // No child is left, not even a zombie.
    #expect(try Self.children() == children)
  }

  @Test func launchesLeakNothing() throws {
    let sandbox = SandboxPlan(namespaces: .all, operations: [.tmpfs(target: "/mnt", options: "")])
    _ = try output("true", in: sandbox)
    let descriptors = try openDescriptors()
    let mounts = try Files.readText("/proc/thread-self/mountinfo")
    for _ in 0..<10 { #expect(try output("true", in: sandbox).status == .exited(0)) }
    #expect(try openDescriptors() == descriptors)
    #expect(try Files.readText("/proc/thread-self/mountinfo") == mounts)
  }
}

func gettid_() -> pid_t { pid_t((try? Files.link("/proc/thread-self"))?.split(separator: "/").last ?? "") ?? getpid() }

enum ProcessStatusStub { static let stat = "1 (x) S 1 1 1 0 -1 0 1 2 3 4 5 6 7 8 20 0 5 0 1 1 2 3\n" }

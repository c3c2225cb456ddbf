import Foundation
import Lab
import Testing

extension FailureTests {
  /// What a user can get wrong: a clear message, the exit code of the table, and the VM runs on.
  @Suite(.serialized)
  struct BadInput {
    private struct Case {
      var what: String
      var arguments: [String]
      var code = 1
      var words: [String]
    }

    @Test func `no VM, no QEMU, no tree: each is said, and the VM runs on`() throws {
      let patient = try Patient(VMConfiguration("fail-input"))
      let scratch = try Scratch("fail-input-files")
      let vm = patient.name
      let v10 = QEMUVersion.v10_0.destination
      let qemu = QEMUVersion.v7_2.binary
      try scratch.write("garbage.pid", "not a pid\n")
      try scratch.write("stale.pid", "4194303\n")
      try scratch.write("other.pid", "\(getpid())\n")
      try scratch.write("script", "#!/bin/sh\nexit 3\n", mode: 0o755)
      try scratch.write("words", "these are words\n", mode: 0o755)
      try scratch.write("plain", "#!/bin/sh\n", mode: 0o644)
      try scratch.write("bad-option", "#!/bin/sh\nexec \(qemu) \"$@\" -nonsense\n", mode: 0o755)
      try scratch.write("no-machine", "#!/bin/sh\nexec \(qemu) \"$@\" -machine pc-q35-99.9\n", mode: 0o755)
      try scratch.write("tree/usr/bin/text", "words\n", mode: 0o755)
      try scratch.copy(qemu, to: "bare/usr/bin/qemu-system-x86_64")
      var cases: [Case] = [
        Case(what: "no such name", arguments: ["upgrade", "fail-none"] + v10, words: ["fail-none", "no running QEMU", "moult list"]),
        Case(what: "no such pid", arguments: ["upgrade", "4194303"] + v10, words: ["4194303", "no such process", "moult list"]),
        Case(what: "not QEMU", arguments: ["upgrade", "\(getpid())"] + v10, words: ["not QEMU", "moult list"]),
        Case(what: "a process that even root may not look at everywhere", arguments: ["plan", "1"], words: ["process 1 is", "not QEMU"]),
        Case(what: "no such pidfile", arguments: ["upgrade", scratch.path + "/none.pid"] + v10, words: ["none.pid", "No such file", "moult list"]),
        Case(what: "no pid in it", arguments: ["upgrade", scratch.path + "/garbage.pid"] + v10, words: ["garbage.pid", "no pid"]),
        Case(what: "a stale pidfile", arguments: ["upgrade", scratch.path + "/stale.pid"] + v10, words: ["no such process"]),
        Case(what: "another's pidfile", arguments: ["upgrade", scratch.path + "/other.pid"] + v10, words: ["not QEMU"]),
        Case(what: "a directory", arguments: ["upgrade", scratch.path] + v10, words: [scratch.path, "directory"]),
        Case(what: "a socket of nobody's", arguments: ["upgrade", try scratch.deadSocket("dead.sock")] + v10, words: ["no QEMU listens"]),
        Case(what: "an empty name", arguments: ["upgrade", ""] + v10, words: ["find the VM"]),
        Case(what: "no such binary", arguments: ["upgrade", vm, "--to", "/no/such/qemu"], words: ["/no/such/qemu", "No such file", "--to"]),
        Case(what: "an empty path", arguments: ["upgrade", vm, "--to", ""], words: ["--to"]),
        Case(what: "not executable", arguments: ["upgrade", vm, "--to", scratch.path + "/plain"], words: ["not an executable file", "--to"]),
        Case(what: "a directory as binary", arguments: ["upgrade", vm, "--to", "/usr/bin"], words: ["not an executable file"]),
        Case(what: "a device", arguments: ["upgrade", vm, "--to", "/dev/null"], words: ["not an executable file"]),
        Case(what: "true", arguments: ["upgrade", vm, "--to", "/bin/true"], words: ["true", "not a QEMU"]),
        Case(what: "cat", arguments: ["upgrade", vm, "--to", "/bin/cat"], words: ["cat"]),
        Case(what: "a script", arguments: ["upgrade", vm, "--to", scratch.path + "/script"], words: ["script", "not a QEMU"]),
        Case(what: "text", arguments: ["upgrade", vm, "--to", scratch.path + "/words"], words: ["words", "Exec format error"]),
        Case(what: "an unknown option", arguments: ["upgrade", vm, "--to", scratch.path + "/bad-option"], words: ["invalid option"]),
        Case(what: "an unknown machine", arguments: ["upgrade", vm, "--to", scratch.path + "/no-machine"], words: ["unsupported machine type"]),
        Case(what: "no such tree", arguments: ["upgrade", vm, "--to", qemu, "--root", "/no/tree"], words: ["/no/tree", "No such file", "--root"]),
        Case(what: "a file as tree", arguments: ["upgrade", vm, "--to", qemu, "--root", scratch.path + "/plain"], words: ["plain", "Not a directory"]),
        Case(what: "an empty tree", arguments: ["upgrade", vm, "--to", qemu, "--root", scratch.path + "/tree"], words: [qemu, "No such file", "--root"]),
        Case(what: "text in a tree", arguments: ["upgrade", vm, "--to", "/usr/bin/text", "--root", scratch.path + "/tree"], words: ["/usr/bin/text", "Exec format error"]),
        Case(what: "a relative path in a tree", arguments: ["upgrade", vm, "--to", "qemu", "--root", scratch.path + "/tree"], words: ["absolute"]),
        Case(what: "no libraries", arguments: ["upgrade", vm, "--to", qemu, "--root", scratch.path + "/bare"], words: ["libraries"]),
        Case(what: "shared memory that is private", arguments: ["upgrade", vm, "--memory", "shared"] + v10, code: 3, words: ["private", "share=on"]),
        Case(what: "cpr", arguments: ["upgrade", vm, "--memory", "cpr"] + v10, code: 3, words: ["cpr", "--memory auto"]),
        Case(what: "file", arguments: ["upgrade", vm, "--memory", "file"] + v10, code: 3, words: ["file", "--memory auto"]),
        Case(what: "nothing to commit", arguments: ["commit", vm], words: ["none is held", "moult status"]),
        Case(what: "nothing to roll back", arguments: ["rollback", vm], words: ["none is held", "moult status"]),
        Case(what: "no VM to commit", arguments: ["commit", "fail-none"], words: ["fail-none"]),
        Case(what: "no VM to roll back", arguments: ["rollback", "fail-none"], words: ["fail-none"]),
        Case(what: "usage: nothing", arguments: ["upgrade"], code: 64, words: ["usage"]),
        Case(what: "usage: an unknown command", arguments: ["molt"], code: 64, words: []),
        Case(what: "usage: an unknown option", arguments: ["upgrade", vm, "--frobnicate"], code: 64, words: ["--frobnicate"]),
        Case(what: "usage: both", arguments: ["upgrade", vm, "--hold", "--probation", "3"], code: 64, words: ["exclude"]),
        Case(what: "usage: no time", arguments: ["upgrade", vm, "--probation", "0"], code: 64, words: ["seconds"]),
        Case(what: "usage: not a time", arguments: ["upgrade", vm, "--probation", "nan"], code: 64, words: ["seconds"]),
        Case(what: "usage: an unknown strategy", arguments: ["upgrade", vm, "--memory", "telepathy"], code: 64, words: ["telepathy"]),
        Case(what: "usage: an unknown format", arguments: ["status", "--format", "xml"], code: 64, words: ["xml"]),
      ]
      for foreign in ["aarch64", "arm", "i386"] where FileManager.default.isExecutableFile(atPath: "/usr/bin/qemu-system-\(foreign)") {
        if foreign == "i386" { continue }  // It runs x86 machines.
        cases.append(
          Case(what: "QEMU for \(foreign)", arguments: ["upgrade", vm, "--to", "/usr/bin/qemu-system-\(foreign)"], words: ["machine"]))
      }
      for row in cases {
        let outcome = try run(moult: row.arguments)
        let text = "\(row.what): exit \(outcome.code)\n\(outcome.stdout)\(outcome.stderr)"
        #expect(outcome.code == row.code, "\(text)")
        for word in row.words { #expect(outcome.stderr.lowercased().contains(word.lowercased()), "no “\(word)” in \(text)") }
        #expect(patient.vm.processes == [patient.pid], "\(text)")
      }
      try patient.expectUntouched()
      // A failure in JSON is one object, too.
      let answer = try run(moult: ["upgrade", "fail-none", "--format", "json"] + v10)
      #expect(try answer.json()["outcome"].string == "failed")
      #expect(try answer.json()["error"]["hint"].string?.contains("moult list") == true)
      patient.expectHealthy()
    }

    @Test func `a machine type that the target does not know`() throws {
      let patient = try Patient(VMConfiguration("fail-machine") { $0.version = .v10_0; $0.machine = "pc-q35-10.0" })
      let older = QEMUVersion.v7_2.destination
      // 7.2 on the host: for a VM that lives in a tree, the host's root is asked for.
      let target = older + ["--root", "/"]
      for command in ["plan", "upgrade"] {
        let watch = Watch { [vm = patient.vm] in vm.processes }
        let outcome = try patient.moult([command, patient.name] + target + ["--hold", "--format", "json"], exits: 3, saying: [])
        #expect(watch.stop() == [patient.pid], "nothing was started with the VM's arguments")
        let blockers = try outcome.json()["blockers"].array
        #expect(blockers.map { $0["what"].string } == ["-machine pc-q35-10.0"], "the one reason: \(blockers)")
        #expect(try outcome.json()["warnings"].array.allSatisfy { $0.string?.contains("formats") == false }, "and no echo of it")
      }
      try patient.expectUntouched()
      patient.expectHealthy()
    }

    @Test func `two VMs of one name`() throws {
      let one = try Patient(VMConfiguration("fail-twice"))
      let scratch = try Scratch("fail-twice-other")
      let other = try Firmware("fail-twice", in: scratch)
      defer { other.end() }
      try one.moult(one.upgrade(), exits: 1, saying: ["2 VMs", "\(one.pid)", "\(other.pid)", "pidfile or QMP socket"])
      try one.moult(["plan", one.name] + QEMUVersion.v10_0.destination, exits: 1, saying: ["2 VMs"])
      #expect(other.isRunning && one.vm.processes.contains(one.pid))
      // By its pidfile it is told from the other.
      try one.moult(["upgrade", one.configuration.pidfile] + QEMUVersion.v10_0.destination, exits: 0)
      #expect(try one.vm.pid() != one.pid)
      #expect(other.isRunning)
      kill(other.pid, SIGKILL)
      try eventually("the other's end") { !other.isRunning }
      try one.expectMoved()
    }

    @Test func `a monitor that is missing, held or silent`() throws {
      let scratch = try Scratch("fail-monitor")
      let mute = try Firmware("fail-mute", in: scratch, monitor: false)
      defer { mute.end() }
      let none = try run(moult: ["upgrade", "fail-mute"] + QEMUVersion.v10_0.destination)
      #expect(none.code == 1)
      #expect(none.stderr.contains("no QMP monitor") && none.stderr.contains("-qmp unix:"), "\(none.stderr)")
      #expect(mute.isRunning)

      let patient = try Patient(VMConfiguration("fail-monitor"))
      do {
        let client = try QMPConnection(patient.configuration.qmpSocket)
        for command in ["plan", "upgrade"] {
          try patient.moult([command, patient.name] + QEMUVersion.v10_0.destination, exits: 1, saying: ["held by", "\(getpid())", "one client"])
        }
        _ = try client.execute("query-status")
      }
      try patient.expectUntouched()

      kill(patient.pid, SIGSTOP)
      let silent = try run(moult: patient.upgrade(), seconds: 30)
      // Twice: the first one's connection still waits to be taken.
      let again = try run(moult: ["plan", patient.name] + QEMUVersion.v10_0.destination, seconds: 30)
      kill(patient.pid, SIGCONT)
      patient.check(silent, exits: 1, saying: ["SIGSTOP"])
      patient.check(again, exits: 1, saying: ["SIGSTOP"])
      try patient.expectUntouched()
    }

    @Test func `not root`() throws {
      let patient = try Patient(VMConfiguration("fail-user"))
      let scratch = try Scratch("fail-user-files")
      try scratch.copy(Lab.paths.moult, to: "moult")
      for command in [["plan", patient.name], ["upgrade", patient.name], ["commit", patient.name], ["rollback", patient.name]] {
        let outcome = try run(["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", scratch.path + "/moult"] + command)
        patient.check(outcome, exits: 1, saying: ["root"])
      }
      try patient.expectUntouched()
    }

    @Test func `no space for the stage, the pidfile or the journal`() throws {
      let directory = VMConfiguration("fail-space-small").home
      try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
      try succeed(["mount", "-t", "tmpfs", "-o", "size=64k,nr_inodes=24,mode=755", "moult-lab-small", directory])
      defer {
        do { try succeed(["umount", directory]) } catch { Issue.record(error) }
        rmdir(directory)
      }
      let patient = try Patient(VMConfiguration("fail-space") { $0.layout = .shared(directory) })
      defer { patient.vm.end() }
      // No inode for the stage.
      var count = 0
      while FileManager.default.createFile(atPath: directory + "/inode-\(count)", contents: nil) { count += 1 }
      try patient.moult(patient.upgrade(), exits: 1, saying: ["stage", directory, "No space left"])
      try patient.expectUntouched()
      for number in 0..<count { unlink(directory + "/inode-\(number)") }
      // No block for the new pidfile.
      try? Data(count: 1 << 20).write(to: URL(fileURLWithPath: directory + "/full"))
      try patient.moult(patient.upgrade(), exits: 1, saying: ["pid file"])
      try patient.expectUntouched()
      unlink(directory + "/full")

      // moult's own directory: not writable, or with no room at different moments.
      for options in ["ro", "nr_inodes=1", "nr_inodes=2", "nr_inodes=3", "nr_inodes=4", "nr_inodes=5,size=4k", "size=8k", "size=12k", "size=16k"] {
        let script = """
          mkdir -p /run/moult; mount -t tmpfs -o \(options) moult-lab-state /run/moult
          "$@"; code=$?
          find /run/moult -mindepth 1 -printf 'left behind: %p\\n' >&2
          exit $code
          """
        let outcome = try run(["unshare", "--mount", "--propagation", "slave", "sh", "-c", script, "sh", Lab.paths.moult] + patient.upgrade())
        #expect(!outcome.stderr.contains("left behind"), "\(options): \(outcome.stderr)")
        if outcome.code == 0 { try patient.expectMoved() } else {
          patient.check(outcome, exits: 1, saying: ["/run/moult"])
          try patient.expectUntouched()
        }
      }
      rmdir("/run/moult")
      patient.expectHealthy()
    }

    @Test func `one upgrade of a VM at a time, held ones included`() throws {
      let patient = try Patient(VMConfiguration("fail-once") { $0.memory = .file() })
      let line = try #require(Patient.line(beginning: "launch"))
      let first = try SteppedRun(moult: patient.upgrade(), journal: patient.journal, line: line)
      let moult = try #require(try first.held())
      for command in ["upgrade", "plan"] {
        try patient.moult([command, patient.name] + QEMUVersion.v10_0.destination, exits: 1, saying: ["another moult", "\(moult)"])
      }
      for command in ["commit", "rollback"] { try patient.moult([command, patient.name], exits: 1, saying: ["another moult"]) }
      first.goOn(moult)
      patient.check(try first.wait(), exits: 0)
      try patient.expectMoved()

      // Both at the very same moment, or nearly: one wins, and the other is told what to do.
      for milliseconds in [0, 150, 400, 600] as [UInt32] {
        let first = try start(moult: patient.upgrade())
        usleep(milliseconds * 1000)
        let outcomes = try [first, try start(moult: patient.upgrade())].map { try $0.wait() }
        #expect(outcomes.contains { $0.code == 0 }, "\(outcomes.map(\.stderr))")
        for outcome in outcomes where outcome.code != 0 {
          #expect(outcome.code == 1 && ["wait for it", "try again", "end that one"].contains { outcome.stderr.contains($0) }, "\(outcome.stderr)")
        }
        try patient.expectMoved()
      }

      try patient.moult(patient.upgrade(to: .v10_0, ["--hold"]), exits: 0)
      for _ in 0..<2 {
        try patient.moult(patient.upgrade(), exits: 3, saying: ["it is held", "moult commit", "moult rollback"])
        try patient.vm.ticks(5)
      }
      try patient.moult(["commit", patient.name], exits: 0)
      try patient.expectMoved()
      patient.expectHealthy()
    }

    @Test func `a VM that does not run is left as it is`() throws {
      let patient = try Patient(VMConfiguration("fail-state") { $0.extraArguments = ["-no-shutdown"] })
      func refused(_ words: [String]) throws {
        let state = try patient.vm.status()
        for command in ["plan", "upgrade"] {
          let watch = Watch { [vm = patient.vm] in vm.processes }
          try patient.moult([command, patient.name] + QEMUVersion.v10_0.destination, exits: 3, saying: words)
          #expect(watch.stop() == [patient.pid])
        }
        #expect(try patient.vm.status() == state)
        patient.expectNothingLeft()
      }
      try patient.vm.qmp("stop")
      try refused(["paused", "cont"])
      try patient.vm.qmp("cont")
      try patient.expectUntouched()
      try patient.vm.qmp("migrate", ["uri": "exec:cat >/dev/null"])
      try eventually("postmigrate") { try patient.vm.status() == "postmigrate" }
      try refused(["migrated away", "cont"])
      try patient.vm.qmp("cont")
      try patient.vm.ticks(10)
      try patient.vm.serial.send("poweroff")
      try eventually("shut down") { try patient.vm.status() == "shutdown" }
      try refused(["shut down"])
    }

    @Test func `a copy that does not fit is refused with the figures`() throws {
      let group = try MemoryCgroup("fail-small", bytes: 400 << 20)
      defer { group.remove() }
      let patient = try Patient(VMConfiguration("fail-small") { $0.launcher = group.launcher })
      defer { patient.vm.end() }
      for command in ["plan", "upgrade"] {
        try patient.moult(
          [command, patient.name] + QEMUVersion.v10_0.destination, exits: 3,
          saying: ["fail-small", "256 MiB guest RAM", "MiB left", "memory-backend-file,share=on"])
      }
      try patient.expectUntouched()
      patient.vm.end()
    }
  }
}

import Foundation
import Lab
import Testing

extension FailureTests {
  /// moult in a place that was not made for it: closed or blocked streams, no room for descriptors, odd names.
  @Suite(.serialized)
  struct Surroundings {
    /// A shell's words around `"$@"`, which is moult and what it is told.
    private static let places: [(what: String, script: String)] = [
      ("no standard streams", "exec \"$@\" <&- >&- 2>&-"),
      ("no standard error", "exec \"$@\" 2>&-"),
      ("nobody reads the output", "set -o pipefail; \"$@\" | head -c0; exit ${PIPESTATUS[0]}"),
      ("nobody reads anything", "set -o pipefail; \"$@\" 2>&1 | head -c0; exit ${PIPESTATUS[0]}"),
      ("no environment", "exec env -i \"$@\""),
      ("a directory that is gone", "mkdir gone; cd gone; rmdir ../gone; exec \"$@\""),
      ("a full disk for the output", "exec \"$@\" >/dev/full 2>/dev/full"),
      ("signals ignored", "trap '' INT TERM HUP PIPE; exec \"$@\""),
      ("no files may grow", "ulimit -S -f 64; exec \"$@\""),
      ("a umask", "umask 777; exec \"$@\""),
      ("in the background of nothing", "setsid \"$@\" </dev/null"),
    ]

    @Test func `an upgrade works wherever moult was started`() throws {
      let patient = try Patient(VMConfiguration("fail-place") { $0.memory = .file(); $0.words = ["fill=16"] })
      let scratch = try Scratch("fail-place-files")
      for place in Self.places {
        let script = "cd '\(scratch.path)' && \(place.script)"
        let outcome = try run(["bash", "-c", script, "bash", Lab.paths.moult] + patient.upgrade(to: .v10_0, ["--format", "json"]))
        #expect(outcome.code == 0, "\(place.what): \(outcome.stdout)\(outcome.stderr)")
        try patient.expectMoved()
        patient.expectHealthy()
        #expect(FileManager.default.fileExists(atPath: scratch.path))
      }
      #expect(Patient.list(scratch.path) == [])
    }

    /// As root of a container may not. With the guest in it, it would be the first that the kernel kills.
    @Test func `who cannot make the new QEMU as dear to the kernel as the old one finds out before the pause`() throws {
      let patient = try Patient(VMConfiguration("fail-dear") { $0.memory = .file() })
      for (record, code) in [("launch.begin", 1), ("compare.begin", 0)] {
        let upgrade = try TracedRun(moult: patient.upgrade(), of: patient.vm)
        try upgrade.go(to: record)
        // The next record has the process that was made.
        if code == 1 { try upgrade.go(to: "record#2") }
        try upgrade.finishRecord()
        let file = "/proc/\(try patient.spawned())/oom_score_adj"
        #expect(try run(["mount", "--bind", "/dev/full", file]).code == 0)
        try upgrade.release()
        patient.check(try upgrade.wait(), exits: code, saying: ["oom_score_adj: No space left"])
        if code == 1 { try patient.expectUntouched() } else {
          // What fails only then is no reason to go back, and is told.
          #expect(try run(["umount", file]).code == 0)
          try patient.expectMoved()
        }
        patient.expectHealthy()
      }
    }

    @Test func `too few descriptors: undone, whichever is the one too many`() throws {
      let patient = try Patient(VMConfiguration("fail-few") { $0.memory = .file() })
      for limit in isFull ? Array(4...40) : [5, 8, 12, 16, 20, 24] {
        let outcome = try run(["bash", "-c", "ulimit -n \(limit); exec \"$@\"", "bash", Lab.paths.moult] + patient.upgrade())
        if outcome.code == 0 { try patient.expectMoved() } else {
          // Below a handful not even the program's libraries can be loaded: that is the loader's to say.
          #expect(outcome.code == 1 || outcome.code == 127, "\(limit): \(outcome.stderr)")
          patient.check(outcome, exits: outcome.code, saying: ["open files"])
          try patient.expectUntouched()
        }
        patient.expectHealthy()
      }
    }

    /// Progress is written to a pipe that is full: the guest must not wait for its reader.
    @Test(arguments: Kills.Memory.allCases)
    func `a full pipe that nobody reads keeps nobody waiting but moult itself`(_ memory: Kills.Memory) throws {
      let patient = try Kills.patient("pipe", memory)
      let script = """
        import os, subprocess, sys, fcntl
        reading, writing = os.pipe()
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
        os.set_blocking(writing, False)
        try:
          while True: os.write(writing, b'x')
        except BlockingIOError: pass
        os.set_blocking(writing, True)
        child = subprocess.Popen(sys.argv[1:], stderr=writing, stdout=subprocess.DEVNULL)
        sys.stdin.readline()
        os.close(writing)
        while os.read(reading, 65536): pass
        sys.exit(child.wait())
        """
      let scratch = try Scratch("fail-pipe-\(memory)-files")
      try scratch.write("script.py", script)
      try succeed(["mkfifo", scratch.path + "/go"])
      let upgrade = try ChildProcess(
        ["sh", "-c", "exec python3 \"$0\" \"$@\" <>'\(scratch.path)/go'", scratch.path + "/script.py", Lab.paths.moult] + patient.upgrade(to: .v10_0, ["--hold"]))
      // Nobody has read a byte yet: the guest is over there already.
      try eventually("the guest moves", within: 30) { try patient.vm.pid() != patient.pid }
      try patient.vm.ticks(20)
      #expect(patient.vm.pulse.largestSilence < 5000)
      let go = open(scratch.path + "/go", O_WRONLY | O_NONBLOCK)
      write(go, "\n", 1)
      close(go)
      patient.check(try upgrade.wait(seconds: 60), exits: 0)
      try patient.moult(["commit", patient.name], exits: 0)
      try patient.expectMoved()
      patient.expectHealthy()
    }

    static let long = String(repeating: "d", count: 40)
    static let names: [(name: String, directory: String, socket: String)] = [
      ("fail odd name", "plain", "qmp.sock"),
      ("fail-new\nline", "plain", "qmp.sock"),
      ("fail-\"quotes' and $HOME `id`", "plain", "qmp.sock"),
      ("fail-ünïcödé-猫", "plain", "qmp.sock"),
      ("fail-a,comma", "plain", "qmp.sock"),
      ("fail-..", "plain", "qmp.sock"),
      ("..", "plain", "qmp.sock"),
      ("fail-a/b/../../c", "plain", "qmp.sock"),
      ("-fail-dash", "plain", "qmp.sock"),
      ("fail-blank", "a directory", "a socket"),
      ("fail-comma", "a,directory", "a,socket"),
      ("fail-colon", "a:b", "d:e"),
      ("fail-line", "a\ndirectory", "a\nsocket"),
      ("fail-quote", "a'b\"c", "d\\e"),
      ("fail-percent", "%s%n", "%d"),
      ("fail-hidden", ".hidden", ".moult-not-mine"),
      // 107 bytes, the longest that fits.
      ("fail-long", "", ""),
    ]

    @Test(arguments: names.indices)
    func `odd names and directories are names and directories`(_ index: Int) throws {
      let (name, inner, base) = Self.names[index]
      let scratch = try Scratch("fail-odd")
      var socket = scratch.path + "/\(inner)/\(base)"
      if inner.isEmpty {
        let directory = scratch.path + "/" + Self.long
        socket = directory + "/" + String(repeating: "s", count: 107 - directory.utf8.count - 1)
        #expect(socket.utf8.count == 107)
      }
      let directory = (socket as NSString).deletingLastPathComponent
      try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
      let vm = try Firmware(name, log: scratch.path + "/log", socket: socket)
      defer { vm.end() }
      let old = vm.pid
      func check(_ arguments: [String]) throws {
        let outcome = try run(moult: arguments)
        #expect(outcome.code == 0, "\(arguments): \(outcome.stdout)\(outcome.stderr)")
        #expect(vm.processes.count == 1)
        #expect(try QMPConnection(socket).execute("query-status")["status"].string == "running")
        #expect(Patient.list(directory) == [base.isEmpty ? (socket as NSString).lastPathComponent : base])
        #expect(Set(Patient.list(scratch.path)) == ["log", (directory as NSString).lastPathComponent])
      }
      let dashes = name.hasPrefix("-") ? ["--"] : []
      try check(["upgrade", "--hold"] + QEMUVersion.v10_0.destination + dashes + [name])
      #expect(vm.processes != [old])
      let listed = try run(moult: ["list", "--format", "json"]).json()
      #expect(listed.array.contains { $0["name"].string == name })
      try check(["rollback"] + dashes + [name])
      try check(["upgrade"] + QEMUVersion.v10_0.destination + [socket])
    }

    /// The tree's own path may be odd, too; overlayfs has a syntax of its own for its options.
    @Test(arguments: ["a tree", "a,tree", "a:tree", "a\\tree", "tree=x"])
    func `odd paths of root trees`(_ base: String) throws {
      let scratch = try Scratch("fail-tree")
      let vm = try Firmware("fail-tree", in: scratch)
      defer { vm.end() }
      let link = scratch.path + "/" + base
      try FileManager.default.createDirectory(atPath: link, withIntermediateDirectories: true)
      try succeed(["mount", "--bind", QEMUVersion.v10_0.root ?? "", link])
      defer {
        vm.end()
        do { try succeed(["umount", link]) } catch { Issue.record(error) }
      }
      let outcome = try run(moult: ["upgrade", "fail-tree", "--to", QEMUVersion.v10_0.binary, "--root", link])
      #expect(outcome.code == 0, "\(outcome.stderr)")
      #expect(try QMPConnection(vm.monitor).version.hasPrefix("10."))
      // From the tree it lives in to the same again: it has to be found out from its mounts.
      let again = try run(moult: ["upgrade", "fail-tree"])
      #expect(again.code == 0, "\(again.stderr)")
    }
  }
}

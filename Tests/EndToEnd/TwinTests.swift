import Foundation
import Glibc
import Lab
import Testing

extension EndToEnd {
  /// The new process is to the kernel what the old one was.
  @Suite struct Twins {
    @Test
    func `user, groups, cgroups, processors, priorities, limits, environment, streams`() throws {
      let cgroups = ["memory", "cpu", "unified"].map { "/sys/fs/cgroup/\($0)" }.filter { access($0 + "/cgroup.procs", W_OK) == 0 }
        .map { $0 + "/moult-lab-e2e-twin" }
      try leavingNothing {
        for cgroup in cgroups { mkdir(cgroup, 0o755) }
        defer { for cgroup in cgroups { rmdir(cgroup) } }
        let configuration = VMConfiguration("e2e-twin") {
          $0.memory = .file()
          $0.user = 65534
          $0.groups = [4, 24]
          $0.extraArguments = ["-smp", "2,sockets=1,cores=2", "-object", "iothread,id=io0", "-serial", "file:second.log"]
          let script = """
            set -eu
            for group in \(cgroups.joined(separator: " ")); do echo $$ >$group/cgroup.procs; done
            echo before
            ulimit -n 2777 # soft and hard: from 8.2 on QEMU raises the soft one itself
            ulimit -c 0
            umask 027
            export E2E_MARK='a b=c' PATH
            exec nice -n 5 choom -n 123 -- "$@"
            """
          $0.launcher = ["bash", "-c", script, "launcher"]
        }
        let vm = try LabVM(configuration)
        defer { vm.end() }
        let threads = try vm.qmp("query-cpus-fast").array.compactMap { $0["thread-id"].int }
        try #require(threads.count == 2)
        for (processor, thread) in threads.enumerated() {
          try succeed(["taskset", "-p", "-c", "\(processor % processorCount)", "\(thread)"])
        }
        try succeed(["renice", "-n", "7", "-p", "\(threads[1])"])
        let io = try #require(try vm.qmp("query-iothreads")[0]["thread-id"].int)
        try succeed(["taskset", "-p", "-c", "0", "\(io)"])

        let old = ProcessFacts(try vm.pid())
        let identity = old.identity
        let threadFacts = (threads + [io]).map(old.thread)
        let log = configuration.home + "/second.log"
        let handle = try #require(FileHandle(forWritingAtPath: log))
        handle.seekToEndOfFile()
        handle.write(Data("what was there before\n".utf8))
        let written = try #require(FileManager.default.contents(atPath: log))
        for (to, options) in [(QEMUVersion.v10_0, ["--hold"]), (.v7_2, [])] {
          if options.isEmpty { try vm.mustRollBack(to: to) } else { try vm.mustUpgrade(to: to, options, outcome: "held") }
          let new = ProcessFacts(try vm.pid())
          #expect(differences(identity, new.identity) == [], "\(to)")
          var newThreads = try vm.qmp("query-cpus-fast").array.compactMap { $0["thread-id"].int }
          newThreads.append(try #require(try vm.qmp("query-iothreads")[0]["thread-id"].int))
          for (a, b) in zip(threadFacts, newThreads.map(new.thread)) { #expect(differences(a, b) == [], "\(to)") }
          #expect(try #require(FileManager.default.contents(atPath: log)).starts(with: written), "-serial file: is written on")
        }
        // QEMU's last words go to the same log, behind what was there.
        kill(try vm.pid(), SIGTERM)
        try vm.waitForEnd()
        let text = String(decoding: try #require(FileManager.default.contents(atPath: configuration.log)), as: UTF8.self)
        #expect(text.hasPrefix("before\n") && text.contains("terminating on signal 15"), "\(text)")
        vm.end()
      }
    }

    @Test func `the serial console's own log is written on`() throws {
      try leavingNothing {
        let vm = try LabVM(VMConfiguration("e2e-log") { $0.memory = .file(); $0.serialLog = true; $0.daemonize = true })
        defer { vm.end() }
        for to in [QEMUVersion.v10_0, .v7_2] {
          let before = try #require(FileManager.default.contents(atPath: vm.configuration.serialLogFile))
          try vm.mustUpgrade(to: to)
          let after = try #require(FileManager.default.contents(atPath: vm.configuration.serialLogFile))
          #expect(after.starts(with: before) && after.count > before.count)
        }
        vm.end()
      }
    }

    @Test
    func `a QEMU that has dropped root by itself`() throws {
      try leavingNothing {
        let vm = try LabVM(VMConfiguration("e2e-runas") { $0.memory = .file(); $0.extraArguments = ["-runas", "nobody"] })
        defer { vm.end() }
        let identity = ProcessFacts(try vm.pid()).identity
        #expect(identity["Uid"]?.hasPrefix("65534\t65534") ?? false)
        try vm.mustUpgrade(to: .v10_0)
        #expect(differences(identity, ProcessFacts(try vm.pid()).identity) == [])
        vm.end()
      }
    }

    private var processorCount: Int { max(1, Int(sysconf(CInt(_SC_NPROCESSORS_ONLN)))) }
  }
}

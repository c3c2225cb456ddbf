import Foundation
import Glibc
import Lab
import Synchronization
import Testing

extension EndToEnd {
  /// Disks that the VM exports by NBD, as it was told over a monitor.
  @Suite struct Exports {
    @Test
    func `clients of exports find the same after each move, and what they wrote`() throws {
      try leavingNothing {
        let base = Lab.paths.run + "/e2e-export-data"
        try FileManager.default.createDirectory(atPath: base, withIntermediateDirectories: true)
        defer { _ = try? run(["rm", "-r", base]) }
        let (scratch, socket) = (base + "/scratch", base + "/nbd.sock")
        try succeed(["qemu-img", "create", "-q", "-f", "raw", scratch, "4M"])
        let vm = try LabVM(
          VMConfiguration("e2e-export") {
            $0.memory = .file()
            $0.disk = "qcow2"
            $0.extraArguments = ["-blockdev", "driver=file,node-name=scratch,filename=\(scratch)"]
          })
        defer { vm.end() }
        try vm.qmp("nbd-server-start", .object(["addr": .object(["type": .text("unix"), "data": .object(["path": .text(socket)])])]))
        try vm.qmp("block-export-add", .object(["type": .text("nbd"), "id": .text("x"), "node-name": .text("scratch"), "name": .text("a name"), "writable": .bool(true), "description": .text("for all")]))
        // The guest's own disk, whose node has no name.
        let drive = try #require(try vm.qmp("query-block").array.first { !$0["inserted"].members.isEmpty && $0["inserted"]["node-name"].string != "scratch" }?["device"].string)
        try vm.qmp("nbd-server-add", .object(["device": .text(drive)]))

        func list() throws -> String { try succeed(["qemu-nbd", "--list", "--socket", socket]) }
        let offered = try list()
        #expect(offered.contains("exports available: 2") && offered.contains("for all"), "\(offered)")
        let client = ExportLister(socket, expecting: offered)
        defer { _ = client.stop() }
        let prober = try ConnectionProber(path: socket, blocking: true, pause: 2000)
        defer { _ = prober.stop() }
        var written = 0
        func mustServe() throws {
          // What was written before the move is there; what is written now is to be there after the next one.
          for pattern in stride(from: 1, through: written, by: 1) {
            try succeed(["qemu-io", "-r", "-f", "raw", "-c", "read -P \(pattern) \(pattern % 4)M 64k", "nbd+unix:///a%20name?socket=\(socket)"])
          }
          written += 1
          try succeed(["qemu-io", "-f", "raw", "-c", "write -P \(written) \(written % 4)M 64k", "-c", "flush", "nbd+unix:///a%20name?socket=\(socket)"])
        }
        try mustServe()
        try vm.mustUpgrade(to: .v10_0)
        try mustServe()
        try vm.mustUpgrade(to: .v11_1, ["--hold"], outcome: "held")
        try mustServe()
        try vm.mustRollBack(to: .v10_0)
        let (counts, lists) = (prober.stop(), client.stop())
        #expect(counts.failed == 0 && counts.connected > 50, "\(counts)")
        // Never a part of it; who was connected when the guest was stopped has been cut off.
        #expect(lists.others == [] && lists.complete > 10 && lists.cutOff <= 3, "\(lists)")
        #expect(try list() == offered)
        #expect(try vm.endAndVerifyDisk() == [])
        for pattern in 1..<written { try succeed(["qemu-io", "-r", "-f", "raw", "-c", "read -P \(pattern) \(pattern % 4)M 64k", scratch]) }
      }
    }
  }

  /// Asks all the time what is exported.
  private final class ExportLister: Sendable {
    struct Counts: Equatable {
      var complete = 0
      var cutOff = 0
      /// Other answers than the one that is expected.
      var others: [String] = []
    }
    private let stopped = Atomic<Bool>(false)
    private let result = Mutex<Counts?>(nil)

    init(_ socket: String, expecting offered: String) {
      Thread { [self] in
        var counts = Counts()
        while !stopped.load(ordering: .relaxed) {
          do {
            let answer = try run(["qemu-nbd", "--list", "--socket", socket])
            if answer.code != 0 { counts.cutOff += 1 } else if answer.stdout == offered { counts.complete += 1 } else { counts.others.append(answer.stdout) }
          } catch { counts.others.append("\(error)") }
        }
        result.withLock { $0 = counts }
      }.start()
    }

    func stop() -> Counts {
      stopped.store(true, ordering: .relaxed)
      while true {
        if let counts = result.withLock({ $0 }) { return counts }
        usleep(1000)
      }
    }
  }
}

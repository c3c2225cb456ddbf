@testable import Kernel
import Testing

@testable import QEMU
@testable import Upgrade

/// Programs that serve directories to the guest (virtiofsd).
@Suite struct FileServerTests {
  private typealias Process = RewiringTests.Process
  private static func unix(_ inode: UInt64, _ path: String? = nil, to peer: UInt64) -> UnixSocketEntry { RewiringTests.unix(inode, path, to: peer) }

  /// By its path, or by the name that an upgrade gave it for its own device's sake.
  @Test(arguments: [("/run/fs", true, true), ("@moult-u1-files-c", true, true), ("@moult-u1-files-d", true, false), ("/run/fs", false, false)])
  func aServedDirectoryIsFound(path: String, canBeStartedAgain: Bool, isFound: Bool) throws {
    var process = Process()
    for inode in UInt64(1)...2 { process.add(socket: inode, as: 20 + Int32(inode)) }
    let unix = [Self.unix(1, to: 11), Self.unix(11, path, to: 1), Self.unix(2, to: 12), Self.unix(12, to: 2)]
    let words = "-chardev socket,id=c,path=/run/fs -device vhost-user-fs-pci,chardev=c,tag=t"
    let line = CommandLine(argv: ["qemu"] + words.split(separator: " ").map(String.init))
    var network = try process.network(words, unix: unix)
    try network.findFileServers(line, ObservedNetwork.numbers(process.descriptors), unix: unix) { inode in
      #expect(inode == 11)
      return (canBeStartedAgain ? Self.fileServer : nil, [11, 12], "it runs as another user")
    }
    #expect((network.outgoing[0].fileServer != nil) == isFound)
    #expect(network.unresolved.map(\.why) == (isFound ? [] : canBeStartedAgain ? ["QEMU is not connected to /run/fs"] : ["it runs as another user"]))
    // What the two have opened over it is its, too, and nothing of it is handed over.
    #expect(network.inodes.isSuperset(of: isFound ? [1, 2] : []) && network.outgoing[0].carried == nil)
  }
  private static let fileServer = FileServer(
    pid: 7, program: "/usr/libexec/virtiofsd", arguments: ["virtiofsd", "--fd=3"], workingDirectory: "/")

  static func observation() -> Observation {
    var observation = Fixture.observation(Fixture.arguments + ["-chardev", "socket,id=c,path=/run/fs", "-device", "vhost-user-fs-pci,chardev=c,tag=t"])
    observation.version = QEMUVersion(major: 10, minor: 0)
    observation.live.chardevs.append("c")
    observation.live.anonymousDevices.append("vhost-user-fs-pci")
    observation.network.outgoing = observation.commandLine.outgoingConnections.map { peer in
      var outgoing = ObservedNetwork.Outgoing(peer: peer, socket: .init(descriptor: 40, inode: 40), path: "/run/fs")
      outgoing.fileServer = fileServer
      return outgoing
    }
    return observation
  }

  /// What QEMU does not use it is made to, by stopping and continuing the guest, once: it may be the guest that does not.
  @Test(arguments: [0, 1, 3]) func aDirectoryThatIsNotServedIsServedInTheEnd(times: Int) {
    let host = FaultMatrixTests.host(.directories, [:])
    host.unusedFileServers = times
    let report = ExecutorTests.run(host)
    #expect(report.outcome == .committed && host.new?.runs == true)
    #expect(host.calls.count { $0 == "new cont" } == (times == 0 ? 1 : 2))
    #expect(report.notes.contains { $0.contains("did not use the program") } == (times > 0), "\(report.notes)")
  }

  /// Stopped for a moment, the guest goes on whatever fails; where it does not the report says so.
  @Test func aGuestIsNotLeftStopped() throws {
    func host(_ faults: [Int: ModelHost.Fault]) -> ModelHost {
      let host = FaultMatrixTests.host(.directories, faults)
      host.unusedFileServers = 1
      return host
    }
    let undisturbed = host([:])
    _ = ExecutorTests.run(undisturbed)
    let stop = try #require(undisturbed.calls.firstIndex(of: "new stop")), cont = try #require(undisturbed.calls.lastIndex(of: "new cont"))
    #expect(stop < cont)
    for index in (stop - 1)...(cont + 1) {
      for fault in [ModelHost.Fault.fails(.ioError), .fails(.timedOut), .happensAndFails(.timedOut)] {
        let host = host([index: fault])
        let report = ExecutorTests.run(host)
        #expect(host.new?.runs == true && report.outcome == .committed, "\(undisturbed.calls[index]): \(fault) → \(report.notes)")
      }
    }
    // Twice.
    let refused = host([cont: .fails(.timedOut), cont + 1: .fails(.timedOut)])
    let report = ExecutorTests.run(refused)
    #expect(refused.new?.runs == false && report.outcome == .needsPerson && report.notes.contains { $0.contains("cont over QMP") }, "\(report.notes)")
  }

  @Test func aServedDirectoryNeedsAQEMUThatTakesItOver() throws {
    var plan = Fixture.plan(Self.observation())
    #expect(plan.blockers == [] && plan.rewiring.isEmpty && plan.hasStandIns)
    #expect(plan.warnings.contains { $0.hasPrefix("/usr/libexec/virtiofsd (pid 7), which serves the chardev c, ends with the old QEMU") })
    for (version, count) in [(QEMUVersion(major: 8, minor: 1), 1), (QEMUVersion(major: 8, minor: 2), 0)] {
      plan.target = TargetFacts(version: version, catalog: .init())
      #expect(plan.servedDirectoryBlockers.count == count)
    }
    plan.observation.version = QEMUVersion(major: 7, minor: 2)
    #expect(plan.servedDirectoryBlockers.map(\.wayOut) == ["restart the VM in QEMU 8.2.0 or later; or unplug the device"])
  }
}

@Suite struct EventDescriptorTests {
  @Test(arguments: [("pos:\t0\nflags:\t02\neventfd-count:  0\neventfd-id: 35\neventfd-semaphore: 0\n", UInt64(35)), ("pos:\t0\nflags:\t02\n", nil)] as [(String, UInt64?)])
  func itsNumberIsToldByTheKernel(info: String, id: UInt64?) { #expect(EventDescriptor.id(info: info) == id) }
}

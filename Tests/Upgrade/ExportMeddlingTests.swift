import Testing

@testable import QEMU
@testable import Upgrade

/// Somebody with another monitor changes the NBD server during the upgrade, at any of its calls.
@Suite struct ExportMeddlingTests {
  private static let calls = RecoveryTests.calls(.exports)
  /// The calls at which what is observed is the upgrade's to keep.
  private static func phases() throws -> (observed: Int, ended: Int, frozen: Int) {
    (
      try #require(calls.firstIndex(of: "old query-block-exports")), try #require(calls.firstIndex(of: "old block-export-del")),
      try #require(calls.firstIndex(of: "freeze old"))
    )
  }

  @Test func aStoppedServerStaysStopped() throws {
    for index in Self.calls.indices {
      let host = FaultMatrixTests.host(.exports, [index: .stopServer])
      let report = ExecutorTests.run(host)
      let what: Comment = "\(index) \(Self.calls[index]) → \(report.outcome.rawValue): \(report.notes)"
      #expect(Ending(host: host, report: report).faultsFound(single: true) == [], what)
      #expect(report.outcome == .committed || report.outcome == .failed, what)
      guard try index > Self.phases().observed, host.old.exports == nil else { continue }
      let note = report.notes.first { $0.contains("was stopped during the upgrade") } ?? ""
      #expect(note.contains("127.0.0.1:10809") && note.contains("\"e1\"") && note.contains("backup"), what)
    }
  }

  @Test(arguments: [false, true]) func aRecoveryLeavesItStopped(stoppedBefore: Bool) {
    for index in Self.calls.indices {
      var faults: [Int: ModelHost.Fault] = [index: .killMoult(after: true)]
      if stoppedBefore, index > 0 { faults[index - 1] = .stopServer }
      let host = FaultMatrixTests.host(.exports, faults)
      let recovered = RecoveryTests.recover(host) { host in
        if !stoppedBefore, host.old.isAlive, !host.isFrozen { (host.old.exports, host.old.hasListener, host.old.hasListenerStandIn) = (nil, false, false) }
      }
      guard let report = recovered else { continue }
      #expect(
        Ending(host: host, report: report).faultsFound(single: true, recovered: true) == [],
        "\(index) \(Self.calls[index]) → \(report.outcome.rawValue): \(report.notes)")
    }
  }

  /// It would be missing from the new QEMU.
  @Test func anExportThatIsAddedIsNotLost() throws {
    let (_, ended, frozen) = try Self.phases()
    for index in Self.calls.indices {
      let host = FaultMatrixTests.host(.exports, [index: .addExport])
      let report = ExecutorTests.run(host)
      #expect(Ending(host: host, report: report).faultsFound(single: true) == [], "\(index) \(Self.calls[index]): \(report.notes)")
      if index <= ended - 1 {
        #expect(report.outcome == .failed && host.old.exports?.contains("foreign") == true, "\(index) \(Self.calls[index])")
        #expect(report.failure?.failure.reason?.contains("changed during the upgrade") == true)
      }
      // After the last look the old QEMU hears nobody any more, but for the calls between.
      if index > frozen { #expect(report.outcome == .committed) }
    }
  }

  @Test(arguments: [
    ("127.0.0.1:10809", #"{"data":{"host":"127.0.0.1","port":"10809"},"type":"inet"}"#), ("[::1]:7", #"{"data":{"host":"::1","port":"7"},"type":"inet"}"#),
    ("/run/a:b", #"{"data":{"path":"/run/a:b"},"type":"unix"}"#), ("@n", #"{"data":{"abstract":true,"path":"n"},"type":"unix"}"#),
  ])
  func whatIsDoneByHand(address: String, told: String) {
    var exports = Fixture.exports
    exports.address = address
    let text = exports.byHand
    #expect(text.contains("nbd-server-start {\"addr\":" + told) && text.contains("\"e1\"") && text.contains("backup"), "\(text)")
  }
}

import Kernel
import QEMU
import SystemPackage

@testable import Upgrade

extension ModelHost: Host {
  func now() -> Instant {
    clock += 1
    return Instant(nanoseconds: clock * 1000)
  }

  // MARK: State

  func lock(_ plan: UpgradePlan) throws(Failure) {
    try call("lock") { () throws(Failure) in
      if isLocked { throw Failure(step: "lock the VM", subject: plan.vm, reason: "held") }
      (isLocked, stateExists) = (true, true)
    }
  }

  func unlock(undone: Bool) {
    // Cannot fail; counted, so that a QEMU can be killed here, too.
    do {
      try call("unlock undone=\(undone)") { () throws(Failure) in
        if !isLocked { violate("unlocked twice") }
        (isLocked, stateExists) = (false, false)
        record = nil
      }
    } catch {}
  }

  func ensureGuardian(ready: Bool) throws(Failure) -> Bool {
    try call("guardian ready=\(ready)", waits: ready) { () throws(Failure) in
      if !isLocked { violate("a guardian without the lock") }
      return false
    }
  }

  func journal(_ entry: JournalEntry) throws(Failure) {
    try call("journal \(entry.step.rawValue) \(entry.phase.rawValue)") { () throws(Failure) in
      if !isLocked { violate("journal without the lock") }
      journal.append(entry)
    }
  }

  func save(_ record: UpgradeRecord) throws(Failure) {
    try call("save \(record.state.rawValue) new=\(record.spawned?.pid ?? 0) resumed=\(record.hasResumed)") { () throws(Failure) in
      if !isLocked { violate("record without the lock") }
      self.record = record
    }
  }

  func keepRuntime(_ plan: UpgradePlan) throws(Failure) -> KeptRuntime {
    try call("keep runtime") { () throws(Failure) in
      if !old.isAlive { throw Failure(step: "keep", subject: "/proc/100/exe", errno: .noSuchFileOrDirectory) }
      keptRuntimes += 1
      return KeptRuntime(directory: "/kept/" + plan.id, binary: plan.observation.binary, root: nil, files: [])
    }
  }

  func dropRuntime(_ runtime: KeptRuntime) throws(Failure) {
    try call("drop runtime") { () throws(Failure) in keptRuntimes = 0 }
  }

  // MARK: Names

  func makeStage(_ stage: Stage) throws(Failure) {
    try call("make stage \(stage.path)") { () throws(Failure) in
      if !stages.insert(stage.path).inserted { throw Failure(step: "make the stage", subject: stage.path, errno: .fileExists) }
    }
  }

  func removeStage(_ stage: Stage) throws(Failure) {
    try call("remove stage \(stage.path)") { () throws(Failure) in
      stages.remove(stage.path)
      for name in stage.names {
        let path = Stage.join(stage.path, name)
        if let side = names[path], isAlive(side), runsGuest(side) { violate("\(path) of the QEMU that runs the guest was removed") }
        names[path] = nil
      }
    }
  }

  private func runsGuest(_ side: Side) -> Bool { side == .old ? old.runs : new?.runs ?? false }

  func finishStage(_ stage: Stage) throws(Failure) {
    try call("finish stage \(stage.path)") { () throws(Failure) in try mustLive(.new) }
  }

  func prepareRewiring(_ plan: UpgradePlan) throws(Failure) -> [WiredMove] {
    try call("prepare rewiring", waits: true) { () throws(Failure) in
      try mustLive(.new)
      let connections = plan.rewiring.sockets.filter(\.isConnection).map(\.given) + plan.rewiring.peers.filter(\.isRaw).map(\.given)
      let successors = Set(plan.rewiring.peers.filter(\.isSuccessor).map(\.given))
      return plan.rewiring.given.map {
        WiredMove(move: .init(from: $0, to: $0 + 100), identity: plan.rewiring.queues.map(\.given).contains($0) ? "tap t\($0)" : "socket:[\($0)]", standIn: "socket:[\($0 + 500)]", what: "tap \($0)", isConnection: connections.contains($0),
          source: connections.contains($0) ? 15 : nil,
          former: successors.contains($0) ? .init(descriptor: 40, identity: "socket:[40]") : nil,
          succession: successors.contains($0) ? .init(path: "/run/disk", listener: 41, protocolFeatures: 0x20, channel: nil) : nil)
      }
    }
  }

  var hasConnections: Bool { plan.rewiring.hasConnections }

  func prepareDiversion(_ moves: [WiredMove]) throws(Failure) -> [WiredMove] {
    try call("prepare diversion", waits: true) { () throws(Failure) in
      try mustLive(.old)
      isReadyToDivert = true
      return moves.map {
        var move = $0
        if move.isConnection { move.diversion = Diversion(kept: 30, standIn: 31, output: 32, identity: "socket:[31]") }
        return move
      }
    }
  }

  func divert(_ moves: [WiredMove]) throws(Failure) {
    try call("divert") { () throws(Failure) in
      try mustLive(.old)
      if !isReadyToDivert { violate("diverted without having prepared it") }
      isDiverted = true
    }
  }

  func endDiversion(_ moves: [WiredMove]) throws(Failure) {
    try call("end diversion", waits: true) { () throws(Failure) in
      if old.isAlive, old.runState == .running, isDiverted { violate("given back while the guest talks") }
      (isDiverted, isReadyToDivert) = (false, false)
    }
  }

  func rewire(_ moves: [WiredMove], hasRun: Bool) throws(Failure) -> [String] {
    try call("rewire \(moves.count)") { () throws(Failure) in
      try mustLive(.new)
      if !hasBackEnd, moves.contains(where: { $0.succession != nil }), served.isEmpty {
        throw Failure(step: "connect to", subject: "model", errno: .connectionRefused)
      }
      wired = Set(moves.map(\.move.to))
      // By what the moves say: whatever moult itself had went with it.
      served = Set(moves.filter { $0.succession != nil }.map(\.move.to))
      return []
    }
  }

  func handOver(_ vsock: Rewiring.Vsock, hasRun: Bool) throws(Failure) {
    try call("hand over CID \(vsock.cid)") { () throws(Failure) in
      try mustLive(.new)
      if old.runs { violate("the old QEMU runs without its CID") }
      guestCID = .new
    }
  }

  func giveBack(_ vsock: Rewiring.Vsock) throws(Failure) {
    try call("give back CID \(vsock.cid)") { () throws(Failure) in
      if isAlive(.new), guestCID == .new { violate("two QEMUs have the CID") }
      guestCID = .old
    }
  }

  func isRewired(_ moves: [WiredMove]) throws(Failure) -> Bool {
    try call("is rewired") { () throws(Failure) in
      try mustLive(.new)
      return !wired.isDisjoint(with: moves.map(\.move.to))
    }
  }

  func finishRewiring() { hasStandIns = false }

  func holdListener(_ exports: ExportServer) throws(Failure) {
    try call("hold listener") { () throws(Failure) in
      try mustLive(.old)
      try mustLive(.new)
    }
  }

  func setListenerAside(_ exports: ExportServer) throws(Failure) {
    try call("set listener aside") { () throws(Failure) in
      try mustLive(.old)
      guard old.hasListener else { throw Failure(step: "set listener aside", subject: "model", reason: "the NBD server was stopped") }
      (old.hasListener, old.hasListenerStandIn, old.keepsListener) = (false, true, true)
    }
  }

  func hasServer(_ exports: ExportServer) throws(Failure) -> Bool {
    try call("has server") { () throws(Failure) in !old.isAlive || old.hasListener || old.hasListenerStandIn }
  }

  func putListenerBack(_ exports: ExportServer) throws(Failure) -> Bool {
    try call("put listener back") { () throws(Failure) in
      if !old.isAlive { return true }
      let isServing = old.hasListener || old.hasListenerStandIn
      if isServing, !Set(exports.server.exports.map(\.id)).isSubset(of: old.exports ?? []) { violate("clients are let in before all is exported again") }
      (old.hasListener, old.hasListenerStandIn, old.keepsListener) = (isServing, false, false)
      return isServing
    }
  }

  func giveListenerStandIn() throws(Failure) { try call("give listener stand-in") { () throws(Failure) in try mustLive(.new) } }

  func openListener(_ exports: ExportServer) throws(Failure) {
    try call("open listener") { () throws(Failure) in
      try mustLive(.new)
      if new?.exports?.count != exports.server.exports.count { violate("clients are let in before all is exported") }
      new?.hasListener = true
    }
  }

  func endPredecessors(of moves: [WiredMove]) throws(Failure) {
    try call("end predecessors") { () throws(Failure) in
      hasEndedPredecessors = true
      if new?.runState != .paused { violate("the old QEMU's connections were ended for a new one that does not have the guest") }
    }
  }

  func endedBackEnds(of moves: [WiredMove], in side: Side) throws(Failure) -> [String] {
    try call("ended back ends \(side)") { () throws(Failure) in !hasBackEnd || side == .old && hasEndedPredecessors ? ["the disk"] : [] }
  }

  func fileServers(_ side: Side) throws(Failure) -> FileServerUse {
    try call("file servers \(side)") { () throws(Failure) in
      guard hasBackEnd, isAlive(side) else { return FileServerUse() }
      let programs = plan.observation.network.outgoing.count { $0.fileServer != nil }
      return FileServerUse(programs: programs, events: programs * 6)
    }
  }

  func wakeFileServers(_ side: Side, expected: Int) throws(Failure) -> Bool {
    try call("wake file servers \(side)") { () throws(Failure) in
      if isAlive(side), side == .new ? !(new?.runs ?? false) : !old.runs { violate("woken before the guest runs") }
      unusedFileServers -= 1
      return unusedFileServers < 0
    }
  }

  func stopGuest(draining disks: [VhostUserDevice]) throws(Failure) -> Double {
    _ = try command(.old, "stop", nil, seconds: 30)
    return disks.isEmpty ? 0 : stoodStill
  }

  private static func below(_ directory: String, _ path: String) -> Bool { path == directory || path.hasPrefix(directory + "/") }

  func exchange(_ exchange: NameExchange) throws(Failure) {
    try call("exchange \(exchange.published)") { () throws(Failure) in
      let publicSide = names.filter { publicPaths.contains($0.key) && Self.below(exchange.published, $0.key) }
      let stagedSide = names.filter { Self.below(exchange.staged, $0.key) }
      for path in publicSide.keys { names[path] = nil }
      for path in stagedSide.keys { names[path] = nil }
      for (path, inode) in publicSide { names[exchange.staged + path.dropFirst(exchange.published.count)] = inode }
      for (path, inode) in stagedSide { names[exchange.published + path.dropFirst(exchange.staged.count)] = inode }
    }
  }

  func isExchanged(_ exchange: NameExchange) throws(Failure) -> Bool {
    try call("is exchanged \(exchange.published)") { () throws(Failure) in
      publicPaths.filter { Self.below(exchange.published, $0) }.allSatisfy { names[$0] == .new }
    }
  }

  func verifyPublicMonitor(_ path: String) throws(Failure) {
    try call("verify public monitor", waits: false) { () throws(Failure) in
      try mustLive(.new)
      if names[path] != .new { throw Failure(step: "verify the monitor", subject: "", errno: .connectionRefused) }
    }
  }

  func setOOMScore(_ adjustment: Int) throws(Failure) {
    try call("oom score \(adjustment)") { () throws(Failure) in oomScore = adjustment }
  }

  func handOver(unit: String) throws(Failure) {
    try call("hand over \(unit)") { () throws(Failure) in
      try mustLive(.old)
      mainProcess = .new
    }
  }

  func settle(_ stages: [Stage], covered: [String], _ workingDirectory: HiddenDirectory?) throws(Failure) {
    try call("settle") { () throws(Failure) in
      try mustLive(.new)
      isSettled = true
    }
  }

  var stagedIdentities: [String: FileIdentity] {
    Dictionary(uniqueKeysWithValues: plan.stages.flatMap(\.exchanges).map { ($0.staged, FileIdentity(device: 20, inode: 99)) })
  }

  // MARK: QEMU

  func spawn(_ plan: UpgradePlan, noting: (ProcessIdentity) throws(Failure) -> Void) throws(Failure) {
    try noting(ProcessIdentity(pid: 200, startTime: 2))
    try call("spawn") { () throws(Failure) in
      try mustLive(.old)
      new = Twin(runState: .inmigrate)
    }
  }

  func greet(_ plan: UpgradePlan) throws(Failure) -> QEMUVersion {
    try call("greet", waits: true) { () throws(Failure) in
      try mustLive(.new)
      for stage in plan.stages {
        if !stages.contains(stage.path) { violate("launched without the stage \(stage.path)") }
        for name in stage.names { names[Stage.join(stage.path, name)] = .new }
      }
      return QEMUVersion(major: 10, minor: 0)
    }
  }

  func live(_ side: Side, like: LiveMachine) throws(Failure) -> LiveMachine {
    try call("live \(side.rawValue)", waits: true) { () throws(Failure) in
      try mustLive(side)
      var live = plan.observation.live
      if side == .new { live.status = "inmigrate" }
      if side == .new, let differingDevice { live.devices[differingDevice] = "e1000" }
      return live
    }
  }

  func guestView(_ side: Side) throws(Failure) -> GuestView {
    try call("guest view \(side.rawValue)", waits: true) { () throws(Failure) in
      try mustLive(side)
      return GuestView(cpu: ["CPUID 0x1 ECX": .integer(side == .new && lacksFeature ? 0 : 1)])
    }
  }

  func features(_ side: Side) throws(Failure) -> Set<String> {
    try call("features \(side.rawValue)", waits: true) { () throws(Failure) in
      try mustLive(side)
      return side == .new && lacksFeature ? [] : ["sse3"]
    }
  }

  func matchThreads(old: LiveMachine, new: LiveMachine) throws(Failure) {
    try call("match threads") { () throws(Failure) in
      try mustLive(.old)
      try mustLive(.new)
    }
  }

  func mustLive(_ side: Side) throws(Failure) {
    if !isAlive(side) { throw Failure(step: "reach", subject: "the \(side.rawValue) QEMU", errno: .connectionReset) }
  }

  func isAlive(_ side: Side) -> Bool { side == .old ? old.isAlive : new?.isAlive ?? false }

  func freeze(_ side: Side) throws(Failure) {
    try call("freeze \(side.rawValue)") { () throws(Failure) in
      try mustLive(side)
      if side == .old { isFrozen = true }
    }
  }

  func thaw(_ side: Side) throws(Failure) { try call("thaw \(side.rawValue)") { () throws(Failure) in if side == .old { isFrozen = false } } }

  func storage(_ side: Side) throws(Failure) -> LiveMachine.Storage {
    try call("storage \(side.rawValue)", waits: true) { () throws(Failure) in
      try mustLive(side)
      var storage = plan.observation.live.storage
      if let overlay { storage.drives[0].file = overlay }
      return storage
    }
  }

  func end(_ side: Side) throws(Failure) {
    try call("end \(side.rawValue)", waits: true) { () throws(Failure) in
      if side == .old, old.isAlive, plan.observation.supervision.notifiedUnit != nil, mainProcess == .old, new?.hasRun == true {
        violate("the unit's main process was ended")
      }
      if isAlive(side) { die(side) }
    }
  }

  func isThere(_ agent: GuestAgent, in side: Side) throws(Failure) -> Bool {
    try call("guest agent \(side.rawValue)", waits: true) { () throws(Failure) in
      try mustLive(side)
      return true
    }
  }

  func watch(_ record: UpgradeRecord, seconds: Double) throws(Failure) {
    hearsInterrupts = true
    try call("watch", waits: true) { () throws(Failure) in
      try mustLive(.new)
      if isUnhealthy { throw Failure(step: "watch the guest in", subject: "the new QEMU", reason: "GUEST_PANICKED") }
    }
  }

  func ignoreInterrupts() { hearsInterrupts = false }
  func extraMemory() -> UInt64 { 10 << 20 }
}

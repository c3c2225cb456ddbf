import Kernel
import QEMU

@testable import Upgrade

/// QMP and migration of the model's QEMUs.
extension ModelHost {
  func command(_ side: Side, _ name: String, _ arguments: JSONValue?, seconds: Double) throws(Failure) -> JSONValue {
    var text = "\(side.rawValue) \(name)"
    if name == "migrate-set-parameters", let limit = arguments?["downtime-limit"]?.integer { text += " downtime-limit=\(limit)" }
    return try call(text, waits: true) { () throws(Failure) in
      try mustLive(side)
      return try side == .old ? obeyOld(name, arguments) : obeyNew(name, arguments)
    }
  }

  private func refusal(_ reason: String) -> Failure { Failure(step: "QMP", subject: "model", reason: reason) }

  private func obeyOld(_ name: String, _ arguments: JSONValue?) throws(Failure) -> JSONValue {
    if isFrozen { throw refusal("no answer: it is stopped") }
    switch name {
    case "query-block-exports", "block-export-add", "block-export-del": return try export(&old, name, arguments)
    case "query-block": return [["device": "disk0", "inserted": ["node-name": "#block5"]]]
    case "query-status":
      if old.settling > 0 {
        old.settling -= 1
        return ["status": "finish-migrate"]
      }
      return ["status": .string(old.runState.rawValue)]
    case "query-migrate": return ["status": .string(old.migration)]
    case "migrate-set-capabilities", "migrate-set-parameters":
      if Self.underWay.contains(old.migration), name == "migrate-set-capabilities" { throw refusal("There's a migration process in progress") }
      Self.set(&old, arguments)
    case "migrate-continue":
      if hasConnections, !isDiverted { violate("the state is saved with connections that are not diverted") }
      if writtenExports.contains(where: { old.exports?.contains($0) ?? false }) { violate("QEMU does not give up images that a client may write to") }
      guard old.migration == "pre-switchover" else { throw refusal("Migration not in expected state: \(old.migration)") }
      old.migration = "device"
    case "migrate_cancel":
      guard Self.underWay.contains(old.migration) else { break }
      old.migration = "cancelled"
      settle(wasStopped ? .paused : .running)
      // The new QEMU sees the end of an unfinished stream.
      if new?.migration == "active" { new?.isAlive = false }
    case "stop":
      old.runState = .paused
      wasStopped = true
      old.eventTimes["STOP"] = clock
    case "cont":
      // What QEMU answers between the end of a migration and its new run state.
      if old.settling > 0 { throw refusal("Migration is not finalized yet") }
      if new?.hasRun == true { violate("the old QEMU was continued after the new one had run") }
      if new?.isAlive == true { violate("the old QEMU was continued beside a living new one") }
      if isDiverted, !toleratesLostNames { violate("the old QEMU was continued without its connections") }
      old.runState = .running
    default: throw refusal("The command \(name) has not been found")
    }
    return .object([:])
  }

  private func obeyNew(_ name: String, _ arguments: JSONValue?) throws(Failure) -> JSONValue {
    guard var twin = new else { throw refusal("not started") }
    defer { new = twin }
    switch name {
    case "nbd-server-start":
      if twin.exports != nil { throw refusal("NBD server already running") }
      twin.exports = []
    case "query-block-exports", "block-export-add":
      if name == "block-export-add", !twin.hasRun { violate("the new QEMU exports what it does not have yet") }
      return try export(&twin, name, arguments)
    case "query-block": return [["device": "disk0", "inserted": ["node-name": "#block7"]]]
    case "query-status": return ["status": .string(twin.runState.rawValue)]
    case "query-migrate": return ["status": .string(twin.migration)]
    case "migrate-set-capabilities", "migrate-set-parameters": Self.set(&twin, arguments)
    case "stop":
      if !twin.hasRun { violate("the new QEMU is stopped before it has run") }
      twin.runState = .paused
      twin.eventTimes["STOP"] = clock
    case "cont":
      if twin.migration != "completed" { violate("the new QEMU was continued before it held the guest") }
      if old.isAlive, old.migration != "completed" { violate("the new QEMU was continued before the old one had reported the end") }
      if old.isAlive, old.runState == .running { violate("the new QEMU was continued while the old one runs") }
      twin.runState = .running
      twin.hasRun = true
      twin.eventTimes["RESUME"] = clock
    default: throw refusal("The command \(name) has not been found")
    }
    return .object([:])
  }

  private var writtenExports: [String] { plan.observation.network.exports?.server.written.map(\.id) ?? [] }

  private func export(_ twin: inout Twin, _ name: String, _ arguments: JSONValue?) throws(Failure) -> JSONValue {
    let id = arguments?["id"]?.string ?? ""
    switch name {
    case "block-export-add":
      guard let exports = twin.exports else { throw refusal("NBD server not running") }
      if exports.contains(id) { throw refusal("Block export id '\(id)' is already in use") }
      twin.exports?.append(id)
    case "block-export-del":
      guard twin.exports?.contains(id) ?? false else { throw refusal("Export '\(id)' is not found") }
      twin.exports?.removeAll { $0 == id }
      twin.eventTimes["BLOCK_EXPORT_DELETED"] = clock
    default:
      return .array((twin.exports ?? []).reversed().map { ["id": .string($0), "node-name": "n", "type": "nbd", "shutting-down": false] })
    }
    return .object([:])
  }

  private static func set(_ twin: inout Twin, _ arguments: JSONValue?) {
    for entry in arguments?["capabilities"]?.array ?? [] {
      if let name = entry["capability"]?.string, let state = entry["state"]?.bool { twin.capabilities[name] = state }
    }
    for (name, value) in arguments?.object ?? [:] where name != "capabilities" { twin.parameters[name] = value }
  }

  func startMigration(_ last: () throws(Failure) -> Void) throws(Failure) {
    try last()
    try call("start migration", waits: true) { () throws(Failure) in
      try mustLive(.new)
      new?.migration = "active"
      guard old.isAlive else {
        new?.isAlive = false
        throw Failure(step: "migrate", subject: "the old QEMU", errno: .connectionReset)
      }
      for name in ["return-path", "x-ignore-shared"] where (old.capabilities[name] ?? false) != (new?.capabilities[name] ?? false) {
        violate("migration with \(name) on one side only")
      }
      old.migration = "active"
      if isContinuedMeanwhile {
        old.runState = .running
        old.eventTimes["RESUME"] = clock
      }
    }
  }

  func awaitMigration(
    _ side: Side, states: Set<String>, seconds: Double?, peerMustLive: Bool
  ) throws(Failure) -> String {
    try call("await \(side.rawValue) \(states.sorted().joined(separator: "|"))", waits: true) { () throws(Failure) in
      // Events that came before a QEMU died are heard first.
      if side == .old { advanceOld(states) }
      if side == .new, old.isAlive, old.migration == "device", new?.isAlive == true {
        new?.load()
      }
      if side == .old, old.migration == "device", states.contains("stopped") { return "stopped" }
      let twin = side == .old ? old : new
      if let status = twin?.migration {
        if status == "active", states.contains("pass"), passes > 0 {
          passes -= 1
          return "pass"
        }
        if states.contains(status) { return status }
        if ["failed", "cancelled"].contains(status) { throw refusal("the \(side.rawValue) QEMU reports \(status)") }
      }
      try mustLive(side)
      if peerMustLive { try mustLive(side == .old ? .new : .old) }
      throw Failure(step: "await migration", subject: "model", errno: .timedOut)
    }
  }

  private func advanceOld(_ states: Set<String>) {
    guard old.isAlive, new?.isAlive == true else { return }
    if old.migration == "active", states.contains("pass"), passes == 0 {
      old.migration = states.contains("stopped") ? "device" : "pre-switchover"
      if old.runState == .running { old.eventTimes["STOP"] = clock }
      old.runState = .paused
    }
    if old.migration == "device", new?.migration == "completed" { completeOld() }
  }

  private func completeOld() {
    old.migration = "completed"
    settle(isMeddledWith ? .running : .postmigrate)
    if isMeddledWith { old.eventTimes["RESUME"] = clock }
    if isStoppedAgain { (old.runState, old.eventTimes["STOP"]) = (.paused, clock + 1) }
  }

  func lastEvent(_ side: Side, _ name: String) -> QMPEvent? {
    guard let time = side == .old ? old.eventTimes[name] : new?.eventTimes[name] else { return nil }
    // Somebody sets the clock back by an hour after every event: nothing may depend on it.
    var event = QMPEvent(name: name, data: .null, microseconds: time - time * 3_600_000_000)
    (event.order, event.heard) = (Int(time), Instant(nanoseconds: time * 1000))
    return event
  }

  func hearEvents(_ side: Side) throws(Failure) {
    if side == .new, let time = new?.unheardResume { new?.eventTimes["RESUME"] = time }
  }

  /// Another program tells the new QEMU to run the guest, as soon as its monitor is public, and it dies of that.
  func continueAndKillNew() {
    guard let twin = new, twin.isAlive, twin.runState == .paused, publicPaths.allSatisfy({ names[$0] == .new }) else { return }
    new?.hasRun = true
    new?.unheardResume = clock
    kill(.new)
  }

  func awaitEvent(_ side: Side, _ name: String, seconds: Double) throws(Failure) {
    try call("await \(side.rawValue) \(name)", waits: true) { () throws(Failure) in
      if lastEvent(side, name) != nil { return }
      try mustLive(side)
      throw Failure(step: "await event", subject: name, errno: .timedOut)
    }
  }
}

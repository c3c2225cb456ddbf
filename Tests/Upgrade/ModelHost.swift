import Kernel
import QEMU
import SystemPackage

@testable import Upgrade

/// A world of two QEMUs and a few names, in which any call of the executor can go wrong.
///
/// It keeps watch over what must hold whatever fails, after each effect: see `checkInvariants`. A host call that
/// can fail is numbered from 0 in the order of calls; `faults` says what happens at which number.
final class ModelHost {
  /// A QEMU as far as an upgrade sees it.
  struct Twin {
    enum RunState: String { case running, paused, finishMigrate = "finish-migrate", postmigrate, inmigrate }
    var runState: RunState
    var isAlive = true
    var hasRun = false
    var migration = "none"
    var capabilities: [String: Bool] = [:]
    var parameters: [String: JSONValue] = [:]
    /// How often `query-status` still says `finish-migrate` after the migration's end was reported.
    var settling = 0
    /// The model's clock at the last event, by name.
    var eventTimes: [String: Int64] = [:]
    /// Ids of its NBD exports, in the order in which they were made; nil without a server.
    var exports: [String]?
    /// Its NBD server has the socket at which clients come.
    var hasListener = false
    /// A stand-in is in that socket's place, and the socket somewhere else in it.
    var hasListenerStandIn = false
    var keepsListener = false
    /// When a RESUME was sent that nobody has read from the connection.
    var unheardResume: Int64?

    var runs: Bool { isAlive && runState == .running }
  }

  enum Fault: Equatable, CustomStringConvertible {
    /// Nothing happens, and the call fails.
    case fails(Errno)
    /// It happens, and the call fails all the same: a reply that got lost, a Ctrl-C while waiting for it.
    case happensAndFails(Errno)
    /// Ctrl-C before the call's effect or after it: heard by the next call that waits.
    case interrupt(after: Bool)
    case kill(Side, after: Bool)
    case continueAndKillNew
    /// By another monitor of the old QEMU, if that can hear it: `nbd-server-stop`; or `block-export-add`.
    case stopServer, addExport
    /// The program that serves a disk ends.
    case endBackEnd
    /// moult itself is killed: from here on none of its calls does anything.
    case killMoult(after: Bool)

    var description: String {
      switch self {
      case .fails(let errno): "fails with \(errno)"
      case .happensAndFails(let errno): "happens and fails with \(errno)"
      case .interrupt(let after): "Ctrl-C \(after ? "after" : "before")"
      case .stopServer: "the NBD server is stopped"
      case .addExport: "an NBD export is added"
      case .endBackEnd: "the back end ends"
      case .killMoult(let after): "moult killed \(after ? "after" : "before")"
      case .continueAndKillNew: "another program continues the new QEMU, which dies"
      case .kill(let side, let after): "\(side.rawValue) killed \(after ? "after" : "before")"
      }
    }
  }

  /// What lies at a path: whose QEMU made it.
  typealias Inode = Side

  let plan: UpgradePlan
  let faults: [Int: Fault]
  var moultIsDead = false
  /// MIGRATION_PASS events before the guest stops.
  var passes = 1
  /// The old QEMU has sent the whole guest before anything that happens to it in the last wait can happen.
  var streamIsWhole = true
  /// A device that the new QEMU has and the old one has not.
  var differingDevice: String?
  /// The new QEMU's CPU lacks a feature that the old one's has.
  var lacksFeature = false
  /// A snapshot of the first disk, taken at another monitor during the upgrade.
  var overlay: String?
  /// Another program continues the old QEMU as soon as it can be.
  var isMeddledWith = false
  /// Somebody lets the old QEMU run on while memory is copied.
  var isContinuedMeanwhile = false
  /// Whoever meddles stops the old QEMU again, too.
  var isStoppedAgain = false
  /// The old QEMU was stopped by SIGSTOP: its monitor does not answer.
  var isFrozen = false
  /// The guest panics in probation.
  var isUnhealthy = false

  var old: Twin
  var new: Twin?
  var names: [String: Inode] = [:]
  var stages: Set<String> = []
  var isLocked = false
  var stateExists = false
  var record: UpgradeRecord?
  var journal: [JournalEntry] = []
  var keptRuntimes = 0
  /// Of the systemd unit: with its end systemd kills both.
  var mainProcess = Side.old
  /// Of the new QEMU.
  var oomScore = LaunchPlan.waitingOOMScore
  var isSettled = false
  /// Descriptors of the new QEMU that are the real ones by now.
  var wired: Set<Int32> = []
  /// Those among them that lead to back ends which serve them next.
  var served: Set<Int32> = []
  var hasStandIns = true
  /// Whose vsock device has the guest's CID.
  var guestCID = Side.old
  /// The old QEMU's live connections are, and it has what that needs.
  var isDiverted = false
  var isReadyToDivert = false
  /// Milliseconds, before QEMU stops a guest with such disks.
  var stoodStill = 7.0
  /// Without these its disks are gone for the old QEMU.
  var hasEndedPredecessors = false
  var hasBackEnd = true
  /// How many times in a row QEMU does not use what serves directories.
  var unusedFileServers = 0
  var hearsInterrupts = true
  var interruptPending = false

  /// Every numbered call, as text.
  var calls: [String] = []
  /// Invariants that were broken, each with the call after which.
  var violations: [String] = []
  /// What a fault killed.
  var killed: [Side] = []
  var clock: Int64 = 0

  init(_ plan: UpgradePlan, faults: [Int: Fault] = [:]) {
    self.plan = plan
    self.faults = faults
    old = Twin(runState: .running)
    old.hasRun = true
    old.capabilities = plan.observation.live.migrationCapabilities
    old.parameters = plan.observation.live.migrationParameters
    old.exports = plan.observation.network.exports?.server.exports.map(\.id)
    old.hasListener = old.exports != nil
    for path in publicPaths { names[path] = .old }
  }

  var publicPaths: [String] { plan.stages.flatMap { stage in stage.names.map { Stage.join(stage.directory, $0) } } }

  // MARK: Calls

  /// A call of the executor: counts it, lets its fault happen, and checks the world before and after.
  /// - Parameter waits: it waits for QEMU, so that it hears a Ctrl-C.
  func call<Value>(
    _ text: String, waits: Bool = false, _ effect: () throws(Failure) -> Value
  ) throws(Failure) -> Value {
    if moultIsDead { throw Failure(step: text, subject: "model", reason: "moult was killed") }
    let fault = faults[calls.count]
    calls.append(text)
    clock += 100
    switch fault {
    case .killMoult(after: false):
      moultIsDead = true
      throw Failure(step: text, subject: "model", reason: "moult was killed")
    case .fails(let errno): throw Failure(step: text, subject: "model", errno: errno)
    case .kill(let side, after: false): kill(side)
    case .continueAndKillNew: continueAndKillNew()
    case .stopServer: if old.isAlive, !isFrozen { (old.exports, old.hasListener, old.hasListenerStandIn) = (nil, false, false) }
    case .addExport: if old.isAlive, !isFrozen { old.exports?.append("foreign") }
    case .endBackEnd: hasBackEnd = false
    case .interrupt(after: false): interruptPending = true
    default: break
    }
    try hearInterrupt(waits)
    let value: Value
    do {
      value = try effect()
    } catch {
      checkInvariants()
      throw error
    }
    switch fault {
    case .happensAndFails(let errno):
      checkInvariants()
      throw Failure(step: text, subject: "model", errno: errno, reason: "after it was carried out")
    case .kill(let side, after: true): kill(side)
    case .interrupt(after: true): interruptPending = true
    case .killMoult(after: true):
      moultIsDead = true
      throw Failure(step: text, subject: "model", reason: "moult was killed")
    default: break
    }
    checkInvariants()
    try hearInterrupt(waits)
    return value
  }

  private func hearInterrupt(_ waits: Bool) throws(Failure) {
    guard waits, interruptPending else { return }
    interruptPending = false
    if hearsInterrupts { throw Failure(step: "interrupted by", subject: "Ctrl-C (SIGINT)", errno: .interrupted) }
  }

  /// What a later moult finds: the lock is free, and its connections have heard no event yet.
  func reviveMoult() {
    moultIsDead = false
    isLocked = true
    // What no record names is swept before.
    if record?.kept == nil { keptRuntimes = 0 }
    hearsInterrupts = true
    interruptPending = false
    old.eventTimes = [:]
    new?.eventTimes = [:]
  }

  func kill(_ side: Side) {
    guard isAlive(side) else { return }
    killed.append(side)
    die(side)
    checkInvariants()
  }

  /// What the end of one QEMU does to the other: an old one that was still sending runs on, a new one that was
  /// still loading ends.
  func die(_ side: Side) {
    switch side {
    case .new:
      new?.isAlive = false
      if old.isAlive, Self.underWay.contains(old.migration) {
        old.migration = "failed"
        settle(wasStopped ? .paused : .running)
      }
    case .old:
      old.isAlive = false
      guard new?.migration == "active" else { return }
      if old.migration == "device", streamIsWhole { new?.load() } else { new?.isAlive = false }
    }
  }

  static let underWay: Set<String> = ["setup", "active", "pre-switchover", "device"]

  /// The old QEMU's run state follows the migration's end a moment later.
  /// The guest was stopped before the migration began.
  var wasStopped = false
  func settle(_ state: Twin.RunState) {
    old.runState = state
    // It shows `finish-migrate` for a while, though its vCPUs may run already.
    old.settling = old.runState == .running && old.eventTimes["STOP"] == nil ? 0 : 2
  }

  // MARK: Invariants

  func violate(_ what: String) { violations.append("\(what) (call \(calls.count - 1), \(calls.last ?? ""))") }

  func checkInvariants() {
    if old.runs, new?.runs == true { violate("both QEMUs run") }
    if old.runs, new?.hasRun == true { violate("the old QEMU runs after the new one has run") }
    for (side, runs) in [(Side.old, old.runs), (.new, new?.runs ?? false)] where runs && !toleratesLostNames {
      for path in publicPaths where names[path] != side {
        violate("the \(side.rawValue) QEMU runs, but \(path) is \(names[path]?.rawValue ?? "missing")")
      }
    }
    if new?.runs == true, wired.count < plan.rewiring.given.count { violate("the new QEMU runs without its taps and ports") }
    if plan.rewiring.vsock != nil, new?.runs == true && guestCID != .new || old.runs && guestCID != .old && !toleratesLostNames {
      violate("the guest runs without its CID")
    }
    if new?.runs == true, served.count < plan.rewiring.peers.count(where: \.isSuccessor) { violate("the new QEMU runs with a disk that nobody serves") }
    if let new, new.isAlive, new.runState == .running, !new.hasRun { violate("the model lost that the new QEMU ran") }
  }

  /// Set where a second fault may keep a name from coming back: then the report must say so.
  var toleratesLostNames = false
}

extension ModelHost.Twin {
  mutating func load() {
    migration = "completed"
    runState = .paused
  }
}

public import Kernel
public import QEMU

/// One of the two QEMUs of a VM.
public enum Side: String, Sendable, Codable {
  /// The one that runs the guest when the upgrade starts.
  case old
  /// The one that is to run it.
  case new
}

/// Everything an upgrade does to the world: the only way out of the executor.
///
/// The real one is `LinuxHost`; tests have one that models two QEMUs, records every call and fails
/// any of them. Nothing here decides anything.
public protocol Host: AnyObject {
  func now() -> Instant

  /// Takes the VM's lock; fails at once when somebody holds it.
  func lock(_ plan: UpgradePlan) throws(Failure)
  /// Lets go of the lock and removes the VM's state directory; after an undone rollback, the upgrade that
  /// was held before is held again.
  func unlock(undone: Bool)
  /// Makes sure that a guardian watches over the upgrade, starting one if there is none or it was killed.
  /// - Parameter ready: returns only when it does.
  /// - Returns: whether one was started.
  func ensureGuardian(ready: Bool) throws(Failure) -> Bool
  /// Appends to the VM's journal.
  func journal(_ entry: JournalEntry) throws(Failure)
  /// Writes what later commands (`commit`, `rollback`, `recover`) need to know.
  func save(_ record: UpgradeRecord) throws(Failure)

  func keepRuntime(_ plan: UpgradePlan) throws(Failure) -> KeptRuntime
  func dropRuntime(_ runtime: KeptRuntime) throws(Failure)

  func makeStage(_ stage: Stage) throws(Failure)
  /// Removes the stage and what it holds; nothing if it is not there.
  func removeStage(_ stage: Stage) throws(Failure)

  /// Starts the new QEMU, waiting. The process is the host's to `end`.
  /// - Parameter noting: called when the process exists and before it starts: whoever has to clean up after a
  ///   killed moult must know of it. Until then it ends with moult.
  func spawn(_ plan: UpgradePlan, noting: (ProcessIdentity) throws(Failure) -> Void) throws(Failure)
  /// Waits until the new QEMU answers.
  func greet(_ plan: UpgradePlan) throws(Failure) -> QEMUVersion
  /// - Parameter like: the twin whose answers these are to be compared with.
  func live(_ side: Side, like: LiveMachine) throws(Failure) -> LiveMachine
  /// The CPUs' features and the memory blocks.
  func guestView(_ side: Side) throws(Failure) -> GuestView
  /// Names of the CPU features that are on: to tell in words where the two differ.
  func features(_ side: Side) throws(Failure) -> Set<String>
  /// Gives every thread of the new QEMU the affinity, policy, nice value and cgroup of its counterpart.
  func matchThreads(old: LiveMachine, new: LiveMachine) throws(Failure)
  /// Gives each staged name the owner, mode and attributes of its public counterpart, and makes sure
  /// that the new QEMU listens at every staged socket.
  func finishStage(_ stage: Stage) throws(Failure)
  /// What each exchange will make public, by staged path: known once the stages are finished.
  var stagedIdentities: [String: FileIdentity] { get }

  /// - Parameter seconds: how long the answer may take.
  func command(_ side: Side, _ name: String, _ arguments: JSONValue?, seconds: Double) throws(Failure) -> JSONValue
  /// Stops the guest in the old QEMU, at a moment at which the back ends of these disks are done with all that it has asked for.
  /// - Returns: milliseconds for which it had stood still for that before QEMU stopped it.
  func stopGuest(draining disks: [VhostUserDevice]) throws(Failure) -> Double
  /// Hands each side its end of the migration stream and starts the migration.
  /// - Parameter last: done when all is ready, right before.
  func startMigration(_ last: () throws(Failure) -> Void) throws(Failure)
  /// Waits for `side` to report one of `states`: of a migration, `pass` for the end of a pass over RAM,
  /// `stopped` for the guest's stop.
  /// - Parameter peerMustLive: whether the death of the other QEMU ends the wait with a failure.
  func awaitMigration(_ side: Side, states: Set<String>, seconds: Double?, peerMustLive: Bool) throws(Failure) -> String
  /// The last event of that name that `side` emitted; nil if it did not.
  func lastEvent(_ side: Side, _ name: String) -> QMPEvent?
  func awaitEvent(_ side: Side, _ name: String, seconds: Double) throws(Failure)
  /// Takes in, without waiting, what `side` has reported already.
  func hearEvents(_ side: Side) throws(Failure)

  /// Swaps one public name with its staged one; makes it public where nothing was.
  func exchange(_ exchange: NameExchange) throws(Failure)
  /// Finds out, before the guest is stopped, what is put in its place in the new QEMU, and makes sure that it can be.
  func prepareRewiring(_ plan: UpgradePlan) throws(Failure) -> [WiredMove]
  /// Gives the old QEMU what its live connections are diverted with.
  /// - Returns: the moves, with that.
  func prepareDiversion(_ moves: [WiredMove]) throws(Failure) -> [WiredMove]
  /// Keeps from the old QEMU what clients send, and from them what it says: what it would read once its state is
  /// saved would be lost with it.
  func divert(_ moves: [WiredMove]) throws(Failure)
  /// Gives the old QEMU its connections back, whose clients get first what it said meanwhile; takes back what it was
  /// given. Nothing if that was done already. The guest stands still.
  func endDiversion(_ moves: [WiredMove]) throws(Failure)
  /// Puts it there. Again, if that was done already, it changes nothing. Clients of diverted connections get first
  /// what the old QEMU said.
  /// - Parameter hasRun: the guest has run in the new QEMU; one in which it has not is ended by the kernel if moult is
  ///   killed in the middle.
  /// - Returns: what could not be put there any more, each in words: live connections whose stand-in has gone.
  func rewire(_ moves: [WiredMove], hasRun: Bool) throws(Failure) -> [String]
  /// Gives the guest's CID to the new QEMU's vsock device, and another one to the old one's. Again, if that was done already, it changes nothing.
  /// - Parameter hasRun: the guest has run in the new QEMU, and may have lost the device since.
  func handOver(_ vsock: Rewiring.Vsock, hasRun: Bool) throws(Failure)
  /// Gives the CID back to the old QEMU's device; nothing if that has it. The new QEMU has ended.
  func giveBack(_ vsock: Rewiring.Vsock) throws(Failure)
  /// Whether any of it is there: then the new QEMU may have read what clients sent.
  func isRewired(_ moves: [WiredMove]) throws(Failure) -> Bool
  /// Ends connections of the old QEMU whose successors are served only then: it could not go on any more.
  func endPredecessors(of moves: [WiredMove]) throws(Failure)
  /// Connections of a QEMU in which the guest runs to back ends that have ended, by whomever, each in words: it goes on without what
  /// they were for. None of one that has ended itself.
  func endedBackEnds(of moves: [WiredMove], in side: Side) throws(Failure) -> [String]
  /// The programs that serve directories to the guest.
  func fileServers(_ side: Side) throws(Failure) -> FileServerUse
  /// Has them look for what it asked for when it was stopped.
  /// - Parameter expected: how many eventfds they share with QEMU while they serve it.
  /// - Returns: whether they share as many by now, or come to within a moment.
  func wakeFileServers(_ side: Side, expected: Int) throws(Failure) -> Bool
  /// Sees to it that the NBD server's socket stays open, whatever becomes of the old QEMU, as long as moult lives; and that
  /// clients can be made to wait there.
  func holdListener(_ exports: ExportServer) throws(Failure)
  /// Whether the old QEMU has its NBD server still: the socket, or the stand-in for it, is where it was. True of one that has ended.
  func hasServer(_ exports: ExportServer) throws(Failure) -> Bool
  /// Keeps clients that come from now on from the old QEMU: they wait. Fails, and changes nothing, if the socket is not where it was.
  func setListenerAside(_ exports: ExportServer) throws(Failure)
  /// Lets the old QEMU have them again; nothing if it has. Without a server it keeps no socket for it.
  /// - Returns: whether it has the server still.
  func putListenerBack(_ exports: ExportServer) throws(Failure) -> Bool
  /// Gives the new QEMU a socket to start its NBD server with, at which nobody comes: ``ExportServer/standInName``.
  func giveListenerStandIn() throws(Failure)
  /// Lets the new QEMU have the clients; nothing if it has.
  func openListener(_ exports: ExportServer) throws(Failure)
  /// Lets the stand-ins go.
  func finishRewiring()
  /// Whether what was staged is what is public now, by inode.
  func isExchanged(_ exchange: NameExchange) throws(Failure) -> Bool
  /// Connects to the public monitor and makes sure that the new QEMU answers there.
  func verifyPublicMonitor(_ path: String) throws(Failure)
  /// Takes the staging mounts out of the new QEMU's namespace, so that it sees the public directories and whatever was
  /// covered, and has it enter its working directory anew if they hid that.
  func settle(_ stages: [Stage], covered: [String], _ workingDirectory: HiddenDirectory?) throws(Failure)

  func isAlive(_ side: Side) -> Bool
  /// Says how willingly the kernel kills the new QEMU when memory runs out (proc_pid_oom_score_adj(5)).
  func setOOMScore(_ adjustment: Int) throws(Failure)
  /// Makes the new QEMU the main process of its systemd unit, and returns once systemd has taken it so.
  func handOver(unit: String) throws(Failure)
  /// Stops every thread of the process (SIGSTOP), its monitors' with them.
  func freeze(_ side: Side) throws(Failure)
  /// Lets it go on; nothing if it was not stopped or has ended.
  func thaw(_ side: Side) throws(Failure)
  /// The disks and block nodes as they are now.
  func storage(_ side: Side) throws(Failure) -> LiveMachine.Storage
  /// Kills the process and returns once it is gone; nothing if it is gone already.
  func end(_ side: Side) throws(Failure)
  /// Whether the guest agent answers, or is spoken to by another program.
  func isThere(_ agent: GuestAgent, in side: Side) throws(Failure) -> Bool
  /// Watches the guest in the new QEMU; fails when it is not healthy.
  func watch(_ record: UpgradeRecord, seconds: Double) throws(Failure)
  /// From now on Ctrl-C is noted but interrupts no wait.
  func ignoreInterrupts()
  /// Bytes that both twins and moult take beyond what the old one took alone.
  func extraMemory() -> UInt64
}

extension Host {
  /// A command that the guest does not wait for.
  func command(_ side: Side, _ name: String, _ arguments: JSONValue?) throws(Failure) -> JSONValue {
    try command(side, name, arguments, seconds: 30)
  }
}

/// The new QEMU once it answers.
public struct LaunchedTwin: Sendable, Equatable, Codable {
  public var process: ProcessIdentity
  public var version: QEMUVersion
  public init(process: ProcessIdentity, version: QEMUVersion) {
    self.process = process
    self.version = version
  }
}

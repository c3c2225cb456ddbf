import ArgumentParser
import Kernel
import Upgrade

/// Which QEMU to change to, and how; shared by `plan` and `upgrade`.
struct TargetOptions: ParsableArguments {
  @Option(name: .customLong("to"), help: ArgumentHelp("The new QEMU's binary; with --root, a path inside that tree. Default: what is installed now where the VM was started from.", valueName: "binary"))
  var binary: String?

  @Option(help: ArgumentHelp("A root tree (another distribution, an unpacked image) that the new QEMU runs in; it sees only that, and the VM's own files.", valueName: "directory"))
  var root: String?

  @Option(help: ArgumentHelp("How guest RAM gets over: shared (mapped by both, no copy), copy, or auto: shared if it works, else copy. cpr and file are refused: this version does not do them yet.", valueName: "strategy"))
  var memory: MemoryStrategy = .auto

  @Option(help: ArgumentHelp("Watch the guest for this many seconds, then commit, or roll back if it is not healthy.", valueName: "seconds"))
  var probation: Double?

  @Flag(help: "Keep the way back open until `moult commit` or `moult rollback`.")
  var hold = false

  func validate() throws {
    if hold, probation != nil { throw ValidationError("--hold and --probation exclude each other") }
    if let probation, !(probation > 0 && probation <= 86_400) {
      throw ValidationError("--probation takes seconds, more than 0 and at most 86400")
    }
  }
}

extension TargetOptions {
  /// The VM, and the plan by which `plan` and `upgrade` both refuse it or not.
  func assess(_ vm: String, in session: Session) throws(Failure) -> (Session.Observed, UpgradePlan) {
    let observed = try session.observe(vm)
    let request = try session.request(
      for: observed.observation, binary: binary, root: root, memory: memory, hold: hold, probation: probation)
    return (observed, try session.assess(observed, request))
  }
}

extension MemoryStrategy: ExpressibleByArgument {}

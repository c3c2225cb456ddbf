import ArgumentParser
import Upgrade

/// Which QEMU to change to, and how; shared by `plan` and `upgrade`.
struct TargetOptions: ParsableArguments {
  @Option(name: .customLong("to"), help: "The new QEMU's binary; with --root, a path inside that tree. Default: what is installed now where the VM was started from.")
  var binary: String?

  @Option(help: "A root tree (another distribution, an unpacked image) that the new QEMU runs in; it sees only that, and the VM's own files.")
  var root: String?

  @Option(help: "How guest RAM gets over: shared (mapped by both, no copy), copy, or auto, the first that works.")
  var memory: MemoryStrategy = .auto

  @Option(help: "Watch the guest for this many seconds, then commit, or roll back if it is not healthy.")
  var probation: Double?

  @Flag(help: "Stay in probation until `moult commit` or `moult rollback`.")
  var hold = false

  func validate() throws {
    if hold, probation != nil { throw ValidationError("--hold and --probation exclude each other") }
    if let probation, !(probation > 0 && probation <= 86_400) {
      throw ValidationError("--probation takes seconds, more than 0 and at most 86400")
    }
  }
}

extension MemoryStrategy: ExpressibleByArgument {}

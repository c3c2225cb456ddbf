import Kernel
import QEMU

/// Whether the new QEMU is the old one's twin: in what it is made of, and in what the guest sees of it.
enum TwinComparison {
  static let wayOut =
    "the live VM has changed since its command line was written, or the versions differ: undo the change, or choose another QEMU, or restart the VM in the new one"

  /// In words; empty if they agree.
  static func differences(
    between new: LiveMachine, and old: LiveMachine, on host: any Host
  ) throws(Failure) -> [String] {
    let (here, there) = (try host.guestView(.new), try host.guestView(.old))
    var features: (here: Set<String>, there: Set<String>)?
    if !here.hasSameCPU(as: there) { features = (try host.features(.new), try host.features(.old)) }
    return new.differences(from: old) + here.differences(from: there, features: features)
  }
}

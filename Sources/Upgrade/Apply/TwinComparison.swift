import Kernel
import QEMU

/// Whether the new QEMU is the old one's twin: in what it is made of, and in what the guest sees of it.
struct TwinComparison {
  /// In words; empty if they agree.
  var differences: [String]
  /// CPU features that the guest would gain, if that is all the difference: switched off, they are alike.
  var gainedFeatures: [String] = []

  static let wayOut =
    "the live VM has changed since its command line was written, or the versions differ: undo the change, or choose another QEMU, or restart the VM in the new one"

  /// The differences as reasons against an upgrade.
  static func blockers(_ differences: [String]) -> [Blocker] {
    differences.map { Blocker(option: "trial", reason: "the new QEMU's machine is not the VM's: \($0)", wayOut: wayOut) }
  }

  /// A new QEMU that could not be compared.
  init(failure: Failure) { differences = ["\(failure)"] }

  init(of new: LiveMachine, and old: LiveMachine, on host: any Host) throws(Failure) {
    let (here, there) = (try host.guestView(.new), try host.guestView(.old))
    var features: (here: Set<String>, there: Set<String>)?
    if !here.hasSameCPU(as: there) { features = (try host.features(.new), try host.features(.old)) }
    differences = new.differences(from: old) + here.differences(from: there, features: features)
    if differences.count == 1, let features, features.there.isSubset(of: features.here) {
      gainedFeatures = features.here.subtracting(features.there).sorted()
    }
  }
}

extension UpgradePlan {
  /// The same plan with CPU features switched off in the new QEMU; nil if its arguments have no `-cpu` to say so, or
  /// it has been tried already.
  func masking(_ features: [String]) -> UpgradePlan? {
    guard !features.isEmpty, request.maskedFeatures.isEmpty,
      observation.commandLine.options.contains(where: { $0.name == "cpu" && $0.value != nil })
    else { return nil }
    var plan = self
    plan.request.maskedFeatures = features
    return plan
  }
}

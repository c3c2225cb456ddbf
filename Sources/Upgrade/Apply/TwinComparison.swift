import Kernel
import QEMU

/// Whether the new QEMU is the old one's twin: in what it is made of, and in what the guest sees of it.
struct TwinComparison {
  /// The new QEMU, as it was compared.
  var new: LiveMachine?
  /// What was set in it to be like the old one.
  var adjusted: [Adjustment] = []
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

  /// Compares the new QEMU with what `old` was observed to be. What was set in the running one since its start is
  /// set in the new one first.
  init(with old: LiveMachine, on host: any Host) throws(Failure) {
    var new = try host.live(.new, like: old)
    let settable = try Self.settable(new.adjustments(toward: old), on: host)
    var refusals: [String: String] = [:]
    for adjustment in settable.inOrder {
      refusals[adjustment.path + adjustment.property] = try Self.failure(of: adjustment, to: adjustment.value, on: host)
    }
    if !settable.isEmpty { new = try host.live(.new, like: old) }
    self.new = new
    let left = new.adjustments(toward: old)
    adjusted = settable.filter { setting in !left.contains { $0.path == setting.path && $0.property == setting.property } }
    let (here, there) = (try host.guestView(.new), try host.guestView(.old))
    var features: (here: Set<String>, there: Set<String>)?
    if !here.hasSameCPU(as: there) { features = (try host.features(.new), try host.features(.old)) }
    differences = new.differences(from: old) + here.differences(from: there, features: features)
    for adjustment in left where !adjustment.isObject && settable.contains(where: { $0.path == adjustment.path && $0.property == adjustment.property }) {
      differences.append(adjustment.difference + (refusals[adjustment.path + adjustment.property].map { " (\($0))" } ?? ""))
    }
    if differences.count == 1, let features, features.there.isSubset(of: features.here) {
      gainedFeatures = features.here.subtracting(features.there).sorted()
    }
  }

  /// Those of `adjustments` that can be set at all: to what they are now, to begin with. The others nobody can have
  /// set: they are the guest's or QEMU's own state.
  private static func settable(_ adjustments: [Adjustment], on host: any Host) throws(Failure) -> [Adjustment] {
    var settable: [Adjustment] = []
    for adjustment in adjustments {
      // A place in the boot order is refused to the device that has it, too.
      if adjustment.property != "bootindex", try failure(of: adjustment, to: adjustment.own, on: host) != nil { continue }
      settable.append(adjustment)
    }
    return settable
  }

  /// Why the new QEMU does not take a value; nil if it does.
  private static func failure(of adjustment: Adjustment, to value: JSONValue, on host: any Host) throws(Failure) -> String? {
    do {
      _ = try host.command(.new, "qom-set", adjustment.command(setting: value))
      return nil
    } catch where error.errno == nil && host.isAlive(.new) {
      return error.reason
    }
  }
}

extension [Adjustment] {
  /// Places in the boot order are unique: those that change are given up first.
  fileprivate var inOrder: [Adjustment] {
    filter { $0.property == "bootindex" && $0.own != -1 }.map { adjustment in
      var freed = adjustment
      freed.value = -1
      return freed
    } + self
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

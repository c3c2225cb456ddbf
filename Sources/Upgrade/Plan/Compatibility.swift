public import QEMU

/// What the state formats of the two binaries mean for an upgrade.
extension UpgradePlan {
  /// Puts what was found into the plan: what cannot be loaded is a reason against; what could not be loaded on the
  /// way back is a warning, and a reason against where the way back is promised.
  public mutating func judge(_ formats: StateFormats) {
    let (here, there) = ("QEMU \(observation.version)", target.map { "QEMU \($0.version)" } ?? "the new QEMU")
    if let unknown = formats.unknown {
      warnings.append("whether the two versions' formats of device state fit could not be found out: \(unknown)")
    }
    var formats = formats
    if let target {
      formats.forward += observation.live.networkLosses(from: observation.version, to: target.version)
      formats.backward += observation.live.networkLosses(from: target.version, to: observation.version)
    }
    for loss in formats.forward where loss.isCertain {
      blockers.append(
        Blocker(
          option: "device \(loss.device)", reason: "\(there) does not load the state that \(here) saves of it: \(loss.what)",
          wayOut: "choose another QEMU, unplug the device, or restart the VM in the new one"))
    }
    for loss in formats.backward where loss.isCertain {
      let reason = "the way back is not sound: \(here) does not load the state that \(there) saves of \(loss.device): \(loss.what)"
      if request.hold || request.probation != nil {
        blockers.append(
          Blocker(
            option: request.hold ? "--hold" : "--probation", reason: reason,
            wayOut: "upgrade without \(request.hold ? "--hold" : "--probation"), for good, or unplug the device first"))
      } else {
        warnings.append(reason)
      }
    }
    note(formats.forward, "the upgrade", "the new QEMU", "the upgrade then ends in the pause, and the old QEMU goes on")
    note(formats.backward, "the way back", here, "the guest then stays in the new QEMU")
  }

  /// All that only may be lost, in one sentence.
  private mutating func note(_ losses: [VMStateDump.Loss], _ what: String, _ reader: String, _ then: String) {
    let possible = losses.filter { !$0.isCertain }
    if possible.isEmpty { return }
    let list = possible.prefix(6).map { "\($0.device): \($0.what)" }.joined(separator: "; ")
    let more = possible.count > 6 ? "; and \(possible.count - 6) more" : ""
    warnings.append("\(what) fails if the guest uses what \(reader) does not know (\(list)\(more)); \(then)")
  }

  /// What became of the trial.
  public mutating func judge(_ trial: Trial) {
    guard case .done(let differences, let masked, let adjusted, _) = trial else { return }
    observation.drift += adjusted.map(\.drift)
    if !masked.isEmpty {
      warnings.append(
        "the new QEMU's CPU has features that the guest has not seen so far: \(masked.joined(separator: ", ")). They are switched off for it")
    }
    blockers += TwinComparison.blockers(differences)
  }
}

/// The new QEMU started from the VM's arguments, compared with it and ended: what `upgrade` does before it pauses
/// anything, without a trace.
public enum Trial: Sendable, Equatable {
  /// - Parameters:
  ///   - maskedFeatures: CPU features that have to be switched off for the two to be alike.
  ///   - adjusted: properties that were set in the running VM, and then in the new QEMU.
  ///   - milliseconds: what it took.
  case done(differences: [String], maskedFeatures: [String], adjusted: [Adjustment], milliseconds: Double)
  case skipped(why: String)
}

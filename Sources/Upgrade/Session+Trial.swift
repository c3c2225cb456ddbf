public import Kernel
import QEMU

/// What `plan` tries out beyond asking the new binary. Nothing of it leaves a trace.
extension Session {
  /// Starts the new QEMU as the upgrade would, compares it with the running one and ends it. Its public names lie
  /// in memory that only it sees, its RAM is its own and untouched, its images are open but inactive, and its
  /// messages do not reach the VM's log.
  /// - Returns: differences; a QEMU that could not be started is one, too.
  public func trial(_ observed: Observed, _ plan: UpgradePlan) throws(Failure) -> Trial {
    if !plan.blockers.isEmpty { return .skipped(why: "the upgrade is refused already") }
    let (need, room) = (plan.memory.extraBytes, observed.observation.room)
    if need > min(room.host, room.cgroup ?? room.host) { return .skipped(why: "there is no room for a second QEMU") }
    var plan = plan
    plan.isTrial = true
    let start = Instant.now()
    var comparison = try compare(observed, plan)
    if let masked = plan.masking(comparison.gainedFeatures) {
      plan = masked
      comparison = try compare(observed, plan)
    }
    return .done(
      differences: comparison.differences, maskedFeatures: plan.request.maskedFeatures, adjusted: comparison.adjusted, milliseconds: Instant.now() - start)
  }

  private func compare(_ observed: Observed, _ plan: UpgradePlan) throws(Failure) -> TwinComparison {
    let host = try host(observed, takingBack: nil)
    let comparison: TwinComparison
    do throws(Failure) {
      try host.spawn(plan) { _ in }
      _ = try host.greet(plan)
      comparison = try TwinComparison(with: observed.observation.live, on: host)
    } catch {
      try host.end(.new)
      if error.errno == .interrupted || !host.isAlive(.old) { throw error }
      return TwinComparison(failure: error)
    }
    try host.end(.new)
    return comparison
  }
}

public import Kernel

extension Session {
  /// Upgrades whose moult is gone without having ended them.
  public func interrupted(_ selector: String?) throws(Failure) -> [UpgradeRecord] {
    try state.sweep()
    var found: [UpgradeRecord] = []
    for record in try state.records() where !record.isHeld {
      if try state.holder(of: record.key) != nil { continue }
      if let selector, ![record.vm, record.key, record.id, String(record.old.pid), record.spawned.map { String($0.pid) } ?? "", record.monitor].contains(selector) {
        continue
      }
      found.append(record)
    }
    return found
  }

  /// Brings an interrupted upgrade to an end: undone if the guest never ran in the new QEMU, else finished.
  public func recover(_ record: UpgradeRecord) throws(Failure) -> UpgradeReport {
    let lock = try state.lock(record.key)
    let contents = try state.contents(record.key)
    guard let record = contents.record, !record.isHeld else {
      throw Failure(step: "recover", subject: record.vm, reason: "it has been recovered meanwhile")
    }
    if record.kept == nil {
      // Copies that were under way: no record names them.
      try Files.removeTree(KeptRuntime.directory(state, id: record.id))
    }
    let host = try recoveryHost(record, superseded: contents.superseded, lock: lock)
    return Executor(recovering: record, resumeBegan: contents.mayHaveBegun(.resume), host: host).recover()
  }
}

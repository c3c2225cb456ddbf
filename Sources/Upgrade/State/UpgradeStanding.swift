public import Kernel

/// How an upgrade stands that has a record.
public enum UpgradeStanding: String, Sendable {
  /// A moult works on it, or a guardian brings it to an end.
  case underWay = "under-way"
  case held
  /// Its moult and its guardian are gone.
  case interrupted
  /// It was held, and the VM has ended since: there is nothing to go back to.
  case ended
}

extension StateDirectory {
  public func standing(of record: UpgradeRecord) throws(Failure) -> UpgradeStanding {
    if try holder(of: record.key) != nil { return .underWay }
    guard record.isHeld else { return .interrupted }
    guard let new = record.new, try ProcessHandle(new.process) != nil else { return .ended }
    return .held
  }
}

extension UpgradeRecord {
  /// The QEMU that the guest was in when the record was last written.
  public var guestProcess: ProcessIdentity { hasResumed ? new?.process ?? spawned ?? old : old }

  /// What there is to do about it; nil if nothing but to wait, or to decide.
  public func advice(_ standing: UpgradeStanding) -> String? {
    switch standing {
    case .underWay, .held: nil
    case .interrupted: "\(vm): upgrade \(id) was interrupted, and the guest may stand still: moult recover \(vm) brings it to an end"
    case .ended:
      "\(vm): QEMU (pid \(guestProcess.pid)) has ended while upgrade \(id) was held, and the guest with it: start the VM anew, unless that is done; moult commit \(id) clears what the upgrade left"
    }
  }
}

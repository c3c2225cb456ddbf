/// One thing in which a running VM is not what its arguments say.
public struct Drift: Sendable, Hashable {
  /// What has changed: `drive virtio0`, `device net1`, `block node overlay`.
  public var subject: String
  /// What differs, as a sentence without its end.
  public var what: String
  /// How the new QEMU is given it: options, verbatim. Nil if it cannot be rebuilt.
  public var rebuiltAs: String?
  /// What the VM's owner can do if it cannot be rebuilt; nil if it is rebuilt.
  public var wayOut: String?

  static func rebuilt(_ subject: String, _ what: String, as options: String) -> Drift {
    Drift(subject: subject, what: what, rebuiltAs: options, wayOut: nil)
  }

  static func refused(_ subject: String, _ what: String, wayOut: String = Drift.restart) -> Drift {
    Drift(subject: subject, what: what, rebuiltAs: nil, wayOut: wayOut)
  }

  static let restart = "restart the VM with a command line that says so, or undo the change"
}

public import SystemPackage

/// Why something could not be done. The one error type of this project.
///
/// Every failure names the step that was under way, what it was done to, the kernel's reason where
/// there is one, and what the user can do about it.
public struct Failure: Error, Sendable, Equatable {
  /// What was being done, as a verb phrase: `"open"`, `"exchange names"`, `"QMP migrate"`.
  public var step: String
  /// What it was done to: a path, a pid, a command, an option.
  public var subject: String
  /// The kernel's reason, if a system call failed.
  public var errno: Errno?
  /// The reason in words, if it did not come from the kernel, or errno says it badly: then this is what is shown.
  public var reason: String?
  /// What the user can do.
  public var hint: String?

  public init(
    step: String, subject: String, errno: Errno? = nil, reason: String? = nil, hint: String? = nil
  ) {
    self.step = step
    self.subject = subject
    self.errno = errno
    self.reason = reason
    self.hint = hint
  }
}

extension Failure: CustomStringConvertible {
  /// One line without the hint: `exchange names /run/vm1: Permission denied`.
  public var description: String {
    var text = subject.isEmpty ? step : "\(step) \(subject)"
    if let why = reason ?? errno.map({ "\($0)" }) { text += ": \(why)" }
    return text
  }
}

extension Failure {
  /// What was looked at is not there any more: a process that ended, a descriptor that was closed, a file.
  public var meansGone: Bool { errno == .noSuchFileOrDirectory || errno == .noSuchProcess || errno == .notDirectory }
  /// The same, with what the user can do about it.
  public func hinting(_ hint: String) -> Failure {
    var failure = self
    failure.hint = hint
    return failure
  }
  /// The kernel does not let this process look.
  public var meansForbidden: Bool { errno == .permissionDenied || errno == .notPermitted }
}

/// What `body` finds; nil if it is gone meanwhile. Every other failure is one.
public func unlessGone<Value>(_ body: () throws(Failure) -> Value) throws(Failure) -> Value? {
  do throws(Failure) { return try body() } catch {
    if error.meansGone { return nil }
    throw error
  }
}

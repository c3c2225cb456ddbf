import Glibc
import SystemPackage

/// The seam that every system call of this project goes through.
public enum SystemCall {
  /// Lets a test make a call fail without making it: it is asked with the step and the subject of every
  /// call in its scope, and the call fails with the errno it answers.
  @TaskLocal package static var fault: (@Sendable (_ step: String, _ subject: String) -> Errno?)?
}

/// Makes a system call that answers -1 on failure, again whenever a signal interrupted it.
///
/// - Parameters:
///   - step: what is being done, as a verb phrase.
///   - subject: what it is done to; evaluated only when it is needed.
///   - retryOnInterrupt: false for calls that must not be repeated after EINTR.
/// - Throws: ``Failure`` with the step, the subject and the kernel's errno.
@discardableResult
public func valueOrErrno<Value: FixedWidthInteger & SignedInteger>(
  _ step: String, _ subject: @autoclosure () -> String, hint: @autoclosure () -> String? = nil,
  retryOnInterrupt: Bool = true, _ call: () -> Value
) throws(Failure) -> Value {
  if let fault = SystemCall.fault, let errno = fault(step, subject()) {
    throw Failure(step: step, subject: subject(), errno: errno, hint: hint())
  }
  while true {
    let value = call()
    if value != -1 { return value }
    let code = Errno(rawValue: errno)
    if code == .interrupted && retryOnInterrupt { continue }
    throw Failure(step: step, subject: subject(), errno: code, hint: hint())
  }
}

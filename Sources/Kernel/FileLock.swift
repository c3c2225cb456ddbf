import CKernel
import Glibc

/// An exclusive lock on a file that belongs to the open file description: held until the last copy of the
/// descriptor is closed, in whatever process, and dropped by the kernel however those end.
///
/// It is two locks, flock(2) and F_OFD_SETLK of fcntl(2): only the second can be asked for without being taken.
public enum FileLock {
  /// - Returns: false if somebody else holds it.
  public static func take(_ descriptor: CInt) throws(Failure) -> Bool {
    for call in [{ flock(descriptor, LOCK_EX | LOCK_NB) }, { moult_lock(descriptor) }] {
      do throws(Failure) { try valueOrErrno("lock", "descriptor \(descriptor)", call) } catch {
        if error.errno == .wouldBlock || error.errno == .permissionDenied { return false }
        throw error
      }
    }
    return true
  }

  /// Whether somebody else holds it.
  public static func isHeld(_ descriptor: CInt) throws(Failure) -> Bool {
    try valueOrErrno("ask for the lock on", "descriptor \(descriptor)") { moult_is_locked(descriptor) } != 0
  }
}

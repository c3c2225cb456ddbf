import CKernel
import Glibc

/// Atomic changes of names (renameat2(2)).
public enum Exchange {
  /// Lets two names that both exist stand for each other's files, in one step. Both are on one filesystem.
  public static func names(_ first: String, _ second: String) throws(Failure) {
    try rename(AT_FDCWD, first, AT_FDCWD, second, MOULT_RENAME_EXCHANGE, "exchange names")
  }

  /// The same, with each name relative to an open directory.
  public static func names(
    _ first: String, in firstDirectory: CInt, with second: String, in secondDirectory: CInt
  ) throws(Failure) {
    try rename(firstDirectory, first, secondDirectory, second, MOULT_RENAME_EXCHANGE, "exchange names")
  }

  /// Renames, failing with EEXIST if the new name is taken.
  public static func move(_ from: String, to: String) throws(Failure) {
    try rename(AT_FDCWD, from, AT_FDCWD, to, MOULT_RENAME_NOREPLACE, "rename")
  }

  /// The same, with each name relative to an open directory.
  public static func move(
    _ from: String, in fromDirectory: CInt, to: String, in toDirectory: CInt
  ) throws(Failure) {
    try rename(fromDirectory, from, toDirectory, to, MOULT_RENAME_NOREPLACE, "rename")
  }

  private static func rename(
    _ fromDirectory: CInt, _ from: String, _ toDirectory: CInt, _ to: String, _ flags: CUnsignedInt, _ step: String
  ) throws(Failure) {
    try valueOrErrno(step, "\(from) and \(to)") { moult_renameat2(fromDirectory, from, toDirectory, to, flags) }
  }
}

import CKernel
import Glibc
import SystemPackage

/// Files by name in an opened directory: whoever may rename directories on the way cannot lead these astray.
extension Files {
  /// Opens a directory itself, through no symbolic link anywhere in its path (openat2(2), RESOLVE_NO_SYMLINKS).
  public static func openDirectory(_ path: String) throws(Failure) -> OwnedFD {
    let root = try OwnedFD.naming("/")
    let directory = try MountPoint.open(path, in: root.raw, .noSymlinks, step: "open directory")
    guard try status(of: directory.raw).isDirectory else {
      throw Failure(step: "open directory", subject: path, errno: .notDirectory)
    }
    return directory
  }

  /// Opens a directory by its name in another; a symbolic link is an error.
  public static func openDirectory(_ name: String, in directory: CInt) throws(Failure) -> OwnedFD {
    OwnedFD(
      try valueOrErrno("open directory", name) {
        openat(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
      })
  }

  /// Names a file in a directory without opening it (O_PATH); a symbolic link is named itself.
  public static func naming(_ name: String, in directory: CInt) throws(Failure) -> OwnedFD {
    OwnedFD(try valueOrErrno("open", name) { openat(directory, name, moult_o_path | O_NOFOLLOW | O_CLOEXEC) })
  }

  /// mkdirat(2).
  public static func makeDirectory(_ name: String, in directory: CInt, mode: mode_t, hint: String? = nil) throws(Failure) {
    try valueOrErrno("make directory", name, hint: hint) { mkdirat(directory, name, mode) }
  }

  /// Makes an empty file; one that is there already, or a link, is an error.
  public static func makeEmptyFile(_ name: String, in directory: CInt, mode: mode_t) throws(Failure) {
    _ = OwnedFD(
      try valueOrErrno("make file", name) { openat(directory, name, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, mode) })
  }

  /// fstatat(2) of the name itself; nil when nothing is there.
  public static func statusIfPresent(_ name: String, in directory: CInt) throws(Failure) -> FileStatus? {
    do throws(Failure) {
      let file = try naming(name, in: directory)
      return try status(of: file.raw)
    } catch where error.errno == .noSuchFileOrDirectory { return nil }
  }

  /// When a file was last written, nanoseconds since 1970; nil when nothing is there. A symbolic link is asked itself.
  public static func modificationTime(_ name: String, in directory: CInt) throws(Failure) -> Int64? {
    var status = stat()
    do throws(Failure) {
      try valueOrErrno("stat", name) { fstatat(directory, name, &status, AT_SYMLINK_NOFOLLOW) }
    } catch where error.errno == .noSuchFileOrDirectory { return nil }
    return Int64(status.st_mtim.tv_sec) * 1_000_000_000 + Int64(status.st_mtim.tv_nsec)
  }

  /// unlinkat(2), of an empty directory with `isDirectory`; nothing if it is not there.
  public static func remove(_ name: String, in directory: CInt, isDirectory: Bool = false) throws(Failure) {
    do throws(Failure) {
      try valueOrErrno("remove", name) { unlinkat(directory, name, isDirectory ? AT_REMOVEDIR : 0) }
    } catch where error.errno == .noSuchFileOrDirectory {}
  }
}

extension Paths {
  /// realpath(3): symbolic links resolved; the path must exist.
  public static func real(_ path: String) throws(Failure) -> String {
    guard let resolved = realpath(path, nil) else {
      throw Failure(step: "resolve", subject: path, errno: Errno(rawValue: errno))
    }
    defer { free(resolved) }
    return String(cString: resolved)
  }
}

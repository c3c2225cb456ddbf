import CKernel
import Glibc

extension OwnedFD {
  /// A nameless file in memory (memfd_create(2)), close-on-exec.
  public static func memory(named name: String) throws(Failure) -> OwnedFD {
    OwnedFD(try valueOrErrno("make memory file", name) { moult_memfd_create(name, UInt32(1) /* MFD_CLOEXEC */) })
  }

  /// Names what `path` leads to for a process whose root directory is `root` (O_PATH, openat2(2) RESOLVE_IN_ROOT).
  public static func resolving(_ path: String, inRoot root: String) throws(Failure) -> OwnedFD {
    let directory = try OwnedFD.naming(root)
    return try MountPoint.open(path, in: directory.raw, .inRoot)
  }
}

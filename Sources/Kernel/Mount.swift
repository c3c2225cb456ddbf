import CKernel
import CLibmount
import Glibc
import SystemPackage

/// Mounts, by libmount with its helpers, its tables and its path resolution switched off: a target is exactly what
/// was given, best `/proc/self/fd/N` of an opened mount point.
public enum Mount {
  public enum Propagation: Sendable { case slave, `private` }

  /// Shows `source` (a file or directory) at `target` too; `recursive` with the mounts below it.
  public static func bind(_ source: String, at target: String, recursive: Bool = false) throws(Failure) {
    try mount(
      "bind mount", source: source, target: target, flags: UInt(MS_BIND) | (recursive ? UInt(MS_REC) : 0))
  }

  /// Mounts a new filesystem: `tmpfs`, `proc`, `sysfs`, `devpts`, `overlay`.
  ///
  /// - Parameter options: the filesystem's own options, joined by commas.
  public static func filesystem(
    _ type: String, at target: String, source: String? = nil, options: String = "", flags: UInt = 0
  ) throws(Failure) {
    try mount("mount \(type)", source: source ?? type, target: target, type: type, options: options, flags: flags)
  }

  /// Makes the mount at `descriptor` read-only, and with `recursive` those below it. Other attributes (nosuid,
  /// nodev, …) stay.
  public static func makeReadOnly(_ descriptor: CInt, subject: String, recursive: Bool) throws(Failure) {
    do throws(Failure) {
      try valueOrErrno("make read-only", subject) { moult_mount_read_only(descriptor, recursive ? 1 : 0) }
    } catch where error.errno == .noFunction && !recursive {
      // Before Linux 5.12: remount, which sets all attributes, so those there are have to be given again.
      var status = statvfs()
      try valueOrErrno("make read-only", subject) { fstatvfs(descriptor, &status) }
      let kept = UInt(status.f_flag) & UInt(MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME | MS_NODIRATIME)
      try mount(
        "make read-only", source: "none", target: "/proc/self/fd/\(descriptor)",
        flags: UInt(MS_BIND | MS_REMOUNT | MS_RDONLY) | kept)
    }
  }

  /// Sets how mounts propagate between namespaces.
  public static func setPropagation(
    of target: String, _ propagation: Propagation, recursive: Bool
  ) throws(Failure) {
    try mount(
      "set propagation of", source: "none", target: target,
      flags: (propagation == .slave ? UInt(MS_SLAVE) : UInt(MS_PRIVATE)) | (recursive ? UInt(MS_REC) : 0))
  }

  /// Takes the topmost mount at `target` away, at once for new users and when the last one closes for the others
  /// (MNT_DETACH, UMOUNT_NOFOLLOW).
  public static func detach(_ target: String) throws(Failure) {
    try valueOrErrno("detach mount", target) { moult_detach(target) }
  }

  /// Lets the process's mount namespace have `root`, the root of a mount, as its root, and detaches the old one.
  public static func pivot(to root: CInt, subject: String) throws(Failure) {
    try valueOrErrno("enter", subject) { fchdir(root) }
    // pivot_root(2): with both the same, the old root is stacked on the new one, and can be detached from there.
    try valueOrErrno(
      "pivot root to", subject,
      hint: "On a host whose root is an initramfs the root cannot be exchanged."
    ) { moult_pivot_root(".", ".") }
    try valueOrErrno("detach old root of", subject) { moult_detach(".") }
    try valueOrErrno("enter", "/") { chdir("/") }
  }

  private static func mount(
    _ step: String, source: String, target: String, type: String? = nil, options: String = "", flags: UInt
  ) throws(Failure) {
    if let fault = SystemCall.fault, let errno = fault(step, target) {
      throw Failure(step: step, subject: target, errno: errno)
    }
    guard let context = mnt_new_context() else {
      throw Failure(step: step, subject: target, errno: .noMemory)
    }
    defer { mnt_free_context(context) }
    mnt_context_disable_helpers(context, 1)
    mnt_context_disable_mtab(context, 1)
    mnt_context_disable_canonicalize(context, 1)
    // Not from fstab, whatever it says of this target.
    mnt_context_set_optsmode(context, CInt(MNT_OMODE_NOTAB))
    mnt_context_set_source(context, source)
    mnt_context_set_target(context, target)
    if let type { mnt_context_set_fstype(context, type) }
    if !options.isEmpty { mnt_context_set_options(context, options) }
    mnt_context_set_mflags(context, flags)
    let result = mnt_context_mount(context)
    guard result == 0 else {
      let code = mnt_context_syscall_called(context) == 1 ? mnt_context_get_syscall_errno(context) : -result
      throw Failure(
        step: step, subject: source == "none" || type != nil ? target : "\(source) at \(target)",
        errno: Errno(rawValue: code > 0 ? code : EINVAL))
    }
  }
}

import CKernel
import Glibc
import SystemPackage

/// How symbolic links on the way to a mount point are treated.
public enum PathResolution: String, Sendable, Equatable, Codable {
  /// Any symbolic link is an error (ELOOP): for paths that were resolved before.
  case noSymlinks
  /// They are followed, and cannot lead out of the root.
  case inRoot
}

/// Files and directories found and made below an opened root directory, so that a planted symbolic link cannot
/// lead anywhere else (openat2(2); CVE-2026-87766).
public enum MountPoint {
  /// Names what is at `path` below `root` (O_PATH); of several mounts on it, the topmost.
  public static func open(
    _ path: String, in root: CInt, _ resolution: PathResolution, step: String = "open"
  ) throws(Failure) -> OwnedFD {
    try open(path, in: root, resolution, flags: moult_o_path, step: step)
  }

  private static func open(
    _ path: String, in root: CInt, _ resolution: PathResolution, flags: CInt, step: String
  ) throws(Failure) -> OwnedFD {
    let resolve =
      MOULT_RESOLVE_IN_ROOT
      | (resolution == .noSymlinks ? MOULT_RESOLVE_NO_SYMLINKS : MOULT_RESOLVE_NO_MAGICLINKS)
    var attempts = 0
    while true {
      do throws(Failure) {
        return OwnedFD(
          try valueOrErrno(step, path) {
            moult_openat2(root, path, UInt64(flags | O_CLOEXEC), 0, resolve)
          })
      } catch where error.errno == .resourceTemporarilyUnavailable && attempts < 100 {
        attempts += 1  // Something was renamed meanwhile, and the kernel could not vouch for `..`.
      }
    }
  }

  /// The directory at `path`; made with `mode`, and its parents with 0755, where missing.
  public static func directory(
    _ path: String, in root: CInt, _ resolution: PathResolution, mode: UInt32 = 0o755
  ) throws(Failure) -> OwnedFD {
    try make(path, in: root, resolution, step: "make directory", depth: 0) { parent, name in
      mkdirat(parent, name, mode)
    }
  }

  /// The file at `path`; made empty where missing, its parents as directories.
  public static func file(
    _ path: String, in root: CInt, _ resolution: PathResolution
  ) throws(Failure) -> OwnedFD {
    try make(path, in: root, resolution, step: "make file", depth: 0) { parent, name in
      mknodat(parent, name, S_IFREG | 0o644, 0)
    }
  }

  /// Makes a symbolic link; an existing name stays as it is.
  public static func symbolicLink(
    _ path: String, to target: String, in root: CInt, _ resolution: PathResolution
  ) throws(Failure) {
    let parent = try directory(Paths.parent(path), in: root, resolution)
    do throws(Failure) {
      try valueOrErrno("make symbolic link", path) { symlinkat(target, parent.raw, Paths.base(path)) }
    } catch where error.errno == .fileExists {}
  }

  private static func make(
    _ path: String, in root: CInt, _ resolution: PathResolution, step: String, depth: Int,
    _ create: (_ parent: CInt, _ name: String) -> CInt
  ) throws(Failure) -> OwnedFD {
    do throws(Failure) {
      return try open(path, in: root, resolution, step: step)
    } catch where error.errno == .noSuchFileOrDirectory {
      let name = Paths.base(path)
      guard !name.isEmpty, path != "/" else { throw error }
      let parent = try directory(Paths.parent(path), in: root, resolution)
      // Nothing to make: they are there as soon as what they follow is.
      if name == "." || name == ".." { return try open(path, in: root, resolution, step: step) }
      do throws(Failure) {
        try valueOrErrno(step, path) { create(parent.raw, name) }
      } catch where error.errno == .fileExists && depth < 40 {
        // It was there, and only the way to it was missing (`way/../name`).
        do throws(Failure) { return try open(path, in: root, resolution, step: step) } catch where error.errno == .noSuchFileOrDirectory {}
        // A dangling symbolic link: what it points to is made, below the same root.
        let link = try readLink(name, in: parent.raw, path)
        let target = link.hasPrefix("/") ? link : Paths.join(Paths.parent(path), link)
        return try make(target, in: root, resolution, step: step, depth: depth + 1, create)
      }
      // What was just made, or what took its place: the caller sees the same rules again.
      return try open(path, in: root, resolution, step: step)
    }
  }

  private static func readLink(_ name: String, in directory: CInt, _ path: String) throws(Failure) -> String {
    var buffer = [CChar](repeating: 0, count: Int(PATH_MAX))
    let size = try valueOrErrno("read link", path) { readlinkat(directory, name, &buffer, buffer.count) }
    return String(decoding: buffer[..<size].map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }
}

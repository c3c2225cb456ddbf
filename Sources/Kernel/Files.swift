import CKernel
import Glibc
import SystemPackage

extension OwnedFD {
  /// open(2), always close-on-exec.
  public static func open(
    _ path: String, _ flags: CInt, mode: mode_t = 0, step: String = "open"
  ) throws(Failure) -> OwnedFD {
    OwnedFD(try valueOrErrno(step, path) { Glibc.open(path, flags | O_CLOEXEC, mode) })
  }

  /// A descriptor that names a file without opening it (O_PATH); symbolic links in the last component are
  /// followed unless `noFollow`.
  public static func naming(_ path: String, noFollow: Bool = false) throws(Failure) -> OwnedFD {
    try open(path, moult_o_path | (noFollow ? O_NOFOLLOW : 0))
  }

  /// The path by which this process can name what the descriptor refers to, whatever happens to its name.
  public var procPath: String { "/proc/self/fd/\(raw)" }

  /// A second descriptor for the same open file description, close-on-exec.
  public borrowing func duplicate() throws(Failure) -> OwnedFD {
    let raw = self.raw
    return OwnedFD(try valueOrErrno("duplicate descriptor", "\(raw)") { fcntl(raw, F_DUPFD_CLOEXEC, 0) })
  }
}

/// Small files read and written whole: those of procfs, sysfs and cgroupfs above all.
public enum Files {
  /// The whole content of a file, or its beginning up to at least `limit` bytes.
  public static func read(_ path: String, limit: Int = .max) throws(Failure) -> [UInt8] {
    let file = try OwnedFD.open(path, O_RDONLY, step: "read")
    var content: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 16384)
    while content.count < limit {
      let size = try valueOrErrno("read", path) { Glibc.read(file.raw, &chunk, chunk.count) }
      if size == 0 { break }
      content.append(contentsOf: chunk[..<size])
    }
    return content
  }

  /// The whole content as text; bytes that are not UTF-8 are repaired.
  public static func readText(_ path: String) throws(Failure) -> String {
    String(decoding: try read(path), as: UTF8.self)
  }

  /// Writes `text` to a file that exists, in one write(2): what the kernel's own files ask for.
  public static func write(_ text: String, to path: String) throws(Failure) {
    let file = try OwnedFD.open(path, O_WRONLY, step: "write")
    let bytes = Array(text.utf8)
    try valueOrErrno("write", path) { Glibc.write(file.raw, bytes, bytes.count) }
  }

  /// Bytes that a file takes of its file system (stat(2), `st_blocks`); nil when nothing is there.
  public static func allocatedBytesIfPresent(_ path: String) throws(Failure) -> Int64? {
    var status = stat()
    do throws(Failure) {
      try valueOrErrno("stat", path) { stat(path, &status) }
    } catch where error.errno == .noSuchFileOrDirectory || error.errno == .notDirectory { return nil }
    return Int64(status.st_blocks) * 512
  }

  /// What a symbolic link says (readlink(2)).
  public static func link(_ path: String) throws(Failure) -> String {
    var buffer = [UInt8](repeating: 0, count: Int(PATH_MAX))
    let size = try valueOrErrno("read link", path) {
      buffer.withUnsafeMutableBytes { bytes in
        readlink(path, bytes.baseAddress!.assumingMemoryBound(to: CChar.self), bytes.count)
      }
    }
    return String(decoding: buffer[..<size], as: UTF8.self)
  }

  /// The names in a directory, without `.` and `..`, in the kernel's order.
  public static func names(in path: String) throws(Failure) -> [String] {
    guard let stream = opendir(path) else {
      throw Failure(step: "list directory", subject: path, errno: Errno(rawValue: errno))
    }
    defer { closedir(stream) }
    var names: [String] = []
    while true {
      errno = 0
      guard let entry = readdir(stream) else {
        if errno != 0 { throw Failure(step: "list directory", subject: path, errno: Errno(rawValue: errno)) }
        return names
      }
      let name = withUnsafePointer(to: &entry.pointee.d_name) { pointer in
        pointer.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
      }
      if name != "." && name != ".." { names.append(name) }
    }
  }

  /// stat(2), or lstat(2) with `noFollow`.
  public static func status(_ path: String, noFollow: Bool = false) throws(Failure) -> FileStatus {
    var status = stat()
    try valueOrErrno("stat", path) { fstatat(AT_FDCWD, path, &status, noFollow ? AT_SYMLINK_NOFOLLOW : 0) }
    return FileStatus(status)
  }

  /// Whether a file lies on a file system of huge pages (hugetlbfs), memfd's own included.
  public static func isOnHugePages(_ path: String) throws(Failure) -> Bool {
    try valueOrErrno("ask for the file system of", path) { moult_filesystem_type(path) } == 0x9584_58f6
  }

  /// When the content of what a descriptor (O_PATH, too) refers to was last changed, in seconds since the epoch.
  public static func modified(_ descriptor: CInt) throws(Failure) -> Double {
    var status = stat()
    try valueOrErrno("stat", "descriptor \(descriptor)") { fstat(descriptor, &status) }
    return Double(status.st_mtim.tv_sec) + Double(status.st_mtim.tv_nsec) / 1e9
  }

  /// fstat(2).
  public static func status(of descriptor: CInt) throws(Failure) -> FileStatus {
    var status = stat()
    try valueOrErrno("stat", "descriptor \(descriptor)") { fstat(descriptor, &status) }
    return FileStatus(status)
  }
}

/// What stat(2) says about a file.
public struct FileStatus: Sendable, Equatable, Codable {
  public var device: UInt64
  public var inode: UInt64
  /// The device that a device file stands for.
  public var specialDevice: UInt64
  /// File type and permission bits.
  public var mode: UInt32
  public var owner: UInt32
  public var group: UInt32
  /// In bytes.
  public var size: Int64
  public var links: UInt64

  init(_ status: stat) {
    device = UInt64(status.st_dev)
    inode = UInt64(status.st_ino)
    specialDevice = UInt64(status.st_rdev)
    mode = status.st_mode
    owner = status.st_uid
    group = status.st_gid
    size = Int64(status.st_size)
    links = UInt64(status.st_nlink)
  }

  public var isDirectory: Bool { mode & S_IFMT == S_IFDIR }
  public var isRegularFile: Bool { mode & S_IFMT == S_IFREG }
  public var isSymbolicLink: Bool { mode & S_IFMT == S_IFLNK }
  public var isSocket: Bool { mode & S_IFMT == S_IFSOCK }
  public var isFIFO: Bool { mode & S_IFMT == S_IFIFO }
  public var isCharacterDevice: Bool { mode & S_IFMT == S_IFCHR }
  public var isBlockDevice: Bool { mode & S_IFMT == S_IFBLK }

  /// Whether both name the same file.
  public func isSameFile(as other: FileStatus) -> Bool { device == other.device && inode == other.inode }
}

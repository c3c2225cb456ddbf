import CKernel
import Glibc
import SystemPackage

/// What procfs tells about other processes. Reading most of it needs the right to trace the process.
public enum ProcFS {
  /// Every process of this pid namespace, in ascending order.
  public static func allPids() throws(Failure) -> [pid_t] {
    try Files.names(in: "/proc").compactMap { pid_t($0) }.sorted()
  }

  /// The threads of a process, in ascending order; the first thread's id is the pid.
  public static func threads(of pid: pid_t) throws(Failure) -> [pid_t] {
    try Files.names(in: "/proc/\(pid)/task").compactMap { pid_t($0) }.sorted()
  }

  /// The name of a thread: at most 15 bytes.
  public static func threadName(_ thread: pid_t, of pid: pid_t) throws(Failure) -> String {
    String(try Files.readText("/proc/\(pid)/task/\(thread)/comm").prefix { $0 != "\n" })
  }

  /// The arguments the process was started with. Empty for kernel threads and zombies.
  /// Fails on arguments that are not UTF-8, rather than hand over different ones.
  public static func arguments(of pid: pid_t) throws(Failure) -> [String] {
    try strings("/proc/\(pid)/cmdline", what: "arguments")
  }

  /// The environment the process was started with, each `NAME=VALUE`. Fails when it is not UTF-8.
  public static func environment(of pid: pid_t) throws(Failure) -> [String] {
    try strings("/proc/\(pid)/environ", what: "environment")
  }

  static func strings(_ path: String, what: String) throws(Failure) -> [String] {
    guard let strings = splitStrings(try Files.read(path)) else {
      throw Failure(step: "read \(what)", subject: path, reason: "not valid UTF-8")
    }
    return strings
  }

  /// Splits NUL-terminated strings; nil if one is not UTF-8.
  static func splitStrings(_ bytes: [UInt8]) -> [String]? {
    guard !bytes.isEmpty else { return [] }
    // A process that rewrote its title may have dropped the last terminator.
    let body = bytes.last == 0 ? bytes.dropLast() : bytes[...]
    var strings: [String] = []
    for part in body.split(separator: 0, omittingEmptySubsequences: false) {
      guard let string = String(validating: part, as: UTF8.self) else { return nil }
      strings.append(string)
    }
    return strings
  }

  /// The working directory, as the process's own root sees it.
  public static func workingDirectory(of pid: pid_t) throws(Failure) -> String {
    try Files.link("/proc/\(pid)/cwd")
  }

  /// The root directory; `/` unless it was changed.
  public static func root(of pid: pid_t) throws(Failure) -> String {
    try Files.link("/proc/\(pid)/root")
  }

  /// The binary that the process runs; `deleted` when that name no longer stands for it (a package upgrade
  /// replaced it). It can still be opened as `/proc/PID/exe`.
  public static func executable(of pid: pid_t) throws(Failure) -> (path: String, deleted: Bool) {
    let link = try Files.link("/proc/\(pid)/exe")
    let (path, deleted) = splitDeleted(link)
    if deleted { return (path, true) }
    // Replaced by rename(2), the kernel shows the path of whatever holds the dentry: compare the files.
    let running = try Files.status("/proc/\(pid)/exe")
    guard let named = try unlessGone({ () throws(Failure) in try Files.status(path) }) else { return (path, true) }
    return (path, !named.isSameFile(as: running))
  }

  /// The security label (SELinux, AppArmor); nil when no module gives one.
  public static func securityLabel(of pid: pid_t) throws(Failure) -> String? {
    let text: String
    do throws(Failure) { text = try Files.readText("/proc/\(pid)/attr/current") } catch {
      // No module of this kernel knows the file.
      if error.errno == .invalidArgument || error.errno == .noSuchFileOrDirectory { return nil }
      throw error
    }
    let label = text.prefix { $0 != "\n" && $0 != "\0" }
    return label.isEmpty ? nil : String(label)
  }

  /// The identity of a namespace (`mnt`, `net`, `ipc`, `uts`, `pid`, `user`, `cgroup`), as `net:[4026531840]`.
  public static func namespace(_ kind: String, of pid: pid_t) throws(Failure) -> String {
    try Files.link("/proc/\(pid)/ns/\(kind)")
  }

  static func splitDeleted(_ text: String) -> (path: String, deleted: Bool) {
    let suffix = " (deleted)"
    return text.hasSuffix(suffix) ? (String(text.dropLast(suffix.count)), true) : (text, false)
  }

  /// The open descriptors of a process, in ascending order. One that is closed meanwhile is left out.
  public static func openDescriptors(of pid: pid_t) throws(Failure) -> [OpenDescriptor] {
    var descriptors: [OpenDescriptor] = []
    for number in try Files.names(in: "/proc/\(pid)/fd").compactMap({ CInt($0) }).sorted() {
      do throws(Failure) {
        let path = "/proc/\(pid)/fd/\(number)"
        let info = OpenDescriptor.parse(info: try Files.readText("/proc/\(pid)/fdinfo/\(number)"))
        descriptors.append(
          OpenDescriptor(
            number: number, target: try Files.link(path), flags: info.flags, position: info.position,
            status: try Files.status(path), interface: info.interface))
      } catch where error.errno == .noSuchFileOrDirectory {
        continue
      }
    }
    return descriptors
  }

  /// The files that a process has mapped, in address order.
  public static func mappedFiles(of pid: pid_t) throws(Failure) -> [MappedFile] {
    try MappedFile.parse(maps: Files.read("/proc/\(pid)/maps"))
  }
}

/// A descriptor that a process holds.
public struct OpenDescriptor: Sendable, Equatable {
  public var number: CInt
  /// What the kernel calls it: a path, `socket:[123]`, `anon_inode:[eventfd]`, `/memfd:ram (deleted)`.
  public var target: String
  /// The flags of open(2), access mode included.
  public var flags: CInt
  /// The file position in bytes.
  public var position: Int64
  public var status: FileStatus
  /// The network interface of a tun or tap descriptor.
  public var interface: String?

  public init(number: CInt, target: String, flags: CInt, position: Int64, status: FileStatus, interface: String? = nil) {
    self.number = number
    self.target = target
    self.flags = flags
    self.position = position
    self.status = status
    self.interface = interface
  }

  /// The socket's inode, if it is one: the number that ``UnixSocketTable`` knows it by.
  public var socketInode: UInt64? {
    guard target.hasPrefix("socket:["), target.hasSuffix("]") else { return nil }
    return UInt64(target.dropFirst(8).dropLast())
  }

  /// The target's path without the kernel's mark, and whether it was there.
  public var path: (path: String, deleted: Bool) { ProcFS.splitDeleted(target) }

  public var isReadable: Bool { flags & O_ACCMODE != O_WRONLY }
  public var isWritable: Bool { flags & O_ACCMODE != O_RDONLY }
  public var isAppending: Bool { flags & O_APPEND != 0 }
  public var isCloseOnExec: Bool { flags & O_CLOEXEC != 0 }

  static func parse(info: String) -> (flags: CInt, position: Int64, interface: String?) {
    var flags: CInt = 0
    var position: Int64 = 0
    var interface: String?
    for line in info.split(separator: "\n") {
      if line.hasPrefix("flags:") {
        flags = CInt(truncatingIfNeeded: Int64(line.dropFirst(6).trimmingSpaces(), radix: 8) ?? 0)
      } else if line.hasPrefix("pos:") {
        position = Int64(line.dropFirst(4).trimmingSpaces()) ?? 0
      } else if line.hasPrefix("iff:") {
        interface = String(line.dropFirst(4).trimmingSpaces())
      }
    }
    return (flags, position, interface)
  }
}

/// A stretch of a process's address space that is a file (proc_pid_maps(5)).
public struct MappedFile: Sendable, Equatable {
  public var start: UInt64
  public var end: UInt64
  /// `rwx` with `-` for what is not allowed.
  public var permissions: String
  public var isShared: Bool
  /// Where in the file it starts, in bytes.
  public var offset: UInt64
  /// As in ``FileStatus/device``; on filesystems with anonymous devices (btrfs, overlayfs) it may differ.
  public var device: UInt64
  public var inode: UInt64
  public var path: String
  public var isDeleted: Bool

  public var size: UInt64 { end - start }

  /// The link under which the file can be opened whatever became of its name (needs CAP_SYS_ADMIN or
  /// CAP_CHECKPOINT_RESTORE).
  public func linkPath(pid: pid_t) -> String {
    "/proc/\(pid)/map_files/\(String(start, radix: 16))-\(String(end, radix: 16))"
  }

  /// The lines of /proc/PID/maps that stand for files.
  public static func parse(maps: String) -> [MappedFile] { parse(maps: Array(maps.utf8)) }

  /// The same, byte by byte: a QEMU has a thousand lines, and a host fifty QEMUs.
  static func parse(maps: [UInt8]) -> [MappedFile] {
    var files: [MappedFile] = []
    var index = 0
    func number(_ radix: UInt64, until end: UInt8) -> UInt64? {
      var value: UInt64 = 0
      let start = index
      while index < maps.count, maps[index] != end {
        let byte = maps[index]
        let digit = byte < UInt8(ascii: "a") ? UInt64(byte &- UInt8(ascii: "0")) : UInt64(byte &- UInt8(ascii: "a")) + 10
        guard digit < radix else { return nil }
        value = value &* radix &+ digit
        index += 1
      }
      defer { index += 1 }
      return index > start && index < maps.count ? value : nil
    }
    while index < maps.count {
      let end = maps[index...].firstIndex(of: UInt8(ascii: "\n")) ?? maps.count
      defer { index = end + 1 }
      guard let start = number(16, until: UInt8(ascii: "-")), let stop = number(16, until: UInt8(ascii: " ")), index + 5 < end
      else { continue }
      let permissions = maps[index..<index + 4]
      index += 5
      guard let offset = number(16, until: UInt8(ascii: " ")), let major = number(16, until: UInt8(ascii: ":")),
        let minor = number(16, until: UInt8(ascii: " ")), let inode = number(10, until: UInt8(ascii: " ")), inode != 0, index < end
      else { continue }
      let name = String(decoding: maps[index..<end].drop { $0 == UInt8(ascii: " ") }, as: UTF8.self)
      let (path, deleted) = ProcFS.splitDeleted(Octal.unescape(name))
      files.append(
        MappedFile(
          start: start, end: stop, permissions: String(decoding: permissions.dropLast(), as: UTF8.self),
          isShared: permissions.last == UInt8(ascii: "s"), offset: offset,
          device: DeviceNumber.make(major: UInt32(truncatingIfNeeded: major), minor: UInt32(truncatingIfNeeded: minor)),
          inode: inode, path: path, isDeleted: deleted))
    }
    return files
  }
}

/// Device numbers as stat(2) has them.
public enum DeviceNumber {
  /// The C library's makedev(3).
  public static func make(major: UInt32, minor: UInt32) -> UInt64 {
    let major = UInt64(major)
    let minor = UInt64(minor)
    return (major & 0xffff_f000) << 32 | (major & 0xfff) << 8 | (minor & 0xffff_ff00) << 12 | (minor & 0xff)
  }

  /// The C library's major(3) and minor(3).
  public static func parts(_ number: UInt64) -> (major: UInt32, minor: UInt32) {
    (UInt32(number >> 32 & 0xffff_f000 | number >> 8 & 0xfff), UInt32(number >> 12 & 0xffff_ff00 | number & 0xff))
  }

  /// The kernel's own encoding, 12 bits of major and 20 of minor, as sock_diag(7) gives it.
  public static func fromKernel(_ encoded: UInt32) -> UInt64 {
    make(major: encoded >> 20, minor: encoded & 0xf_ffff)
  }
}

/// The `\040` escapes of procfs.
enum Octal {
  static func unescape(_ text: some StringProtocol) -> String {
    guard text.utf8.contains(UInt8(ascii: "\\")) else { return String(text) }
    let bytes = Array(text.utf8)
    var result: [UInt8] = []
    var index = 0
    while index < bytes.count {
      if bytes[index] == UInt8(ascii: "\\"), index + 3 < bytes.count,
        let value = UInt8(String(decoding: bytes[index + 1...index + 3], as: UTF8.self), radix: 8)
      {
        result.append(value)
        index += 4
      } else {
        result.append(bytes[index])
        index += 1
      }
    }
    return String(decoding: result, as: UTF8.self)
  }
}

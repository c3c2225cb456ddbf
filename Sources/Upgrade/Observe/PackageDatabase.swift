import Glibc
import Kernel

/// A package, and the version of it that is installed now.
public struct InstalledPackage: Sendable, Hashable {
  public var name: String
  public var version: String
}

/// dpkg's database, read without starting dpkg: one pass over its file lists, the
/// latest first, answers for all files at once.
/// Source: dpkg-query(1), deb-control(5), Debian Policy 5.6.12.
enum PackageDatabase {
  private static let directory = "/var/lib/dpkg"

  /// The packages that own these paths; a path that none owns is left out.
  /// - Parameter root: the directory where the paths start.
  static func owners(of paths: Set<String>, inRoot root: String = "/") throws(Failure) -> [String: InstalledPackage] {
    guard !paths.isEmpty, let lists = try directory("info", root) else { return [:] }
    // Where / is merged with /usr, packages may still own what they shipped in /lib.
    var wanted: [[UInt8]: String] = [:]
    for path in paths {
      wanted[Array(path.utf8)] = path
      if path.hasPrefix("/usr/") { wanted[Array(path.utf8.dropFirst(4))] = path }
    }
    let lengths = Set(wanted.keys.map(\.count))
    var owners: [String: String] = [:]
    // What was replaced under a running VM came with a package that was installed lately: a host has hundreds
    // of lists, and only a few are read.
    var latest: [(time: Int64, name: String)] = []
    for name in try Files.names(in: lists.procPath) where name.hasSuffix(".list") {
      if let time = try Files.modificationTime(name, in: lists.raw) { latest.append((time, name)) }
    }
    for (_, name) in latest.sorted(by: { $0 > $1 }) {
      if owners.count == paths.count { break }
      guard let bytes = try contents(name, in: lists.raw) else { continue }
      for path in lines(wanted, lengths, in: bytes) { owners[path] = String(name.dropLast(".list".count)) }
    }
    let versions = try installed(inRoot: root) { owners.values.contains($0) }
    return owners.compactMapValues { name in versions[name].map { InstalledPackage(name: plain(name), version: $0) } }
  }

  /// Installed packages by name (`name:architecture` too) whose name `isWanted`, with their versions.
  static func installed(
    inRoot root: String = "/", where isWanted: (String) -> Bool
  ) throws(Failure) -> [String: String] {
    guard let base = try directory("", root), let status = try contents("status", in: base.raw) else { return [:] }
    return parse(status: status, where: isWanted)
  }

  /// `libc6:amd64` is `libc6`.
  static func plain(_ name: String) -> String { String(name.prefix { $0 != ":" }) }

  /// The stanzas of /var/lib/dpkg/status.
  static func parse(status: [UInt8], where isWanted: (String) -> Bool) -> [String: String] {
    var found: [String: String] = [:]
    var (name, architecture, version, isInstalled) = ("", "", "", false)
    func end() {
      let full = name + ":" + architecture
      if isInstalled, !name.isEmpty {
        if isWanted(name) { found[name] = version }
        if isWanted(full) { found[full] = version }
      }
      (name, architecture, version, isInstalled) = ("", "", "", false)
    }
    for line in status.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false) {
      func value(_ key: StaticString) -> String? {
        let length = key.utf8CodeUnitCount
        guard line.count > length, line.prefix(length).elementsEqual(UnsafeBufferPointer(start: key.utf8Start, count: length)) else { return nil }
        return String(decoding: line.dropFirst(length), as: UTF8.self)
      }
      switch line.first {
      case nil: end()
      case UInt8(ascii: "P"): if let text = value("Package: ") { name = text }
      case UInt8(ascii: "A"): if let text = value("Architecture: ") { architecture = text }
      case UInt8(ascii: "V"): if let text = value("Version: ") { version = text }
      case UInt8(ascii: "S"): if let text = value("Status: ") { isInstalled = text.hasSuffix(" installed") }
      default: break
      }
    }
    end()
    return found
  }

  /// The version that was replaced first after a moment, by package name: what a process that has run since
  /// then started with. Source: /var/log/dpkg.log, `upgrade PACKAGE:ARCHITECTURE OLD NEW`.
  /// - Parameter moment: as the log writes times, `2026-11-21 10:23:54`.
  static func replaced(since moment: String, log: String) -> [String: String] {
    var versions: [String: String] = [:]
    for line in log.split(separator: "\n") {
      let words = line.split(separator: " ")
      guard words.count == 6, words[2] == "upgrade", line >= moment else { continue }
      let name = plain(String(words[3]))
      if versions[name] == nil { versions[name] = String(words[4]) }
    }
    return versions
  }

  static func log() throws(Failure) -> String {
    var text = ""
    for path in ["/var/log/dpkg.log.1", "/var/log/dpkg.log"] where try Files.statusIfPresent(path) != nil {
      text += try Files.readText(path)
    }
    return text
  }

  /// Which of the wanted lines a list has.
  private static func lines(_ wanted: [[UInt8]: String], _ lengths: Set<Int>, in bytes: [UInt8]) -> [String] {
    var found: [String] = []
    bytes.withUnsafeBytes { buffer in
      var start = 0
      while start < buffer.count, let base = buffer.baseAddress {
        let newline = memchr(base + start, CInt(UInt8(ascii: "\n")), buffer.count - start)
        let end = newline.map { UnsafeRawPointer($0) - base } ?? buffer.count
        if lengths.contains(end - start), let path = wanted[Array(buffer[start..<end])] { found.append(path) }
        start = end + 1
      }
    }
    return found
  }

  /// A directory of the database; nil where there is no dpkg.
  private static func directory(_ name: String, _ root: String) throws(Failure) -> OwnedFD? {
    let path = name.isEmpty ? directory : directory + "/" + name
    do throws(Failure) { return try OwnedFD.resolving(path, inRoot: root) } catch
      where error.errno == .noSuchFileOrDirectory || error.errno == .notDirectory
    { return nil }
  }

  /// A regular file; nil for anything else. A root tree is somebody else's: nothing in it may lead astray or block.
  private static func contents(_ name: String, in directory: CInt) throws(Failure) -> [UInt8]? {
    guard let status = try Files.statusIfPresent(name, in: directory), status.isRegularFile else { return nil }
    let file = OwnedFD(
      try valueOrErrno("read", name) { openat(directory, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC) })
    guard try Files.status(of: file.raw).isRegularFile else { return nil }
    return try Files.read(file.procPath)
  }
}

/// Versions of packages. Source: deb-version(7), whose order rpm's agrees with on kernels' names.
enum PackageVersion {
  static func isLess(_ a: String, _ b: String) -> Bool { compare(a, b) < 0 }

  /// Below 0, 0 or above 0.
  static func compare(_ a: String, _ b: String) -> Int {
    func parts(_ text: String) -> (epoch: Int, upstream: Substring, revision: Substring) {
      var rest = text[...]
      var epoch = 0
      if let colon = rest.firstIndex(of: ":"), let number = Int(rest[..<colon]) {
        epoch = number
        rest = rest[rest.index(after: colon)...]
      }
      guard let dash = rest.lastIndex(of: "-") else { return (epoch, rest, "") }
      return (epoch, rest[..<dash], rest[rest.index(after: dash)...])
    }
    let (a, b) = (parts(a), parts(b))
    if a.epoch != b.epoch { return a.epoch < b.epoch ? -1 : 1 }
    let upstream = comparePart(Array(a.upstream.utf8), Array(b.upstream.utf8))
    return upstream != 0 ? upstream : comparePart(Array(a.revision.utf8), Array(b.revision.utf8))
  }

  /// Runs of other characters and runs of digits in turn.
  private static func comparePart(_ a: [UInt8], _ b: [UInt8]) -> Int {
    func isDigit(_ byte: UInt8) -> Bool { (0x30...0x39).contains(byte) }
    /// `~` before the end, the end before letters, letters before the rest.
    func order(_ text: [UInt8], _ index: Int) -> Int {
      guard index < text.count, !isDigit(text[index]) else { return 0 }
      let byte = text[index]
      if byte == UInt8(ascii: "~") { return -1 }
      let isLetter = (0x41...0x5a).contains(byte) || (0x61...0x7a).contains(byte)
      return isLetter ? Int(byte) : Int(byte) + 256
    }
    var (i, j) = (0, 0)
    while i < a.count || j < b.count {
      while (i < a.count && !isDigit(a[i])) || (j < b.count && !isDigit(b[j])) {
        let (x, y) = (order(a, i), order(b, j))
        if x != y { return x < y ? -1 : 1 }
        i += 1
        j += 1
      }
      while i < a.count, a[i] == 0x30 { i += 1 }
      while j < b.count, b[j] == 0x30 { j += 1 }
      let (startA, startB) = (i, j)
      while i < a.count, isDigit(a[i]) { i += 1 }
      while j < b.count, isDigit(b[j]) { j += 1 }
      if i - startA != j - startB { return i - startA < j - startB ? -1 : 1 }
      for (x, y) in zip(a[startA..<i], b[startB..<j]) where x != y { return x < y ? -1 : 1 }
    }
    return 0
  }
}

import CKernel
import Glibc
import SystemPackage

/// Owner, mode and extended attributes of files.
public enum Metadata {
  /// Gives `target` the owner, mode and extended attributes (ACLs and security labels among them) of `source`.
  /// Both are descriptors, O_PATH ones too: those of sockets, FIFOs and directories all work.
  ///
  /// Attributes that the target's filesystem does not know (EOPNOTSUPP) are a failure: access rules would be lost.
  public static func copy(from source: CInt, to target: CInt, subject: String) throws(Failure) {
    // An O_PATH descriptor cannot be changed by the f… calls; the magic link stands for the same file.
    let from = "/proc/self/fd/\(source)"
    let to = "/proc/self/fd/\(target)"
    let status = try Files.status(of: source)
    try valueOrErrno("set owner of", subject) { chown(to, status.owner, status.group) }
    // After the owner: chown clears set-id bits.
    try valueOrErrno("set mode of", subject) { chmod(to, status.mode & 0o7777) }
    for name in try attributeNames(from, subject) {
      try setAttribute(name, to, try attribute(name, from, subject), subject)
    }
  }

  /// The same for two paths, of which neither may be a symbolic link.
  public static func copy(from source: String, to target: String) throws(Failure) {
    let from = try OwnedFD.naming(source, noFollow: true)
    let to = try OwnedFD.naming(target, noFollow: true)
    // chmod and chown of a symbolic link's magic link would fail anyway: say why.
    if try Files.status(of: to.raw).isSymbolicLink {
      throw Failure(step: "copy owner and mode to", subject: target, errno: .tooManySymbolicLinkLevels)
    }
    try copy(from: from.raw, to: to.raw, subject: target)
  }

  /// Makes a user the owner of what a descriptor (O_PATH, too) refers to; its group and mode stay.
  public static func give(_ target: CInt, to user: UInt32, subject: String) throws(Failure) {
    try valueOrErrno("set owner of", subject) { chown("/proc/self/fd/\(target)", user, gid_t.max) }
  }

  /// The names of a file's extended attributes; none where the filesystem has no such thing.
  static func attributeNames(_ path: String, _ subject: String) throws(Failure) -> [String] {
    var room = 1024
    while true {
      var buffer = [CChar](repeating: 0, count: room)
      do throws(Failure) {
        let size = try valueOrErrno("list attributes of", subject) { moult_list_attributes(path, &buffer, buffer.count) }
        return buffer[..<size].split(separator: 0).map {
          String(decoding: $0.map { UInt8(bitPattern: $0) }, as: UTF8.self)
        }
      } catch where error.errno == .outOfRange && room < 1 << 20 {
        room *= 4
      } catch where error.errno == .notSupportedOnSocket || error.errno == .notSupported {
        return []
      }
    }
  }

  private static func attribute(_ name: String, _ path: String, _ subject: String) throws(Failure) -> [UInt8] {
    var value = [UInt8](repeating: 0, count: 65536)  // XATTR_SIZE_MAX
    let size = try valueOrErrno("read attribute \(name) of", subject) {
      moult_get_attribute(path, name, &value, value.count)
    }
    return Array(value[..<size])
  }

  private static func setAttribute(
    _ name: String, _ path: String, _ value: [UInt8], _ subject: String
  ) throws(Failure) {
    try valueOrErrno("set attribute \(name) of", subject) { moult_set_attribute(path, name, value, value.count) }
  }
}

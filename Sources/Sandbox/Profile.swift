public import Kernel
import SystemPackage
import TOMLKit

/// What a sandbox allows: a TOML file, as profiles/default.toml explains.
public struct Profile: Sendable, Equatable {
  public var privateNetwork = false
  public var readOnly: [String] = []
  public var hidden: [String] = []
  public var privateTmp = false
  public var noNewPrivileges = true
  /// The bounding set; nil leaves it as it is.
  public var capabilities: UInt64?

  public init() {}

  /// Parses a profile's text.
  ///
  /// - Parameter path: for messages.
  public init(toml text: String, path: String) throws(Failure) {
    let table: TOMLTable
    do { table = try TOMLTable(string: text) } catch {
      guard let parse = error as? TOMLParseError else {
        throw Failure(step: "read profile", subject: path, reason: "\(error)")
      }
      throw Failure(
        step: "read profile", subject: "\(path):\(parse.source.begin.line)", reason: parse.description)
    }
    for key in table.keys {
      let reader = Reader(path: path, text: text, section: key)
      guard ["namespaces", "filesystem", "privileges"].contains(key) else { throw reader.failure(key, nil) }
      guard let section = table[key]?.table else { throw reader.failure(key, "must be a section") }
      for name in section.keys {
        guard let value = section[name] else { continue }
        switch (key, name) {
        case ("namespaces", "network"): privateNetwork = try reader.bool(name, value)
        case ("filesystem", "read-only"): readOnly = try reader.paths(name, value)
        case ("filesystem", "hidden"): hidden = try reader.paths(name, value)
        case ("filesystem", "private-tmp"): privateTmp = try reader.bool(name, value)
        case ("privileges", "no-new-privileges"): noNewPrivileges = try reader.bool(name, value)
        case ("privileges", "capabilities"):
          capabilities = 0
          for capability in try reader.strings(name, value) {
            guard let bit = Capability.bit(capability) else {
              throw reader.failure(capability, "there is no such capability")
            }
            capabilities! |= bit
          }
        default: throw reader.failure(name, nil)
        }
      }
    }
  }

  /// What the profile makes of the host: pure.
  public var sandbox: SandboxPlan {
    var operations: [MountOperation] = []
    if privateTmp { operations.append(.tmpfs(target: "/tmp", options: "mode=1777")) }
    // Hidden first: what lies in a read-only directory is covered already when that is made read-only with
    // everything below it.
    operations += hidden.map { .hide(path: $0) }
    operations += readOnly.map { .readOnly(path: $0) }
    var namespaces: NamespaceKinds = [.mount, .ipc, .uts]
    if privateNetwork { namespaces.insert(.network) }
    return SandboxPlan(namespaces: namespaces, operations: operations, targetResolution: .inRoot)
  }

  /// `credentials` with what the profile takes away.
  public func restrict(_ credentials: Credentials) -> Credentials {
    var result = credentials
    if let capabilities {
      result.capabilities.bounding &= capabilities
      // An inheritable capability would come back by a file's inheritable set (CVE-2022-27650).
      result.capabilities.inheritable &= capabilities & result.capabilities.ambient
      result.capabilities.ambient &= capabilities
    }
    if noNewPrivileges { result.noNewPrivileges = true }
    return result
  }

  /// Values of one section, and failures that name the line.
  private struct Reader {
    let path: String
    let text: String
    let section: String

    /// Where `word` first stands below the section's header; the header's own line if it is not found.
    private func line(of word: String) -> Int? {
      var header: Int?
      for (index, line) in text.split(separator: "\n", omittingEmptySubsequences: false).enumerated() {
        let code = line.prefix { $0 != "#" }
        if code.contains("[\(section)]") { header = index + 1 }
        if header != nil || word == section, code.contains(word) { return index + 1 }
      }
      return header
    }

    func failure(_ word: String, _ reason: String?) -> Failure {
      let place = line(of: word).map { "\(path):\($0)" } ?? path
      return Failure(
        step: "read profile", subject: place, reason: "\(word): \(reason ?? "unknown key")",
        hint: reason == nil ? "profiles/default.toml shows every key there is." : nil)
    }

    func bool(_ name: String, _ value: any TOMLValueConvertible) throws(Failure) -> Bool {
      guard let bool = value.bool else { throw failure(name, "must be true or false") }
      return bool
    }

    func strings(_ name: String, _ value: any TOMLValueConvertible) throws(Failure) -> [String] {
      guard let array = value.array else { throw failure(name, "must be a list of strings") }
      var strings: [String] = []
      for element in array {
        guard let string = element.string else { throw failure(name, "must be a list of strings") }
        strings.append(string)
      }
      return strings
    }

    func paths(_ name: String, _ value: any TOMLValueConvertible) throws(Failure) -> [String] {
      let paths = try strings(name, value)
      for path in paths where !path.hasPrefix("/") || Paths.components(path).isEmpty {
        throw failure(path, "must be an absolute path, and not /")
      }
      return paths
    }
  }
}

extension Profile {
  /// Where profiles are looked for, the first that has one wins: MOULT_PROFILES, the host's own, the installed ones,
  /// and those of a source tree.
  public static func directories(environment: [String: String], binary: String) -> [String] {
    let folder = Paths.parent(binary)
    var directories = ["/etc/moult/profiles", folder + "/../share/moult/profiles", folder + "/../../../profiles"]
    if let own = environment["MOULT_PROFILES"], !own.isEmpty { directories.insert(own, at: 0) }
    return directories
  }

  /// The variable of a sandboxed QEMU's environment that names its profile's file, so that its twins get the same.
  public static let variable = "MOULT_PROFILE"

  /// Reads the profile called `name`, or the file if `name` contains a slash.
  public static func load(_ name: String, from directories: [String]) throws(Failure) -> Profile {
    let path = try find(name, in: directories)
    return try Profile(toml: try Files.readText(path), path: path)
  }

  /// The file of the profile called `name`; `name` itself if it contains a slash.
  public static func find(_ name: String, in directories: [String]) throws(Failure) -> String {
    if name.utf8.contains(UInt8(ascii: "/")) { return name }
    for directory in directories {
      let path = "\(directory)/\(name).toml"
      do throws(Failure) {
        _ = try Files.status(path)
        return path
      } catch where error.errno == .noSuchFileOrDirectory { continue }
    }
    throw Failure(
      step: "find profile", subject: name, reason: "not in \(directories.joined(separator: ", "))",
      hint: "A file is named with a slash: --profile ./\(name).toml")
  }
}

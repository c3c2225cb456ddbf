extension Stage {
  /// One stage for each directory that holds public names; deepest directories first, because the
  /// stage of an outer directory must carry what is mounted inside it.
  /// - Parameters:
  ///   - needed: real paths and name paths of files the new QEMU opens: those in a staged directory are carried.
  static func plan(
    names: [PublicName], directories: [NameDirectory], needed: [String], id: String
  ) -> [Stage] {
    let paths = Set(names.map(\.directory))
    return paths.sorted { depth($0) == depth($1) ? $0 < $1 : depth($0) > depth($1) }.map { directory in
      let own = Set(names.filter { $0.directory == directory }.map(\.base))
      let seen = directories.first { $0.path == directory }
      let isExclusive = seen.map { !$0.isMountPoint && $0.entries.isSubset(of: own) } ?? false
      let inner = needed + paths.filter { $0 != directory }
      let carried = Set(inner.compactMap { firstComponent(of: $0, below: directory) }).subtracting(own)
      // An exclusive directory has nothing else to carry, by its definition.
      return Stage(
        kind: isExclusive ? .exclusive : .shared, directory: directory,
        path: isExclusive ? sibling(of: directory, id: id) : join(directory, ".moult-\(id)"),
        names: own.sorted(), carried: isExclusive ? [] : carried.sorted())
    }
  }

  private static func depth(_ path: String) -> Int { path.split(separator: "/").count }

  static func join(_ directory: String, _ name: String) -> String {
    directory == "/" ? "/" + name : directory + "/" + name
  }

  private static func sibling(of directory: String, id: String) -> String {
    let parts = directory.split(separator: "/")
    return "/" + (parts.dropLast() + [".moult-\(id)-\(parts.last ?? "")"]).joined(separator: "/")
  }

  /// The entry of `directory` that leads to `path`; nil when `path` does not lie below it, or leaves it at once (`..`).
  static func firstComponent(of path: String, below directory: String) -> String? {
    let prefix = directory == "/" ? "/" : directory + "/"
    guard path.hasPrefix(prefix), path.count > prefix.count else { return nil }
    let first = path.dropFirst(prefix.count).split(separator: "/").first { $0 != "." }
    return first == ".." ? nil : first.map(String.init)
  }
}

/// One renameat2(RENAME_EXCHANGE).
public struct NameExchange: Sendable, Equatable, Codable {
  /// The public side, absolute.
  public var published: String
  /// The staged side, absolute.
  public var staged: String
}

extension Stage {
  /// The calls that swap what is public with what is staged: one for an exclusive directory, else one a name.
  public var exchanges: [NameExchange] {
    switch kind {
    case .exclusive: [NameExchange(published: directory, staged: path)]
    case .shared:
      names.map { NameExchange(published: Self.join(directory, $0), staged: Self.join(path, $0)) }
    }
  }
}

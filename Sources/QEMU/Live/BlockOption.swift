/// What an option says of a block node: a tree of keys.
struct BlockOption {
  enum Child {
    case reference(String)
    case node(BlockOption)
    /// `backing=` or `null`: nothing below, whatever the image's header says.
    case nothing
  }
  var keys: [String: String] = [:]
  var children: [String: Child] = [:]

  var name: String? { keys["node-name"] }

  /// - Parameter entries: keys with dots where a node is inside another.
  init(_ entries: some Sequence<(key: String, value: String)>) {
    var nested: [String: [(key: String, value: String)]] = [:]
    // Nothing is below a remote disk: `target` of iSCSI and `image` of RBD are names of the server's.
    let isRemote = entries.contains { $0.key == "driver" && BlockDriver.isRemote($0.value) }
    for (key, value) in entries {
      guard !isRemote, let (role, rest) = Self.split(key) else {
        keys[key] = value
        continue
      }
      if rest.isEmpty {
        children[role] = value.isEmpty || value == "null" ? .nothing : .reference(value)
      } else {
        nested[role, default: []].append((rest, value))
      }
    }
    for (role, entries) in nested { children[role] = .node(BlockOption(entries)) }
  }

  /// Splits `backing.file.filename` into `backing` and `file.filename`; nil for a key of the node's own.
  static func split(_ key: String) -> (role: String, rest: String)? {
    var parts = key.split(separator: ".", omittingEmptySubsequences: false)[...]
    guard let first = parts.popFirst(), roles.contains(String(first)) else { return nil }
    var role = String(first)
    // `children.0.driver` of quorum has two steps to a child.
    if role == "children", let second = parts.popFirst() { role += "." + second }
    return (role, parts.joined(separator: "."))
  }

  static let roles: Set<String> = ["file", "backing", "children", "data-file", "image", "raw", "test", "log", "target"]

  /// Names of its own nodes, and of those that it needs from other options.
  var names: (made: [String], needed: [String]) {
    var (made, needed) = (name.map { [$0] } ?? [], [String]())
    for child in children.values {
      switch child {
      case .reference(let other): needed.append(other)
      case .node(let node):
        made += node.names.made
        needed += node.names.needed
      case .nothing: break
      }
    }
    return (made, needed)
  }
}

extension OptionValue {
  var blockOption: BlockOption { BlockOption(entries.lazy.map { ($0.key, $0.value) }) }

  /// Removes a key and everything below it.
  mutating func removeTree(_ key: String) {
    remove(key)
    if isJSON { return }
    for entry in entries where entry.key.hasPrefix(key + ".") { remove(entry.key) }
  }
}

/// The parts of QEMU's own description of QMP that say which variants of a thing it knows.
/// Source: `query-qmp-schema`, docs/devel/qapi-code-gen.
struct QMPSchema {
  private var entities: [String: JSONValue] = [:]

  init(_ answer: JSONValue) {
    for entity in answer.array ?? [] {
      if let name = entity["name"]?.string { entities[name] = entity }
    }
  }

  /// The cases of the union that a command takes (or gives), each with the names of its members.
  /// - Parameter member: the argument that is the union, nil if all arguments together are.
  /// - Returns: nil if this QEMU does not describe it.
  func variants(of command: String, _ end: CommandEnd, member: String? = nil) -> [String: Set<String>]? {
    guard let type = entities[command]?[end.rawValue]?.string, var union = object(type) else { return nil }
    if let member {
      guard let name = self.type(of: member, in: union), let inner = object(name) else { return nil }
      union = inner
    }
    guard let cases = union["variants"]?.array else { return nil }
    let common = names(of: union)
    var variants: [String: Set<String>] = [:]
    for variant in cases {
      guard let name = variant["case"]?.string, let type = variant["type"]?.string else { continue }
      variants[name] = common.union(object(type).map(names) ?? [])
    }
    return variants
  }

  enum CommandEnd: String { case arguments = "arg-type", result = "ret-type" }

  private func object(_ type: String) -> JSONValue? {
    guard let entity = entities[type] else { return nil }
    if let element = entity["element-type"]?.string { return object(element) }
    return entity["meta-type"]?.string == "object" ? entity : nil
  }

  private func type(of member: String, in object: JSONValue) -> String? {
    object["members"]?.array?.first { $0["name"]?.string == member }?["type"]?.string
  }

  private func names(of object: JSONValue) -> Set<String> {
    Set((object["members"]?.array ?? []).compactMap { $0["name"]?.string })
  }
}

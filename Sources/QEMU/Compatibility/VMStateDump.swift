/// What a QEMU binary says of the device state that it saves and loads. Source: `-dump-vmstate`, and QEMU's
/// docs/devel/migration and migration/vmstate.c for what its members mean.
public struct VMStateDump: Sendable, Equatable {
  /// The state of one device, or of a structure in it.
  public indirect enum Part: Sendable, Equatable {
    /// Bytes of one element, how many, and in which versions and cases they are there.
    case bytes(Int)
    case structure(Description)
  }
  public struct Field: Sendable, Equatable {
    public var name: String
    /// Since which version of its description it is there.
    public var version: Int
    /// Whether it is there is decided by the device, not by the version.
    public var isConditional: Bool
    /// Elements of an array; nil if the dump does not say. Versions before 10.0 never do.
    public var count: Int?
    public var part: Part
  }
  public struct Description: Sendable, Equatable {
    public var name: String
    public var version: Int
    /// The oldest version that it loads.
    public var oldest: Int
    public var fields: [Field]
    /// Sent only if the device has something to say in them.
    public var subsections: [Description]
  }

  /// By the QOM type of the device.
  public var sections: [String: Description]

  /// Whether arrays have their lengths.
  var tellsCounts: Bool { sections.values.contains { $0.tellsCounts } }

  public init(sections: [String: Description] = [:]) { self.sections = sections }

  /// - Parameter text: what `-dump-vmstate` wrote.
  /// - Throws: where the text stops being JSON. Members that are missing are taken for zero.
  public init(parsing text: some Collection<UInt8>) throws(JSONValue.SyntaxError) {
    sections = [:]
    for (type, section) in try JSONValue(parsing: text).object ?? [:] {
      // The machine that was asked for is a section, too, with nothing but a name.
      guard let version = section["version_id"]?.integer else { continue }
      sections[type] = Description(
        section["Description"] ?? ["name": .string(type), "version_id": .integer(version), "minimum_version_id": section["minimum_version_id"] ?? .null])
    }
  }
}

extension VMStateDump.Description {
  fileprivate var tellsCounts: Bool {
    fields.contains { field in
      if field.count != nil { return true }
      if case .structure(let inner) = field.part { return inner.tellsCounts }
      return false
    }
  }

  init(_ value: JSONValue) {
    name = value["name"]?.string ?? ""
    version = value["version_id"]?.int ?? 0
    oldest = value["minimum_version_id"]?.int ?? 0
    fields = (value["Fields"]?.array ?? []).map { field in
      VMStateDump.Field(
        name: field["field"]?.string ?? "", version: field["version_id"]?.int ?? 0,
        isConditional: field["field_exists"]?.bool ?? false, count: field["num"]?.int.map { max($0, 0) },
        part: field["Description"].map { .structure(VMStateDump.Description($0)) } ?? .bytes(max(field["size"]?.int ?? 0, 0)))
    }
    subsections = (value["Subsections"]?.array ?? []).map { VMStateDump.Description($0) }
  }
}

extension JSONValue {
  /// Numbers in a dump are C ints; anything else is nonsense that is not trapped on.
  fileprivate var int: Int? { integer.flatMap { Int(exactly: $0) }.map { Swift.max(Swift.min($0, 1 << 31), -1 << 31) } }
}

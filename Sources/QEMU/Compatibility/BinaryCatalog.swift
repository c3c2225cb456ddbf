public import Kernel

/// What a QEMU binary says it knows when it is asked without a machine.
public struct BinaryCatalog: Sendable, Equatable {
  /// One machine type. Source: `query-machines`.
  public struct Machine: Sendable, Equatable {
    /// `q35` for the newest `pc-q35-…`.
    public var alias: String?
    public var isDeprecated: Bool
    public init(alias: String? = nil, isDeprecated: Bool = false) {
      self.alias = alias
      self.isDeprecated = isDeprecated
    }
  }

  /// Things that an option chooses among by their first word.
  public enum Family: String, Sendable, CaseIterable { case netdev, chardev, blockdev, display, audiodev }

  /// By name.
  public var machines: [String: Machine]
  /// Every QOM type, abstract ones with them: devices, objects, machines, CPUs, accelerators.
  public var types: Set<String>
  /// Properties of the types that were asked for; a type that QEMU did not describe is missing.
  public var properties: [String: Set<String>]
  /// The members that each variant has; a family that this QEMU does not describe is missing.
  public var variants: [Family: [String: Set<String>]]
  /// Keys of the options that have a fixed list of them, by the name of QEMU's option group.
  /// Source: `query-command-line-options`.
  public var keys: [String: Set<String>]
  public var capabilities: Set<String>

  public init(
    machines: [String: Machine] = [:], types: Set<String> = [], properties: [String: Set<String>] = [:],
    variants: [Family: [String: Set<String>]] = [:], keys: [String: Set<String>] = [:], capabilities: Set<String> = []
  ) {
    self.machines = machines
    self.types = types
    self.properties = properties
    self.variants = variants
    self.keys = keys
    self.capabilities = capabilities
  }

  /// Asks a QEMU that was started with `-machine none`.
  /// - Parameters:
  ///   - devices, objects: QOM types whose properties are wanted. QEMU describes the two by different commands.
  public static func query(
    _ monitor: QMPConnection, devices: Set<String>, objects: Set<String>
  ) throws(Failure) -> BinaryCatalog {
    let (devices, objects) = (devices.sorted(), objects.sorted())
    var queries: [QMPConnection.Query] = [
      ("query-machines", nil), ("qom-list-types", ["abstract": true]), ("query-qmp-schema", nil),
      ("query-command-line-options", nil), ("query-migrate-capabilities", nil),
    ]
    queries += devices.map { ("device-list-properties", ["typename": .string($0)]) }
    queries += objects.map { ("qom-list-properties", ["typename": .string($0)]) }
    return BinaryCatalog(try monitor.answers(to: queries), types: devices + objects)
  }

  /// - Parameter answers: in the order of `query`'s commands.
  init(_ answers: [JSONValue?], types described: [String]) {
    self.init()
    for machine in answers[0]?.array ?? [] {
      guard let name = machine["name"]?.string else { continue }
      machines[name] = Machine(alias: machine["alias"]?.string, isDeprecated: machine["deprecated"]?.bool ?? false)
    }
    types = Self.names(answers[1])
    if let schema = answers[2].map(QMPSchema.init) {
      variants[.netdev] = schema.variants(of: "netdev_add", .arguments)
      variants[.chardev] = schema.variants(of: "chardev-add", .arguments, member: "backend")
      variants[.blockdev] = schema.variants(of: "blockdev-add", .arguments)
      variants[.display] = schema.variants(of: "query-display-options", .result)
      variants[.audiodev] = schema.variants(of: "query-audiodevs", .result)
    }
    for option in answers[3]?.array ?? [] {
      guard let name = option["option"]?.string else { continue }
      let parameters = Self.names(option["parameters"])
      // Without a list of its own the option takes anything.
      if !parameters.isEmpty { keys[name] = parameters }
    }
    capabilities = Self.names(answers[4], member: "capability")
    for (type, answer) in zip(described, answers.dropFirst(5)) {
      if let answer { properties[type] = Self.names(answer) }
    }
  }

  private static func names(_ list: JSONValue?, member: String = "name") -> Set<String> {
    Set((list?.array ?? []).compactMap { $0[member]?.string })
  }

  /// The versioned type that an alias stands for in this binary.
  public func machine(alias: String) -> String? { machines.first { $0.value.alias == alias }?.key }
}

extension BinaryCatalog {
  /// The first release without a versioned machine type, by the rule that QEMU itself applies: six years, so six
  /// major versions, after its own. Source: `MACHINE_VER_DELETION_MAJOR` in QEMU's include/hw/boards.h.
  /// - Returns: nil for a type without a version in its name.
  public static func release(droppingMachine name: String) -> String? {
    guard let last = name.split(separator: "-").last else { return nil }
    let numbers = last.split(separator: ".", omittingEmptySubsequences: false).map { Int($0) }
    guard numbers.count >= 2, let major = numbers[0], let minor = numbers[1] else { return nil }
    return "\(major + 6).\(minor)"
  }
}

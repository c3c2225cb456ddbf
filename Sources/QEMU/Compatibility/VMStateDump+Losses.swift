extension VMStateDump {
  /// Something that one QEMU saves and another does not load.
  public struct Loss: Sendable, Hashable {
    /// The device's QOM type.
    public var device: String
    /// What is the matter, as a clause: `version 2 is saved, up to 1 is loaded`.
    public var what: String
    /// The load fails whatever the guest does; otherwise it fails only if the device has something to say there.
    public var isCertain: Bool
    public init(device: String, what: String, isCertain: Bool) {
      self.device = device
      self.what = what
      self.isCertain = isCertain
    }
  }

  /// What a QEMU with the description `reader` does not load of what this one saves.
  ///
  /// Names of fields are not in the stream: only what lies where. So a field may be renamed or moved into a
  /// structure. A type that the reader has not is passed over: there the machine is made of other devices, which
  /// a description does not tell.
  /// - Parameter devices: QOM types of the VM's devices.
  public func losses(to reader: VMStateDump, devices: Set<String>) -> [Loss] {
    var losses: [Loss] = []
    let countsElements = tellsCounts && reader.tellsCounts
    for device in devices.sorted() {
      guard let saved = sections[device], let loaded = reader.sections[device] else { continue }
      losses += saved.losses(to: loaded, countsElements: countsElements).map { Loss(device: device, what: $0.what, isCertain: $0.isCertain) }
    }
    return losses
  }
}

extension VMStateDump.Description {
  fileprivate typealias Finding = (what: String, isCertain: Bool)

  /// Of two descriptions of one device.
  /// - Parameter countsElements: both dumps tell how long arrays are.
  fileprivate func losses(to reader: VMStateDump.Description, countsElements: Bool) -> [Finding] {
    if name != reader.name { return [("its section is called \(name) here and \(reader.name) there", true)] }
    if version > reader.version { return [("version \(version) is saved, up to \(reader.version) is loaded", true)] }
    if version < reader.oldest { return [("version \(version) is saved, \(reader.oldest) and later is loaded", true)] }
    var findings: [Finding] = []
    // A reader of a later version says by its oldest that it can tell the difference.
    if version == reader.version { findings += fieldLosses(to: reader, countsElements) }
    let known = Set(reader.allSubsections)
    for subsection in allSubsections where !known.contains(subsection) {
      findings.append(("subsection \(subsection) is not known there", false))
    }
    return findings
  }

  private func fieldLosses(to reader: VMStateDump.Description, _ countsElements: Bool) -> [Finding] {
    let (mine, theirs) = (leaves(countsElements), reader.leaves(countsElements))
    let (sent, expected) = (mine.filter { !$0.isConditional }, theirs.filter { !$0.isConditional })
    // What counts is what lies where.
    if sent.map(\.bytes).reduce(0, &+) == expected.map(\.bytes).reduce(0, &+), sent.filter({ $0.bytes == 0 }).count == expected.filter({ $0.bytes == 0 }).count {
      return conditionalLosses(mine, theirs)
    }
    // Always there on one side and by the device's choice on the other: that is how a field becomes permanent.
    let missing = sent.filter { leaf in !theirs.contains { $0.matches(leaf) } }
    let additional = expected.filter { leaf in !mine.contains { $0.matches(leaf) } }
    if missing.isEmpty, additional.isEmpty { return conditionalLosses(mine, theirs) }
    let clauses = [("not loaded there", missing), ("expected there but not saved", additional)].filter { !$0.1.isEmpty }
    // A hole that QEMU left in the place of dropped fields: without lengths it cannot be told whether it fits.
    let isHole = !countsElements && (missing + additional).contains { $0.name == "unused" }
    return [(clauses.map { "\($0.0): \(Self.words($0.1))" }.joined(separator: "; "), !isHole)]
  }

  private func conditionalLosses(_ mine: [Leaf], _ theirs: [Leaf]) -> [Finding] {
    let missing = mine.filter { leaf in leaf.isConditional && !theirs.contains { $0.matches(leaf) } }
    return missing.isEmpty ? [] : [("not loaded there, if saved: \(Self.words(missing))", false)]
  }

  private static func words(_ leaves: [Leaf]) -> String {
    let names = leaves.prefix(4).map(\.name).joined(separator: ", ")
    return "field\(leaves.count == 1 ? "" : "s") \(names)\(leaves.count > 4 ? " and \(leaves.count - 4) more" : "")"
  }

  /// A stretch of bytes in the stream.
  private struct Leaf {
    var name: String
    var bytes: Int
    var isConditional: Bool

    /// The structures around a field come and go; its own name mostly stays.
    func matches(_ other: Leaf) -> Bool { name == other.name && bytes == other.bytes }
  }

  /// What is in the stream of this description's own version, structures opened. A structure has no version in
  /// the stream: each side takes its own.
  private func leaves(_ countsElements: Bool, conditional: Bool = false, times: Int = 1, depth: Int = 0) -> [Leaf] {
    if depth > 64 { return [] }
    var leaves: [Leaf] = []
    for field in fields where field.isConditional || field.version <= version {
      let isConditional = conditional || field.isConditional
      let count = times.multipliedReportingOverflow(by: countsElements ? field.count ?? 1 : 1).partialValue
      switch field.part {
      case .bytes(let size):
        leaves.append(Leaf(name: field.name, bytes: size.multipliedReportingOverflow(by: count).partialValue, isConditional: isConditional))
      case .structure(let inner):
        leaves += inner.leaves(countsElements, conditional: isConditional, times: count, depth: depth + 1)
      }
    }
    return leaves
  }

  /// Names of the subsections, those of structures and of subsections with them.
  private var allSubsections: [String] {
    var names = subsections.flatMap { [$0.name] + $0.allSubsections }
    for field in fields {
      if case .structure(let inner) = field.part { names += inner.allSubsections }
    }
    return names
  }
}

extension Demands {
  /// What the binary does not know of all this, each with a way out.
  public func unmet(by catalog: BinaryCatalog, version: QEMUVersion) -> [Blocker] {
    var blockers: [Blocker] = []
    func block(_ option: String, _ reason: String, _ wayOut: String) {
      let blocker = Blocker(option: option, reason: reason, wayOut: wayOut)
      if !blockers.contains(blocker) { blockers.append(blocker) }
    }
    let there = "QEMU \(version)"

    for option in options {
      guard let life = OptionLife.of(option.name), !life.isKnown(to: version) else { continue }
      block(
        option.text, version < (life.since ?? version) ? "\(there) does not know -\(life.name) yet" : "\(there) does not know -\(life.name) any more",
        life.wayOut)
    }
    for demand in types {
      if !catalog.types.contains(demand.type) {
        if demand.isOptional { continue }
        block(demand.option, "\(there) has no \(demand.what) \(demand.name)", Self.wayOut(without: demand))
        continue
      }
      // What QEMU does not describe, the launched one will tell.
      guard let known = catalog.properties[demand.type] else { continue }
      for property in demand.properties where !Self.isKnown(property, in: known) && !Self.isIdle(demand, known, version) {
        block(
          demand.option, "\(demand.what) \(demand.name) has no property \(property) in \(there)",
          "choose another QEMU, or restart the VM without \(property)")
      }
    }
    for demand in variants {
      guard let known = catalog.variants[demand.family] else { continue }
      guard let members = known[demand.name] else {
        if demand.family == .netdev, demand.name == "none" { continue }
        block(
          demand.option, "\(there) was built without the \(Self.noun(demand.family)) \(demand.name)",
          "choose a QEMU that has it, or restart the VM without it")
        continue
      }
      for member in demand.members where !Self.isKnown(member, in: members) {
        block(
          demand.option, "\(Self.noun(demand.family)) \(demand.name) has no option \(member) in \(there)",
          "choose another QEMU, or restart the VM without \(member)")
      }
    }
    for demand in keys {
      guard let known = catalog.keys[demand.group] else { continue }
      for key in demand.keys where !Self.isKnown(key, in: known) {
        block(demand.option, "the option has no \(key) in \(there)", "choose another QEMU, or restart the VM without \(key)")
      }
    }
    return blockers
  }

  /// What the binary takes without effect, each in a sentence.
  public func unheeded(by catalog: BinaryCatalog, version: QEMUVersion) -> [String] {
    types.filter(\.isIdle).flatMap { demand -> [String] in
      guard catalog.types.contains(demand.type) else { return ["\(demand.option): QEMU \(version) has no device \(demand.name); it passes over this"] }
      guard let known = catalog.properties[demand.type], Self.isIdle(demand, known, version) else { return [] }
      return demand.properties.filter { !Self.isKnown($0, in: known) }.map {
        "\(demand.option): \(demand.name) has no property \($0) in QEMU \(version); the VM has no such device, so it passes over this"
      }
    }
  }

  /// From 8.0 on QEMU makes one of each model of network card when it starts, to see whether it is one.
  /// Source: `qemu_get_nic_models` in net/net.c.
  private static func isIdle(_ demand: TypeDemand, _ known: Set<String>, _ version: QEMUVersion) -> Bool {
    demand.isIdle && !(known.contains("netdev") && version >= QEMUVersion(major: 8, minor: 0))
  }

  /// `nodelay` is a key of its own to some QEMUs and `delay` switched off to others.
  private static func isKnown(_ key: String, in known: Set<String>) -> Bool {
    known.contains(key) || known.contains("no" + key)
      // Elements of an array had properties of their own: `len-x`, `x[0]`.
      || key.hasPrefix("len-") && known.contains(String(key.dropFirst("len-".count)))
      || key.hasSuffix("]") && known.contains(String(key.prefix { $0 != "[" }))
  }

  private static func wayOut(without demand: TypeDemand) -> String {
    let modern = [
      "ide-drive": "ide-hd or ide-cd", "scsi-disk": "scsi-hd or scsi-cd", "sga": "-machine graphics=off", "qxl": "virtio-vga",
      "qxl-vga": "virtio-vga",
    ]
    let instead = modern[demand.type].map { " (in its place: \($0))" } ?? ""
    if demand.what == "device" { return "choose a QEMU that has it, unplug the device, or restart the VM without it\(instead)" }
    return "choose a QEMU that has it, or restart the VM without it\(instead)"
  }

  private static func noun(_ family: BinaryCatalog.Family) -> String {
    switch family {
    case .netdev: "network backend"
    case .chardev: "character device"
    case .blockdev: "block driver"
    case .display: "display"
    case .audiodev: "audio driver"
    }
  }
}

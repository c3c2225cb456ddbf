import QEMU

extension MemoryDecision {
  /// What a QEMU needs beside guest RAM: its heap, device memory, translated code. A margin, not a measurement.
  static let overheadBytes: UInt64 = 96 << 20
  /// From this version on, the sending side leaves out shared RAM only if it is a *named* file.
  static let needsNamedFile = QEMUVersion(major: 10, minor: 0)

  /// Chooses the strategy; a strategy that was asked for and cannot be had is a blocker, never replaced.
  static func decide(
    asked: MemoryStrategy, memory: [ObservedMemory], ramBytes: UInt64, sender: QEMUVersion, room: MemoryRoom
  ) -> (MemoryDecision, [Blocker]) {
    let whyNotShared = whyNotShared(memory, sender: sender)
    let whyNotCopy = whyNotCopy(ramBytes: ramBytes, room: room)
    let notYet = "this version of moult does not do it yet"
    var decision = MemoryDecision(
      strategy: .copy, why: "", against: ["cpr": notYet, "file": notYet], extraBytes: ramBytes + overheadBytes)
    var blockers: [Blocker] = []
    switch asked {
    case .cpr, .file:
      decision.strategy = asked
      decision.why = "asked for"
      blockers.append(
        Blocker(option: "--memory \(asked.rawValue)", reason: notYet, wayOut: "use --memory auto"))
    case .shared, .auto:
      if let whyNotShared {
        decision.against["shared"] = whyNotShared
        if asked == .shared {
          decision.strategy = .shared
          blockers.append(
            Blocker(
              option: "--memory shared", reason: whyNotShared,
              wayOut: "use --memory copy, or start the VM with memory-backend-file,share=on"))
        } else {
          decision.why = "it works with any memory"
        }
      } else {
        decision.strategy = .shared
        decision.why = "both QEMUs can map the same RAM, so none is copied"
        decision.against["copy"] = "it would take \(ramBytes >> 20) MiB more and a longer pause"
        decision.extraBytes = overheadBytes
      }
    case .copy:
      decision.why = "asked for"
      if let whyNotShared { decision.against["shared"] = whyNotShared }
    }
    if decision.strategy == .copy, let whyNotCopy {
      decision.against["copy"] = whyNotCopy
      blockers.append(
        Blocker(
          option: "--memory copy", reason: whyNotCopy,
          wayOut: "free memory or raise the limit, or start the VM with memory-backend-file,share=on so that RAM need not be copied"))
    }
    return (decision, blockers)
  }

  private static func whyNotShared(_ memory: [ObservedMemory], sender: QEMUVersion) -> String? {
    if memory.isEmpty { return "the guest's RAM is private anonymous memory of the running QEMU" }
    for backend in memory {
      if let why = backend.whyPrivate { return "\(backend.id.isEmpty ? "the guest's RAM" : "RAM backend \(backend.id)"): \(why)" }
      if sender >= needsNamedFile, !backend.isNamedFile {
        return "RAM backend \(backend.id) is a memfd, and QEMU \(sender) sends shared RAM that is not a named file all the same"
      }
    }
    return nil
  }

  private static func whyNotCopy(ramBytes: UInt64, room: MemoryRoom) -> String? {
    let need = ramBytes + overheadBytes
    let needed = "a second copy needs up to \(need >> 20) MiB (\(ramBytes >> 20) MiB guest RAM and \(overheadBytes >> 20) MiB for QEMU)"
    if need > room.host { return "\(needed), the host has \(room.host >> 20) MiB available" }
    if let cgroup = room.cgroup, need > cgroup {
      return "\(needed), the memory cgroup \(room.cgroupPath ?? "") has \(cgroup >> 20) MiB left"
    }
    return nil
  }
}

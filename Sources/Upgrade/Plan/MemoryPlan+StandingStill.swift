import QEMU

extension MemoryDecision {
  /// Whether the guest has to stand still for as long as memory that it writes to is sent.
  ///
  /// An emulating (TCG) QEMU of any version can lose what its guest writes meanwhile. A vCPU marks the page as
  /// written, looks whether the mark is there, and then takes the trap for writes off its TLB entry; a migration that
  /// clears all marks in between leaves a page without mark and without trap, whose further writes nobody sees until
  /// the entry is set anew. Source: `notdirty_write`, `tlb_set_page_full` and `tlb_set_dirty` in accel/tcg/cputlb.c
  /// take the lock of the TLB only after the look. Before 9.0, moreover, blocks that are a multiple of 256 KiB do not
  /// get their traps back at all (mended by QEMU commit 03bfc2188f). docs/reliability.md has what was measured.
  static func stopsGuest(_ strategy: MemoryStrategy, _ observation: Observation) -> Bool {
    if observation.usesKVM { return false }
    guard strategy != .copy else { return true }
    guard let written = observation.deviceMemory else { return true }
    return !written.isEmpty
  }
}

extension Observation {
  /// Memory that a guest writes to as it does to RAM and that is nobody's backend, such as a display adapter's: it is
  /// sent even if RAM is shared. Nil if QEMU does not tell.
  var deviceMemory: [RAMBlock]? {
    let backends = Set(memory.flatMap { $0.id.isEmpty ? ["pc.ram"] : [$0.id, "/objects/" + $0.id] })
    return live.memoryBlocks?.filter { !$0.isReadOnly && !backends.contains($0.name) }
  }
}

extension UpgradePlan {
  /// Bytes that are copied while the guest stands still before its last pass over RAM; none if it runs meanwhile.
  var bytesCopiedStill: UInt64 {
    guard memory.stopsGuest else { return 0 }
    let devices = (observation.deviceMemory ?? []).reduce(0) { $0 + $1.used }
    return devices + (memory.strategy == .copy ? observation.description.ramSize + observation.live.pluggedMemory : 0)
  }
}

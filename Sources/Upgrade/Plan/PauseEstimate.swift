/// How long the guest will stand still, roughly.
///
/// Not a measurement of this host: what most of the tested pairs took (docs/support-matrix.md), emulated, on two
/// cores. A host under heavy load took up to six times as long.
public struct PauseEstimate: Sendable, Equatable {
  /// Milliseconds.
  public var least: Double
  public var most: Double
  public var basis: String

  /// Device state alone, of VMs with a few devices.
  static let deviceState = (least: 2.0, most: 40.0)
  /// Bytes a second, at least, of one memory copy from QEMU to QEMU while the guest stands still.
  static let copyRate = 0.3e9

  /// - Parameter copied: bytes that are copied while the guest stands still.
  static func of(_ memory: MemoryDecision, copied: UInt64) -> PauseEstimate {
    let state = deviceState
    if memory.stopsGuest {
      return PauseEstimate(
        least: state.least, most: state.most + Double(copied) / copyRate * 1000,
        basis: "\(memory.strategy == .copy ? "all RAM that the guest has used" : "memory of devices") is copied while the guest stands still, at 0.3 GB/s or more")
    }
    if memory.strategy == .shared {
      return PauseEstimate(least: state.least, most: state.most, basis: "device state only, whatever the size of RAM; longer on a loaded host")
    }
    return PauseEstimate(
      least: state.least + 1, most: state.most + 30,
      basis: "device state and the last RAM, for which QEMU is given 20 ms; a guest that writes faster than RAM is copied gets up to 1 s")
  }
}

extension UpgradePlan {
  public var pause: PauseEstimate { .of(memory, copied: bytesCopiedStill) }
}

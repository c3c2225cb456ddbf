import QEMU

/// What holds for every two dumps, also for nonsense: the texts are parted by a zero byte, and where there is
/// none the dump is compared with itself only.
enum VMStateInvariants {
  static func violation(_ input: [UInt8]) -> String? {
    let dumps = input.split(separator: 0, maxSplits: 1, omittingEmptySubsequences: false).compactMap { try? VMStateDump(parsing: $0) }
    for dump in dumps {
      // A description that does not load its own version is lost wherever it goes.
      let sound = Set(dump.sections.filter { $0.value.oldest <= $0.value.version }.keys)
      let losses = dump.losses(to: dump, devices: sound)
      guard losses.isEmpty else { return "loses to itself: \(losses)" }
    }
    guard let first = dumps.first, let last = dumps.last else { return nil }
    return violation(from: first, to: last) ?? violation(from: last, to: first)
  }

  private static func violation(from writer: VMStateDump, to reader: VMStateDump) -> String? {
    let devices = Set(writer.sections.keys).union(reader.sections.keys)
    let losses = writer.losses(to: reader, devices: devices)
    for loss in losses {
      guard writer.sections[loss.device] != nil, reader.sections[loss.device] != nil else { return "\(loss.device) is not in both" }
      guard !loss.what.isEmpty else { return "\(loss.device) loses without a reason" }
    }
    // A device's losses do not depend on the VM's other devices.
    let apart = devices.sorted().flatMap { writer.losses(to: reader, devices: [$0]) }
    return losses == apart ? nil : "together \(losses), one by one \(apart)"
  }
}

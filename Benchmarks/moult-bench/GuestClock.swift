import Lab

/// How long a guest stood still, by its own account: its monotonic clock stops with it, the hardware
/// clock of its PC does not. Each time that reaches its next second the guest says so, and what the
/// other shows then (Tests/Lab/guest/pulse.c).
struct GuestClock {
  private struct Reading {
    /// Seconds of the hardware clock.
    var number: Int
    /// Microseconds of the monotonic clock.
    var time: Int64
  }

  private let vm: LabVM
  private let first: Reading

  private static func readings(_ vm: LabVM) -> [Reading] {
    vm.pulse.seconds.compactMap { second in
      let words = second.line.text.split(separator: " ")
      guard let number = Int(words[1]), let time = Int64(words[2]) else { return nil }
      return Reading(number: number, time: time)
    }
  }

  private static func next(_ count: Int, _ vm: LabVM) throws -> Reading {
    let seen = readings(vm).count
    return try eventually("\(vm.configuration.name): the guest compares its clocks") {
      let readings = readings(vm)
      return readings.count >= seen + count ? readings.last : nil
    }
  }

  /// Waits until the guest has compared its clocks twice, so that what was before has no part in it.
  init(settled vm: LabVM) throws {
    self.vm = vm
    first = try GuestClock.next(2, vm)
  }

  /// Waits for the next comparison; milliseconds the guest was held since ``init(settled:)``.
  func held() throws -> Double {
    let last = try GuestClock.next(1, vm)
    return Double(Int64(last.number - first.number) * 1_000_000 - (last.time - first.time)) / 1000
  }
}

/// What one measurement of one row gave. Times in milliseconds.
struct Sample {
  /// From QEMU's own times of STOP in the old and RESUME in the new one.
  var pause: Double
  /// What the guest's clock missed of its hardware clock.
  var guestPause: Double
  var total: Double
  /// exec(2) of the new QEMU until it answers QMP commands, where the row can tell. Its greeting may come
  /// earlier, before the machine is made.
  var startUp: Double?
  /// Milliseconds by step, of moult's own account.
  var steps: [(name: String, start: Double, end: Double)] = []
}

/// All measurements of one row at one size.
struct Results {
  var samples: [Sample] = []
  /// Peak of extra memory of each measurement, bytes.
  var memory: [Int] = []
  var attempts = 0
  var busy = 0
  var failed = 0

  func median(_ value: (Sample) -> Double?) -> Double? { Results.median(samples.compactMap(value)) }

  static func median(_ values: [Double]) -> Double? {
    let sorted = values.sorted()
    guard !sorted.isEmpty else { return nil }
    return (sorted[(sorted.count - 1) / 2] + sorted[sorted.count / 2]) / 2
  }
}

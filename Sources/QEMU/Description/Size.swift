/// Sizes as QEMU reads them.
enum Size {
  /// `-m`, and `-object …,size=`: a number, which may have a fraction if it has a suffix, and a suffix
  /// B, K, M, G, T, P or E. Nil if it is none, or too large.
  ///
  /// - Parameter unit: bytes that a number without suffix counts in: 1 for objects, 1 MiB for `-m`.
  static func bytes(_ text: String, unit: UInt64) -> UInt64? {
    var digits = Substring(text)
    var factor = unit
    if let suffix = digits.last, !suffix.isNumber {
      let shifts: [Character: UInt64] = [
        "b": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50, "e": 60,
      ]
      guard let shift = shifts[Character(suffix.lowercased())] else { return nil }
      factor = 1 << shift
      digits = digits.dropLast()
    }
    if digits.lowercased().hasPrefix("0x") {
      guard let number = UInt64(digits.dropFirst(2), radix: 16) else { return nil }
      return product(number, factor)
    }
    let parts = digits.split(separator: ".", omittingEmptySubsequences: false)
    guard let first = parts.first, parts.count <= 2, let whole = UInt64(first),
      let bytes = product(whole, factor)
    else { return nil }
    guard parts.count == 2 else { return bytes }
    guard let fraction = Double("0." + parts[1]) else { return nil }
    return bytes + UInt64(fraction * Double(factor))
  }

  private static func product(_ a: UInt64, _ b: UInt64) -> UInt64? {
    let (result, overflow) = a.multipliedReportingOverflow(by: b)
    return overflow ? nil : result
  }
}

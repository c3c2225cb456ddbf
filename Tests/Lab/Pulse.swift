/// What the lines say of the guest's life.
public struct Pulse: Sendable {
  public struct Tick: Sendable {
    public var number: Int
    /// The guest's monotonic clock, microseconds. It stands still while QEMU holds the guest.
    public var guest: Int64
    /// The longest time since the line before in which the guest's program did not run, microseconds.
    public var gap: Int64
    public var line: SerialReader.Line
  }
  public struct Second: Sendable {
    /// What the guest's monotonic clock missed of this second of its hardware clock, microseconds.
    public var lost: Int64
    /// How exactly that is known, microseconds.
    public var within: Int64
    public var line: SerialReader.Line
  }

  public var ticks: [Tick] = []
  public var seconds: [Second] = []
  /// The last number the guest said was on its disk.
  public var lastSynced: Int?
  /// Lines that must never be there.
  public var complaints: [String] = []

  public init(_ lines: some Sequence<SerialReader.Line> = []) {
    for line in lines { note(line) }
  }

  mutating func note(_ line: SerialReader.Line) {
    // The first line of a connection may lack its beginning: only whole ones have these shapes.
    let words = line.text.split(separator: " ")
    if words.count == 5, words[0] == "tick", words[3] == "gap",
      let number = Int(words[1]), let guest = Int64(words[2]), let gap = Int64(words[4])
    {
      ticks.append(Tick(number: number, guest: guest, gap: gap, line: line))
    } else if words.count == 2, words[0] == "synced", let number = Int(words[1]) {
      lastSynced = max(lastSynced ?? 0, number)
    } else if words.count == 7, words[0] == "second", let lost = Int64(words[4]),
      let within = Int64(words[6])
    {
      seconds.append(Second(lost: lost, within: within, line: line))
    } else if ["MEMORY", "DISK", "Kernel panic"].contains(where: { line.text.contains($0) })
      || line.text.contains("Oops") || line.text.contains("BUG:") || line.text.contains("soft lockup")
    {
      complaints.append(line.text)
    }
  }

  /// What is wrong with the ticks; empty if the guest went on from where it was, every time.
  ///
  /// While one connection lasts no number is missing. From one to the next some may be (nobody
  /// listened), but numbers and guest time only ever grow, and together.
  public func discontinuities(tick milliseconds: Int = 10) -> [String] {
    var wrong: [String] = []
    for (a, b) in zip(ticks, ticks.dropFirst()) {
      let numbers = b.number - a.number
      if numbers < 1 || b.guest <= a.guest {
        wrong.append("back from tick \(a.number) at \(a.guest) to tick \(b.number) at \(b.guest)")
      } else if numbers > 1 && a.line.connection == b.line.connection {
        wrong.append("\(numbers - 1) ticks lost after \(a.number)")
      } else if b.guest - a.guest < Int64((numbers - 1) * milliseconds) * 1000 / 2 {
        wrong.append("\(numbers) ticks in \(b.guest - a.guest) µs after \(a.number)")
      }
    }
    return wrong
  }

  /// Microseconds: the longest time the guest's program did not run, by the guest's own clock.
  public var largestGap: Int64 { ticks.map(\.gap).max() ?? 0 }

  /// Milliseconds: the longest time between two ticks as the host read them, reconnection included.
  public var largestSilence: Double {
    zip(ticks, ticks.dropFirst()).map { Double($1.line.time - $0.line.time) / 1e6 }.max() ?? 0
  }

  /// Milliseconds the guest's clock has missed against its hardware clock, that is how long the guest
  /// was held, with how exactly that is known. Sum of the seconds read between two instants of the host.
  public func heldMilliseconds(from: Int64 = .min, to: Int64 = .max) -> (held: Double, within: Double) {
    let some = seconds.filter { $0.line.time >= from && $0.line.time <= to }
    return (
      Double(some.reduce(0) { $0 + $1.lost }) / 1000,
      Double((some.first?.within ?? 0) + (some.last?.within ?? 0)) / 1000
    )
  }
}

/// What the benchmark measures: everything has a default, and fewer runs or rows make a trial.
struct Options {
  /// Measurements of each row, of which the median is printed.
  var runs = 11
  /// Guest RAM, MiB.
  var sizes = [512, 4096]
  var rows = Row.allCases
  /// Rows that ask instead of upgrading.
  var surveys = Survey.allCases
  /// Attempts to connect, over all sizes and rows with moult; in row m, at each listener.
  var attempts = 120_000
  /// Measurements of each row's memory.
  var memoryRuns = 3
  /// The QEMU on both sides of every row: the host's, or one of the lab's root trees.
  var version = "7.2"
  /// Also print how long moult's steps took.
  var showsSteps = false

  static let usage = """
    usage: moult-bench [--runs N] [--sizes MIB,…] [--rows a,b,…] [--attempts N] [--memory-runs N]
                       [--qemu VERSION] [--steps]
    rows: a save and load, b plain migration, c the same with shared RAM, d moult upgrade --memory copy,
          e moult upgrade with shared RAM, f rollback of d, g rollback of e,
          h parse the corpus, i moult inspect, j moult list of 50 QEMUs, k of 50 stale ones,
          l what taps, ports and clients add to the pause, m connections refused at each kind of listener,
          n pings lost by an upgrade, o throughput after it
    """

  init(_ arguments: [String]) throws {
    var rest = arguments[...]
    while let option = rest.popFirst() {
      if option == "--steps" {
        showsSteps = true
        continue
      }
      guard let value = rest.popFirst() else { throw Misuse("\(option): takes a value") }
      let words = value.split(separator: ",").map(String.init)
      switch option {
      case "--runs": runs = try Options.number(option, value)
      case "--sizes": sizes = try words.map { try Options.number(option, $0) }
      case "--rows":
        rows = words.compactMap(Row.init(rawValue:))
        surveys = words.compactMap(Survey.init(rawValue:))
        if let word = words.first(where: { Row(rawValue: $0) == nil && Survey(rawValue: $0) == nil }) {
          throw Misuse("\(option): no row \(word)")
        }
      case "--attempts": attempts = try Options.number(option, value)
      case "--memory-runs": memoryRuns = try Options.number(option, value)
      case "--qemu": version = value
      default: throw Misuse("\(option): unknown option")
      }
    }
  }

  private static func number(_ option: String, _ text: String) throws -> Int {
    guard let number = Int(text), number >= 0 else { throw Misuse("\(option): \(text) is no number") }
    return number
  }
}

struct Misuse: Error, CustomStringConvertible {
  var description: String
  init(_ description: String) { self.description = description }
}

/// One way to bring a running guest into another QEMU.
enum Row: String, CaseIterable {
  case save = "a", plain = "b", plainShared = "c", upgradeCopy = "d", upgradeShared = "e"
  case rollbackCopy = "f", rollbackShared = "g"

  var title: String {
    switch self {
    case .save: "save, stop, start, load"
    case .plain: "live migration, bare script"
    case .plainShared: "the same, shared RAM"
    case .upgradeCopy: "moult upgrade, copy"
    case .upgradeShared: "moult upgrade, shared RAM"
    case .rollbackCopy: "moult rollback, copy"
    case .rollbackShared: "moult rollback, shared RAM"
    }
  }
  /// Whether the guest's RAM is a file that both QEMUs map.
  var isShared: Bool { [.plainShared, .upgradeShared, .rollbackShared].contains(self) }
  var isUpgrade: Bool { self == .upgradeCopy || self == .upgradeShared }
}

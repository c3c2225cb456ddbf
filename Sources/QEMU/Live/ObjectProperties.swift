/// What is told of objects that were added: their properties with their defaults, which may differ between versions
/// (`0|2`); `*` stands for none, `!` for the only value that can be rebuilt.
enum ObjectProperties {
  private static let memory: [String: String] = [
    "size": "*", "share": "off", "merge": "on", "dump": "on", "policy": "!default", "host-nodes": "!", "prealloc": "off",
    "reserve": "on",
  ]

  static let defaults: [String: [String: String]] = {
    var limits: [String: String] = [:]
    for kind in ["bps", "iops"] {
      for direction in ["total", "read", "write"] {
        limits["x-\(kind)-\(direction)"] = "0"
        limits["x-\(kind)-\(direction)-max"] = "0"
        limits["x-\(kind)-\(direction)-max-length"] = "1"
      }
    }
    limits["x-iops-size"] = "0"
    func with(_ more: [String: String]) -> [String: String] { memory.merging(more) { $1 } }
    return [
      "iothread": [
        "poll-max-ns": "32768", "poll-grow": "0|2", "poll-shrink": "0|2", "aio-max-batch": "0", "thread-pool-min": "0", "thread-pool-max": "64",
        "poll-weight": "0|3",
      ],
      "throttle-group": limits, "rng-builtin": [:], "rng-random": ["filename": "/dev/urandom"],
      "memory-backend-ram": memory,
      "memory-backend-file": with(["mem-path": "*", "align": "0", "pmem": "!off", "readonly": "off", "discard-data": "off", "offset": "0", "rom": "!auto"]),
      "memory-backend-memfd": with(["share": "on", "seal": "on", "hugetlb": "off", "hugetlbsize": "0"]),
    ]
  }()

  /// Types of which everything is told: no other option, and nothing of the machine's, sets a default of theirs.
  static func isTold(_ type: String) -> Bool { ["iothread", "throttle-group", "rng-random", "rng-builtin"].contains(type) }

  static func isDefault(_ word: String, _ name: String, of type: String) -> Bool {
    defaults[type]?[name]?.split(separator: "|").contains(Substring(word)) ?? false
  }

  /// Moult gives a twin RAM by descriptor, as a file, where the VM's owner said `memfd`.
  static func isStandIn(_ type: String, for said: String) -> Bool { type.hasPrefix("memory-backend") && said.hasPrefix("memory-backend") }

  /// What an option says of these properties, where it is not the default.
  static func said(_ option: OptionValue, _ type: String) -> [String: String] {
    var said: [String: String] = [:]
    for name in defaults[type, default: [:]].keys {
      let limit = name.hasPrefix("x-") ? option["limits." + name.dropFirst(2)] : nil
      guard let word = option[name] ?? limit else { continue }
      let number = Size.bytes(word, unit: 1).map { "\($0)" } ?? word
      if !word.isEmpty, !isDefault(number, name, of: type) { said[name] = number }
    }
    return said
  }
}

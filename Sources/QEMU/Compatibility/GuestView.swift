public import Kernel

/// What a guest sees of its QEMU beside the devices: its CPUs' features and its memory blocks.
public struct GuestView: Sendable, Equatable {
  /// QOM type and properties of the first CPU; feature words by their CPUID leaf and register. Empty for what this
  /// architecture or version does not tell.
  public var cpu: [String: JSONValue]
  /// Nil if QEMU gave no table that could be read.
  public var blocks: [RAMBlock]?

  public init(cpu: [String: JSONValue] = [:], blocks: [RAMBlock]? = nil) {
    self.cpu = cpu
    self.blocks = blocks
  }

  /// Of x86: what the guest reads by CPUID beside the feature bits.
  private static let properties = [
    "type", "vendor", "family", "model", "stepping", "model-id", "level", "xlevel", "xlevel2", "phys-bits",
  ]

  /// Two round trips, a millisecond or two.
  public static func read(_ monitor: QMPConnection) throws(Failure) -> GuestView {
    let first = try monitor.answers(to: [
      ("query-cpus-fast", nil), ("human-monitor-command", ["command-line": "info ramblock"]), ("query-hotpluggable-cpus", nil),
    ])
    var view = GuestView(blocks: first[1]?.string.flatMap(RAMBlock.parse))
    guard let path = path(ofFirstCPU: first[0]) else { return view }
    let answers = try monitor.answers(to: (["feature-words"] + properties).map { ("qom-get", ["path": .string(path), "property": .string($0)]) })
    for word in answers[0]?.array ?? [] {
      guard let leaf = word["cpuid-input-eax"]?.integer, let register = word["cpuid-register"]?.string else { continue }
      let subleaf = word["cpuid-input-ecx"]?.integer.map { ".\($0)" } ?? ""
      view.cpu["CPUID 0x\(String(leaf, radix: 16))\(subleaf) \(register)"] = word["features"] ?? .null
    }
    for (name, answer) in zip(properties, answers.dropFirst()) {
      if let answer { view.cpu[name] = answer }
    }
    if hasSeveralThreads(cpus: first[0], possible: first[2]) { view.setTopologyBits() }
    return view
  }

  /// Whether a socket has several cores or threads, in what `query-cpus-fast` and `query-hotpluggable-cpus` return.
  static func hasSeveralThreads(cpus: JSONValue?, possible: JSONValue?) -> Bool {
    ((cpus?.array ?? []) + (possible?.array ?? [])).contains { cpu in
      ["die-id", "module-id", "core-id", "thread-id"].contains { cpu["props"]?[$0]?.integer ?? 0 > 0 }
    }
  }

  /// The guest reads HT and CmpLegacy by the topology, whatever the feature words say: QEMU adds the bits to its answer
  /// to CPUID before 10.0, and to the words since. Source: `cpu_x86_cpuid` and `x86_cpu_expand_features` in target/i386/cpu.c.
  mutating func setTopologyBits() {
    for (word, bit) in [("CPUID 0x1 EDX", Int64(1) << 28), ("CPUID 0x80000001 ECX", 1 << 1)] {
      if let value = cpu[word]?.integer { cpu[word] = .integer(value | bit) }
    }
  }

  private static func path(ofFirstCPU answer: JSONValue?) -> String? {
    answer?.array?.min { ($0["cpu-index"]?.integer ?? 0) < ($1["cpu-index"]?.integer ?? 0) }?["qom-path"]?.string
  }

  /// Whether the CPUs look alike. A feature word that only a newer version knows of is off in the older one.
  public func hasSameCPU(as other: GuestView) -> Bool { cpuDifferences(from: other).isEmpty }

  private func cpuDifferences(from other: GuestView) -> [String] {
    Set(cpu.keys).union(other.cpu.keys).sorted().filter { key in
      if cpu[key] == other.cpu[key] { return false }
      let known = [cpu[key], other.cpu[key]].compactMap { $0 }
      return !(key.hasPrefix("CPUID") && known == [.integer(0)])
    }
  }

  /// In what a guest would see the difference, in words; empty if it would not.
  /// - Parameter features: names of the CPU's features that are on, here and there, if they were asked for.
  public func differences(from other: GuestView, features: (here: Set<String>, there: Set<String>)? = nil) -> [String] {
    var found: [String] = []
    for key in cpuDifferences(from: other) where !key.hasPrefix("CPUID") {
      found.append("CPU \(key): \(cpu[key]?.text() ?? "none") here, \(other.cpu[key]?.text() ?? "none") there")
    }
    let words = cpuDifferences(from: other).filter { $0.hasPrefix("CPUID") }
    if !words.isEmpty {
      let gained = features.map { $0.here.subtracting($0.there).sorted() } ?? []
      let lost = features.map { $0.there.subtracting($0.here).sorted() } ?? []
      if !lost.isEmpty { found.append("CPU features that the guest would lose: \(lost.joined(separator: ", "))") }
      if !gained.isEmpty { found.append("CPU features that the guest would gain: \(gained.joined(separator: ", "))") }
      if lost.isEmpty, gained.isEmpty { found.append("CPU features: \(words.joined(separator: ", ")) differ") }
    }
    if let blocks, let others = other.blocks { found += RAMBlock.mismatches(old: others, new: blocks) }
    return found
  }

  /// Names of all features of the first CPU that are on: hundreds of questions, so only to name a difference.
  public static func features(_ monitor: QMPConnection) throws(Failure) -> Set<String> {
    guard let path = path(ofFirstCPU: try monitor.execute("query-cpus-fast")) else { return [] }
    let list = try monitor.execute("qom-list", ["path": .string(path)])
    let names = (list.array ?? []).filter { $0["type"]?.string == "bool" }.compactMap { $0["name"]?.string }
      .filter { !$0.hasPrefix("legacy-") && !$0.hasPrefix("x-") && !bookkeeping.contains($0) }
    let values = try monitor.answers(to: names.map { ("qom-get", ["path": .string(path), "property": .string($0)]) })
    return Set(zip(names, values).filter { $0.1 == .bool(true) }.map(\.0))
  }

  /// Switches of QEMU's own that are no feature of a CPU, other spellings, and what follows from the topology.
  private static let bookkeeping: Set<String> = [
    "realized", "hotplugged", "hotpluggable", "start-powered-off", "check", "enforce", "kvm", "migratable", "l3-cache", "expose-kvm",
    "full-cpuid-auto-level", "fill-mtrr-mask", "vmware-cpuid-freq", "tcg-cpuid", "cpuid-0xb", "host-cache-info", "hv-passthrough",
    "ht", "cmp-legacy", "cmp_legacy", "xen-vapic", "vendor-cpuid-only", "vendor-cpuid-only-v2", "enable-cpuid-0x1f", "host-phys-bits", "cpu-hotplug",
  ]

  /// Types of everything in the machine's tree of objects: devices, buses, CPUs. Memory regions and interrupt
  /// lines, which are many, are left out.
  public static func deviceTypes(_ monitor: QMPConnection) throws(Failure) -> Set<String> {
    let leaves: Set<String> = ["memory-region", "qemu:memory-region", "irq"]
    var types: Set<String> = []
    var paths = ["/machine"]
    // Children of children: as many round trips as the tree is deep.
    for _ in 0..<16 where !paths.isEmpty {
      let lists = try monitor.answers(to: paths.map { ("qom-list", ["path": .string($0)]) })
      var next: [String] = []
      for (path, list) in zip(paths, lists) {
        for child in list?.array ?? [] {
          guard let name = child["name"]?.string, let type = child["type"]?.string, type.hasPrefix("child<") else { continue }
          let kind = String(type.dropFirst("child<".count).dropLast())
          if leaves.contains(kind) { continue }
          types.insert(kind)
          next.append(path + "/" + name)
        }
      }
      paths = next
    }
    return types
  }
}

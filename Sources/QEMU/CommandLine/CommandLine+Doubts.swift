/// What is wrong with a command line that no running QEMU vouches for.
///
/// Tables have only what moult is sure of. What they do not have, a patched QEMU may: of a running VM these are no
/// reasons for anything.
extension CommandLine {
  /// Misspelt keys and values, numbers out of range, and names that no option gives anything.
  /// - Parameter isPart: some options out of a command line: what they name, or lack, may be in the rest.
  public func doubts(isPart: Bool) -> [Blocker] {
    // What a configuration file makes is not known here.
    var doubts = terminalsOfADaemon
    doubts += isPart || options.contains { $0.name == "readconfig" } ? [] : danglingReferences
    for option in options where option.value != nil && !option.parameters.isMalformed {
      doubts += unknownKeys(of: option) + emptyKeys(of: option) + values(of: option)
      if !isPart { doubts += unmetRequirements(of: option) }
      if option.name == "smp" { doubts += topology(of: option) }
    }
    return doubts.map { Blocker(option: $0.option.text, reason: $0.reason, wayOut: Fault.wayOut) }
  }

  /// The emulated machine is an x86 PC, as far as the command line tells.
  private var isPC: Bool {
    let base = program.split(separator: "/").last ?? ""
    if base.hasPrefix("qemu-system-") { return base.hasSuffix("-x86_64") || base.hasSuffix("-i386") }
    let type = options.last { ($0.name == "machine" || $0.name == "M") && $0.parameters["type"] != nil }?.parameters["type"]
    return type.map(Self.isPCMachine) ?? false
  }

  private static func isPCMachine(_ type: String) -> Bool {
    // Proxmox adds `+pve0`.
    let name = type.prefix { $0 != "+" }
    return ["pc", "q35", "microvm", "isapc", "none", "xenfv", "xenpv", "x-remote", "nitro-enclave", "ubuntu", "ubuntu-q35"].contains(name)
      || ["pc-", "xenfv-", "rhel"].contains { name.hasPrefix($0) }
  }

  // MARK: Keys

  private func unknownKeys(of option: CommandOption) -> [Fault] {
    let parameters = option.parameters
    let known: Set<String>
    switch option.name {
    case "drive", "blockdev": known = Self.blockKeys
    case "netdev", "nic", "net":
      // Types that are not in the table take anything here.
      guard let own = Self.networkKeys[parameters["type"] ?? (option.name == "nic" ? "user" : "")] else { return [] }
      known = own.union(option.name == "netdev" ? [] : ["mac", "macaddr", "model", "addr", "vectors", "name", "netdev", "vlan"])
    case "machine", "M": if isPC { known = Self.machineKeys } else { return [] }
    case "vnc", "spice": known = Self.displayKeys[option.name] ?? []
    default: return []
    }
    var reported: Set<String> = []
    return parameters.entries.compactMap { entry in
      // What is nested belongs to what it is nested in.
      let head = entry.key.prefix { $0 != "." }
      let key = option.name == "machine" || option.name == "M" ? String(head.map { $0 == "_" ? "-" : $0 }) : String(head)
      if key.isEmpty || known.contains(key) || known.contains("no" + key) || entry.isFlag && known.contains(entry.spelling) { return nil }
      guard reported.insert(key).inserted else { return nil }
      let hint = Self.nearest(to: key, in: known).map { "; is it \($0)?" } ?? ""
      return Fault(option: option, reason: "no QEMU from 5.2 to 11.1 is known to have the key \(head) here\(hint)")
    }
  }

  /// `,=` or `,=x`: a value of nothing. QEMU calls it the invalid parameter ''.
  private func emptyKeys(of option: CommandOption) -> [Fault] {
    guard option.info?.impliedKey != nil || ["drive", "m", "smp"].contains(option.name), !option.parameters.isJSON,
      option.parameters.entries.contains(where: { $0.key.isEmpty && !$0.isFlag })
    else { return [] }
    return [Fault(option: option, reason: "a key is missing before =")]
  }

  /// The known word that a misspelt one is nearest to: at most two letters off, and half of it.
  private static func nearest(to word: String, in known: Set<String>) -> String? {
    let near = known.map { (word: $0, distance: distance($0, word)) }.min { ($0.distance, $0.word) < ($1.distance, $1.word) }
    return near.flatMap { $0.distance <= min(2, word.count / 2) ? $0.word : nil }
  }

  /// Levenshtein's.
  private static func distance(_ a: String, _ b: String) -> Int {
    let (a, b) = (Array(a.utf8), Array(b.utf8))
    var row = Array(0...b.count)
    for (i, letter) in a.enumerated() {
      var diagonal = row[0]
      row[0] = i + 1
      for (j, other) in b.enumerated() {
        (diagonal, row[j + 1]) = (row[j + 1], min(row[j] + 1, row[j + 1] + 1, diagonal + (letter == other ? 0 : 1)))
      }
    }
    return row[b.count]
  }

  // MARK: Values

  /// Words that stand for one of a few things.
  private func values(of option: CommandOption) -> [Fault] {
    func oneOf(_ words: String, _ value: String, _ what: String) -> [Fault] {
      let known = Set(words.split(separator: " ").map(String.init))
      if known.contains(value) { return [] }
      let hint = Self.nearest(to: value, in: known).map { "; is it \($0)?" } ?? ""
      return [Fault(option: option, reason: "\(value.isEmpty ? "nothing" : value) is no \(what)\(hint)")]
    }
    let parameters = option.parameters
    switch option.name {
    case "drive", "mon", "action", "rtc":
      return (Self.valueWords[option.name] ?? [:]).flatMap { key, words in parameters[key].map { oneOf(words, $0, "value of \(key)=") } ?? [] }
    case "watchdog-action": return oneOf(Self.watchdogActions, option.value ?? "", "action")
    case "vga": return oneOf("none std cirrus vmware qxl virtio xenfb tcx cg3", option.value ?? "", "graphics card")
    case "accel": return parameters["accel"].map { oneOf(Self.accelerators, $0, "accelerator") } ?? []
    case "machine", "M":
      var faults = (parameters["accel"] ?? "").split(separator: ":").flatMap { oneOf(Self.accelerators, String($0), "accelerator") }
      if let type = parameters["type"], !["help", "?"].contains(type) {
        let isName = !type.isEmpty && type.utf8.allSatisfy { Self.isIdentifier("a" + String(UnicodeScalar($0))) || $0 == UInt8(ascii: "+") }
        let isForeign = isPC && (program.hasSuffix("-x86_64") || program.hasSuffix("-i386")) && !Self.isPCMachine(type)
        if !isName || isForeign { faults.append(Fault(option: option, reason: "\(type) is no machine type\(isName ? " of an x86 QEMU" : "")")) }
      }
      return faults
    default: return []
    }
  }

  private static let accelerators = "tcg kvm xen hax hvf whpx nvmm qtest mshv nitro"
  private static let watchdogActions = "reset shutdown poweroff pause debug none inject-nmi"
  private static let valueWords = [
    "drive": [
      "if": "none ide scsi floppy pflash mtd sd virtio xen", "media": "disk cdrom", "aio": "threads native io_uring",
      "cache": "none off writeback unsafe directsync writethrough", "discard": "ignore off unmap on",
      "werror": "enospc stop report ignore auto", "rerror": "stop report ignore auto",
    ],
    "mon": ["mode": "readline control"], "rtc": ["clock": "host rt vm", "driftfix": "none slew"],
    "action": ["panic": "pause shutdown exit-failure none", "reboot": "reset shutdown", "shutdown": "poweroff pause", "watchdog": watchdogActions],
  ]

  /// Whole numbers above 0, and no more at the start than at most. No machine of an x86 QEMU has over 4096 vCPUs.
  private func topology(of option: CommandOption) -> [Fault] {
    let parameters = option.parameters
    let most = isPC ? 4096 : Int(Int32.max)
    var numbers: [String: Int] = [:]
    for entry in parameters.entries {
      guard let number = Int(entry.value), number > 0, number <= most else {
        return [Fault(option: option, reason: "\(entry.key)=\(entry.value) is no number from 1 to \(most)")]
      }
      numbers[entry.key] = number
    }
    if let cpus = numbers["cpus"], let most = numbers["maxcpus"], cpus > most {
      return [Fault(option: option, reason: "cpus=\(cpus) is more than maxcpus=\(most)")]
    }
    return []
  }
}

extension OptionValue.Entry {
  /// A bare word as it was written: `nowait` is `wait` switched off, and `node` is no `de`.
  fileprivate var spelling: String { isFlag && OptionValue.isOff(value) ? "no" + key : key }
}

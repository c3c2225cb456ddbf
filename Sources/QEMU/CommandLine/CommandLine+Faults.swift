/// What QEMU itself refuses of a command line, and what it does with options that are given twice.
extension CommandLine {
  struct Fault: Equatable {
    var option: CommandOption
    /// Names the word at fault.
    var reason: String

    static let wayOut = "check the command line: QEMU itself refuses it"
  }

  /// Keys that no QEMU knows, ids that are none, and ids given twice. (Unknown options, missing values and
  /// malformed JSON are read off each option by itself.)
  var faults: [Fault] {
    var faults: [Fault] = []
    var seen: [String: Set<String>] = [:]
    for option in options where option.value != nil {
      let parameters = option.parameters
      if let known = Self.closedKeys[option.name], !parameters.isJSON {
        for entry in parameters.entries where !known.contains(entry.key) && !known.contains("no" + entry.key) {
          faults.append(Fault(option: option, reason: "no QEMU from 5.2 to 11.1 is known to have the key \(entry.key) here"))
        }
      }
      for (group, key) in Self.identities[option.name] ?? [] {
        guard let id = parameters[key] else { continue }
        if !Self.isIdentifier(id) {
          faults.append(
            Fault(option: option, reason: "\(key)=\(id) is no id: one starts with a letter, and has letters, digits and -._ only"))
        } else if !seen[group, default: []].insert(id).inserted {
          faults.append(Fault(option: option, reason: "\(key)=\(id) is given twice"))
        }
      }
    }
    return faults
  }

  /// QEMU's `id_wellformed` (util/id.c).
  static func isIdentifier(_ text: String) -> Bool {
    func isLetter(_ byte: UInt8) -> Bool { (0x41...0x5a).contains(byte) || (0x61...0x7a).contains(byte) }
    guard let first = text.utf8.first, isLetter(first) else { return false }
    return text.utf8.allSatisfy { isLetter($0) || (0x30...0x39).contains($0) || "-._".utf8.contains($0) }
  }

  /// What an option gives a name to, and by which key: names of one kind must differ.
  private static let identities: [String: [(group: String, key: String)]] = [
    "audiodev": [("audiodev", "id")], "blockdev": [("node", "node-name")], "chardev": [("chardev", "id")],
    "device": [("device", "id")], "drive": [("drive", "id"), ("node", "node-name")], "fsdev": [("fsdev", "id")],
    "mon": [("mon", "id")], "netdev": [("netdev", "id")], "object": [("object", "id")], "tpmdev": [("tpmdev", "id")],
  ]

  /// All keys of the options that take no others, as `query-command-line-options` of 5.2, 7.2, 10.0 and 11.1
  /// lists them; every option but these and those that QEMU merges has an id, too.
  private static let closedKeys: [String: Set<String>] = {
    let lists = [
      "action": "panic reboot shutdown watchdog",
      "add-fd": "id fd opaque set",
      "boot": "menu once order reboot-timeout splash splash-time strict",
      "chardev": """
        id abstract append backend chardev chardevs.0 chardevs.1 chardevs.2 chardevs.3 clipboard cols debug delay encoding fd height \
        host input-path ipv4 ipv6 localaddr localport logappend logfile logtimestamp mouse mux name nodelay path port reconnect \
        reconnect-ms rows server signal size telnet tight tls-authz tls-creds tn3270 to wait websocket width
        """,
      "fw_cfg": "id file gen_id name string",
      "icount": "align rr rrfile rrsnapshot shift sleep",
      "m": "maxmem size slots",
      "mon": "id chardev mode pretty",
      "msg": "guest-name timestamp",
      "name": "debug-threads guest process",
      "overcommit": "cpu-pm mem-lock",
      "rtc": "base clock driftfix",
      "run-with": "async-teardown chroot exit-with-parent user",
      "sandbox": "id elevateprivileges enable obsolete resourcecontrol spawn",
      "smp": "books clusters cores cpus dies drawers maxcpus modules sockets threads",
    ]
    return lists.mapValues { Set($0.split(separator: " ").map(String.init)) }
  }()
}

extension CommandLine {
  /// Places of options that have no effect, because the same option comes again and takes one value only.
  var superseded: Set<Int> {
    var last: [String: Int] = [:]
    var places: Set<Int> = []
    for (place, option) in options.enumerated() where Self.singleValued.contains(option.name) && option.value != nil {
      if let before = last.updateValue(place, forKey: option.name) { places.insert(before) }
    }
    return places
  }

  private static let singleValued: Set<String> = [
    "D", "bios", "chroot", "d", "dtb", "incoming", "initrd", "kernel", "loadvm", "mem-path", "pidfile", "runas", "shim", "uuid",
  ]

  /// Where each key of `-machine` is set last: QEMU merges all of them into one, key by key.
  var lastMachineKeys: [String: Int] {
    var last: [String: Int] = [:]
    for (place, option) in options.enumerated() where option.name == "machine" || option.name == "M" {
      for entry in option.parameters.entries { last[entry.key] = place }
    }
    return last
  }
}

/// Options that some QEMU from 5.2 on has and another has not. Source: QEMU's docs/about/removed-features, and
/// what `-help` of the releases prints.
struct OptionLife: Sendable {
  var name: String
  /// The first release that knows it; nil if 5.2 did already.
  var since: QEMUVersion?
  /// The first release that does not know it any more.
  var removed: QEMUVersion?
  var wayOut: String

  /// Whether a QEMU of that version takes the option.
  func isKnown(to version: QEMUVersion) -> Bool {
    if let since, version < since { return false }
    if let removed, version >= removed { return false }
    return true
  }

  static func of(_ name: String) -> OptionLife? { table[name] }

  private static let table: [String: OptionLife] = {
    var table: [String: OptionLife] = [:]
    func removed(_ name: String, _ major: Int, _ minor: Int, _ wayOut: String) {
      table[name] = OptionLife(name: name, since: nil, removed: QEMUVersion(major: major, minor: minor), wayOut: wayOut)
    }
    func added(_ name: String, _ major: Int, _ minor: Int, _ wayOut: String) {
      table[name] = OptionLife(name: name, since: QEMUVersion(major: major, minor: minor), removed: nil, wayOut: wayOut)
    }
    removed("realtime", 6, 0, "start the VM with -overcommit mem-lock=on")
    removed("show-cursor", 6, 0, "start the VM with -display TYPE,show-cursor=on")
    removed("tb-size", 6, 0, "start the VM with -accel tcg,tb-size=N")
    removed("no-quit", 7, 0, "start the VM with -display TYPE,window-close=off")
    removed("enable-fips", 7, 1, "start the VM without it")
    removed("writeconfig", 7, 1, "start the VM without it")
    removed("alt-grab", 7, 1, "start the VM with -display sdl,grab-mod=…")
    removed("ctrl-grab", 7, 1, "start the VM with -display sdl,grab-mod=…")
    removed("sdl", 7, 1, "start the VM with -display sdl")
    removed("curses", 7, 1, "start the VM with -display curses")
    removed("soundhw", 7, 1, "start the VM with -device TYPE,audiodev=ID and -audiodev")
    removed("watchdog", 7, 2, "start the VM with -device MODEL")
    removed("audio-help", 8, 2, "start the VM without it")
    removed("no-hpet", 9, 0, "start the VM with -machine hpet=off")
    removed("no-acpi", 9, 0, "start the VM with -machine acpi=off")
    removed("singlestep", 9, 0, "start the VM with -accel tcg,one-insn-per-tb=on")
    removed("chroot", 9, 0, "start the VM with -run-with chroot=DIRECTORY")
    table["async-teardown"] = OptionLife(
      name: "async-teardown", since: QEMUVersion(major: 7, minor: 2), removed: QEMUVersion(major: 9, minor: 0),
      wayOut: "start the VM without it, or with -run-with async-teardown=on")
    removed("portrait", 9, 2, "start the VM without it")
    removed("rotate", 9, 2, "start the VM without it")
    removed("runas", 10, 0, "start the VM with -run-with user=USER")
    added("action", 6, 0, "start the VM with -no-reboot or -no-shutdown")
    added("compat", 6, 0, "start the VM without it")
    added("audio", 7, 1, "start the VM with -audiodev and -device")
    added("perfmap", 8, 0, "start the VM without it")
    added("jitdump", 8, 0, "start the VM without it")
    added("run-with", 8, 1, "start the VM without it")
    added("shim", 10, 0, "start the VM without it")
    return table
  }()
}

/// Options that were removed, in the words that took their place: only where QEMU makes exactly the same of both,
/// and where 5.2, the oldest that is upgraded, understands the new words already.
enum ModernSpelling {
  /// What a twin's command line says in other words, `-no-hpet as -machine hpet=off`.
  static func changes(in commandLine: CommandLine) -> [String] {
    commandLine.options.compactMap { option in of(option).map { "\(option.text) as \($0.text)" } }
  }

  /// The option to write instead; nil to leave it as it is.
  static func of(_ option: CommandOption) -> CommandOption? {
    func instead(_ name: String, _ value: String) -> CommandOption {
      CommandOption(dashes: option.dashes, name: name, value: value)
    }
    switch option.name {
    // `select_watchdog` of vl.c made a -device of it.
    case "watchdog": return option.value.map { instead("device", OptionValue.escape($0)) }
    // Both set the same flag.
    case "realtime": return option.parameters["mlock"].map { instead("overcommit", "mem-lock=" + OptionValue.escape($0)) }
    // These were made into -machine from 5.0 and 6.0 on; the properties are there since 5.0 and 5.2.
    case "no-acpi": return instead("machine", "acpi=off")
    case "no-hpet": return instead("machine", "hpet=off")
    default: return nil
    }
  }
}

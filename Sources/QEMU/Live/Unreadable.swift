/// What can be set over a monitor, and no command tells of afterwards. The new QEMU has what its arguments say.
///
/// The table in docs/what-is-refused.md is this one; what every VM could have been given stands only there.
enum Unreadable {
  struct Setting: Sendable {
    /// The commands that set it.
    var commands: String
    /// As a sentence, after `set by … `.
    var effect: String
    /// Whether this VM has what they set.
    var isThere: @Sendable (CommandLine, LiveMachine) -> String?
  }

  static let settings: [Setting] = [
    Setting(commands: "set_password, expire_password, change-vnc-password", effect: "set it again after the upgrade") { line, _ in
      line.options.first(where: takesPassword).map { "the password of \($0.text)" }
    },
    Setting(commands: "watchdog-set-action, set-action", effect: "the new QEMU does what its arguments say") { line, live in
      device(of: ["i6300esb", "ib700", "diag288"], line, live).map { "what happens when the watchdog (\($0)) fires" }
    },
    Setting(commands: "set-action", effect: "the new QEMU does what its arguments say") { line, live in
      device(of: ["pvpanic", "pvpanic-pci"], line, live).map { "what happens when the guest panics (\($0))" }
        ?? line.options.first { ["action", "no-reboot", "no-shutdown"].contains($0.name) }.map { "what follows a reset or shutdown (\($0.text))" }
    },
    Setting(commands: "set_link", effect: "a link that was cut has to be cut again after the upgrade") { line, live in
      device(of: cardsWithoutLink, line, live).map { "whether the link of \($0) was cut" }
    },
  ]

  static func notes(_ line: CommandLine, live: LiveMachine) -> [String] {
    settings.compactMap { setting in
      setting.isThere(line, live).map { "\($0) cannot be read back if it was set while the VM ran (\(setting.commands)): \(setting.effect)" }
    } + live.writeThresholds.sorted { $0.key < $1.key }.map { node, bytes in
      "the write threshold of block node \(node) (\(bytes) bytes) is not carried over: set it again after the upgrade (block-set-write-threshold)"
    }
  }

  private static func takesPassword(_ option: CommandOption) -> Bool {
    let parameters = option.parameters
    switch option.name {
    case "vnc": return parameters.isOn("password") && ![nil, "none"].contains(parameters["vnc"])
    case "spice": return parameters["password"] == nil && parameters["password-secret"] == nil && !parameters.isOn("disable-ticketing")
    default: return false
    }
  }

  /// Network cards that do not have the link in the state that they migrate.
  /// Source: their `post_load` in QEMU's hw/net; the others infer `link_down` from what the guest sees.
  private static let cardsWithoutLink: Set<String> = [
    "vmxnet3", "pcnet", "ne2k_pci", "ne2k_isa", "usb-net", "tulip", "i82550", "i82551", "i82557a", "i82557b", "i82557c", "i82558a",
    "i82558b", "i82559a", "i82559b", "i82559c", "i82559er", "i82562", "i82801",
  ]

  /// A device of one of these types, by its id if it has one.
  private static func device(of types: Set<String>, _ line: CommandLine, _ live: LiveMachine) -> String? {
    live.devices.filter { types.contains($0.value) }.keys.min() ?? live.anonymousDevices.first { types.contains($0) }
      ?? line.options.first { $0.name == "watchdog" && types.contains($0.value ?? "") }?.value
  }
}

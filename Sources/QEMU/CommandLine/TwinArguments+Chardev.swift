/// The ids QEMU gives to the chardevs of `-serial`, `-parallel`, `-monitor`, `-qmp` and `-debugcon`
/// (`serial_parse`, `parallel_parse`, `monitor_parse`, `debugcon_parse` in its `vl.c`).
struct LegacyLabels {
  private var serial = 0
  private var hasEmptySerial = false
  private var parallel = 0
  private var monitor = 0

  /// True if QEMU's own numbers depend on its version: `-serial none` counts since 9.0, and in the
  /// stable releases 7.2 and 8.2 of that time.
  var areAmbiguous: Bool { hasEmptySerial }

  /// The id of the chardev that this option makes; nil if it makes none by an id of its own.
  mutating func next(for option: CommandOption) -> String? {
    guard let value = option.value else { return nil }
    var label: String
    switch option.name {
    case "serial":
      serial += 1
      if value == "none" {
        hasEmptySerial = true
        return nil
      }
      label = "serial\(serial - 1)"
    case "parallel":
      if value == "none" { return nil }
      label = "parallel\(parallel)"
      parallel += 1
    case "monitor", "qmp", "qmp-pretty":
      if option.name == "monitor", value.hasPrefix("none") { return nil }
      label = "compat_monitor\(monitor)"
      monitor += 1
    case "debugcon": label = "debugcon"
    default: return nil
    }
    return value.hasPrefix("chardev:") ? nil : label
  }
}

extension TwinArguments {
  /// What a chardev must not do when another process has it open already: truncate what it writes,
  /// or wait for a client before QEMU goes on.
  static func secondOpener(_ value: inout OptionValue) {
    if value["backend"] == "file", value["path"] != nil, !value.isOn("append") {
      value.set("append", to: true)
    }
    if value["logfile"] != nil, !value.isOn("logappend") { value.set("logappend", to: true) }
    let listens = value["backend"] == "socket" && value.isOn("server") && value["path"] != nil
    // Without `wait` a listener waits.
    if listens, value["wait"].map(OptionValue.isOn) ?? true { value.set("wait", to: false) }
  }

  /// `-serial file:PATH` has no way to say append, so it becomes a chardev of the same id and a
  /// reference to it, which QEMU treats the same and a later upgrade leaves alone.
  static func rewrittenLegacyChardev(
    _ option: CommandOption, value: String, label: String
  ) -> [CommandOption] {
    var option = option
    let isMultiplexed = value.hasPrefix("mon:")
    let plain = isMultiplexed ? String(value.dropFirst("mon:".count)) : value
    if plain.hasPrefix("file:") {
      let path = OptionValue.escape(String(plain.dropFirst("file:".count)))
      let mux = isMultiplexed ? ",mux=on" : ""
      option.value = "chardev:" + label
      let chardev = CommandOption(
        name: "chardev", value: "file,id=\(label),path=\(path),append=on\(mux)")
      // `mon:` puts a monitor on the chardev beside its device.
      let isDevice = option.name == "serial" || option.name == "parallel" || option.name == "debugcon"
      let monitor = CommandOption(name: "mon", value: "chardev=\(label),mode=readline")
      return isMultiplexed && isDevice ? [chardev, option, monitor] : [chardev, option]
    }
    if plain.hasPrefix("unix:") {
      var parameters = OptionValue(String(plain.dropFirst("unix:".count)), impliedKey: "path")
      guard parameters.isOn("server"), parameters["wait"].map(OptionValue.isOn) ?? true else {
        return [option]
      }
      parameters.set("wait", to: false)
      option.value = (isMultiplexed ? "mon:unix:" : "unix:") + parameters.text
    }
    return [option]
  }
}

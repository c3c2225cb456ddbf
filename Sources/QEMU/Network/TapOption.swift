/// An option that makes QEMU use a tap: `-netdev`, `-nic` or `-net` of type tap or bridge.
public struct TapOption: Sendable, Hashable {
  /// The option's place in the command line.
  public var option: Int
  public var id: String?
  /// The name that is asked for, which may be a pattern (`tap%d`); nil if none is.
  public var interface: String?
  /// Numbers under which QEMU was given its queues.
  public var descriptors: [Int32]
  /// The bridge that a helper program puts it on; nil without a helper.
  public var bridge: String?
  /// How many queues it is asked to have.
  public var queues: Int
  /// Its card's rings are to be served by the kernel (vhost-net). Source: `net_init_tap_one` in QEMU's net/tap.c.
  public var wantsVhost: Bool
}

extension CommandLine {
  public var taps: [TapOption] {
    options.enumerated().compactMap { index, option in
      guard ["netdev", "nic", "net"].contains(option.name) else { return nil }
      let parameters = option.parameters
      guard let type = parameters["type"], type == "tap" || type == "bridge" else { return nil }
      func numbers(_ key: String) -> [Int32] {
        (parameters[key] ?? parameters[key + "s"] ?? "").split(separator: ":").compactMap { Int32($0) }
      }
      let hasHelper = type == "bridge" || parameters["helper"] != nil
      return TapOption(
        option: index, id: parameters["id"], interface: parameters["ifname"], descriptors: numbers("fd"),
        bridge: hasHelper ? parameters["br"] ?? "br0" : nil,
        queues: max(numbers("fd").count, parameters["queues"].flatMap { Int($0) } ?? 1), wantsVhost: type == "tap" && parameters.wantsVhost)
    }
  }
}

extension CommandLine {
  /// What QEMU would run when a tap goes that it has made or opened by name; nil if nothing. Source: `net_init_tap` in
  /// QEMU's net/tap.c: with a descriptor or a helper there is none.
  public func downscript(_ tap: TapOption) -> String? {
    if !tap.descriptors.isEmpty || tap.bridge != nil { return nil }
    let script = options[tap.option].parameters["downscript"] ?? "/etc/qemu-ifdown"
    return script == "no" || script.isEmpty ? nil : script
  }
}

extension OptionValue {
  /// `vhost=` decides, and without it a descriptor or `vhostforce=on`.
  var wantsVhost: Bool {
    self["vhost"].map(OptionValue.isOn) ?? (self["vhostfd"] != nil || self["vhostfds"] != nil || isOn("vhostforce"))
  }
}

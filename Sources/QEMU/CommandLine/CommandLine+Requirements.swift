/// What QEMU demands of an option, as it says itself when it is missing.
extension CommandLine {
  /// Keys without which an option is refused; each may be given by the first word.
  private static let required: [String: [String]] = [
    "audiodev": ["driver", "id"], "blockdev": ["driver", "node-name"], "chardev": ["backend", "id"], "fsdev": ["fsdriver", "id"],
    "netdev": ["type", "id"], "object": ["qom-type", "id"], "tpmdev": ["type", "id"],
  ]

  /// What an option lacks, or says in a form that is none.
  func unmetRequirements(of option: CommandOption) -> [Fault] {
    let parameters = option.parameters
    func fault(_ reason: String) -> [Fault] { [Fault(option: option, reason: reason)] }
    // It asks for a list.
    if parameters.entries.contains(where: { ["help", "?"].contains($0.key) || ["help", "?"].contains($0.value) }) { return [] }
    if let missing = Self.required[option.name]?.first(where: { parameters[$0]?.isEmpty ?? true }) { return fault("\(missing)= is missing") }
    let value = option.value ?? ""
    switch option.name {
    case "chardev":
      let isNowhere = !["path", "fd", "host", "port"].contains { parameters[$0] != nil }
      return parameters["backend"] == "socket" && isNowhere ? fault("it says neither path= nor port= nor fd=") : []
    case "boot":
      return ["order", "once"].flatMap { key in
        guard let order = parameters[key] else { return [Fault]() }
        if Set(order).count < order.count { return fault("\(key)=\(order) has a drive twice") }
        return order.allSatisfy { ("a"..."p").contains($0) } ? [] : fault("\(key)=\(order) is no order: drives are letters from a to p")
      }
    case "global":
      let isNamed = ["driver", "property", "value"].allSatisfy { parameters[$0] != nil }
      return isNamed || value.contains("=") && value.prefix { $0 != "=" }.contains(".") ? [] : fault("it is not of the form driver.property=value")
    case "incoming":
      let isURI = value == "defer" || ["tcp:", "rdma:", "unix:", "exec:", "fd:", "file:", "vsock:"].contains { value.hasPrefix($0) }
      return isURI || parameters.isJSON || value.contains("=") ? [] : fault("\(value) is nothing that a migration comes from")
    case "m":
      guard let size = parameters["size"].flatMap({ Size.bytes($0, unit: 1 << 20) }), let most = parameters["maxmem"].flatMap({ Size.bytes($0, unit: 1 << 20) }),
        size > most
      else { return [] }
      return fault("size=\(parameters["size"] ?? "") is more than maxmem=\(parameters["maxmem"] ?? "")")
    case "rtc":
      guard let base = parameters["base"], !["utc", "localtime"].contains(base), !(base.first?.isNumber ?? false) else { return [] }
      return fault("base=\(base) is neither utc nor localtime nor a date")
    case "uuid":
      let places = Set([8, 13, 18, 23])
      let isUUID = value.utf8.count == 36 && value.utf8.enumerated().allSatisfy { places.contains($0.offset) ? $0.element == UInt8(ascii: "-") : Self.isHexDigit($0.element) }
      return isUUID ? [] : fault("\(value) is no UUID")
    default: return []
    }
  }

  private static func isHexDigit(_ byte: UInt8) -> Bool { "0123456789abcdefABCDEF".utf8.contains(byte) }

  /// A daemon has no terminal to put a console on.
  var terminalsOfADaemon: [Fault] {
    guard options.contains(where: { $0.name == "daemonize" }) else { return [] }
    return options.filter { option in
      switch option.name {
      case "serial", "monitor", "qmp", "qmp-pretty", "parallel": ["stdio", "mon:stdio"].contains(option.value ?? "")
      case "chardev": option.parameters["backend"] == "stdio"
      default: false
      }
    }.map { Fault(option: $0, reason: "standard input and output are not there with -daemonize") }
  }
}

/// A character device, however the command line makes it.
struct Chardev {
  var id: String
  /// `socket`, `file`, `stdio`, …
  var backend: String
  var parameters: OptionValue
  /// The option that makes it, verbatim.
  var option: String
  /// What uses it: `qmp`, `hmp`, `serial`, `device virtserialport`, …
  var consumers: [String] = []

  /// Path of the unix socket it listens on.
  var listeningPath: String? {
    backend == "socket" && parameters.isOn("server") ? unixPath : nil
  }

  var unixPath: String? {
    backend == "socket" && !parameters.isOn("abstract") ? parameters["path"] : nil
  }

  /// The kind of binding that its consumer makes of it; nil if the transport tells.
  var consumedKind: Binding.Kind? {
    if consumers.contains(where: { $0.hasPrefix("tpmdev") }) { return .tpm }
    return consumers.contains { $0.contains("vhost-user") } ? .vhostUser : nil
  }

  /// All that it is for are the rings of a disk.
  var servesDisk: Bool { isUsed(by: DeviceTable.isServedDisk) }
  /// All that it is for is a directory.
  var servesDirectory: Bool { isUsed(by: DeviceTable.isServedDirectory) }

  private func isUsed(by isWanted: (String) -> Bool) -> Bool {
    !consumers.isEmpty && consumers.allSatisfy { $0.hasPrefix("device ") && isWanted(String($0.dropFirst("device ".count))) }
  }

  /// All that it is for is a `-netdev`.
  var servesNetwork: Bool { consumers == [Self.network] }
  static let network = "netdev vhost-user"

  /// `host:port` of a TCP socket; of a UDP one `host:port` that it sends to, and `@host:port` that it is bound
  /// to if that is said, as in `-serial udp:`.
  var networkAddress: String {
    func join(_ host: String?, _ port: String?) -> String {
      let host = host ?? ""
      return (host.contains(":") && port != nil ? "[\(host)]" : host) + (port.map { ":" + $0 } ?? "")
    }
    let remote = join(parameters["host"], parameters["port"])
    guard parameters["localaddr"] != nil || parameters["localport"] != nil else { return remote }
    return remote + "@" + join(parameters["localaddr"], parameters["localport"])
  }

  /// The old short form that `-serial`, `-monitor`, … take (`qemu_chr_parse_compat`); nil if QEMU
  /// would not take it.
  init?(legacy text: String, id: String, option: String) {
    self.id = id
    self.option = option
    var text = text
    if text.hasPrefix("mon:") {
      text.removeFirst("mon:".count)
      consumers.append("hmp")
    }
    func rest(_ prefix: String) -> String? {
      text.hasPrefix(prefix) ? String(text.dropFirst(prefix.count)) : nil
    }
    parameters = OptionValue("")
    switch text {
    case "null", "pty", "msmouse", "wctablet", "braille", "testdev", "stdio": backend = text
    case "con:": backend = "console"
    default:
      if text == "vc" || text.hasPrefix("vc:") {
        backend = "vc"
      } else if let path = rest("file:") {
        backend = "file"
        parameters.set("path", to: path)
      } else if let path = rest("pipe:") {
        backend = "pipe"
        parameters.set("path", to: path)
      } else if let path = rest("unix:") {
        backend = "socket"
        parameters = OptionValue(path, impliedKey: "path")
      } else if let address = ["tcp:", "telnet:", "tn3270:", "websocket:"].lazy.compactMap(rest).first {
        backend = "socket"
        parameters = OptionValue(address, impliedKey: "host")
        Self.splitPort(&parameters, host: "host", port: "port")
        // gdbstub.c: gdb's TCP port always listens.
        if id == "gdb" { parameters.set("server", to: true) }
      } else if let address = rest("udp:") {
        backend = "udp"
        let sides = address.split(separator: "@", maxSplits: 1, omittingEmptySubsequences: false)
        parameters.set("host", to: String(sides[0]))
        Self.splitPort(&parameters, host: "host", port: "port")
        if sides.count == 2 {
          parameters.set("localaddr", to: String(sides[1]))
          Self.splitPort(&parameters, host: "localaddr", port: "localport")
        }
      } else if text.hasPrefix("/dev/parport") || text.hasPrefix("/dev/ppi") {
        backend = "parallel"
        parameters.set("path", to: text)
      } else if text.hasPrefix("/dev/") {
        backend = "serial"
        parameters.set("path", to: text)
      } else {
        return nil
      }
    }
  }

  /// Takes `host:port` or `[host]:port` apart.
  private static func splitPort(_ parameters: inout OptionValue, host hostKey: String, port portKey: String) {
    guard let text = parameters[hostKey], let colon = text.lastIndex(of: ":") else { return }
    var host = text[..<colon]
    if host.hasPrefix("["), host.hasSuffix("]") { host = host.dropFirst().dropLast() }
    parameters.set(hostKey, to: String(host))
    parameters.set(portKey, to: String(text[text.index(after: colon)...]))
  }

  init(id: String, backend: String, parameters: OptionValue, option: String) {
    self.id = id
    self.backend = backend
    self.parameters = parameters
    self.option = option
  }
}

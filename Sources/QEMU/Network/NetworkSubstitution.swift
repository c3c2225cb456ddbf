/// What stands in a twin's command line for names that only one process of a network namespace can have: free ports
/// for ports, other abstract names, descriptors for taps. The twin is given the real ones when it takes the guest over.
public struct NetworkSubstitution: Sendable, Hashable {
  public struct Place: Sendable, Hashable {
    public var option: Int
    public var part: NetworkEndpoint.Part
    public init(_ endpoint: NetworkEndpoint) { (option, part) = (endpoint.option, endpoint.part) }
  }
  public var ports: [Place: UInt16] = [:]
  public var abstractNames: [Place: String] = [:]
  /// What connections go to instead, by the option's place: a port of the loopback interface, or an abstract name. For
  /// those that are not made again.
  public enum Peer: Sendable, Hashable { case port(UInt16), abstract(String) }
  public var peers: [Int: Peer] = [:]
  /// Numbers of the queues of each tap, by the option's place, under which the twin inherits them.
  public var taps: [Int: [Int32]] = [:]
  /// Those of the descriptors of /dev/vhost-net that it inherits for them, one for each queue; none: its card is served by
  /// QEMU itself. Of taps that want to be served by the kernel only.
  public var vhosts: [Int: [Int32]] = [:]

  /// Those of the descriptors of /dev/vhost-vsock that it inherits, by the places of the devices' options.
  public var vsocks: [Int: Int32] = [:]

  public init() {}

  /// The command line with these in it, option by option: none comes or goes.
  public func applied(to commandLine: CommandLine) -> CommandLine {
    var result = commandLine
    for endpoint in commandLine.networkEndpoints {
      let place = Place(endpoint)
      if let port = ports[place] {
        result.options[endpoint.option] = Self.listening(result.options[endpoint.option], endpoint.part, port: port)
      } else if let name = abstractNames[place] {
        result.options[endpoint.option] = Self.listening(result.options[endpoint.option], name: name)
      }
    }
    for (option, peer) in peers { result.options[option] = Self.connecting(result.options[option], to: peer) }
    for (option, descriptor) in vsocks {
      var parameters = result.options[option].parameters
      parameters.set("vhostfd", to: "\(descriptor)")
      result.options[option].value = parameters.text
    }
    for tap in commandLine.taps {
      guard let queues = taps[tap.option] else { continue }
      var parameters = result.options[tap.option].parameters
      Self.setTap(&parameters, queues, vhosts: vhosts[tap.option])
      result.options[tap.option].value = parameters.text
    }
    return result
  }

  private static func listening(_ option: CommandOption, _ part: NetworkEndpoint.Part, port: UInt16) -> CommandOption {
    var option = option
    if case .forward(let place) = part {
      var parameters = option.parameters
      guard var rule = HostForward(parameters.entries[place].value) else { return option }
      rule.port = port
      parameters.set(entry: place, to: rule.text)
      option.value = parameters.text
      return option
    }
    if part == .frames {
      option.value = NetworkEndpoint.network(option.parameters, listeningAt: port).text
      return option
    }
    if let legacy = LegacyDatagrams(option.value ?? ""), option.name != "chardev" {
      option.value = legacy.text(receivingAt: port)
      return option
    }
    if option.name == "s" { return CommandOption(dashes: option.dashes, name: "gdb", value: "tcp::\(port)") }
    if var legacy = LegacySocket(option.value ?? ""), option.name != "chardev" {
      legacy.setPort(port)
      if option.name != "gdb" { legacy.parameters.set("wait", to: false) }
      option.value = legacy.text
      return option
    }
    let isDisplay = option.name == "display"
    var parameters =
      isDisplay ? OptionValue(String((option.value ?? "").dropFirst("vnc=".count)), impliedKey: "vnc") : option.parameters
    switch (option.name, part) {
    case ("vnc", .main), ("display", .main):
      let host = (parameters["vnc"] ?? "").split(separator: ":", omittingEmptySubsequences: false).dropLast().joined(separator: ":")
      parameters.set("vnc", to: "\(host):\(port - 5900)")
      parameters.remove("to")
    case ("vnc", .websocket), ("display", .websocket):
      let host = (parameters["websocket"] ?? "").split(separator: ":", omittingEmptySubsequences: false).dropLast()
      parameters.set("websocket", to: (host + ["\(port)"]).joined(separator: ":"))
    case ("spice", _): parameters.set(part == .tls ? "tls-port" : "port", to: "\(port)")
    case _ where parameters["backend"] == "udp": parameters.set("localport", to: "\(port)")
    default:
      parameters.set("port", to: "\(port)")
      parameters.remove("to")
      parameters.set("wait", to: false)
    }
    option.value = (isDisplay ? "vnc=" : "") + parameters.text
    return option
  }

  private static func listening(_ option: CommandOption, name: String) -> CommandOption {
    var option = option
    if var legacy = LegacySocket(option.value ?? ""), option.name != "chardev" {
      legacy.parameters.set("path", to: name)
      legacy.parameters.set("wait", to: false)
      option.value = legacy.text
    } else {
      var parameters = option.parameters
      parameters.set("path", to: name)
      parameters.set("wait", to: false)
      option.value = parameters.text
    }
    return option
  }

  private static func connecting(_ option: CommandOption, to peer: Peer) -> CommandOption {
    var option = option
    if ["netdev", "nic", "net"].contains(option.name) {
      option.value = Self.network(option.parameters, connectingTo: peer)
      return option
    }
    var legacy = option.name == "chardev" ? nil : LegacySocket(option.value ?? "")
    var parameters = legacy?.parameters ?? option.parameters
    switch peer {
    case .abstract(let name):
      parameters.set("path", to: name)
      parameters.set("abstract", to: true)
      parameters.remove("tight")
    case .port(let port):
      for key in ["ipv4", "ipv6"] { parameters.remove(key) }
      if legacy == nil {
        parameters.set("host", to: loopback)
        parameters.set("port", to: "\(port)")
      }
    }
    legacy?.parameters = parameters
    if case .port(let port) = peer { legacy?.setPort(port, host: loopback) }
    option.value = legacy?.text ?? parameters.text
    return option
  }

  /// In comma syntax, in which an address has dotted keys.
  private static func network(_ parameters: OptionValue, connectingTo peer: Peer) -> String {
    var entries = parameters.entries.filter { !$0.key.hasPrefix("addr.") }.map { ($0.key, $0.value) }
    switch peer {
    case .abstract(let name): entries += [("addr.type", "unix"), ("addr.path", name), ("addr.abstract", "on")]
    case .port(let port): entries += [("addr.type", "inet"), ("addr.host", loopback), ("addr.port", "\(port)")]
    }
    // First what needs no key.
    let type = entries.filter { $0.0 == "type" }.map(\.1)
    return (type + entries.filter { $0.0 != "type" }.map { "\($0.0)=\(OptionValue.escape($0.1))" }).joined(separator: ",")
  }

  private static let loopback = "127.0.0.1"

  /// A tap by descriptor. QEMU takes none of the parameters that would make one beside it, and runs neither script.
  private static func setTap(_ parameters: inout OptionValue, _ queues: [Int32], vhosts: [Int32]?) {
    parameters.set("type", to: "tap")
    for key in ["ifname", "br", "helper", "script", "downscript", "queues", "vnet_hdr", "fd", "fds", "vhostfd", "vhostfds"] {
      parameters.remove(key)
    }
    func set(_ key: String, _ numbers: [Int32]) {
      parameters.set(queues.count == 1 ? key : key + "s", to: numbers.map(String.init).joined(separator: ":"))
    }
    set("fd", queues)
    guard let vhosts else { return }
    parameters.set("vhost", to: !vhosts.isEmpty)
    if vhosts.isEmpty { parameters.remove("vhostforce") } else { set("vhostfd", vhosts) }
  }
}

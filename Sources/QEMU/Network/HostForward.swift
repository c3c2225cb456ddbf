/// A rule of a user network: `[tcp|udp]:[ADDRESS]:PORT-[GUEST]:PORT`. QEMU listens at the port and lets whoever connects
/// reach the guest. Source: `slirp_hostfwd` in QEMU's net/slirp.c.
struct HostForward: Hashable {
  var isDatagram: Bool
  /// Of the host, in version 4; empty for all.
  var address: String
  var port: UInt16
  /// What comes behind the host's port, from the hyphen on.
  private var rest: Substring

  /// - Returns: nil for what is none of these: a unix socket (since 11.0), a port that the kernel chooses, a name.
  init?(_ rule: String) {
    let words = rule.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
    guard words.count == 3, ["", "tcp", "udp"].contains(words[0]), let hyphen = words[2].firstIndex(of: "-"),
      let port = UInt16(words[2][..<hyphen]), port != 0, words[1].allSatisfy({ $0.isNumber || $0 == "." })
    else { return nil }
    (isDatagram, address, self.port, rest) = (words[0] == "udp", String(words[1]), port, words[2][hyphen...])
  }

  var text: String { "\(isDatagram ? "udp" : "tcp"):\(address):\(port)\(rest)" }

  /// Whether a parameter of the network is one: also an element of a list in JSON (`hostfwd.0.str`).
  static func isKey(_ key: String) -> Bool { key == "hostfwd" || key.hasPrefix("hostfwd.") }
}

extension CommandOption {
  /// It makes QEMU a router for the guest.
  public var isUserNetwork: Bool {
    ["netdev", "nic", "net"].contains(name) && (parameters["type"] ?? (name == "nic" ? "user" : nil)) == "user"
  }
}

extension CommandLine {
  /// Options of user networks that are not cut off from the outside.
  public var userNetworks: [CommandOption] { options.filter { $0.isUserNetwork && !$0.parameters.isOn("restrict") } }
  /// QEMU adds a card on a user network by itself. Source: `net_init_clients`, docs/system/invocation.
  public var hasDefaultNetwork: Bool { !options.contains { ["netdev", "nic", "net", "nodefaults"].contains($0.name) } }
}

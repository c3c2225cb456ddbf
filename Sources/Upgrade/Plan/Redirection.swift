import Kernel
import QEMU

/// Connections that QEMU makes to a port or an abstract name, and makes again when they end: the new QEMU has the address
/// itself in its arguments, so its first connect(2) is led to a stand-in while it starts (``TracedStart``). Pure.
extension OutgoingConnection {
  /// - Returns: nil where no call has to be led elsewhere.
  func redirection(to standIn: NetworkSubstitution.Peer) -> ConnectRedirection? {
    guard isLedElsewhere else { return nil }
    switch (peer, standIn) {
    case (.port(let port, let host), .port(let standIn)): return ConnectRedirection(.port(port, host: host), to: .port(standIn))
    case (.abstract(let name), .abstract(let standIn)): return ConnectRedirection(.abstract(name), to: .abstract(standIn))
    default: return nil
    }
  }

  /// The port, if the host is a name: whatever it means by then, only the port is known.
  fileprivate var portOfName: UInt16? {
    guard isLedElsewhere, case .port(let port, let host) = peer, ConnectRedirection.number(host) == nil else { return nil }
    return port
  }
}

extension UpgradePlan {
  /// Connections that are led elsewhere at the new QEMU's start.
  var ledElsewhere: [OutgoingConnection] { observation.network.outgoing.map(\.peer).filter(\.isLedElsewhere) }

  /// Others that a new QEMU makes to the same port, and that could be taken for those to a name.
  var redirectionBlockers: [Blocker] {
    let network = observation.network
    return network.outgoing.map(\.peer).compactMap { connection in
      guard let port = connection.portOfName else { return nil }
      let others = network.outgoing.map(\.peer).filter { other in
        // One that is not made again has its stand-in's address.
        guard case .port(port, _) = other.peer else { return false }
        return other.isLedElsewhere && other.peer != connection.peer
      }.map(\.text) + network.disks.compactMap { disk in
        guard case .port(port, let host)? = disk.node.server else { return nil }
        return "the disk's server \(host):\(port)"
      }
      guard let other = others.first else { return nil }
      return Blocker(
        option: observation.commandLine.options[connection.option].text,
        reason: "at the start of the new QEMU its connection to \(connection.text) cannot be told from that to \(other): \(connection.text) is a name",
        wayOut: "start the VM with the address as a number")
    }
  }
}

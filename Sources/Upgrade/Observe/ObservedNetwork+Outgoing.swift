import Kernel
import QEMU

extension ObservedNetwork {
  /// - Parameter numbers: the running QEMU's descriptors by their sockets.
  mutating func findOutgoing(
    _ commandLine: CommandLine, _ numbers: [UInt64: CInt], internet: [InternetSocketEntry], unix: [UnixSocketEntry],
    _ locate: (String) throws(Failure) -> (path: String, status: FileStatus)?
  ) throws(Failure) {
    let accepted = inodes
    let table = Dictionary(unix.map { ($0.inode, $0) }) { first, _ in first }
    func isOwn(_ inode: UInt64) -> Bool { numbers[inode] != nil && !accepted.contains(inode) }
    /// Sockets that QEMU has connected to a unix socket for which this holds.
    func unixSockets(_ isPeer: (UnixSocketEntry) -> Bool) -> [UInt64] {
      unix.filter { entry in
        entry.state == .established && entry.path == nil && isOwn(entry.inode) && entry.peerInode.flatMap { table[$0] }.map(isPeer) ?? false
      }.map(\.inode)
    }
    let peers = commandLine.outgoingConnections
    for (place, peer) in peers.enumerated() {
      var found = Outgoing(peer: peer)
      let candidates: [UInt64]
      switch peer.peer {
      case .path(let path):
        let there = try locate(path)
        // The name is as the other program gave it to bind(2); the file is the same one.
        func isThere(_ entry: UnixSocketEntry) -> Bool {
          if entry.path == path || (there?.status).map(entry.isBound) ?? false { return true }
          // One that was given it by an upgrade.
          guard peer.backEnd == .fileSystem, case .chardev(let id) = peer.user else { return false }
          return FileServer.isName(entry.path, ofChardev: id)
        }
        if peer.isAccepted {
          candidates = unix.filter { $0.state == .established && isThere($0) && isOwn($0.inode) }.map(\.inode)
        } else {
          found.path = there?.path
          found.listener = unix.first { $0.state == .listening && isThere($0) }?.inode
          candidates = unixSockets(isThere)
        }
      case .abstract(let name): candidates = unixSockets { $0.path == "@" + name }
      case .port(let port, let host):
        let all = internet.filter { $0.transport == .tcp && !$0.isListening && $0.remote.port == port && isOwn($0.inode) }
        let exact = all.filter { $0.remote.host == host }
        // A name may stand for any address.
        candidates = (exact.isEmpty ? all : exact).map(\.inode)
      }
      let free = candidates.filter { !inodes.contains($0) }
      let alike = peers[place...].filter { $0.peer == peer.peer }
      if free.count > 1 || free.count == 1 && alike.count > 1, alike.contains(where: \.isRaw) {
        unresolved.append((commandLine.options[peer.option].text, "QEMU has several connections to \(peer.text), and which this one is cannot be told"))
      }
      found.socket = free.first.flatMap { inode in numbers[inode].map { Connection(descriptor: $0, inode: inode) } }
      found.isConnecting = internet.contains { $0.inode == found.socket?.inode && $0.isConnecting }
      outgoing.append(found)
    }
  }
}

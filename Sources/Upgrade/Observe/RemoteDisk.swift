import Glibc
import Kernel
public import QEMU

/// A disk of the VM that another program or machine serves, and what its server promises.
public struct RemoteDisk: Sendable, Equatable {
  public enum Answer: Sendable, Equatable {
    /// Nobody was asked.
    case none
    case export(NBDHandshake.Export)
    /// The server lets a second client wait.
    case silence
    case refusal(String)
  }
  public var node: RemoteNode
  /// The inode of the running QEMU's connection; nil if it has none.
  public var socket: UInt64?
  /// The server's address, as that connection tells it: the name in the command line may lead elsewhere by now.
  public var host: String?
  /// Of a unix socket: where that is, symbolic links resolved; nil if none is there.
  public var path: String?
  public var answer = Answer.none

  public init(node: RemoteNode) { self.node = node }
}

extension ObservedNetwork {
  /// Which of QEMU's connections lead to its disks' servers: each node has one.
  /// - Parameter numbers: the running QEMU's descriptors by their sockets.
  mutating func findDisks(
    _ nodes: [RemoteNode], _ numbers: [UInt64: CInt], internet: [InternetSocketEntry], unix: [UnixSocketEntry],
    _ locate: (String) throws(Failure) -> (path: String, status: FileStatus)?
  ) throws(Failure) {
    let table = Dictionary(unix.map { ($0.inode, $0) }) { first, _ in first }
    for node in nodes {
      var disk = RemoteDisk(node: node)
      switch node.server {
      case .path(let written)?:
        guard let there = try locate(written) else { break }
        disk.path = there.path
        disk.socket = unix.first { entry in
          // By the file: the name may be another server's by now.
          entry.state == .established && entry.path == nil && numbers[entry.inode] != nil && !inodes.contains(entry.inode)
            && entry.peerInode.flatMap { table[$0] }?.isBound(to: there.status) ?? false
        }?.inode
      case .port(let port, let host)?:
        let open = internet.filter {
          $0.transport == .tcp && !$0.isListening && $0.remote.port == port && numbers[$0.inode] != nil && !inodes.contains($0.inode)
        }
        if node.connectsFreely {
          served.formUnion(open.map(\.inode))
          break
        }
        let exact = open.filter { $0.remote.host == host }
        // A name may stand for any address, but not for several at once.
        let candidates = !exact.isEmpty ? exact : Set(open.map(\.remote.host)).count == 1 ? open : []
        (disk.socket, disk.host) = (candidates.first?.inode, candidates.first?.remote.host)
      case nil: break
      }
      disks.append(disk)
    }
  }

  /// Milliseconds that a server may take for an answer. One takes less than one.
  static let answerMilliseconds = 2000

  /// Asks each server for as many connections as the new QEMU will make, as another client.
  mutating func askServers(networkOf pid: pid_t) throws(Failure) {
    // All are held until the last has answered: a server may have a limit.
    var open: [DescriptorBox] = []
    for index in disks.indices where disks[index].socket != nil {
      do throws(Failure) {
        let socket = DescriptorBox(try connect(disks[index], networkOf: pid))
        open.append(socket)
        var handshake = NBDHandshake(export: disks[index].node.export)
        disks[index].answer =
          switch try Self.converse(socket.raw, &handshake, disks[index].node.file) {
          case .waiting: .silence
          case .found(let export): .export(export)
          case .refused(let why): .refusal(why)
          }
      } catch {
        disks[index].answer = error.errno == .timedOut ? .silence : .refusal(error.reason ?? error.errno.map { "\($0)" } ?? "\(error)")
      }
    }
    withExtendedLifetime(open) {}
  }

  private func connect(_ disk: RemoteDisk, networkOf pid: pid_t) throws(Failure) -> OwnedFD {
    if let path = disk.path { return try UnixSocket.connect(path, timeoutMilliseconds: Self.answerMilliseconds) }
    guard case .port(let port, _)? = disk.node.server, let host = disk.host else {
      throw Failure(step: "connect to", subject: disk.node.file, reason: "its address cannot be told")
    }
    return try Namespaces.within(pid, [.network]) { () throws(Failure) in
      try InternetSocket.connect(host, port, timeoutMilliseconds: Self.answerMilliseconds)
    }
  }

  /// Speaks with a server of its own accord until it has told what is asked.
  /// - Returns: `waiting` if it is silent.
  static func converse<Dialogue: NBDDialogue>(
    _ socket: CInt, _ dialogue: inout Dialogue, _ subject: String
  ) throws(Failure) -> NBDOutcome<Dialogue.Found> {
    let deadline = Instant.now().adding(seconds: Double(answerMilliseconds) / 1000)
    var bytes = [UInt8](repeating: 0, count: 4096)
    while true {
      // All of it, not each word: a server may go on talking.
      let rest = Int((deadline - Instant.now()).rounded(.up))
      if rest <= 0 { return .refused("it does not come to an end in \(answerMilliseconds / 1000) s") }
      try SocketTimeout.set(.receiving, of: socket, milliseconds: rest)
      let count: Int
      do throws(Failure) { count = try valueOrErrno("ask the server of", subject) { recv(socket, &bytes, bytes.count, 0) } } catch
        where error.errno == .resourceTemporarilyUnavailable { return .waiting }
      if count == 0 { return .refused("it closes the connection") }
      let (answer, outcome) = dialogue.hear(Array(bytes[..<count]))
      if !answer.isEmpty { try StreamSocket.put(pieces: [answer[...]], into: socket) }
      if outcome != .waiting { return outcome }
    }
  }
}

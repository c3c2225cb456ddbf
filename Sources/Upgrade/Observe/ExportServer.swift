import Glibc
import Kernel
public import QEMU

/// The NBD server of the running QEMU, with the socket that it listens at.
public struct ExportServer: Sendable, Equatable, Codable {
  public var server: NBDServer
  /// The running QEMU's descriptor.
  public var descriptor: CInt
  public var inode: UInt64
  /// As ``Binding/address`` has it: `127.0.0.1:10809`, a path, `@name`.
  public var address: String
  /// Who is connected now.
  public var clients: Int

  /// In the place of an option, since none makes it.
  static let command = "nbd-server-start"
  static let wayOut = "end the exports before the upgrade, and make them again after it (QMP: block-export-del, nbd-server-stop)"

  /// How a user has a QEMU export all of it. What is there already QEMU refuses to make again.
  var byHand: String {
    "by hand, over QMP: " + (["nbd-server-start \(server.startArguments(at: socketAddress).text())"] + server.exports.map(\.command)).joined(separator: "; ")
  }

  /// As `nbd-server-start` takes it (`SocketAddressLegacy` in QEMU's qapi/sockets.json).
  private var socketAddress: JSONValue {
    if address.hasPrefix("@") { return ["type": "unix", "data": ["path": .string(String(address.dropFirst())), "abstract": true]] }
    guard !address.hasPrefix("/"), let colon = address.lastIndex(of: ":") else { return ["type": "unix", "data": ["path": .string(address)]] }
    let host = address[..<colon].filter { $0 != "[" && $0 != "]" }
    return ["type": "inet", "data": ["host": .string(host), "port": .string(String(address[address.index(after: colon)...]))]]
  }

  var binding: Binding {
    Binding(
      kind: address.hasPrefix("/") || address.hasPrefix("@") ? .unixSocket : .tcpSocket, role: .listen, address: address, option: Self.command,
      handover: .duplicate, why: "the new QEMU gets the very socket, and is told to export the same", purpose: "nbd")
  }
}

extension ObservedNetwork {
  /// A listening socket that no option explains.
  private struct Candidate {
    var inode: UInt64
    var address: String
    var connect: () throws(Failure) -> OwnedFD
    /// Of connections that were accepted at it.
    var clients: [UInt64]
  }

  /// Finds the server of the exports, if there are any, and asks it what it offers.
  ///
  /// Asked is only what must be that server: where QEMU exports by NBD there is one, and where one socket alone is explained by
  /// nothing else it is its. To connect to a gdb server, for one, would stop the guest.
  /// - Parameters:
  ///   - files: of the VM's public sockets.
  ///   - roundTrip: lets QEMU end the connection on which it was asked.
  mutating func findExports(
    _ live: LiveMachine, version: QEMUVersion, files: [FileIdentity], descriptors: [OpenDescriptor], internet: [InternetSocketEntry],
    unix: [UnixSocketEntry], pid: pid_t, roundTrip: () throws(Failure) -> Void
  ) throws(Failure) {
    // Stand-ins that nobody can close any more: moult and its guardian were killed after they had given it to QEMU. They serve nobody.
    let leftovers = unix.filter { $0.state == .listening && $0.path?.hasPrefix("@" + ExportServer.standInName) ?? false }
    exportSockets = Set(leftovers.map(\.inode))
    if live.exports.isEmpty { return }
    let numbers = Self.numbers(descriptors)
    let known = inodes
    func isUnexplained(_ inode: UInt64) -> Bool { numbers[inode] != nil && !known.contains(inode) }
    var candidates: [Candidate] = []
    for entry in internet where entry.transport == .tcp && entry.isListening && isUnexplained(entry.inode) {
      let host = ["0.0.0.0": "127.0.0.1", "::": "::1"][entry.local.host] ?? entry.local.host
      candidates.append(
        Candidate(
          inode: entry.inode, address: (entry.local.host.contains(":") ? "[\(entry.local.host)]" : entry.local.host) + ":\(entry.local.port)",
          connect: { () throws(Failure) in
            try Namespaces.within(pid, [.network]) { () throws(Failure) in
              try InternetSocket.connect(host, entry.local.port, timeoutMilliseconds: Self.answerMilliseconds)
            }
          },
          clients: internet.filter { $0.transport == .tcp && !$0.isListening && $0.local.port == entry.local.port && numbers[$0.inode] != nil }.map(\.inode)))
    }
    for entry in unix where entry.state == .listening && isUnexplained(entry.inode) {
      if files.contains(where: { UInt32(truncatingIfNeeded: $0.inode) == entry.fileInode && $0.device == entry.fileDevice }) { continue }
      let address = entry.path ?? ""
      candidates.append(
        Candidate(
          inode: entry.inode, address: address, connect: { () throws(Failure) in try Self.connect(to: entry, of: pid) },
          clients: unix.filter { $0.state == .established && $0.path == address && numbers[$0.inode] != nil }.map(\.inode)))
    }
    let strangers = try Self.listeners(beyond: Set(internet.map(\.inode) + unix.map(\.inode)), descriptors, pid: pid)
    guard let candidate = candidates.first, candidates.count + strangers == 1 else {
      untoldExports = candidates.isEmpty && strangers == 0 ? "QEMU does not listen for clients of them"
        : strangers > 0 ? "their server listens where Moult cannot look (vsock)"
        : "QEMU listens at several places that no option explains (\(candidates.map(\.address).sorted().joined(separator: ", "))): which is their server's cannot be told, or it has several"
      return
    }
    passing.subtract(candidate.clients)
    exportSockets.formUnion(candidate.clients + [candidate.inode])
    var inquiry = NBDInquiry(most: live.exports.count)
    let offered: [NBDInquiry.Export]
    do throws(Failure) {
      let socket = DescriptorBox(try candidate.connect())
      switch try Self.converse(socket.raw, &inquiry, candidate.address) {
      case .waiting:
        untoldExports = "their server at \(candidate.address) answers no further client: it has as many as it may have"
        return
      case .refused(let why):
        untoldExports = "their server at \(candidate.address) does not tell of them: \(why)"
        return
      case .found(let exports): offered = exports
      }
      // It closes the connection when it has read the last word.
      try SocketTimeout.set(.receiving, of: socket.raw, milliseconds: Self.answerMilliseconds)
      var rest = [UInt8](repeating: 0, count: 256)
      while recv(socket.raw, &rest, rest.count, 0) > 0 {}
    } catch {
      untoldExports = "their server at \(candidate.address) cannot be asked: \(error)"
      return
    }
    try roundTrip()
    switch NBDServer.find(live.exports, offered, live.graph, version: version) {
    case .untold(let why): untoldExports = why
    case .server(let server):
      guard let descriptor = numbers[candidate.inode] else { return }
      exports = ExportServer(server: server, descriptor: descriptor, inode: candidate.inode, address: candidate.address, clients: candidate.clients.count)
    }
  }

  private static func connect(to entry: UnixSocketEntry, of pid: pid_t) throws(Failure) -> OwnedFD {
    let path = entry.path ?? ""
    if path.hasPrefix("@") {
      return try Namespaces.within(pid, [.network]) { () throws(Failure) in try UnixSocket.connect(abstract: String(path.dropFirst())) }
    }
    // By the file: the name may be another's by now. A QEMU in a root tree can have it there only.
    for place in [path, "/proc/\(pid)/root\(path)"] where path.hasPrefix("/") {
      guard let status = try Files.statusIfPresent(place), entry.isBound(to: status) else { continue }
      return try UnixSocket.connect(place, timeoutMilliseconds: answerMilliseconds)
    }
    throw Failure(step: "connect to", subject: path, reason: "it is not the socket that QEMU listens at")
  }

  /// How many sockets listen that are in no table that is read: vsock.
  private static func listeners(beyond known: Set<UInt64>, _ descriptors: [OpenDescriptor], pid: pid_t) throws(Failure) -> Int {
    let process = try Pidfd(pid: pid)
    var count = 0
    for descriptor in descriptors {
      guard let inode = descriptor.socketInode, !known.contains(inode) else { continue }
      do throws(Failure) {
        let copy = try process.duplicate(descriptor: descriptor.number)
        var (listens, size): (CInt, socklen_t) = (0, socklen_t(MemoryLayout<CInt>.size))
        let raw = copy.raw
        try valueOrErrno("look at socket", "\(inode)") { getsockopt(raw, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) }
        count += listens == 0 ? 0 : 1
      } catch where error.errno == .badFileDescriptor { continue }  // Closed since.
    }
    return count
  }
}

import Glibc
import Kernel
import QEMU

/// What the new QEMU connects to in the place of another program, until it gets the running one's own connection.
///
/// Where it would connect again by itself it must know the real address: then the stand-in lies over that path in the
/// new QEMU's mount namespace, and is taken away afterwards; or its first connection to a port or abstract name is led to
/// the stand-in (``TracedStart``). Else it has another address.
final class PeerStandIn {
  private let outgoing: ObservedNetwork.Outgoing
  private let listener: DescriptorBox?
  let substitution: NetworkSubstitution.Peer?
  /// Where it has the real address, and no path.
  let redirection: ConnectRedirection?
  /// What answers there, if somebody must.
  let process: BackEndProcess?
  /// What serves the new QEMU from the start, and goes on to.
  let fileServer: FileServerProcess?
  /// The socket's file.
  private(set) var file: String?

  /// - Parameters:
  ///   - index: among the VM's outgoing connections.
  ///   - id, key: of the upgrade, and of the VM.
  ///   - directory: for files that only the new QEMU is to see; nil for a trial, which needs none.
  ///   - absolute: of a path of the command line.
  init(
    _ outgoing: ObservedNetwork.Outgoing, _ index: Int, id: String, key: String, network pid: pid_t, directory: String?, absolute: (String) -> String
  ) throws(Failure) {
    self.outgoing = outgoing
    if outgoing.peer.isAccepted, case .path(let written) = outgoing.peer.peer {
      (substitution, redirection, listener, fileServer) = (nil, nil, nil, nil)
      process = try outgoing.backEnd.map { backEnd throws(Failure) in try BackEndProcess(backEnd, key: key, .path(absolute(written))) }
      return
    }
    if outgoing.peer.reconnects, case .path = outgoing.peer.peer {
      (substitution, redirection, process, fileServer) = (nil, nil, nil, nil)
      // Else nobody answers there: the new QEMU waits as if the other program had gone.
      guard outgoing.carried != nil, outgoing.path != nil, let directory else {
        listener = nil
        return
      }
      let file = directory + "/" + Self.fileName(index)
      listener = DescriptorBox(try UnixSocket.listen(file, backlog: 1))
      self.file = file
      // QEMU may be any user.
      try valueOrErrno("set mode of", file) { chmod(file, 0o666) }
      return
    }
    let standIn: NetworkSubstitution.Peer
    switch outgoing.peer.peer {
    case .path, .abstract:
      var name = "moult-\(id)-peer\(index)"
      if case .chardev(let chardev) = outgoing.peer.user, outgoing.fileServer != nil { name = FileServer.name(chardev: chardev, id: id) }
      let made = DescriptorBox(try Namespaces.within(pid, [.network]) { () throws(Failure) in try UnixSocket.listen(abstract: name) })
      standIn = .abstract(name)
      process = try outgoing.backEnd.map { backEnd throws(Failure) in try BackEndProcess(backEnd, key: key, .listener(made.raw)) }
      fileServer = try outgoing.fileServer.map { server throws(Failure) in try FileServerProcess(server, listener: made.raw, old: pid, isTrial: directory == nil) }
      // The process has the only one: should it be killed, the new QEMU is not to wait for an answer.
      listener = process == nil && outgoing.fileServer == nil ? made : nil
    case .port:
      let made = try Namespaces.within(pid, [.network]) { () throws(Failure) in PortBox(try LoopbackListener()) }
      listener = DescriptorBox(try made.listener.socket.duplicate())
      standIn = .port(made.listener.port)
      (process, fileServer) = (nil, nil)
    }
    redirection = outgoing.peer.redirection(to: standIn)
    substitution = redirection == nil ? standIn : nil
  }

  private final class PortBox {
    let listener: LoopbackListener
    init(_ listener: consuming LoopbackListener) { self.listener = listener }
  }

  /// In the VM's directory of moult's state.
  static func fileName(_ index: Int) -> String { "\(filePrefix)\(index)" }
  static let filePrefix = "peer"

  /// The mount keeps what it shows.
  func removeFile() {
    if let file { unlink(file) }
    file = nil
  }

  deinit { removeFile() }

  /// The new QEMU's descriptors of its connections with ``process``: see ``BackEndProcess/numbers(in:)``.
  func numbers(in new: ProcessHandle, expected: Int) throws(Failure) -> [CInt] {
    guard let process else { return [] }
    let numbers = try process.numbers(in: new)
    if numbers.count == expected { return numbers }
    throw Failure(
      step: "find the new QEMU's connections to", subject: "the stand-in for \(outgoing.peer.text)",
      reason: "there are \(numbers.count), and \(expected) of the running one's", hint: "does another program speak to the new QEMU?")
  }

  /// Takes the new QEMU's connection.
  /// - Parameter isConnected: whether the character device has come to know of it.
  /// - Returns: our end, and the number of the other one in the new QEMU; nil if nothing is to take its place, and it is
  ///   closed then. (Where QEMU would connect again, to the other program itself, it stays.)
  func accept(_ new: ProcessHandle, isConnected: (String) throws(Failure) -> Bool) throws(Failure) -> (end: DescriptorBox, number: CInt)? {
    guard let listener else { return nil }
    func failure(_ reason: String) -> Failure {
      Failure(
        step: "stand in for", subject: "\(outgoing.peer.text), to which \(outgoing.peer.user.text) connects", reason: reason,
        hint: "moult plan tells whether the new QEMU starts with the VM's arguments")
    }
    while true {
      var waiting = pollfd(fd: listener.raw, events: Int16(POLLIN), revents: 0)
      guard try valueOrErrno("wait for", "the new QEMU", { poll(&waiting, 1, Self.patienceMilliseconds) }) > 0 else {
        throw failure("the new QEMU does not connect")
      }
      let end = DescriptorBox(try UnixSocket.accept(listener.raw))
      // Somebody else's goes at once.
      guard let number = try number(of: end, in: new) else { continue }
      if outgoing.carried == nil { return redirection == nil ? nil : (end, number) }
      // A network takes it within the turns of its main loop that the migration takes in any case.
      guard case .chardev(let chardev) = outgoing.peer.user else { return (end, number) }
      for _ in 0..<1000 {
        if try isConnected(chardev) { return (end, number) }
      }
      throw failure("the new QEMU does not take the connection")
    }
  }

  private static let patienceMilliseconds: CInt = 5000

  /// The other end of a connection, if the new QEMU has it.
  private func number(of end: DescriptorBox, in new: ProcessHandle) throws(Failure) -> CInt? {
    let inode = try Files.status(of: end.raw).inode
    let other: UInt64?
    if case .port = outgoing.peer.peer {
      let table = try InternetSocketTable.read(networkOf: new.pid)
      let ours = table.first { $0.inode == inode }
      other = table.first { $0.local == ours?.remote && $0.remote == ours?.local }?.inode
    } else {
      // A connection belongs to its client's network namespace.
      other = try UnixSocketTable.read(networkOf: new.pid).first { $0.inode == inode }?.peerInode
    }
    return try other.flatMap { inode throws(Failure) in try ProcFS.openDescriptors(of: new.pid).first { $0.socketInode == inode }?.number }
  }
}

extension LaunchPlan {
  /// Paths that are covered in the new QEMU's mount namespace until it has taken over.
  static func covers(_ plan: UpgradePlan) -> [(outgoing: Int, path: String)] {
    plan.observation.network.outgoing.enumerated().compactMap { index, outgoing in
      outgoing.peer.reconnects ? outgoing.path.map { (index, $0) } : nil
    }
  }
}

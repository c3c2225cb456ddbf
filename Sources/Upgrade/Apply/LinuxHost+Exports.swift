import Glibc
import Kernel
import QEMU

extension ExportServer {
  /// Under which a QEMU is given a stand-in for the socket, and the socket itself (QMP `getfd`).
  static let (standInName, socketName) = ("moult-nbd", "moult-nbd-socket")
}

/// The socket of the VM's NBD server. Whoever serves nobody for a while has a stand-in in its place, which nobody can connect
/// to, and the socket keeps the clients waiting: in the old QEMU from the pause on, in the new one until it exports everything.
extension LinuxHost {
  public func holdListener(_ exports: ExportServer) throws(Failure) {
    guard let oldProcess, let newProcess else { return }
    exportListener = try listener(exports)
    for (side, process) in [(Side.old, oldProcess), (.new, newProcess)] {
      do throws(Failure) { try Transplant.probe(process.pid, outlivesUs: side == .old) } catch {
        throw isAlive(side) ? error : death(of: side, during: "exchange the NBD server's socket of")
      }
    }
    guard let number = try Self.numbers(of: giveStandIn(to: .old), in: oldProcess).first else { throw Self.lost(exports) }
    let kept = try Self.distantDescriptor(in: oldProcess.pid, count: 1)
    try Self.makeRoom(upTo: kept, by: number, in: oldProcess.pid)
    listenerStandIn = (number, kept)
  }

  public func setListenerAside(_ exports: ExportServer) throws(Failure) {
    guard let oldProcess, let (number, kept) = listenerStandIn else { return }
    try Transplant.perform(in: oldProcess.pid, outlivesUs: true) { () throws(Failure) in
      try Self.mustBe(exports.inode, at: exports.descriptor, in: oldProcess, exports.address)
      if try WiredMove.identity(of: kept, in: oldProcess.pid) != nil { throw Self.lost(exports) }
      return ([.init(from: exports.descriptor, to: kept), .init(from: number, to: exports.descriptor)], [])
    }
  }

  public func hasServer(_ exports: ExportServer) throws(Failure) -> Bool {
    guard let oldProcess, isAlive(.old) else { return true }
    return try Self.place(of: exports, in: oldProcess) != .others
  }

  public func putListenerBack(_ exports: ExportServer) throws(Failure) -> Bool {
    guard let oldProcess, isAlive(.old) else { return true }
    let place = try Self.place(of: exports, in: oldProcess)
    let kept = try Self.numbers(of: exports.inode, in: oldProcess).filter { $0 != exports.descriptor }
    if place == .standIns {
      guard let number = kept.first else { throw Self.lost(exports) }
      try put(number, inPlaceOf: exports.descriptor, in: oldProcess, exports.address)
    }
    try Transplant.perform([], closing: kept, in: oldProcess.pid, outlivesUs: true)
    try forget(ExportServer.standInName, in: .old)
    exportListener = nil
    return place != .others
  }

  /// Whose the running QEMU's descriptor is on which its NBD server listens: a server that was stopped leaves the number to others.
  private enum Place { case servers, standIns, others }

  private static func place(of exports: ExportServer, in process: ProcessHandle) throws(Failure) -> Place {
    guard let there = try WiredMove.identity(of: exports.descriptor, in: process.pid) else { return .others }
    if there == WiredMove.identity(ofSocket: exports.inode) { return .servers }
    let copy: OwnedFD
    do throws(Failure) { copy = try process.duplicate(descriptor: exports.descriptor) } catch where error.errno == .badFileDescriptor { return .others }
    // By its name, which tells a later moult, too, and one in another network namespace.
    return try UnixSocket.abstractName(of: copy.raw)?.hasPrefix(ExportServer.standInName + "-") ?? false ? .standIns : .others
  }

  private static func mustBe(_ inode: UInt64, at number: CInt, in process: ProcessHandle, _ subject: String) throws(Failure) {
    if try WiredMove.identity(of: number, in: process.pid) == WiredMove.identity(ofSocket: inode) { return }
    throw Failure(
      step: "exchange the socket at", subject: subject, reason: "the NBD server was stopped meanwhile (another monitor)",
      hint: "leave the VM alone while it is upgraded, and try again")
  }

  public func giveListenerStandIn() throws(Failure) { try giveStandIn(to: .new) }

  public func openListener(_ exports: ExportServer) throws(Failure) {
    guard let newProcess else { return }
    // One that no server has taken: that was started before, by a moult that was killed.
    try forget(ExportServer.standInName, in: .new)
    // A moult that was killed may have left one at a monitor of its own: the server's is the last.
    let standIns = try UnixSocketTable.read().filter { $0.state == .listening && $0.path?.hasPrefix("@" + ExportServer.standInName) ?? false }
    let numbers = ObservedNetwork.numbers(try ProcFS.openDescriptors(of: newProcess.pid))
    guard let place = standIns.filter({ numbers[$0.inode] != nil }).max(by: { $0.path ?? "" < $1.path ?? "" }).flatMap({ numbers[$0.inode] }) else {
      if try !Self.numbers(of: exports.inode, in: newProcess).isEmpty { return }
      throw Self.lost(exports)
    }
    if exportListener == nil { exportListener = try listener(exports) }
    guard let socket = exportListener else { return }
    _ = try monitor(.new).execute("getfd", ["fdname": .string(ExportServer.socketName)], descriptor: socket.raw)
    guard let number = try Self.numbers(of: exports.inode, in: newProcess).first else { throw Self.lost(exports) }
    try put(number, inPlaceOf: place, in: newProcess, exports.address)
    try forget(ExportServer.socketName, in: .new)
  }

  /// A QEMU that waits for clients by io_uring (11.1 does) goes on waiting for the stand-in, until that has something to say; then
  /// it looks for a client, whether there is one or not.
  private func put(_ number: CInt, inPlaceOf standIn: CInt, in process: ProcessHandle, _ subject: String) throws(Failure) {
    let (socket, former) = (DescriptorBox(try process.duplicate(descriptor: number)), DescriptorBox(try process.duplicate(descriptor: standIn)))
    try Self.doNotBlock(socket.raw, subject)
    let inode = try Files.status(of: former.raw).inode
    try Transplant.perform(in: process.pid, outlivesUs: true) { () throws(Failure) in
      try Self.mustBe(inode, at: standIn, in: process, subject)
      try ListeningSocket.shut(former.raw)
      return ([.init(from: number, to: standIn)], [])
    }
  }

  /// - Returns: its inode.
  @discardableResult
  private func giveStandIn(to side: Side) throws(Failure) -> UInt64 {
    // Of one length, so that they sort by time.
    let time = String(repeating: "0", count: 20) + "\(Instant.now().nanoseconds)"
    let standIn = DescriptorBox(try UnixSocket.listen(abstract: "\(ExportServer.standInName)-\(time.suffix(20))"))
    _ = try monitor(side).execute("getfd", ["fdname": .string(ExportServer.standInName)], descriptor: standIn.raw)
    // Whoever has been told of a client must not wait for one here. QEMU makes what it is given block.
    try Self.doNotBlock(standIn.raw, "the NBD server's stand-in")
    return try Files.status(of: standIn.raw).inode
  }

  /// Closes what a QEMU was given under a name; nothing if it has used it, or was given none.
  private func forget(_ name: String, in side: Side) throws(Failure) {
    do throws(Failure) { _ = try monitor(side).execute("closefd", ["fdname": .string(name)]) } catch where error.errno == nil {}
  }

  /// The old QEMU's, wherever it has it.
  private func listener(_ exports: ExportServer) throws(Failure) -> DescriptorBox {
    guard let oldProcess, !oldProcess.hasExited, let number = try Self.numbers(of: exports.inode, in: oldProcess).first else {
      throw Failure(
        step: "take over the socket at", subject: exports.address, reason: "the old QEMU has ended or closed it",
        hint: "start the NBD server again in the QEMU that runs (QMP: nbd-server-start)")
    }
    return DescriptorBox(try oldProcess.duplicate(descriptor: number))
  }

  private static func numbers(of inode: UInt64, in process: ProcessHandle) throws(Failure) -> [CInt] {
    try ProcFS.openDescriptors(of: process.pid).filter { $0.socketInode == inode }.map(\.number)
  }

  private static func doNotBlock(_ socket: CInt, _ subject: String) throws(Failure) {
    let flags = try valueOrErrno("read flags of", subject) { fcntl(socket, F_GETFL) }
    try valueOrErrno("set flags of", subject) { fcntl(socket, F_SETFL, flags | O_NONBLOCK) }
  }

  private static func lost(_ exports: ExportServer) -> Failure {
    Failure(
      step: "exchange the socket at", subject: exports.address, reason: "a QEMU does not have a descriptor that it was given",
      hint: "another program used its monitor meanwhile: leave the VM alone while it is upgraded")
  }
}

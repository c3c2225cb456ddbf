import Glibc
public import Kernel
import QEMU

/// A live connection of the old QEMU's while its state is saved.
///
/// What QEMU reads from a client after that is in no state, and ends with it. So one end of a socket pair takes the
/// connection's place in it a little before: what the client sends waits in the connection's own queue for the new
/// QEMU, and what the guest still says waits in the pair's. The old QEMU itself holds all that is needed to put things
/// back, so that whoever has to do that finds it there.
public struct Diversion: Sendable, Equatable, Codable {
  /// The old QEMU's descriptors: where the connection is kept meanwhile, the stand-in, and its other end.
  public var kept: CInt
  public var standIn: CInt
  public var output: CInt
  /// What the stand-in is.
  public var identity: String
}

extension WiredMove {
  /// Under which the old QEMU is given the stand-in and its other end (QMP `getfd`).
  fileprivate var names: [String] { ["stand-in", "output"].map { "moult-\($0)-\(move.from)" } }

  /// Whether the stand-in is in the connection's place in the old QEMU; nil if neither is there.
  fileprivate func isDiverted(in pid: pid_t) throws(Failure) -> Bool? {
    guard let source, let diversion else { return nil }
    let there = try Self.identity(of: source, in: pid)
    return there == diversion.identity ? true : there == identity ? false : nil
  }
}

extension LinuxHost {
  /// Bytes of the kernel's memory for what a guest says meanwhile: some thousand writes of a byte. With no more room
  /// it waits.
  private static let diversionLimit: CInt = 1 << 20

  public func prepareDiversion(_ moves: [WiredMove]) throws(Failure) -> [WiredMove] {
    guard let oldProcess else { return moves }
    do throws(Failure) { try Transplant.probe(oldProcess.pid, outlivesUs: true) } catch {
      throw isAlive(.old) ? error : death(of: .old, during: "divert the connections of")
    }
    var moves = moves
    var kept = try Self.distantDescriptor(in: oldProcess.pid, count: moves.count)
    for (index, move) in moves.enumerated() {
      // One whose client has gone needs none.
      guard let source = move.source, try WiredMove.identity(of: source, in: oldProcess.pid) == move.identity else { continue }
      let pair = try UnixSocket.pair()
      let (standIn, output) = (DescriptorBox(try pair.first.duplicate()), DescriptorBox(try pair.second.duplicate()))
      for (name, descriptor) in zip(move.names, [standIn, output]) {
        _ = try monitor(.old).execute("getfd", ["fdname": .string(name)], descriptor: descriptor.raw)
      }
      try StreamSocket.raiseLimit(of: standIn.raw, to: Self.diversionLimit)
      // QEMU makes what it is given block (io/channel-socket.c).
      try valueOrErrno("divert", move.what) { fcntl(standIn.raw, F_SETFL, O_NONBLOCK) }
      let open = try ProcFS.openDescriptors(of: oldProcess.pid)
      func number(of box: DescriptorBox) throws(Failure) -> CInt {
        let inode = try Files.status(of: box.raw).inode
        if let entry = open.first(where: { $0.socketInode == inode }) { return entry.number }
        throw Failure(
          step: "divert", subject: move.what, reason: "the old QEMU does not have a descriptor that it was given",
          hint: "another program used its monitor meanwhile: leave the VM alone while it is upgraded")
      }
      kept += 1
      moves[index].diversion = Diversion(
        kept: kept, standIn: try number(of: standIn), output: try number(of: output),
        identity: WiredMove.identity(ofSocket: try Files.status(of: standIn.raw).inode))
      diverted[move.move.from] = (output, DescriptorBox(try oldProcess.duplicate(descriptor: source)))
    }
    if let last = moves.compactMap(\.diversion).last { try Self.makeRoom(upTo: last.kept, by: last.standIn, in: oldProcess.pid) }
    return moves
  }

  /// A number from which on descriptors can be kept in a process: QEMU's own next ones are the lowest that are free, and many
  /// may connect to it at once.
  static func distantDescriptor(in pid: pid_t, count: Int) throws(Failure) -> CInt {
    let number = (try ProcFS.openDescriptors(of: pid).map(\.number).max() ?? 0) + 4096
    guard let most = try ResourceLimits.read(pid: pid).limits[.openFiles]?.soft, most <= UInt64(number) + UInt64(count) else { return number }
    return CInt(most) - CInt(count) - 1
  }

  /// Has a process's table of descriptors reach that far: when it grows, the kernel waits for a grace period of RCU
  /// (`expand_fdtable` in its fs/file.c), 5 to 15 ms, which are not to be part of the pause.
  /// - Parameter descriptor: any of the process's.
  static func makeRoom(upTo number: CInt, by descriptor: CInt, in pid: pid_t) throws(Failure) {
    try Transplant.perform([.init(from: descriptor, to: number)], closing: [number], in: pid, outlivesUs: true)
  }

  public func divert(_ moves: [WiredMove]) throws(Failure) {
    guard let oldProcess else { return }
    // Told of a frame and then finding none, QEMU would abort (`net_fill_rstate` in its net/net.c).
    try Transplant.perform(in: oldProcess.pid, outlivesUs: true) { () throws(Failure) in
      var exchanges: [Transplant.Move] = []
      for move in moves {
        guard let source = move.source, let diversion = move.diversion, try move.isDiverted(in: oldProcess.pid) == false else { continue }
        if let taken = try WiredMove.identity(of: diversion.kept, in: oldProcess.pid) {
          throw Failure(
            step: "divert", subject: move.what, reason: "the old QEMU has \(taken) where the connection was to be kept", hint: "try again")
        }
        exchanges += [.init(from: source, to: diversion.kept), .init(from: diversion.standIn, to: source)]
      }
      return (exchanges, [])
    }
  }

  public func endDiversion(_ moves: [WiredMove]) throws(Failure) {
    guard let oldProcess, isAlive(.old) else { return }
    var (exchanges, closing): ([Transplant.Move], [CInt]) = ([], [])
    for move in moves {
      guard let source = move.source, let diversion = move.diversion,
        try WiredMove.identity(of: diversion.kept, in: oldProcess.pid) == move.identity
      else { continue }
      closing.append(diversion.kept)
      guard try move.isDiverted(in: oldProcess.pid) == true else { continue }
      try passOn(move)
      exchanges.append(.init(from: diversion.kept, to: source))
    }
    try Transplant.perform(exchanges, closing: closing, in: oldProcess.pid, outlivesUs: true)
    diverted = [:]
    for name in moves.filter(\.isConnection).flatMap(\.names) {
      do throws(Failure) { _ = try monitor(.old).execute("closefd", ["fdname": .string(name)]) } catch {
        // It was not given this one, or has closed it already.
        if !isAlive(.old) { return }
      }
    }
  }

  /// Lets the client of a diverted connection have what the old QEMU said to it.
  func passOn(_ move: WiredMove) throws(Failure) {
    if diverted[move.move.from] == nil, let diversion = move.diversion, let oldProcess, try move.isDiverted(in: oldProcess.pid) == true {
      // Another moult did that.
      diverted[move.move.from] = (
        DescriptorBox(try oldProcess.duplicate(descriptor: diversion.output)),
        DescriptorBox(try oldProcess.duplicate(descriptor: diversion.kept))
      )
    }
    guard let (output, client) = diverted[move.move.from] else { return }
    try passOn(move, from: output.raw, to: client.raw)
  }

  /// Frames are passed on one by one.
  func passOn(_ move: WiredMove, from source: CInt, to target: CInt) throws(Failure) {
    guard move.isFramed ?? false else { return try StreamSocket.passOn(from: source, to: target) }
    let bytes = try SocketQueue.peek(source)
    try StreamSocket.put(pieces: FrameStream.pieces(of: bytes), into: target)
    try SocketQueue.drop(bytes.count, from: source)
  }
}

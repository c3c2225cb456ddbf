import Glibc
import Kernel
import QEMU

/// Taps, listeners and live connections.
extension LinuxHost {
  public func prepareRewiring(_ plan: UpgradePlan) throws(Failure) -> [WiredMove] {
    guard let wiring, let newProcess else { return [] }
    if plan.observation.network.outgoing.contains(where: { $0.peer.backEnd == .network }) { try mustMapElsewhere(newProcess) }
    let moves = try wiring.moves(in: newProcess, staged: { plan.stagedPath($0) }) { () throws(Failure) in
      _ = try self.command(.new, "query-status", nil)
    } isConnected: { chardev throws(Failure) in
      let entry = try self.command(.new, "query-chardev", nil).array?.first { $0["label"]?.string == chardev }
      return entry?["filename"]?.string?.hasPrefix("disconnected:") == false
    }
    // Without them the new QEMU would take the clients for gone, should moult be killed.
    wiring.lifelines.forEach { guardian?.give(kept: $0) }
    return moves
  }

  /// A back end that goes on over its connection may tell one memory from another by its addresses alone
  /// (`vhost_memory_changed` in DPDK's lib/vhost/vhost_user.c), and would go on with the old one.
  private func mustMapElsewhere(_ newProcess: ProcessHandle) throws(Failure) {
    guard let oldProcess else { return }
    let old = Dictionary(try ProcFS.mappedFiles(of: oldProcess.pid).filter(\.isShared).map { ($0.start, $0) }) { first, _ in first }
    guard let file = try ProcFS.mappedFiles(of: newProcess.pid).first(where: { new in
      new.isShared && old[new.start].map { $0.inode != new.inode || $0.device != new.device } ?? false
    }) else { return }
    throw Failure(
      step: "compare the memory of", subject: file.path, reason: "both QEMUs have other memory at the same address, where the back end of a network would not see the change",
      hint: "try again: addresses are chosen at random, unless kernel.randomize_va_space is 0")
  }

  public func rewire(_ moves: [WiredMove], hasRun: Bool) throws(Failure) -> [String] {
    guard let newProcess else { return [] }
    do throws(Failure) { return try rewire(moves, in: newProcess, hasRun: hasRun) } catch {
      // Of one that has ended the kernel says that it may not be traced.
      throw isAlive(.new) ? error : death(of: .new, during: "give the taps and ports to")
    }
  }

  private func rewire(_ moves: [WiredMove], in newProcess: ProcessHandle, hasRun: Bool) throws(Failure) -> [String] {
    var lost: [String] = []
    for move in moves { try passOn(move) }
    try introduce(moves, in: newProcess)
    // There is nothing to go back to.
    let isNeeded = hasRun || !isAlive(.old)
    try Transplant.perform(in: newProcess.pid, endsWithUs: !isNeeded, outlivesUs: isNeeded) { () throws(Failure) in
      var decided: (moves: [Transplant.Move], closing: [CInt]) = ([], [])
      for move in moves {
        let isGiven = try move.isGiven(in: newProcess.pid)
        let state = try move.state(in: newProcess.pid, isGiven: isGiven)
        if state == .pending {
          if move.isFramed ?? false { try skipPartialFrame(of: move, in: newProcess, hasRun: hasRun) }
          decided.moves.append(move.move)
          // It may have said already what the old one could not get rid of: that is part of a serial port's state.
          if let client = wiring?.clients[move.move.from] {
            let connection = try newProcess.duplicate(descriptor: move.move.from)
            try passOn(move, from: client.raw, to: connection.raw)
          }
        }
        if state == .lost { lost.append(move.what) }
        if isGiven { decided.closing.append(move.move.from) }
      }
      // A QEMU that waits by io_uring (10.2 and later) goes on waiting for the stand-in, until that has something to
      // say: then it looks at its descriptor anew, and finds the real one. Before the exchange, as after it nobody
      // could do it any more.
      for move in decided.moves where moves.contains(where: { $0.move == move && $0.isTap }) {
        if try wiring?.stir(move.to) == true { continue }
        let queue = try newProcess.duplicate(descriptor: move.to)
        try FrameSocket(tap: queue.raw).stir()
      }
      for move in decided.moves where moves.contains(where: { $0.move == move && $0.isWatchedByRing == true }) {
        let standIn = try newProcess.duplicate(descriptor: move.to)
        try ListeningSocket.shut(standIn.raw)
      }
      return decided
    }
    return lost
  }

  /// Tells back ends what the new QEMU has told their stand-ins, over the connections that it does not use yet: those of its
  /// own are made for that. By what the moves say alone: in a recovery there is nothing else.
  private func introduce(_ moves: [WiredMove], in newProcess: ProcessHandle) throws(Failure) {
    for move in moves where move.succession != nil || move.channel != nil {
      guard try move.state(in: newProcess.pid, isGiven: move.isGiven(in: newProcess.pid)) == .pending else { continue }
      let socket = DescriptorBox(try newProcess.duplicate(descriptor: move.move.from))
      var channel: DescriptorBox?
      if let inode = move.channel ?? move.succession?.channel {
        channel = wiring?.channels[inode]
        if channel == nil { channel = try BackEndProcess.otherEnd(of: inode, in: newProcess) }
      }
      if let succession = move.succession {
        try succession.connect(socket.raw, channel: channel?.raw, networkOf: newProcess.pid)
      } else if let channel {
        try UnixMessage.send(VhostUserAnswers.channelMessage, descriptor: channel.raw, to: socket.raw)
      }
    }
  }

  /// What the old QEMU has read of a frame is lost with it: so must be the rest. Networks lose frames.
  private func skipPartialFrame(of move: WiredMove, in newProcess: ProcessHandle, hasRun: Bool) throws(Failure) {
    let socket = try newProcess.duplicate(descriptor: move.move.from)
    let waiting = try SocketQueue.peek(socket.raw)
    if let beginning = FrameStream.beginning(of: waiting) { return try SocketQueue.drop(beginning, from: socket.raw) }
    // There is no way back from a guest that has run.
    if hasRun { return }
    throw Failure(
      step: "take over", subject: move.what, reason: "where the next frame begins among the \(waiting.count) bytes that wait there cannot be told",
      hint: "try again when the network is less busy")
  }

  public func endPredecessors(of moves: [WiredMove]) throws(Failure) {
    guard let oldProcess, !oldProcess.hasExited else { return }
    for move in moves where move.succession != nil {
      guard let connection = try connection(move.former, of: oldProcess) else { continue }
      try ListeningSocket.shut(connection.raw)
    }
  }

  public func endedBackEnds(of moves: [WiredMove], in side: Side) throws(Failure) -> [String] {
    guard let process = side == .old ? oldProcess : newProcess, isAlive(side) else { return [] }
    var ended: [String] = []
    for move in moves where !ended.contains(move.what) {
      guard let former = move.former else { continue }
      let own = side == .old ? former : .init(descriptor: move.move.to, identity: move.identity)
      guard let connection = try connection(own, of: process), try !UnixSocket.hasEnded(connection.raw) else {
        ended.append(move.what)
        continue
      }
    }
    return ended
  }

  /// Nil if the old QEMU has closed it.
  private func connection(_ own: WiredMove.Former?, of process: ProcessHandle) throws(Failure) -> DescriptorBox? {
    guard let own, try WiredMove.identity(of: own.descriptor, in: process.pid) == own.identity else { return nil }
    return DescriptorBox(try process.duplicate(descriptor: own.descriptor))
  }

  public func fileServers(_ side: Side) throws(Failure) -> FileServerUse {
    guard let process = side == .old ? oldProcess : newProcess, isAlive(side) else { return FileServerUse() }
    return try FileServerProcess.used(by: process, wakes: false)
  }

  public func wakeFileServers(_ side: Side, expected: Int) throws(Failure) -> Bool {
    guard let process = side == .old ? oldProcess : newProcess, isAlive(side) else { return true }
    for _ in 0..<50 {
      if try FileServerProcess.used(by: process, wakes: true).events >= expected { return true }
      // The guest runs, and the program is on its way.
      usleep(10_000)
    }
    return false
  }

  public func isRewired(_ moves: [WiredMove]) throws(Failure) -> Bool {
    guard let newProcess else { return false }
    for move in moves where try WiredMove.identity(of: move.move.to, in: newProcess.pid) == move.identity { return true }
    return false
  }

  public func finishRewiring() {
    wiring?.letGo()
    (wiring, diverted, exportListener) = (nil, [:], nil)
  }
}

extension UpgradePlan {
  /// Where a public name of the command line lies until it is made public.
  func stagedPath(_ written: String) -> String {
    let path = observation.absolute(written)
    guard let name = observation.names.first(where: { $0.path == path }),
      let stage = stages.first(where: { $0.directory == name.directory })
    else { return path }
    return Stage.join(stage.path, name.base)
  }
}

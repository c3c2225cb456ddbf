import Glibc
public import Kernel

/// The directories of a stage, held open: their owner may be somebody who would rename them under our hands.
final class OpenStage {
  /// Where the public names lie: the directory itself, or its parent when it is exchanged as a whole.
  let published: DescriptorBox
  /// Where the staged ones lie: the stage, or that same parent.
  let staged: DescriptorBox
  /// The stage itself as it was made.
  let stage: DescriptorBox

  init(_ stage: Stage, making: Bool) throws(Failure) {
    let holder = DescriptorBox(try Files.openDirectory(Paths.parent(stage.path)))
    let name = Paths.base(stage.path)
    if making {
      try Files.makeDirectory(name, in: holder.raw, mode: 0o700, hint: "moult needs a little space beside the VM's sockets")
    }
    do throws(Failure) { self.stage = DescriptorBox(try Files.openDirectory(name, in: holder.raw)) } catch {
      if making { try Files.remove(name, in: holder.raw, isDirectory: true) }
      throw error
    }
    published = holder
    staged = stage.kind == .exclusive ? holder : self.stage
  }
}

/// Stages, and the exchange of names.
extension LinuxHost {
  public func makeStage(_ stage: Stage) throws(Failure) {
    let open: OpenStage
    do { open = try OpenStage(stage, making: true) } catch {
      throw Failure(step: "make the stage", subject: stage.path, errno: error.errno, reason: error.reason, hint: error.hint)
    }
    stages[stage.path] = open
    for name in stage.carried {
      guard let status = try Files.statusIfPresent(Stage.join(stage.directory, name)) else { continue }
      if status.isDirectory {
        try Files.makeDirectory(name, in: open.stage.raw, mode: 0o700)
      } else {
        try Files.makeEmptyFile(name, in: open.stage.raw, mode: 0o600)
      }
    }
    let directory = try Files.openDirectory(stage.directory)
    // Last: from here on QEMU's user, who may be anybody, can write to it, though perhaps not to the public
    // directory: a QEMU that dropped root (-runas) made its names before.
    try Metadata.copy(from: directory.raw, to: open.stage.raw, subject: stage.path)
    if let oldProcess {
      let user = try ProcessStatus.read(pid: oldProcess.pid).credentials.user.effective
      try Metadata.give(open.stage.raw, to: user, subject: stage.path)
    }
    if stage.kind == .exclusive { staged[stage.path] = try Files.status(of: open.stage.raw).identity }
  }

  public func finishStage(_ stage: Stage) throws(Failure) {
    guard let newProcess, let open = stages[stage.path] else { return }
    let own = Set(try ProcFS.openDescriptors(of: newProcess.pid).compactMap(\.socketInode))
    let listening = try UnixSocketTable.read(networkOf: newProcess.pid).filter { $0.state == .listening && own.contains($0.inode) }
    let directory = try Files.openDirectory(stage.directory)
    // The stage becomes the public directory, or goes: its maker has no more business in it.
    try Metadata.copy(from: directory.raw, to: open.stage.raw, subject: stage.path)
    for name in stage.names {
      let published = Stage.join(stage.directory, name)
      let made: OwnedFD
      do throws(Failure) { made = try Files.naming(name, in: open.stage.raw) } catch where error.errno == .noSuchFileOrDirectory {
        throw Failure(step: "stage the name", subject: published, reason: "the new QEMU did not make it")
      }
      let status = try Files.status(of: made.raw)
      // It gets the public one's owner: it must be the file that QEMU made, not a link to another.
      guard status.links == 1, status.isSocket || status.isRegularFile else {
        throw Failure(step: "stage the name", subject: published, reason: "what is staged is not a file of the new QEMU's own")
      }
      if status.isSocket, !listening.contains(where: { $0.isBound(to: status) }) {
        throw Failure(step: "stage the name", subject: published, reason: "the new QEMU does not listen at its staged socket")
      }
      // An administrator may have changed owner, mode or label since the VM was started.
      if let present = try Files.statusIfPresent(name, in: directory.raw), !present.isSymbolicLink {
        let old = try Files.naming(name, in: directory.raw)
        try Metadata.copy(from: old.raw, to: made.raw, subject: published)
      }
      if stage.kind == .shared { staged[Stage.join(stage.path, name)] = status.identity }
    }
  }

  public var stagedIdentities: [String: FileIdentity] { staged }

  private func stage(of exchange: NameExchange) -> OpenStage? {
    stages[exchange.staged] ?? stages[Paths.parent(exchange.staged)]
  }

  /// The opened directories of both names of an exchange.
  private func directories(_ exchange: NameExchange) throws(Failure) -> OpenStage {
    guard let open = stage(of: exchange) else {
      throw Failure(step: "exchange", subject: exchange.published, reason: "its stage is gone")
    }
    return open
  }

  public func exchange(_ exchange: NameExchange) throws(Failure) {
    let open = try directories(exchange)
    let (published, staged) = (Paths.base(exchange.published), Paths.base(exchange.staged))
    do throws(Failure) {
      try Exchange.names(published, in: open.published.raw, with: staged, in: open.staged.raw)
    } catch where error.errno == .noSuchFileOrDirectory {
      // One side is missing: the public name had been removed, or this gives such a one back.
      if try Files.statusIfPresent(published, in: open.published.raw) == nil {
        try Exchange.move(staged, in: open.staged.raw, to: published, in: open.published.raw)
      } else if try isExchanged(exchange) {
        try Exchange.move(published, in: open.published.raw, to: staged, in: open.staged.raw)
      } else {
        // The staged name is gone: the public one must not go, too.
        throw error
      }
    }
  }

  public func isExchanged(_ exchange: NameExchange) throws(Failure) -> Bool {
    guard let identity = staged[exchange.staged] else { return false }
    guard let open = stage(of: exchange) else {
      // Removed already by the moult whose upgrade is recovered: nothing is exchanged any more, only looked at.
      return try Files.statusIfPresent(exchange.published)?.identity == identity
    }
    return try Files.statusIfPresent(Paths.base(exchange.published), in: open.published.raw)?.identity == identity
  }

  public func removeStage(_ stage: Stage) throws(Failure) {
    guard let open = stages[stage.path] else { return }
    let (parent, base) = (open.published.raw, Paths.base(stage.path))
    guard try Files.statusIfPresent(base, in: parent) != nil else {
      stages[stage.path] = nil
      return
    }
    // After an exchange of directories this is the former public one.
    let directory = try Files.openDirectory(base, in: parent)
    for name in stage.names { try Files.remove(name, in: directory.raw) }
    for name in stage.carried {
      guard let status = try Files.statusIfPresent(name, in: directory.raw) else { continue }
      // Only what is empty is a placeholder of ours: rmdir fails on anything else.
      if status.isDirectory || status.size == 0 { try Files.remove(name, in: directory.raw, isDirectory: status.isDirectory) }
    }
    if stage.kind == .exclusive {
      // What another program put into the public directory just before it was exchanged belongs there still.
      let published = try Files.openDirectory(Paths.base(stage.directory), in: parent)
      for name in try Files.names(in: "/proc/self/fd/\(directory.raw)") {
        try Exchange.move(name, in: directory.raw, to: name, in: published.raw)
      }
    }
    try Files.remove(base, in: parent, isDirectory: true)
    stages[stage.path] = nil
  }

  public func verifyPublicMonitor(_ path: String) throws(Failure) {
    let socket = try UnixSocket.connect(path)
    let peer = try UnixSocket.peerCredentials(socket.raw)
    if peer.pid != newProcess?.pid {
      throw Failure(step: "verify the monitor", subject: path, reason: "process \(peer.pid) answers there, not the new QEMU")
    }
  }

  public func settle(_ stages: [Stage], covered: [String], _ workingDirectory: HiddenDirectory?) throws(Failure) {
    guard let newProcess else { return }
    // Outer directories first: what is mounted inside them goes with them.
    let shared = stages.filter { $0.kind == .shared }.reversed()
    var detached: [String] = []
    let mounts = try MountInfo.read(pid: newProcess.pid)
    for stage in shared where !detached.contains(where: { Paths.contains($0, stage.directory) }) {
      // Done already, by a moult that was killed since: what is mounted there now is not the stage.
      guard let top = mounts.last(where: { $0.mountPoint == stage.directory }), top.root.contains("/" + Paths.base(stage.path)) else { continue }
      try Namespaces.within(newProcess.pid, [.mount]) { () throws(Failure) in try Mount.detach(stage.directory) }
      detached.append(stage.directory)
    }
    // Where a stage lay over it, a cover has gone with that.
    for path in covered where !detached.contains(where: { Paths.contains($0, path) }) {
      guard mounts.last(where: { $0.mountPoint == path })?.isPeerCover ?? false else { continue }
      try Namespaces.within(newProcess.pid, [.mount]) { () throws(Failure) in try Mount.detach(path) }
    }
    // Closed already by a moult that was killed since, the number may stand for anything.
    guard let directory = workingDirectory,
      try Files.isLink("/proc/\(newProcess.pid)/fd/\(directory.descriptor)", to: directory.path)
    else { return }
    try Transplant.enter(directory: directory.descriptor, in: newProcess.pid, outlivesUs: true)
  }
}

extension MountInfo {
  /// A socket that stands in for another program's, or nothing: see ``PeerStandIn``.
  fileprivate var isPeerCover: Bool { root == "/null" || root.contains("/" + PeerStandIn.filePrefix) }
}

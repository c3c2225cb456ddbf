import Glibc
public import Kernel

/// Stages, and the exchange of names.
extension LinuxHost {
  public func makeStage(_ stage: Stage) throws(Failure) {
    // Never through a link that somebody planted: mkdir(2) does not follow the last component, and the
    // directory's path is real.
    try valueOrErrno("make the stage", stage.path, hint: "moult needs a little space beside the VM's sockets") {
      mkdir(stage.path, 0o700)
    }
    madeStages.insert(stage.path)
    switch stage.kind {
    case .exclusive:
      try Metadata.copy(from: stage.directory, to: stage.path)
      staged[stage.path] = try Files.status(stage.path).identity
    case .shared:
      // QEMU, perhaps another user's, makes its names in here.
      try Metadata.copy(from: stage.directory, to: stage.path)
      for name in stage.carried {
        let (source, placeholder) = (Stage.join(stage.directory, name), Stage.join(stage.path, name))
        guard let status = try Files.statusIfPresent(source) else { continue }
        if status.isDirectory {
          try valueOrErrno("make the mount point", placeholder) { mkdir(placeholder, 0o700) }
        } else {
          _ = try OwnedFD.open(placeholder, O_CREAT | O_EXCL | O_WRONLY, mode: 0o600, step: "make the mount point")
        }
      }
    }
  }

  public func removeStage(_ stage: Stage) throws(Failure) {
    guard madeStages.contains(stage.path), try Files.statusIfPresent(stage.path) != nil else { return }
    for name in stage.names { try Files.remove(Stage.join(stage.path, name)) }
    for name in stage.carried {
      let placeholder = Stage.join(stage.path, name)
      guard let status = try Files.statusIfPresent(placeholder) else { continue }
      // Only what is empty is a placeholder of ours: rmdir fails on anything else.
      if status.isDirectory {
        try Files.removeDirectory(placeholder)
      } else if status.size == 0 {
        try Files.remove(placeholder)
      }
    }
    if stage.kind == .exclusive { try giveBackStrangers(stage) }
    try Files.removeDirectory(stage.path)
    madeStages.remove(stage.path)
  }

  /// What another program put into the public directory just before it was exchanged belongs there still.
  func giveBackStrangers(_ stage: Stage) throws(Failure) {
    for name in try Files.names(in: stage.path) where !stage.names.contains(name) {
      try Exchange.move(Stage.join(stage.path, name), to: Stage.join(stage.directory, name))
    }
  }

  public func finishStage(_ stage: Stage) throws(Failure) {
    guard let newProcess else { return }
    let own = Set(try ProcFS.openDescriptors(of: newProcess.pid).compactMap(\.socketInode))
    let listening = try UnixSocketTable.read(networkOf: newProcess.pid).filter { $0.state == .listening && own.contains($0.inode) }
    for name in stage.names {
      let (made, published) = (Stage.join(stage.path, name), Stage.join(stage.directory, name))
      guard let status = try Files.statusIfPresent(made) else {
        throw Failure(step: "stage the name", subject: published, reason: "the new QEMU did not make it")
      }
      if status.isSocket, !listening.contains(where: { $0.isBound(to: status) }) {
        throw Failure(step: "stage the name", subject: published, reason: "the new QEMU does not listen at its staged socket")
      }
      // An administrator may have changed owner, mode or label since the VM was started.
      if try Files.statusIfPresent(published) != nil { try Metadata.copy(from: published, to: made) }
      if stage.kind == .shared { staged[made] = status.identity }
    }
  }

  public func exchange(_ exchange: NameExchange) throws(Failure) {
    do { try Exchange.names(exchange.published, exchange.staged) } catch where error.errno == .noSuchFileOrDirectory {
      // One side is missing: the public name had been removed, or this gives such a one back.
      if try Files.statusIfPresent(exchange.published) == nil {
        try Exchange.move(exchange.staged, to: exchange.published)
      } else {
        try Exchange.move(exchange.published, to: exchange.staged)
      }
    }
  }

  public func isExchanged(_ exchange: NameExchange) throws(Failure) -> Bool {
    guard let identity = staged[exchange.staged] else { return false }
    return try Files.statusIfPresent(exchange.published)?.identity == identity
  }

  public func verifyPublicMonitor(_ path: String) throws(Failure) {
    let socket = try UnixSocket.connect(path)
    let peer = try UnixSocket.peerCredentials(socket.raw)
    if peer.pid != newProcess?.pid {
      throw Failure(step: "verify the monitor", subject: path, reason: "process \(peer.pid) answers there, not the new QEMU")
    }
  }

  public var stagedIdentities: [String: FileIdentity] { staged }

  public func settle(_ stages: [Stage]) throws(Failure) {
    guard let newProcess else { return }
    // Outer directories first: what is mounted inside them goes with them.
    let shared = stages.filter { $0.kind == .shared }.reversed()
    var detached: [String] = []
    for stage in shared where !detached.contains(where: { Paths.contains($0, stage.directory) }) {
      try Namespaces.within(newProcess.pid, [.mount]) { () throws(Failure) in try Mount.detach(stage.directory) }
      detached.append(stage.directory)
    }
  }
}

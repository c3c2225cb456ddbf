import Kernel

/// The CID of a guest's vsock. What both QEMUs have open tells whose it can be, so that whoever recovers an upgrade finds it there.
extension LinuxHost {
  public func handOver(_ vsock: Rewiring.Vsock, hasRun: Bool) throws(Failure) {
    guard let newProcess else { return }
    guard let new = try device(vsock.given, of: newProcess) else {
      // Unplugged since.
      if hasRun { return }
      throw isAlive(.new)
        ? Failure(step: "give the guest's CID to", subject: "the new QEMU", reason: "it has no vsock device at its descriptor \(vsock.given)", hint: "try again")
        : death(of: .new, during: "give the guest's CID to")
    }
    do throws(Failure) { return try VhostVsock.set(vsock.cid, of: new.raw) } catch where error.errno == .addressInUse {}
    if let oldProcess {
      if let old = try device(vsock.source, of: oldProcess) {
        try VhostVsock.setFreeCID(of: old.raw)
        // The host's ends of connections would wait for ever: the guest's forget them without a word.
        if Observer.connections(with: vsock.cid) != 0 { try VhostVsock.endOrphans() }
      } else {
        // One that was killed has it until its last thread has ended.
        _ = oldProcess.exits(withinMilliseconds: Int32(Executor.switchSeconds * 1000))
      }
    }
    try VhostVsock.set(vsock.cid, of: new.raw)
  }

  public func giveBack(_ vsock: Rewiring.Vsock) throws(Failure) {
    guard let oldProcess, isAlive(.old), let old = try device(vsock.source, of: oldProcess) else { return }
    try VhostVsock.set(vsock.cid, of: old.raw)
  }

  /// Nil if the process has ended, or has no such device there.
  private func device(_ number: CInt, of process: ProcessHandle) throws(Failure) -> DescriptorBox? {
    do throws(Failure) {
      let copy = DescriptorBox(try process.duplicate(descriptor: number))
      return VhostVsock.isDevice(try Files.status(of: copy.raw)) ? copy : nil
    } catch where error.errno == .noSuchProcess || error.errno == .badFileDescriptor { return nil }
  }
}

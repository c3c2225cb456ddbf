import QEMU

extension UpgradePlan {
  /// Why both QEMUs cannot have a remote disk open.
  ///
  /// There are never two writers: the old QEMU gives its disks up (its guest stopped, its writes answered and flushed)
  /// before it sends the end of its state, and the new one takes them up when it has read that. What remains to be known
  /// is that the server serves a second client, and that this one sees what the first has written. Of iSCSI a target's logical
  /// unit is the same for every initiator, by the protocol; a file by SSH is its server's; HTTP is only read.
  var remoteDiskBlockers: [Blocker] {
    let refused = Set(observation.description.blockers.map(\.option))
    let words = observation.description.bindings.filter { $0.kind == .blockRemote }.map(\.option)
    // Refused for its kind already.
    if words.contains(where: refused.contains) { return [] }
    return observation.network.disks.compactMap { disk in
      let option = "disk \(disk.node.file)"
      // Below an image whose header names it; the arguments' own are refused by their words.
      if let (reason, wayOut) = disk.node.whyNot { return Blocker(option: option, reason: reason, wayOut: wayOut) }
      if disk.node.connectsFreely { return nil }
      guard disk.node.server != nil else {
        return Blocker(
          option: option, reason: "the address of its server cannot be told", wayOut: "start the VM with a path, or an address and port, for the server")
      }
      guard disk.socket != nil else {
        return Blocker(
          option: option, reason: "the running QEMU has no connection to the server that would answer there now",
          wayOut: "wait until it is connected again; if the server was restarted, restart the VM")
      }
      switch disk.answer {
      case .silence, .none:
        return Blocker(
          option: option, reason: "its server answers no second client while the running QEMU is connected: the new one would wait for it",
          wayOut: "the server must serve two connections for each disk of the VM (qemu-nbd --shared=2 or more); to change that, shut the VM down, restart the server, start the VM")
      case .refusal(let why):
        return Blocker(option: option, reason: "its server would not serve the new QEMU: \(why)", wayOut: "give the VM the disk as a local block device")
      case .export(let export):
        if let size = disk.node.size, export.size.sectors != UInt64(clamping: size).sectors {
          return Blocker(
            option: option, reason: "its server has another disk for a second client: \(export.size) bytes, and \(size) for the running QEMU",
            wayOut: "let the server serve the same export to all; if its image was replaced or resized, restart the VM")
        }
        if disk.node.isReadOnly || export.servesSeveral { return nil }
        return Blocker(
          option: option, reason: "its server does not promise that one client sees what another has written (NBD_FLAG_CAN_MULTI_CONN)",
          wayOut: "a server that does: qemu-nbd 7.1 or later with --shared=N, nbdkit, nbd-server without copyonwrite")
      }
    }
  }
}

extension UInt64 {
  /// Of 512 bytes, the last one in part.
  fileprivate var sectors: UInt64 { self / 512 + (self % 512 > 0 ? 1 : 0) }
}

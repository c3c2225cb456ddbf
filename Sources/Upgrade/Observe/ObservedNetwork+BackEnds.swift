import Glibc
import Kernel
import QEMU

extension ObservedNetwork {
  /// Finds what the running QEMU has open to its back ends.
  /// - Parameters:
  ///   - numbers: the running QEMU's descriptors by their sockets.
  ///   - holder: of the process that has the socket with this inode, all its sockets, and whether it is stopped.
  ///   - version: of the TPM behind a device of this driver; nil if that cannot be told.
  mutating func findBackEnds(
    _ commandLine: CommandLine, _ numbers: [UInt64: CInt], unix: [UnixSocketEntry], holder: (UInt64) throws(Failure) -> (sockets: Set<UInt64>, isStopped: Bool),
    version: (String) throws(Failure) -> TPMStandIn.Version?
  ) throws(Failure) {
    for (index, found) in outgoing.enumerated() where found.peer.backEnd == .tpm {
      func refuse(_ why: String) { unresolved.append((commandLine.options[found.peer.option].text, why)) }
      guard let socket = found.socket, let peer = unix.first(where: { $0.inode == socket.inode })?.peerInode else {
        refuse("QEMU is not connected to \(found.peer.text)")
        continue
      }
      let (theirs, isStopped) = try holder(peer)
      // QEMU has sent one end of a socket pair to the emulator: the two know nobody else.
      let pairs = unix.filter { entry in
        entry.state == .established && entry.path == nil && entry.inode != socket.inode && numbers[entry.inode] != nil
          && entry.peerInode.map(theirs.contains) ?? false
      }
      guard pairs.count == 1, let number = numbers[pairs[0].inode] else {
        refuse("which connection has the commands of the TPM cannot be told: QEMU has \(pairs.count) that could be it")
        continue
      }
      outgoing[index].channels = [Connection(descriptor: number, inode: pairs[0].inode)]
      if isStopped {
        // QEMU asks it for its state when the guest stands still, and waits for the answer whatever comes.
        refuse("the emulator of the TPM is stopped (SIGSTOP, or by a debugger): kill -CONT lets it go on")
        continue
      }
      guard let driver = commandLine.tpmDriver, let version = try version(driver) else {
        refuse("of which version the TPM is cannot be told")
        continue
      }
      outgoing[index].backEnd = .tpm(version)
    }
  }
}

extension ObservedNetwork {
  /// The same, of a process.
  mutating func findBackEnds(
    _ commandLine: CommandLine, _ descriptors: [OpenDescriptor], unix: [UnixSocketEntry], pid: pid_t, _ monitor: QMPConnection
  ) throws(Failure) {
    try findBackEnds(commandLine, Self.numbers(descriptors), unix: unix) { inode throws(Failure) in
      guard let holder = try SocketHolders.find([inode], except: pid)[inode] else { return ([], false) }
      let sockets = Set(try ProcFS.openDescriptors(of: holder.pid).compactMap(\.socketInode))
      return (sockets, try ["T", "t"].contains(ProcFS.status(holder.pid).state))
    } version: { driver throws(Failure) in try TPMStandIn.Version(driver: driver, monitor) }
  }
}

extension CommandLine {
  /// Of the device that is the guest's TPM; there is one at most.
  var tpmDriver: String? { options.first { $0.name == "device" && $0.parameters["tpmdev"] != nil }?.parameters["driver"] }
}

extension TPMStandIn.Version {
  /// As the device tells its guest. QMP does not.
  init?(driver: String, _ monitor: QMPConnection) throws(Failure) {
    switch driver {
    case "tpm-crb": self = .v2_0  // There is none of 1.2.
    case "tpm-tis":
      // The interface's capabilities, whose bits 28 to 30 are its version. Source: TCG PC Client TPM Interface
      // Specification, 5.5.2.7; reading the register changes nothing.
      let text = try monitor.execute("human-monitor-command", ["command-line": "xp /1wx 0xfed40014"]).string ?? ""
      guard let word = text.split(separator: ":").last?.split(whereSeparator: \.isWhitespace).first, word.hasPrefix("0x"),
        let value = UInt32(word.dropFirst(2), radix: 16)
      else { return nil }
      switch value >> 28 & 7 {
      case 3: self = .v2_0
      case 0, 2: self = .v1_2
      default: return nil
      }
    default: return nil
    }
  }
}

import Glibc
import Kernel
import QEMU

extension ObservedNetwork {
  /// Finds what the running QEMU has open to its back ends.
  /// - Parameters:
  ///   - numbers: the running QEMU's descriptors by their sockets.
  ///   - holder: of the process that has the socket with this inode, the name of its program, all its sockets, and whether it is stopped.
  ///   - version: of the TPM behind a device of this driver; nil if that cannot be told.
  ///   - devices: those that back ends serve.
  ///   - kept: what the back end behind the connection with this inode has said to a QEMU before this one.
  mutating func findBackEnds(
    _ commandLine: CommandLine, _ numbers: [UInt64: CInt], unix: [UnixSocketEntry],
    holder: (UInt64) throws(Failure) -> (program: String, sockets: Set<UInt64>, isStopped: Bool),
    version: (String) throws(Failure) -> TPMStandIn.Version?, devices: () throws(Failure) -> [VhostUserDevice],
    kept: (UInt64) -> BackEnd? = { _ in nil }
  ) throws(Failure) {
    let devices = outgoing.contains { $0.peer.backEnd == .vhostUser || $0.peer.backEnd == .network } ? try devices() : []
    servedDisks = devices.filter { !$0.isNetwork }
    for (index, found) in outgoing.enumerated() {
      guard let kind = found.peer.backEnd, kind != .fileSystem else { continue }
      func refuse(_ why: String) { unresolved.append((commandLine.options[found.peer.option].text, why)) }
      guard let socket = found.socket, let peer = unix.first(where: { $0.inode == socket.inode })?.peerInode else {
        refuse("QEMU is not connected to \(found.peer.text)")
        continue
      }
      let (program, theirs, isStopped) = try holder(peer)
      let channels = Self.channels(numbers, unix, theirs: theirs)
      if kind == .tpm, channels.count != 1 {
        refuse("which connection has the commands of the TPM cannot be told: QEMU has \(channels.count) that could be it")
        continue
      }
      // Several devices may have one back end, which is asked for all of them.
      let known = inodes
      outgoing[index].channels = channels.filter { !known.contains($0.inode) }
      if isStopped {
        // QEMU asks it when the guest stands still, and waits for the answer whatever comes.
        refuse("\(kind == .tpm ? "the emulator of the TPM" : "its back end") is stopped (SIGSTOP, or by a debugger): kill -CONT lets it go on")
        continue
      }
      switch kind {
      case .tpm:
        guard let driver = commandLine.tpmDriver, let version = try version(driver) else {
          refuse("of which version the TPM is cannot be told")
          continue
        }
        outgoing[index].backEnd = .tpm(version)
      case .vhostUser:
        guard case .chardev(let id) = found.peer.user, let disk = servedDisks.first(where: { $0.chardev == id }) else {
          refuse(Self.untold)
          continue
        }
        if let obstacle = disk.obstacle {
          refuse(obstacle)
          continue
        }
        guard found.path != nil, Self.successionPrograms.contains(program) else {
          refuse("whether its back end (\(program)) serves another connection when this one ends is not known; \(Self.successionPrograms.joined(separator: ", ")) does")
          continue
        }
        guard let listener = found.listener, theirs.contains(listener) else {
          refuse("the program that serves it does not listen for another connection at \(found.peer.text) any more")
          continue
        }
        outgoing[index].backEnd = .vhostUser(disk.answers)
      case .network:
        guard Self.keepers.contains(program) else {
          refuse("whether its back end (\(program)) takes another QEMU's memory over the connection that it has is not known; \(Self.keepers.joined(separator: ", ")) do, which are made with DPDK")
          continue
        }
        if let told = kept(socket.inode) {
          outgoing[index].backEnd = told
          continue
        }
        guard case .chardev(let id) = found.peer.user, let card = devices.first(where: { $0.isNetwork && $0.chardev == id }) else {
          refuse(Self.untold)
          continue
        }
        if let obstacle = card.obstacle {
          refuse(obstacle)
          continue
        }
        outgoing[index].backEnd = .network(card.answers)
      case .fileSystem: continue
      }
    }
  }

  /// QEMU has sent one end of a socket pair to the back end: the two know nobody else.
  /// - Parameter theirs: the sockets of the back end.
  static func channels(_ numbers: [UInt64: CInt], _ unix: [UnixSocketEntry], theirs: Set<UInt64>) -> [Connection] {
    unix.filter { entry in
      entry.state == .established && entry.path == nil
        && entry.peerInode.map { peer in theirs.contains(peer) && !unix.contains { $0.inode == peer && $0.path != nil } } ?? false
    }.compactMap { entry in numbers[entry.inode].map { Connection(descriptor: $0, inode: entry.inode) } }
  }

  /// Said of whatever is not to be asked for, too.
  static let untold = "what the back end has said cannot be asked: QEMU 7.2 to 10.0 tell it, older ones cannot, and newer ones may end themselves when they are asked (11.1 does)"

  /// Programs that were seen to serve one connection after the other.
  private static let successionPrograms = ["qemu-storage-daemon"]
  /// Programs that were seen to take the memory of another QEMU over the connection that they have, when no ring runs. DPDK
  /// forgets where a ring is when it is stopped (GET_VRING_BASE, `vring_invalidate` in its lib/vhost/vhost_user.c, 19.11 to
  /// 26.07); passt and qemu-storage-daemon do not, and give up.
  private static let keepers = ["ovs-vswitchd", "ovs-vswitchd-dpdk", "dpdk-testpmd"]
}

extension ObservedNetwork {
  /// The same, of a process.
  mutating func findBackEnds(
    _ commandLine: CommandLine, _ descriptors: [OpenDescriptor], unix: [UnixSocketEntry], pid: pid_t, _ monitor: QMPConnection
  ) throws(Failure) {
    let kept = KeptAnswers.backEnds(in: try ProcFS.environment(of: pid))
    try findBackEnds(commandLine, Self.numbers(descriptors), unix: unix) { inode throws(Failure) in
      guard let holder = try SocketHolders.find([inode], except: pid)[inode] else { return ("unknown", [], false) }
      let sockets = Set(try ProcFS.openDescriptors(of: holder.pid).compactMap(\.socketInode))
      let program = try ProcFS.executable(of: holder.pid).path.split(separator: "/").last.map(String.init) ?? ""
      return (program, sockets, try ["T", "t"].contains(ProcFS.status(holder.pid).state))
    } version: { driver throws(Failure) in
      try TPMStandIn.Version(driver: driver, monitor)
    } devices: { () throws(Failure) in
      guard let version = monitor.version, VhostUserDevice.isTold(by: version) else { return [] }
      return try VhostUserDevice.disks(of: monitor) + VhostUserDevice.networks(commandLine.networkChardevs, of: monitor)
    } kept: { inode in
      monitor.version.map(VhostUserDevice.isTold) ?? false ? nil : kept[inode]
    }
  }
}

extension CommandLine {
  /// The character devices of networks that back ends serve, by the networks' ids.
  var networkChardevs: [String: String] {
    Dictionary(
      options.compactMap { option in
        guard option.name == "netdev", option.parameters["type"] == "vhost-user", let id = option.parameters["id"] else { return nil }
        return option.parameters["chardev"].map { (id, $0) }
      }
    ) { first, _ in first }
  }

  /// Of the device that is the guest's TPM; there is one at most.
  var tpmDriver: String? { options.first { $0.name == "device" && $0.parameters["tpmdev"] != nil }?.parameters["driver"] }
}

extension CommandLine {
  /// The guest's commands for its TPM lie in memory that is sent, and saved, apart from the device.
  var hasTPMBuffer: Bool { tpmDriver == "tpm-crb" }
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

import QEMU

extension UpgradePlan {
  var networkWarnings: [String] {
    let line = observation.commandLine
    var warnings: [String] = observation.network.taps.compactMap { tap in
      guard let script = line.downscript(tap.tap) else { return nil }
      return "the downscript \(script) of tap \(tap.interface) will not be run, now or when the VM ends"
    }
    for outgoing in observation.network.outgoing where outgoing.carried == nil && outgoing.socket != nil && outgoing.peer.backEnd == nil {
      warnings.append(
        "QEMU's connection to \(outgoing.peer.text) (\(outgoing.peer.user.text)) ends with the old QEMU; the new one makes another within \(Double(outgoing.peer.reconnectMilliseconds) / 1000) s")
    }
    for outgoing in observation.network.outgoing {
      guard let server = outgoing.fileServer else { continue }
      warnings.append(
        "\(server.program) (pid \(server.pid)), which serves \(outgoing.peer.user.text), ends with the old QEMU; another one, which moult starts with the same arguments, serves the new one: whoever looks after the first, a service of systemd's for one, sees it end")
    }
    if let exports = observation.network.exports {
      warnings.append(
        "the limits of the NBD server at \(exports.address) (max-connections, handshake-max-seconds), and the I/O threads of its exports, cannot be read back: they are QEMU's defaults in the new one")
      let written = exports.server.written.map(\.name)
      if !written.isEmpty {
        warnings.append(
          "whether the exports \(written.joined(separator: ", ")) write through (writethrough=on) cannot be read back: a client must flush, as by default")
      }
    }
    if !line.userNetworks.isEmpty || line.hasDefaultNetwork {
      let count = observation.network.passing.count
      let open = count == 1 ? " (1 socket is open for it now)" : count > 0 ? " (\(count) sockets are open for it now)" : ""
      warnings.append(
        "what the guest has open through its user network ends with a reset\(open), and has to be opened again; "
          + "so do connections to forwarded ports")
    }
    if let vsock = observation.network.vsock {
      let open = vsock.connections.map { $0 == 0 ? "" : $0 == 1 ? " (1 is open now)" : " (\($0) are open now)" } ?? ""
      warnings.append("connections by vsock between the host and the guest (CID \(vsock.cid)) end\(open), and have to be made again")
    }
    return warnings
  }

  /// The first version that does not load the disks of those before it: their features do not pass its check, whatever they are
  /// (`Features … unsupported`, from 7.2 to 11.1, in a plain migration, too; from 11.1 to 11.1 they do).
  private static let loadsNoOlderDisks = QEMUVersion(major: 11, minor: 0)

  /// Disks that back ends serve, which the new version would not load.
  var servedDiskBlockers: [Blocker] {
    guard let target, target.version >= Self.loadsNoOlderDisks, observation.version < Self.loadsNoOlderDisks else { return [] }
    return observation.network.servedDisks.map { disk in
      Blocker(
        option: "chardev \(disk.chardev)", reason: "QEMU \(target.version) does not load a vhost-user-blk that \(observation.version) saves",
        wayOut: "a QEMU before \(Self.loadsNoOlderDisks.major); or restart the VM in the new one")
    }
  }

  /// The first version that takes over what a program that serves a directory knows of its guest.
  private static let movesDirectories = QEMUVersion(major: 8, minor: 2)

  /// Directories that other programs serve.
  var servedDirectoryBlockers: [Blocker] {
    let versions = [observation.version] + (target.map { [$0.version] } ?? [])
    guard let old = versions.first(where: { $0 < Self.movesDirectories }) else { return [] }
    return observation.network.outgoing.filter { $0.peer.backEnd == .fileSystem }.map { outgoing in
      Blocker(
        option: outgoing.peer.user.text, reason: "QEMU \(old) cannot hand over, or take, a directory that another program serves",
        wayOut: old == observation.version ? "restart the VM in QEMU \(Self.movesDirectories) or later; or unplug the device" : "QEMU \(Self.movesDirectories) or later; or unplug the device")
    }
  }

  private static let untold = "which socket of the running QEMU this is cannot be told"

  /// What has been named is not named by its number, too.
  mutating func dropUnnamedSockets() {
    if !blockers.contains(where: { $0.reason == Self.untold }) { return }
    blockers.removeAll { $0.option.hasPrefix("descriptor ") && $0.reason.hasPrefix("a network socket") }
  }

  /// Why the new QEMU cannot be given what is on the network.
  var networkBlockers: [Blocker] {
    let network = observation.network
    // What is to be handed over must have been found: a port may be written as a name, or be left to the kernel.
    let line = observation.commandLine
    let found = Set((network.listeners.map(\.endpoint.option) + network.taps.map(\.tap.option) + network.outgoing.map(\.peer.option)).map { line.options[$0].text })
    let missed = network.unresolved.map(\.words) + [ExportServer.command]
    var blockers: [Blocker] = []
    if let why = network.untoldExports {
      blockers.append(Blocker(option: "NBD exports", reason: "what the VM exports cannot be told wholly: \(why)", wayOut: ExportServer.wayOut))
    }
    for binding in observation.description.bindings
    where binding.handover == .duplicate && !found.contains(binding.option) && !missed.contains(binding.option) {
      blockers.append(
        Blocker(
          option: binding.option, reason: Self.untold,
          wayOut: "start the VM with a number for the port, not 0 and not a name"))
    }
    let wanted = network.listeners.map(\.endpoint).filter { $0.purpose == "hostfwd" }.map(\.text).sorted()
    let forwarded = observation.live.forwards.sorted()
    if wanted != forwarded, !line.options.contains(where: { $0.isUserNetwork && missed.contains($0.text) }) {
      blockers.append(
        Blocker(
          option: "hostfwd", reason: "the ports that are forwarded now (\(forwarded.isEmpty ? "none" : forwarded.joined(separator: ", "))) are not those of the arguments",
          wayOut: "make them the same again: hostfwd_add, hostfwd_remove"))
    }
    if !hasStandIns, network.exports == nil { return blockers }
    #if !arch(x86_64)
      blockers.append(
        Blocker(
          option: "network", reason: "taps, ports, live connections and vsock are handed over on x86-64 only",
          wayOut: "start the VM with unix sockets, without taps and vsock, and disconnect the clients of its consoles"))
    #endif
    let words = LaunchPlan.arguments(self)
    if KeptWords.entry(words, started: words).utf8.count >= KeptWords.longest {
      blockers.append(
        Blocker(
          option: "command line", reason: "it is too long to be remembered in the environment (128 KiB), and has taps, ports or vsock",
          wayOut: "start the VM with a shorter command line, or with unix sockets, and neither taps nor vsock"))
    }
    return blockers
  }
}

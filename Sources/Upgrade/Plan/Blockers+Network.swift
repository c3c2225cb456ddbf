import QEMU

extension UpgradePlan {
  var networkWarnings: [String] {
    observation.network.taps.compactMap { tap in
      let script = observation.commandLine.options[tap.tap.option].parameters["downscript"] ?? "no"
      return script == "no" ? nil : "the downscript \(script) of tap \(tap.interface) will not be run, now or when the VM ends"
    } + observation.network.outgoing.filter { !$0.peer.isRaw && $0.socket != nil }.map { outgoing in
      "QEMU's connection to \(outgoing.peer.text) (chardev \(outgoing.peer.chardev)) ends with the old QEMU; the new one makes another within \(Double(outgoing.peer.reconnectMilliseconds) / 1000) s"
    }
  }

  /// Why the new QEMU cannot be given what is on the network.
  var networkBlockers: [Blocker] {
    let network = observation.network
    // What is to be handed over must have been found: a port may be written as a name, or be left to the kernel.
    let line = observation.commandLine
    let found = Set((network.listeners.map(\.endpoint.option) + network.taps.map(\.tap.option) + network.outgoing.map(\.peer.option)).map { line.options[$0].text })
    let missed = network.unresolved.map(\.words)
    var blockers: [Blocker] = []
    for binding in observation.description.bindings
    where binding.handover == .duplicate && !found.contains(binding.option) && !missed.contains(binding.option) {
      blockers.append(
        Blocker(
          option: binding.option, reason: "which socket of the running QEMU this is cannot be told",
          wayOut: "start the VM with a number for the port, not 0 and not a name"))
    }
    if !hasStandIns { return blockers }
    #if !arch(x86_64)
      blockers.append(
        Blocker(
          option: "network", reason: "taps, ports and live connections are handed over on x86-64 only",
          wayOut: "start the VM with unix sockets, without taps, and disconnect the clients of its consoles"))
    #endif
    let words = LaunchPlan.arguments(self)
    if KeptWords.entry(words, started: words).utf8.count >= KeptWords.longest {
      blockers.append(
        Blocker(
          option: "command line", reason: "it is too long to be remembered in the environment (128 KiB), and has taps or ports",
          wayOut: "start the VM with a shorter command line, or with unix sockets and no taps"))
    }
    return blockers
  }
}

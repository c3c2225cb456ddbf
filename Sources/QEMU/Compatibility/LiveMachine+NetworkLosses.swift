extension LiveMachine {
  /// What QEMU `reader` does not load of what `writer` saves of this VM's networks, which no `-dump-vmstate` tells.
  ///
  /// Until 8.1 all `user` networks shared one section; since 8.2 each has its own, and a reader that has only the one
  /// refuses the others. Source: `net_slirp_init` in QEMU's net/slirp.c, `register_savevm_live`.
  public func networkLosses(from writer: QEMUVersion, to reader: QEMUVersion) -> [VMStateDump.Loss] {
    let oneEach = QEMUVersion(major: 8, minor: 2)
    let count = networks.count { $0.type == "user" }
    guard count > 1, writer >= oneEach, reader < oneEach else { return [] }
    return [
      VMStateDump.Loss(
        device: "user networks", what: "\(count) are saved, each in a section of its own, and before 8.2 only one is loaded", isCertain: true)
    ]
  }
}

import QEMU

/// What holds for every command line, also for nonsense.
enum CommandLineInvariants {
  static func violation(_ input: [UInt8]) -> String? {
    let words = input.split(separator: 0, omittingEmptySubsequences: false).map { String(decoding: $0, as: UTF8.self) }
    let line = CommandLine(argv: words)
    guard line.argv == words else { return "argv is printed back as \(line.argv)" }
    for option in line.options {
      if let violation = Self.violation(option) { return "\(option.text): \(violation)" }
    }
    let description = MachineDescription(line)
    for unknown in description.unknown where !description.blockers.contains(where: { $0.option == unknown }) {
      return "\(unknown) is not understood, and no blocker says so"
    }
    let twin = TwinArguments(
      machine: "pc-q35-7.2", control: 5, memory: ["m": .descriptor(7)], sharedMemory: true, switchesUser: false)
    let once = twin.applied(to: line)
    guard twin.applied(to: once) == once else { return "the twin of the twin is another: \(once.argv)" }
    guard description.isUpgradable else { return nil }
    guard CommandLine(argv: once.argv) == once else { return "the twin is read otherwise than it was made: \(once.argv)" }
    let other = MachineDescription(once)
    guard other.isUpgradable else { return "the twin is refused: \(other.blockers)" }
    guard other.deviceIDs == description.deviceIDs, other.objectIDs == description.objectIDs,
      other.netdevIDs == description.netdevIDs, other.nodeNames == description.nodeNames,
      other.images.map(\.path) == description.images.map(\.path), other.qmpSockets == description.qmpSockets
    else { return "the twin is another machine: \(once.argv)" }
    return nil
  }

  /// Of the option's value: what is set can be read back, and what is removed is gone.
  private static func violation(_ option: CommandOption) -> String? {
    let parameters = option.parameters
    guard parameters.text == option.value ?? "" else { return "the text has changed" }
    for entry in parameters.entries {
      var changed = parameters
      guard let value = parameters[entry.key] else { return "\(entry.key) is not found" }
      changed.set(entry.key, to: value)
      guard changed.text == parameters.text else { return "setting \(entry.key) to its own value gave \(changed.text)" }
      changed.set(entry.key, to: "a,b=c")
      guard changed[entry.key] == "a,b=c" else { return "\(entry.key) was set and is not: \(changed.text)" }
      changed.remove(entry.key)
      // A nonsense key that starts with a brace may come to stand first.
      guard changed.isJSON == parameters.isJSON else { continue }
      guard changed.isMalformed == parameters.isMalformed else { return "without \(entry.key) it is malformed: \(changed.text)" }
      if !changed.isJSON, changed[entry.key] != nil { return "\(entry.key) was removed and is there: \(changed.text)" }
    }
    return nil
  }
}

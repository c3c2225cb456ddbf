import Kernel

/// Reads a command line option by option and collects its description.
struct Describer {
  let commandLine: CommandLine
  let isPart: Bool
  private let configurations: [CommandOption]
  var result = MachineDescription()
  var chardevs: [Chardev] = []
  var labels = LegacyLabels()
  /// Chardevs named by other options, looked up when all are known.
  /// Of the guest agent's port.
  var agentChardev: String?
  var pendingConsumers: [(id: String, consumer: String, option: CommandOption)] = []
  /// Ids of memory backends by what uses them as RAM.
  var ramBackendIDs: Set<String> = []
  /// What virtio-mem devices are to give the guest of their backends, by the backend's id.
  var requestedSizes: [String: UInt64] = [:]
  var memoryPath: (path: String, option: String)?
  var memoryOption = ""
  var displayTypes: [String] = []
  var blockNodes: [BlockNode] = []
  /// Names of the nodes that are the machine's flash memory.
  var firmwareNodes: Set<String> = []
  /// Drives and memory backends that cannot be handed over because of the device that uses them, by id.
  var backendRefusals: [String: Refusal] = [:]

  /// Where the option that is read stands.
  var place = 0
  private let lastMachineKeys: [String: Int]

  init(_ expanded: ExpandedCommandLine, isPart: Bool) {
    commandLine = expanded.commandLine
    lastMachineKeys = commandLine.lastMachineKeys
    result.blockers = expanded.blockers
    configurations = expanded.configurations
    self.isPart = isPart
  }

  /// The options of `-readconfig` files stay unknown, which is a blocker.
  init(_ commandLine: CommandLine, isPart: Bool) {
    let expanded = commandLine.expanded { path throws(Failure) in
      throw Failure(
        step: "read the configuration", subject: path, reason: "not read: only the command line is known",
        hint: "inspect --argv reads a configuration file when it is given one")
    }
    self.init(expanded, isPart: isPart)
  }

  mutating func describe() -> MachineDescription {
    for fault in commandLine.faults { block(fault.option, fault.reason, CommandLine.Fault.wayOut) }
    let superseded = commandLine.superseded
    for (place, option) in commandLine.options.enumerated() where !superseded.contains(place) {
      self.place = place
      read(option)
    }
    for option in configurations { configuration(option) }
    bindDescriptorSets()
    finishChardevs()
    finishBlock()
    finishMemory()
    finishDefaults()
    return result
  }

  /// A file that QEMU read when it started, and the new one reads no more.
  private mutating func configuration(_ option: CommandOption) {
    let blocker = result.blockers.first { $0.option == option.text }
    bind(
      .file, .share, option.value ?? "", option.text, blocker == nil ? .reopen : .refuse,
      blocker?.reason ?? "moult reads it, and the new QEMU gets its options as arguments", purpose: Binding.configuration)
  }

  /// Of an option of `-machine`, the entries that count: no later one sets the same key.
  func heeded(_ parameters: OptionValue) -> [OptionValue.Entry] {
    let entries = parameters.entries
    return entries.enumerated().filter { index, entry in
      lastMachineKeys[entry.key] == place && !entries[(index + 1)...].contains { $0.key == entry.key }
    }.map(\.element)
  }

  func has(_ names: String...) -> Bool {
    commandLine.options.contains { names.contains($0.name) }
  }

  mutating func block(_ option: CommandOption, _ reason: String, _ wayOut: String) {
    block(option.text, reason, wayOut)
  }

  mutating func block(_ option: String, _ reason: String, _ wayOut: String) {
    let blocker = Blocker(option: option, reason: reason, wayOut: wayOut)
    if !result.blockers.contains(blocker) { result.blockers.append(blocker) }
  }

  mutating func unknown(_ option: CommandOption, _ what: String) {
    if !result.unknown.contains(option.text) { result.unknown.append(option.text) }
    block(
      option, "\(what), so what it holds on the host is not known",
      "remove it, or report it to the makers of moult")
  }

  mutating func file(
    _ path: String, _ use: FileReference.Use, _ option: CommandOption, writable: Bool = false,
    isSearched: Bool = false, isDirectory: Bool = false
  ) {
    result.files.append(
      FileReference(
        path: path, use: use, writable: writable, option: option.text, isSearched: isSearched,
        isDirectory: isDirectory))
    // Images become bindings with the block graph, which knows more of them.
    if use == .image { return }
    result.bindings.append(
      Binding(
        kind: isDirectory ? .directory : .file, role: .share, address: path, option: option.text,
        handover: .reopen, why: "the new QEMU reads it again at its start", purpose: use.rawValue))
  }

  mutating func bind(
    _ kind: Binding.Kind, _ role: Binding.Role, _ address: String, _ option: String,
    _ handover: Binding.Handover, _ why: String, purpose: String = ""
  ) {
    result.bindings.append(
      Binding(
        kind: kind, role: role, address: address, option: option, handover: handover, why: why,
        purpose: purpose))
  }

  /// A binding that nothing here carries over, and the blocker for it.
  mutating func refuse(
    _ kind: Binding.Kind, _ role: Binding.Role, _ address: String, _ option: String,
    _ why: String, _ wayOut: String, purpose: String = ""
  ) {
    bind(kind, role, address, option, .refuse, why, purpose: purpose)
    block(option, why, wayOut)
  }
}

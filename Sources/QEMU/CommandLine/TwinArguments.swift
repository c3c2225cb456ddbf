/// Where the twin finds the memory of one backend.
public enum MemoryPlacement: Sendable, Hashable {
  /// A descriptor that the twin inherits under this number and maps shared.
  case descriptor(CInt)
  /// A file that the twin opens and maps shared.
  case path(String)

  var path: String {
    switch self {
    case .descriptor(let number): "/proc/self/fd/\(number)"
    case .path(let path): path
    }
  }
}

/// What the command line of a VM's twin differs in from the one it was started with.
public struct TwinArguments: Sendable, Hashable {
  /// The id of the private monitor's chardev. Whatever bears it is taken out again on the next upgrade.
  public static let controlID = "moult-control"

  /// The versioned machine type (`pc-q35-7.2`), so that an alias cannot mean another machine. Nil
  /// leaves the machine as it is written.
  public var machine: String?
  /// The descriptor, inherited by the twin, of its private QMP monitor; nil for none.
  public var control: CInt?
  /// New places of memory backends, by id. Each becomes a shared `memory-backend-file`.
  public var memory: [String: MemoryPlacement]
  /// The twin maps memory that a running guest still writes: nothing may touch it in advance, so
  /// every `prealloc` goes.
  public var sharedMemory: Bool
  /// False if the twin is started as its final user already: `-runas` would fail without root.
  public var switchesUser: Bool
  /// CPU features to switch off: the twin's version would give the guest more than it has seen so far.
  public var maskedFeatures: [String] = []
  /// Of the twin; nil if it is not known, and nothing is said in other words for its sake then.
  public var version: QEMUVersion?

  public init(
    machine: String? = nil, control: CInt? = nil, memory: [String: MemoryPlacement] = [:],
    sharedMemory: Bool = false, switchesUser: Bool = true
  ) {
    self.machine = machine
    self.control = control
    self.memory = memory
    self.sharedMemory = sharedMemory
    self.switchesUser = switchesUser
  }

  /// The twin's command line. Every option that need not change keeps its words and its place, and
  /// applying this to its own result changes nothing.
  ///
  /// Beside what the properties say: `-daemonize`, `-incoming`, `-S` and `-loadvm` go and
  /// `-incoming defer -S` comes, because the twin waits for its state; files that chardevs write are
  /// appended to, because the second opener must not truncate them; unix listeners do not wait for
  /// a client; options that were removed since are written in the words that took their place.
  public func applied(to original: CommandLine) -> CommandLine {
    var twin = original
    var labels = LegacyLabels()
    for option in original.options { _ = labels.next(for: option) }
    // With ambiguous numbers, one of QEMU's own ids might be the one that is chosen here.
    let prefix = labels.areAmbiguous ? "moult-" : ""
    labels = LegacyLabels()
    twin.options = original.options.flatMap { option -> [CommandOption] in
      let label = labels.next(for: option).map { option.name == "serial" ? prefix + $0 : $0 }
      if isDropped(option) { return [] }
      return rewritten(ModernSpelling.of(option) ?? option, label: label)
    }
    pinMachine(&twin)
    if let control {
      twin.options.append(
        CommandOption(name: "chardev", value: "socket,id=\(Self.controlID),fd=\(control)"))
      twin.options.append(
        CommandOption(name: "mon", value: "chardev=\(Self.controlID),mode=control"))
    }
    twin.options.append(CommandOption(name: "incoming", value: "defer"))
    twin.options.append(CommandOption(name: "S"))
    return twin
  }

  /// What `applied` says in other words since it was removed: `-no-hpet as -machine hpet=off`.
  public static func respelled(in original: CommandLine) -> [String] { ModernSpelling.changes(in: original) }

  /// The same in one call.
  public static func twin(
    of original: CommandLine, machine: String?, control: CInt?,
    memory: [String: MemoryPlacement] = [:], sharedMemory: Bool = false, switchesUser: Bool = true
  ) -> CommandLine {
    TwinArguments(
      machine: machine, control: control, memory: memory, sharedMemory: sharedMemory,
      switchesUser: switchesUser
    ).applied(to: original)
  }

  private func isDropped(_ option: CommandOption) -> Bool {
    if case .dropped? = option.info?.treatment { return true }
    switch option.name {
    case "mem-prealloc": return sharedMemory
    case "runas": return !switchesUser
    case "chardev", "mon":
      let parameters = option.parameters
      return [parameters["id"], parameters["chardev"]].contains {
        $0?.hasPrefix(Self.controlID) ?? false
      }
    default: return false
    }
  }

  private func rewritten(_ option: CommandOption, label: String?) -> [CommandOption] {
    switch option.name {
    case "object": return rewrittenObject(option)
    case "device" where sharedMemory:
      // virtio-mem has a prealloc of its own.
      guard option.parameters["driver"]?.hasPrefix("virtio-mem") ?? false else { return [option] }
      return [changed(option) { $0.remove("prealloc") } ?? option]
    case "run-with" where !switchesUser:
      guard var parameters = changed(option, { $0.remove("user") }) else { return [option] }
      if parameters.value?.isEmpty ?? true { return [] }
      parameters.dashes = option.dashes
      return [parameters]
    case "chardev":
      return [changed(option) { value in
        Self.secondOpener(&value)
        respellReconnect(&value)
      } ?? option]
    case "netdev": return [changed(option, respellReconnect) ?? option]
    case "cpu":
      var option = option
      for feature in maskedFeatures where option.value?.hasSuffix(",\(feature)=off") == false && option.value?.contains(",\(feature)=off,") == false {
        option.value? += ",\(feature)=off"
      }
      return [option]
    default:
      guard let label, var value = option.value else { return [option] }
      if var legacy = LegacySocket(value) {
        respellReconnect(&legacy.parameters)
        value = legacy.text
      }
      var option = option
      option.value = value
      return Self.rewrittenLegacyChardev(option, value: value, label: label)
    }
  }

  /// `reconnect` (seconds) became `reconnect-ms` in 9.2, and 11.1 does not know it any more.
  private func respellReconnect(_ value: inout OptionValue) {
    let milliseconds = value.reconnectMilliseconds
    guard let version else { return }
    let isOld = version < QEMUVersion(major: 9, minor: 2)
    value.remove(isOld ? "reconnect-ms" : "reconnect")
    if milliseconds <= 0 { return }
    value.set(isOld ? "reconnect" : "reconnect-ms", to: .number(UInt64(isOld ? (milliseconds + 999) / 1000 : milliseconds)))
  }

  /// The option with its value changed; nil if that left it as it was.
  private func changed(
    _ option: CommandOption, _ change: (inout OptionValue) -> Void
  ) -> CommandOption? {
    guard option.value != nil else { return nil }
    var parameters = option.parameters
    let before = parameters.text
    change(&parameters)
    if parameters.text == before { return nil }
    var option = option
    option.value = parameters.text
    return option
  }

  private func rewrittenObject(_ option: CommandOption) -> [CommandOption] {
    let parameters = option.parameters
    guard let type = parameters["qom-type"], type.hasPrefix("memory-backend-") else {
      return [option]
    }
    let placement = parameters["id"].flatMap { memory[$0] }
    let new = changed(option) { value in
      if let placement {
        value.set("qom-type", to: "memory-backend-file")
        value.set("mem-path", to: placement.path)
        value.set("share", to: true)
        // These belong to memfd backends only, or to the file that is left behind.
        for key in ["seal", "hugetlb", "hugetlbsize"] { value.remove(key) }
      }
      if placement != nil || sharedMemory {
        for key in ["prealloc", "prealloc-threads", "prealloc-context"] { value.remove(key) }
      }
    }
    return [new ?? option]
  }

  private func pinMachine(_ twin: inout CommandLine) {
    guard let machine else { return }
    let places = twin.options.indices.filter {
      let option = twin.options[$0]
      return option.value != nil && (option.name == "machine" || option.name == "M")
    }
    let typed = places.filter { twin.options[$0].parameters["type"] != nil }
    guard let last = places.last else {
      twin.options.insert(CommandOption(name: "machine", value: machine), at: 0)
      return
    }
    for place in typed.isEmpty ? [last] : typed {
      twin.options[place] =
        changed(twin.options[place]) { $0.set("type", to: machine) } ?? twin.options[place]
    }
  }
}

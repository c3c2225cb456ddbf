/// The words with which a VM, as it is now, would be started.
///
/// Made of the words it was started with and of what its QEMU says: what was plugged, snapshotted or changed
/// since then is put into the words, or refused. Pure.
public struct LiveCommandLine: Sendable, Hashable {
  public var commandLine: CommandLine
  /// What was put in, taken out or changed, and what could not be.
  public var drift: [Drift]
  /// What of it no command of QEMU's tells, as sentences.
  public var unreadable: [String]

  /// - Parameters:
  ///   - base: where relative paths of the arguments start.
  ///   - vhosts: how many descriptors of /dev/vhost-net QEMU has open: which of its networks have one no command tells.
  public init(_ original: CommandLine, live: LiveMachine, base: String, vhosts: Int = 0) {
    var rebuilding = Rebuilding(original, live: live, base: base)
    rebuilding.vhosts = vhosts
    rebuilding.rebuild()
    commandLine = original
    drift = rebuilding.drift
    unreadable = Unreadable.notes(original, live: live) + rebuilding.unreadable
    if rebuilding.hasChanged { commandLine.options = rebuilding.result }
  }
}

/// A command line while it is being rebuilt.
struct Rebuilding {
  let live: LiveMachine
  let graph: BlockGraph
  let base: String
  let original: CommandLine
  var vhosts = 0
  var parts: LiveParts { live.parts }
  /// The options in their places; nil for one that was taken out.
  var options: [CommandOption?]
  var added: [CommandOption] = []
  var drift: [Drift] = []
  var unreadable: [String] = []
  var hasChanged = false
  /// Names that moult gave to nodes that have none.
  var givenNames: [String: String] = [:]
  /// For the nodes that are being made: what the one in whose place they are was given.
  var settings = NodeSettings()
  /// Nodes that options make.
  var madeNodes: Set<String> = []

  init(_ original: CommandLine, live: LiveMachine, base: String) {
    self.original = original
    self.live = live
    self.base = base
    graph = live.graph
    options = original.options
  }

  var result: [CommandOption] { options.compactMap { $0 } + added }

  mutating func rebuild() {
    rebuildObjects()
    rebuildChardevs()
    rebuildNetworks()
    rebuildBlocks()
    rebuildDevices()
    if hasChanged { sortNodes() }
  }

  /// What is to be asked of QEMU before this can rebuild everything.
  var wanted: LiveParts.Wanted {
    var wanted = LiveParts.Wanted(
      objects: Set(live.objects.keys), chardevs: Set(addedChardevs + replacedChardevs.map(\.chardev.id)), settable: live.devicePaths)
    wanted.devices = addedDevices
    if !wanted.devices.isEmpty || !removedDevices.isEmpty {
      wanted.placed = Set(live.devices.keys.map { Self.named + $0 } + live.anonymousNumbers.map { "\(Self.anonymous)\($0)]" })
    }
    return wanted
  }

  func absolute(_ path: String) -> String {
    path.isEmpty || path.hasPrefix("/") || path.hasPrefix("json:") ? path : base + (base.hasSuffix("/") ? "" : "/") + path
  }

  /// Changes the value of an option; notes that the line has changed if it did.
  mutating func change(_ index: Int, _ body: (inout OptionValue) -> Void) {
    guard let option = options[index] else { return }
    var value = option.parameters
    body(&value)
    if value.text == option.value ?? "" { return }
    options[index]?.value = value.text
    hasChanged = true
  }

  mutating func remove(_ index: Int) {
    options[index] = nil
    hasChanged = true
  }

  mutating func add(_ name: String, implied: String? = nil, _ keys: [(String, String)]) -> CommandOption {
    let option = CommandOption(name: name, value: Self.text(implied: implied, keys))
    added.append(option)
    hasChanged = true
    return option
  }

  /// - Parameter implied: the first word, whose key is left out.
  static func text(implied: String? = nil, _ keys: [(String, String)]) -> String {
    ((implied.map { [$0] } ?? []) + keys.map { "\($0.0)=\(OptionValue.escape($0.1))" }).joined(separator: ",")
  }

  mutating func rebuilt(_ subject: String, _ what: String, as options: String) {
    drift.append(.rebuilt(subject, what, as: options))
  }

  mutating func refuse(_ subject: String, _ what: String, wayOut: String = Drift.restart) {
    drift.append(.refused(subject, what, wayOut: wayOut))
  }
}

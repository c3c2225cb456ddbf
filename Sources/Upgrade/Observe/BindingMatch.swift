import Kernel
import QEMU

/// Which descriptors of a running QEMU hold which bindings. Pure: what the kernel has to be asked is in the arguments.
struct BindingMatch {
  /// The VM's descriptors, joined.
  var descriptors: [HeldDescriptor]
  /// What a path of the command line leads to; nil when it leads nowhere.
  var identity: (String) -> FileIdentity?
  /// The files of RAM backends by the options that make them.
  var memory: [String: FileIdentity]
  /// The descriptors of `/dev/fdset/N` by N, in the order of the options that put them there.
  var sets: [Int: [Int32]] = [:]
  /// The descriptors of taps by the options that make them: after an upgrade they have other numbers than those say.
  var taps: [String: [Int32]] = [:]
  /// The descriptors of connections that QEMU makes, with what was opened over them, by the options that make them.
  var connections: [String: [Int32]] = [:]
  /// Those with which user networks serve the guest: of the first of them, as nothing tells whose they are.
  var passing: Set<Int32> = []

  /// Each binding with its descriptors, then the descriptors that no binding explains as bindings of their own.
  /// - Parameter nodes: files that QEMU says are block nodes, and whether it only reads them; nil if it was not asked.
  func match(_ bindings: [Binding], nodes: [String: Bool]?) -> [InspectedBinding] {
    var claimed: Set<Int32> = []
    var result: [InspectedBinding] = []
    var rest = sets
    let user = bindings.firstIndex { $0.kind == .netdevUser }
    for (index, binding) in bindings.enumerated() {
      // QEMU duplicates what is for a set, and closes the number that it came by.
      let member = Self.set(binding).map { set in rest[set, default: []].isEmpty ? -1 : rest[set, default: []].removeFirst() }
      var held = descriptors.filter { descriptor in member.map { $0 == descriptor.number } ?? holds(descriptor, binding) }
      if index == user { held += descriptors.filter { passing.contains($0.number) } }
      // Connections belong to what listens for them.
      let listeners = Set(held.filter { $0.role == .listen }.map(\.number))
      held += descriptors.filter { descriptor in
        descriptor.listener.map(listeners.contains) ?? false && !held.contains { $0.number == descriptor.number }
      }
      claimed.formUnion(held.map(\.number))
      result.append(InspectedBinding(binding: binding, descriptors: held.sorted { $0.number < $1.number }))
    }
    for descriptor in descriptors where !claimed.contains(descriptor.number) {
      // A memory file has no name that anybody could know: what no option explains is QEMU's own (its screen).
      guard let kind = descriptor.kind, kind != .memory else { continue }
      result.append(InspectedBinding(binding: Self.unexplained(descriptor, kind, nodes: nodes), descriptors: [descriptor]))
    }
    return result
  }

  private func holds(_ descriptor: HeldDescriptor, _ binding: Binding) -> Bool {
    if binding.kind == .memory, let file = memory[binding.option] { return descriptor.file == file }
    if let queues = taps[binding.option], [.tap, .bridgeHelper].contains(binding.kind) { return queues.contains(descriptor.number) }
    if binding.role == .connect {
      if let own = connections[binding.option] { return own.contains(descriptor.number) }
      if connections.values.contains(where: { $0.contains(descriptor.number) }) { return false }
    }
    if binding.kind == .memory { return isFile(descriptor, binding) }
    // A descriptor that was passed by number. The command line's number may be another one's by now, but not of that kind.
    if Self.numbers(binding).contains(descriptor.number) { return descriptor.kind != nil }
    switch descriptor.kind {
    case .unixSocket:
      if descriptor.role == .connect { return binding.role == .connect && descriptor.listener == nil && same(descriptor.address, binding.address) }
      return binding.role == .listen
        && (isFile(descriptor, binding) || (descriptor.address.hasPrefix("@") && descriptor.address == binding.address))
    case .tcpSocket, .udpSocket:
      guard ![.file, .disk, .directory, .pidfile, .unixSocket].contains(binding.kind) else { return false }
      let ports = Self.ports(binding.address).union([binding.defaultPort].compactMap(\.self))
      if let remote = descriptor.remotePort { return binding.role == .connect && descriptor.listener == nil && ports.contains(remote) }
      return descriptor.localPort.map(ports.contains) ?? false
    case .tap: return binding.kind == .tap && binding.address == descriptor.address
    case .file, .disk, .directory, .memory: return isFile(descriptor, binding)
    case .some(let kind): return kind == binding.kind
    case nil: return descriptor.number > 2 && isFile(descriptor, binding)
    }
  }

  private func isFile(_ descriptor: HeldDescriptor, _ binding: Binding) -> Bool {
    guard let file = descriptor.file, let named = identity(binding.address) else { return false }
    // sock_diag gives the low half of an inode's number.
    if descriptor.role == .listen { return file.device == named.device && file.inode == named.inode & 0xffff_ffff }
    return file == named
  }

  /// Whether a path as bind(2) was given it is that of the command line, which may be in a URL.
  private func same(_ path: String, _ written: String) -> Bool {
    guard !path.isEmpty else { return false }
    // `nbd:unix:/path:exportname=e`
    let oldForm = "nbd:unix:" + path
    return path == written || written.hasSuffix("socket=" + path) || written == oldForm || written.hasPrefix(oldForm + ":") || (path.hasPrefix("/") && !written.hasPrefix("/") && path.hasSuffix("/" + written))
  }

  /// What may be a port in an address: digits after a colon, of which `remote@local` and URLs have several.
  static func ports(_ address: String) -> Set<UInt16> {
    Set(address.split(separator: ":", omittingEmptySubsequences: false).dropFirst().compactMap { UInt16($0.prefix { $0.isNumber }) })
  }

  /// The numbers of descriptors in `fd=3`, `fds=3:4`, or the bare number of kind `fd`.
  private static func numbers(_ binding: Binding) -> [Int32] {
    let parts = binding.address.split(separator: "=", maxSplits: 1)
    if parts.count == 2, ["fd", "fds"].contains(parts[0]) { return parts[1].split(separator: ":").compactMap { Int32($0) } }
    return binding.kind == .fd ? [Int32(binding.address)].compactMap { $0 } : []
  }

  /// Of a descriptor by `-add-fd`: the number of its set.
  private static func set(_ binding: Binding) -> Int? {
    let prefix = "/dev/fdset/"
    guard binding.kind == .fd, binding.purpose.hasPrefix(prefix) else { return nil }
    return Int(binding.purpose.dropFirst(prefix.count).prefix { $0.isNumber })
  }

  private static func unexplained(_ descriptor: HeldDescriptor, _ kind: Binding.Kind, nodes: [String: Bool]?) -> Binding {
    let onlyRead = nodes?[descriptor.address]
    let isNode = onlyRead != nil
    let isFile = [.file, .disk, .directory, .memory].contains(kind)
    let why = isNode
      ? "no option names it, but it is a block node of the running QEMU: a backing file, a snapshot or a disk that was plugged in"
      : "no option explains descriptor \(descriptor.number)"
        + (isFile ? ": opened over QMP, or by what an option loads" : ", so no step carries it over")
    return Binding(
      kind: isNode ? .disk : kind, role: onlyRead ?? false ? .share : descriptor.role, address: descriptor.address, option: "",
      handover: isFile ? .reopen : .refuse, why: why, purpose: "")
  }
}

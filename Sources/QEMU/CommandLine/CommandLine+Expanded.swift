public import Kernel

/// A command line with the options of its configuration files in place, and the changes of `-set` made.
public struct ExpandedCommandLine: Sendable, Hashable {
  public var commandLine: CommandLine
  /// What could not be expanded, which stays as it was, and what an expansion would change.
  public var blockers: [Blocker]
  /// The options that name configuration files, read or not.
  public var configurations: [CommandOption]

  public init(commandLine: CommandLine, blockers: [Blocker], configurations: [CommandOption] = []) {
    self.commandLine = commandLine
    self.blockers = blockers
    self.configurations = configurations
  }
}

extension CommandLine {
  /// Puts the options of each `-readconfig` file where it stands, and makes the changes of each `-set` to the
  /// option it names, both as QEMU does it on its way through the options (`qemu_init` in its system/vl.c).
  /// The result says the same to QEMU and needs neither file nor `-set`.
  ///
  /// - Parameter read: gives the content of a file by the path that the command line has for it.
  public func expanded(reading read: (_ path: String) throws(Failure) -> [UInt8]) -> ExpandedCommandLine {
    var result = ExpandedCommandLine(commandLine: self, blockers: [])
    if !options.contains(where: { $0.name == "readconfig" || $0.name == "set" }) { return result }
    result.commandLine.options = []
    for option in options {
      switch (option.name, option.value) {
      case ("readconfig", let path?):
        result.configurations.append(option)
        do throws(Failure) {
          let file = try ConfigFile(parsing: try read(path), path: path)
          result.commandLine.options += file.options
          if let blocker = defaultsBlocker(option, file) { result.blockers.append(blocker) }
        } catch {
          result.commandLine.options.append(option)
          result.blockers.append(
            Blocker(
              option: option.text, reason: "\(error)",
              wayOut: error.hint ?? "mend the file, or put its options on the command line"))
        }
      case ("set", let change?):
        do throws(SetError) { try result.commandLine.set(change) } catch {
          result.commandLine.options.append(option)
          result.blockers.append(
            Blocker(option: option.text, reason: error.reason, wayOut: "check the command line: QEMU itself refuses it"))
        }
      default: result.commandLine.options.append(option)
      }
    }
    return result
  }

  /// What some options do beside their group: they keep QEMU from adding devices of its own, which the group
  /// in a file does not. Written out on the command line they would make another machine.
  private func defaultsBlocker(_ option: CommandOption, _ file: ConfigFile) -> Blocker? {
    let named = Set(options.map(\.name))
    let quieting = file.groups.intersection(["netdev", "nic", "net", "mon", "audiodev"]).sorted()
    if let group = quieting.first, !named.contains("nodefaults") {
      return Blocker(
        option: option.text,
        reason: "beside a group [\(group)] in a file QEMU adds devices of its own, which it does not beside the option -\(group)",
        wayOut: "start the VM with -nodefaults")
    }
    if let group = file.groups.intersection(["vnc", "spice"]).sorted().first,
      named.isDisjoint(with: ["display", "nographic", "vnc", "spice"])
    {
      return Blocker(
        option: option.text,
        reason: "beside a group [\(group)] in a file QEMU opens its default display, which it does not beside the option -\(group)",
        wayOut: "start the VM with -display none")
    }
    return nil
  }

  private struct SetError: Error { var reason: String }

  /// Groups that `-set` can change an option of, by the option's name: those that QEMU keeps as `QemuOpts`
  /// with ids.
  private static let settable: [String: String] = [
    "add-fd": "add-fd", "chardev": "chardev", "device": "device", "drive": "drive", "fsdev": "fsdev", "fw_cfg": "fw_cfg",
    "mon": "mon", "net": "net", "netdev": "netdev", "nic": "nic", "numa": "numa", "object": "object", "tpmdev": "tpmdev",
    "vnc": "vnc",
  ]

  /// `group.id.key=value`: the value holds for the option from now on, commas and all.
  private mutating func set(_ change: String) throws(SetError) {
    let bytes = Array(change.utf8)
    func malformed() -> SetError { SetError(reason: "it is not of the form group.id.key=value") }
    guard let first = bytes.firstIndex(of: UInt8(ascii: ".")),
      let second = bytes[(first + 1)...].firstIndex(of: UInt8(ascii: ".")),
      let equals = bytes[(second + 1)...].firstIndex(of: UInt8(ascii: "="))
    else { throw malformed() }
    let words = [bytes[..<first], bytes[(first + 1)..<second], bytes[(second + 1)..<equals]]
    // QEMU cuts longer words.
    guard words.allSatisfy({ (1...63).contains($0.count) }) else { throw malformed() }
    let (group, id, key) = (text(words[0]), text(words[1]), text(words[2]))
    guard let name = Self.settable[group] else {
      throw SetError(reason: "no option of a group \(group) can be changed by -set")
    }
    guard !key.utf8.contains(UInt8(ascii: ",")) else { throw SetError(reason: "no option has a key \(key)") }
    guard let place = options.firstIndex(where: { $0.name == name && !$0.parameters.isJSON && $0.parameters["id"] == id }) else {
      let isJSON = options.contains { $0.name == name && $0.parameters["id"] == id }
      throw SetError(
        reason: isJSON ? "-\(name) with the id \(id) is written in JSON, which -set does not change"
          : "no -\(name) before it has the id \(id)")
    }
    var parameters = options[place].parameters
    parameters.append(key, text(bytes[(equals + 1)...]))
    options[place].value = parameters.text
  }
}

private func text(_ bytes: ArraySlice<UInt8>) -> String { String(decoding: bytes, as: UTF8.self) }

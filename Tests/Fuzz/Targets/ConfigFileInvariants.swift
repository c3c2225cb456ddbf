import QEMU

/// What holds for every file for `-readconfig`, and every `-set`.
enum ConfigFileInvariants {
  static func violation(_ input: [UInt8]) -> String? {
    let file: ConfigFile
    do { file = try ConfigFile(parsing: input, path: "f") } catch {
      return error.reason == nil || !error.subject.hasPrefix("f") ? "refused without a reason or place: \(error)" : nil
    }
    let before = CommandLine(argv: ["qemu", "-nodefaults", "-display", "none", "-readconfig", "f"])
    let expanded = before.expanded { _ in input }
    guard expanded.blockers.isEmpty else { return "refused in a command line only: \(expanded.blockers)" }
    let line = expanded.commandLine
    guard line == CommandLine(argv: line.argv) else { return "reads otherwise than it was made: \(line.argv)" }
    guard line.expanded(reading: { _ in input }).commandLine == line else { return "a second time gives another line" }
    for option in file.options {
      let entries = option.parameters.entries
      guard !entries.contains(where: { !input.contains($0.value) }) else {
        return "\(option.text) says what the file does not"
      }
      guard let id = option.parameters["id"], !id.utf8.contains(UInt8(ascii: ".")) else { continue }
      let changed = CommandLine(argv: line.argv + ["-set", "\(option.name).\(id).key=a,b=c"]).expanded(reading: { _ in [] })
      if changed.blockers.isEmpty, !changed.commandLine.options.contains(where: { $0.parameters["key"] == "a,b=c" }) {
        return "-set was lost: \(changed.commandLine.argv)"
      }
    }
    return CommandLineInvariants.violation(Array(line.argv.joined(separator: "\0").utf8))
  }
}

extension [UInt8] {
  fileprivate func contains(_ text: String) -> Bool {
    let text = Array(text.utf8)
    if text.isEmpty { return true }
    guard count >= text.count else { return false }
    return (0...(count - text.count)).contains { self[$0..<($0 + text.count)].elementsEqual(text) }
  }
}

/// Names that an option uses and no option gives: QEMU does not start then.
extension CommandLine {
  /// Of a whole command line, whose configuration files are in place.
  var danglingReferences: [Fault] {
    var made: [Kind: Set<String>] = [:]
    for option in options {
      let parameters = option.parameters
      for (kind, key) in Self.makers[option.name] ?? [] {
        for entry in parameters.entries where entry.key == key || key == "node-name" && entry.key.hasSuffix(".node-name") {
          made[kind, default: []].insert(entry.value)
        }
      }
    }
    var faults: [Fault] = []
    for option in options where option.value != nil {
      for entry in option.parameters.entries {
        guard let kind = Self.user(of: entry.key, in: option), !entry.value.isEmpty, !(made[kind] ?? []).contains(entry.value),
          !(kind == .drive && Self.isMadeUp(entry.value)), kind != .object || Self.isIdentifier(entry.value), !(option.parameters.isJSON && entry.value == "null")
        else { continue }
        faults.append(Fault(option: option, reason: "\(entry.key)=\(entry.value): no option makes \(kind.rawValue) \(entry.value)"))
      }
    }
    return faults
  }

  private enum Kind: String {
    case network = "a network"
    case drive = "a drive or block node"
    case node = "a block node"
    case object = "an object"
    case fileSystem = "a shared directory"
    case tpm = "a TPM"
    case audio = "a sound back end"
  }

  /// What names are given by, by option.
  private static let makers: [String: [(Kind, String)]] = [
    "netdev": [(.network, "id")], "nic": [(.network, "id")], "net": [(.network, "id"), (.network, "name")],
    "drive": [(.drive, "id"), (.drive, "node-name"), (.node, "node-name"), (.node, "id")],
    "blockdev": [(.drive, "node-name"), (.node, "node-name")], "object": [(.object, "id")],
    "fsdev": [(.fileSystem, "id")], "tpmdev": [(.tpm, "id")], "audiodev": [(.audio, "id")], "audio": [(.audio, "id")],
  ]

  /// What a key of an option uses; nil if it names nothing, or what is looked at elsewhere (`chardev=`, RAM).
  private static func user(of key: String, in option: CommandOption) -> Kind? {
    switch (option.name, key) {
    case ("device", "netdev"), ("netdev", "netdev"): .network
    case ("device", "drive"): .drive
    case ("device", "iothread"): .object
    case ("device", "fsdev"): .fileSystem
    case ("device", "tpmdev"): .tpm
    case ("device", "audiodev"), ("vnc", "audiodev"): .audio
    case ("blockdev", _) where ["file", "backing", "data-file"].contains(key.split(separator: ".").last ?? ""): .node
    case ("blockdev", _), ("drive", _), ("object", _):
      ["key-secret", "password-secret", "cookie-secret", "keyid"].contains { key == $0 || key.hasSuffix("." + $0) } ? .object : nil
    default: nil
    }
  }

  /// QEMU's own name of a drive without id: `ide0-cd1`, `virtio0`, `none0`.
  private static func isMadeUp(_ name: String) -> Bool {
    ["ide", "scsi", "virtio", "none", "floppy", "sd", "mtd", "pflash", "xen"].contains { kind in
      name.hasPrefix(kind) && (name.dropFirst(kind.count).first?.isNumber ?? false)
    }
  }
}

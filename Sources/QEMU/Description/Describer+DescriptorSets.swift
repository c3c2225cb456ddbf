/// Descriptors that QEMU got from the program that started it: `-add-fd` puts each in a numbered set, and an
/// option that opens `/dev/fdset/N` gets a duplicate of one in the set whose access mode fits.
/// Source: qemu(1), and QEMU's `parse_add_fd` (system/vl.c) and `monitor_fdset_dup_fd_add` (monitor/fds.c).
extension CommandLine {
  /// Which options open which sets, by the set's number.
  var descriptorSetUsers: [Int: [CommandOption]] {
    var users: [Int: [CommandOption]] = [:]
    for option in options where option.name != "add-fd" {
      let texts = option.parameters.isJSON ? option.parameters.entries.map(\.value) : [option.value ?? ""]
      let sets = texts.flatMap { text in
        text.split(separator: "/dev/fdset/", omittingEmptySubsequences: false).dropFirst().compactMap { Int($0.prefix { ("0"..."9").contains($0) }) }
      }
      for set in Set(sets) { users[set, default: []].append(option) }
    }
    return users
  }
}

extension Describer {
  /// One binding for each descriptor, which says who opens its set.
  mutating func bindDescriptorSets() {
    let users = commandLine.descriptorSetUsers
    var made: Set<Int> = []
    for option in commandLine.options where option.name == "add-fd" && option.value != nil {
      let parameters = option.parameters
      guard let number = parameters["fd"].flatMap({ Int32($0) }), number > 2, let set = parameters["set"].flatMap({ Int($0) }), set >= 0 else {
        block(option, "it needs fd= with a descriptor above 2, and set= with the number of a set", "check the command line: QEMU itself refuses it")
        continue
      }
      made.insert(set)
      let path = "/dev/fdset/\(set)"
      let names = (users[set] ?? []).map(Self.name)
      let opener = names.isEmpty ? "no option opens" : names.joined(separator: " and ") + (names.count == 1 ? " opens" : " open")
      refuse(
        .fd, .own, String(number), option.text,
        "\(opener) \(path), where descriptor \(number) is: whoever started QEMU opened it, and the new QEMU cannot be given it yet",
        names.isEmpty
          ? "start the VM without this option"
          : "start the VM with the path of what is open there in place of \(path) (for a running VM, /proc/PID/fd has it)",
        purpose: ([path] + names).joined(separator: ", "))
    }
    // Of a part, the rest may make it.
    if isPart { return }
    for (set, users) in users.sorted(by: { $0.key < $1.key }) where !made.contains(set) {
      for option in users {
        block(
          option, "it opens /dev/fdset/\(set), and no -add-fd puts a descriptor there: it came over QMP",
          "start the VM with a path in place of /dev/fdset/\(set)")
      }
    }
  }

  /// An option without all that it says: `-blockdev disk0`.
  private static func name(_ option: CommandOption) -> String {
    let parameters = option.parameters
    let id = ["id", "node-name"].lazy.compactMap { parameters[$0] }.first
    return "-\(option.name)" + (id.map { " " + $0 } ?? "")
  }
}

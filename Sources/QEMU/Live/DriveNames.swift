/// How QEMU names the drives of options that give no id (`drive_new` and `drive_add` in its `blockdev.c`).
struct DriveNames {
  /// An IDE bus of q35 has one drive, others two. Source: `units_per_default_bus`.
  let ideUnits: Int
  /// The interface of a drive that names none; nil if it is not known for this machine.
  let defaultInterface: String?
  private var taken: Set<String> = []

  init(machineType: String) {
    ideUnits = machineType.contains("q35") ? 1 : 2
    defaultInterface = machineType.hasPrefix("pc-") || machineType == "isapc" ? "ide" : nil
  }

  /// Old forms of a drive as the keys of `-drive` that say the same.
  static func keys(of option: CommandOption) -> [(String, String)]? {
    let file = [("file", option.value ?? "")]
    switch option.isImage ? "hda" : option.name {
    case "hda": return file + [("index", "0"), ("media", "disk")]
    case "hdb": return file + [("index", "1"), ("media", "disk")]
    case "hdc": return file + [("index", "2"), ("media", "disk")]
    case "hdd": return file + [("index", "3"), ("media", "disk")]
    case "cdrom": return file + [("index", "2"), ("media", "cdrom")]
    case "fda": return file + [("if", "floppy"), ("index", "0")]
    case "fdb": return file + [("if", "floppy"), ("index", "1")]
    case "sd": return file + [("if", "sd")]
    case "mtdblock": return file + [("if", "mtd")]
    case "pflash": return file + [("if", "pflash")]
    default: return nil
    }
  }

  /// The name of the next drive; nil if it cannot be told.
  mutating func next(_ drive: OptionValue) -> String? {
    guard let interface = drive["if"] ?? defaultInterface else { return drive["id"] }
    let most: Int? = interface == "ide" ? ideUnits : interface == "scsi" ? 7 : nil
    var (bus, unit) = (drive["bus"].flatMap { Int($0) } ?? 0, drive["unit"].flatMap { Int($0) })
    if let index = drive["index"].flatMap({ Int($0) }) {
      (bus, unit) = most.map { (index / $0, index % $0) } ?? (0, index)
    }
    func place(_ unit: Int) -> String { "\(interface) \(bus) \(unit)" }
    if unit == nil {
      var free = 0
      while taken.contains(place(free)) {
        free += 1
        if let most, free >= most {
          free -= most
          bus += 1
        }
      }
      unit = free
    }
    guard let unit else { return nil }
    taken.insert(place(unit))
    if let id = drive["id"] { return id }
    let isCD = drive["media"] == "cdrom"
    let medium = interface == "ide" || interface == "scsi" ? isCD ? "-cd" : "-hd" : ""
    return interface + (most == nil ? "" : "\(bus)") + medium + "\(unit)"
  }

  /// The keys that put a drive where the machine made an empty one of this name by default; nil for another name.
  func defaultDrive(_ name: String) -> [(String, String)]? {
    if name.hasPrefix("ide"), let dash = name.firstIndex(of: "-"), name[dash...].hasPrefix("-cd"),
      let bus = Int(name[name.index(name.startIndex, offsetBy: 3)..<dash]), let unit = Int(name[name.index(dash, offsetBy: 3)...])
    {
      return [("if", "ide"), ("index", "\(bus * ideUnits + unit)"), ("media", "cdrom")]
    }
    if name == "sd0" { return [("if", "sd"), ("index", "0")] }
    if name.hasPrefix("floppy"), let unit = Int(name.dropFirst("floppy".count)) { return [("if", "floppy"), ("index", "\(unit)")] }
    return nil
  }
}

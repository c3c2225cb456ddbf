/// What a command line asks a QEMU binary to know: types with their properties, variants, keys, options.
///
/// Meant for the command line that the new QEMU will be given. Values are not looked at: those the launched QEMU
/// checks itself, long before anything of the VM is touched.
public struct Demands: Sendable, Equatable {
  /// A QOM type by its exact name, and the properties it is given.
  struct TypeDemand: Sendable, Equatable {
    /// `device`, `object`, `CPU model`, … for messages.
    var what: String
    var type: String
    /// As the command line calls it, where that is not the type's name.
    var name: String
    var properties: [String]
    var option: String
    /// QEMU describes devices by another command than objects.
    var isDevice: Bool
    /// No reason to refuse if it is missing: QEMU does without, or it is looked at elsewhere.
    var isOptional = false
    /// A default for devices of which the VM has none: QEMU warns of a property that they do not have, and goes on.
    var isIdle = false
  }
  /// A variant by its name, and the members it is given.
  struct VariantDemand: Sendable, Equatable {
    var family: BinaryCatalog.Family
    var name: String
    var members: [String]
    var option: String
  }
  /// Keys of an option that has a fixed list of them.
  struct KeyDemand: Sendable, Equatable {
    var group: String
    var keys: [String]
    var option: String
  }

  var types: [TypeDemand] = []
  var variants: [VariantDemand] = []
  var keys: [KeyDemand] = []
  var options: [CommandOption] = []
  public var machineType: String

  /// Device types whose properties have to be asked for.
  public var deviceTypes: Set<String> { Set(types.filter(\.isDevice).map(\.type)) }
  /// Other types whose properties have to be asked for.
  public var objectTypes: Set<String> { Set(types.filter { !$0.isDevice }.map(\.type)) }

  /// - Parameters:
  ///   - live: resolves aliases of devices (`virtio-blk` is `virtio-blk-pci` on a PC) as the running QEMU did.
  ///   - present: types of devices that the machine has of its own.
  public init(_ commandLine: CommandLine, live: LiveMachine, present: Set<String> = []) {
    let present = present.union(live.devices.values).union(live.anonymousDevices)
    machineType = live.machineType
    options = commandLine.options.filter { !$0.isImage }
    var anonymous = live.anonymousDevices[...]
    // With one more or less it is not known which is which.
    if commandLine.options.count(where: { $0.name == "device" && ($0.parameters["id"] ?? "").isEmpty }) != anonymous.count {
      anonymous = []
    }
    for option in commandLine.options {
      let parameters = option.parameters
      switch option.name {
      case "device":
        let driver = parameters["driver"] ?? ""
        var type = driver
        if let id = parameters["id"], !id.isEmpty {
          type = live.devices[id] ?? driver
        } else if let next = anonymous.popFirst(), next.hasPrefix(driver) {
          // QEMU makes those in JSON, and those of -drive, in an order of their own.
          type = next
        } else if case let alike = Set(live.anonymousDevices.filter { $0.hasPrefix(driver) }), alike.count == 1, let only = alike.first {
          type = only
        }
        demand("device", type, named: driver, Self.keys(parameters, except: ["driver", "id", "bus"]), option, isDevice: true)
      case "object":
        guard let type = parameters["qom-type"] else { continue }
        demand("object", type, Self.keys(parameters, except: ["qom-type", "id"]), option)
      case "machine", "M":
        // `accel` and its old companions are the accelerator's; the type is looked at by itself.
        let accelerators: Set<String> = ["type", "accel", "kernel-irqchip", "kvm-shadow-mem", "igd-passthru"]
        let keys = Self.keys(parameters).map(Self.dashed).filter { !accelerators.contains($0) }
        demand("machine", machineType + "-machine", named: machineType, keys, option, isOptional: true)
      case "accel":
        guard let accelerator = parameters["accel"] else { continue }
        demand("accelerator", accelerator + "-accel", named: accelerator, Self.keys(parameters, except: ["accel"]), option)
      case "cpu": cpu(option, ending: Self.cpuEnding(commandLine.program, machineType: live.machineType))
      case "global": global(option, parameters, present: present)
      case "vga": vga(option)
      case "netdev", "nic":
        guard let type = parameters["type"] else { continue }
        let keys = option.name == "netdev" ? Self.keys(parameters, except: ["type", "id"]) : []
        variants.append(VariantDemand(family: .netdev, name: type, members: keys, option: option.text))
      case "chardev":
        let kinds = ["tty": "serial", "parport": "parallel"]
        if let kind = parameters["backend"] {
          variants.append(VariantDemand(family: .chardev, name: kinds[kind] ?? kind, members: [], option: option.text))
        }
        key("chardev", option, except: ["id"])
      case "blockdev": blockdev(option, parameters)
      case "audiodev":
        guard let driver = parameters["driver"] else { continue }
        variants.append(VariantDemand(family: .audiodev, name: driver, members: [], option: option.text))
      case "display":
        guard let type = parameters["type"] else { continue }
        variants.append(VariantDemand(family: .display, name: type, members: [], option: option.text))
      case "m": key("memory", option)
      case "smp": key("smp-opts", option)
      case "boot": key("boot-opts", option)
      case "name", "rtc", "msg", "overcommit", "sandbox", "mon", "vnc", "spice", "action", "icount", "fw_cfg", "run-with":
        key(option.name, option, except: option.name == "mon" ? ["id"] : [])
      default: break
      }
    }
    // The filters of a job (`mirror_top`) are no drivers that an option can name.
    let drivers = live.blockJobs.isEmpty ? Set(live.nodes.map(\.driver)).subtracting(["", "throttle-group"]) : []
    for driver in drivers.sorted() {
      variants.append(VariantDemand(family: .blockdev, name: driver, members: [], option: "block driver \(driver)"))
    }
  }

  private mutating func demand(
    _ what: String, _ type: String, named name: String? = nil, _ properties: [String], _ option: CommandOption,
    isDevice: Bool = false, isOptional: Bool = false
  ) {
    types.append(
      TypeDemand(
        what: what, type: type, name: name ?? type, properties: properties, option: option.text, isDevice: isDevice,
        isOptional: isOptional))
  }

  private mutating func key(_ group: String, _ option: CommandOption, except: Set<String> = []) {
    let keys = Self.keys(option.parameters, except: except)
    if !keys.isEmpty { self.keys.append(KeyDemand(group: group, keys: keys, option: option.text)) }
  }

  private mutating func blockdev(_ option: CommandOption, _ parameters: OptionValue) {
    guard let driver = parameters["driver"] else { return }
    variants.append(
      VariantDemand(
        family: .blockdev, name: driver, members: Self.keys(parameters, except: ["driver"]), option: option.text))
  }

  private mutating func cpu(_ option: CommandOption, ending: String?) {
    // `-cpu MODEL,feature=on,+feature,-feature`: not comma syntax as other options have it.
    guard let words = option.value?.split(separator: ",").map(String.init), let model = words.first, let ending else { return }
    let features = words.dropFirst().map { word -> String in
      let name = word.split(separator: "=", maxSplits: 1).first.map(String.init) ?? word
      return Self.dashed(name.hasPrefix("+") || name.hasPrefix("-") ? String(name.dropFirst()) : name)
    }
    demand("CPU model", model + ending, named: model, features.filter { $0 != "enforce" && $0 != "check" }, option, isDevice: true)
  }

  /// What makes a CPU model the name of a type: `qemu64-x86_64-cpu`. Nil for other architectures than x86, whose
  /// types have names of their own.
  private static func cpuEnding(_ program: String, machineType: String) -> String? {
    guard ["pc-", "microvm", "isapc"].contains(where: machineType.hasPrefix) else { return nil }
    return program.hasSuffix("i386") ? "-i386-cpu" : "-x86_64-cpu"
  }

  private mutating func global(_ option: CommandOption, _ parameters: OptionValue, present: Set<String>) {
    var (driver, property) = (parameters["driver"], parameters["property"])
    if driver == nil, let word = option.value?.split(separator: "=", maxSplits: 1).first {
      let parts = word.split(separator: ".", maxSplits: 1).map(String.init)
      if parts.count == 2 { (driver, property) = (parts[0], parts[1]) }
    }
    guard let driver, let property else { return }
    // QEMU only warns of a type that it does not know.
    demand("device", driver, [property], option, isDevice: true, isOptional: true)
    types[types.count - 1].isIdle = !present.contains(driver)
  }

  private mutating func vga(_ option: CommandOption) {
    let types = [
      "std": "VGA", "cirrus": "cirrus-vga", "vmware": "vmware-svga", "qxl": "qxl-vga", "virtio": "virtio-vga",
    ]
    guard let type = option.value.flatMap({ types[$0] }) else { return }
    demand("graphics card", type, named: option.value, [], option, isDevice: true)
  }

  /// Outermost keys, each once: what is nested belongs to the property that it is nested in.
  private static func keys(_ parameters: OptionValue, except: Set<String> = []) -> [String] {
    var keys: [String] = []
    for entry in parameters.entries {
      let key = entry.key.split(separator: ".", maxSplits: 1).first.map(String.init) ?? entry.key
      if !except.contains(key), !keys.contains(key) { keys.append(key) }
    }
    return keys
  }

  private static func dashed(_ name: String) -> String { String(name.map { $0 == "_" ? "-" : $0 }) }
}

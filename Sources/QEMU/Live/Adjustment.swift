/// A property that was set in a running VM, and that the new QEMU is given before the guest comes to it.
public struct Adjustment: Sendable, Equatable {
  /// QOM path in the new QEMU.
  public var path: String
  public var property: String
  public var value: JSONValue
  /// What the new QEMU has by itself.
  public var own: JSONValue

  public var isObject: Bool { path.hasPrefix("/objects/") }

  /// `device balloon0`, `object io1`.
  var subject: String {
    let name = path.split(separator: "/").last.map(String.init) ?? path
    return (isObject ? "object " : "device ") + name
  }

  /// As a change that has been rebuilt.
  public var drift: Drift {
    .rebuilt(subject, "its \(property) was set to \(value.text()) after the start", as: "qom-set \(path) \(property) \(value.text())")
  }

  public var difference: String { "\(subject): \(property) is \(own.text()) here, \(value.text()) there" }

  /// Arguments of `qom-set`.
  public func command(setting value: JSONValue) -> JSONValue {
    ["path": .string(path), "property": .string(property), "value": value]
  }
}

extension LiveMachine {
  /// What would have to be set here to be as in `other`, of devices and objects. Secrets are left out.
  public func adjustments(toward other: LiveMachine) -> [Adjustment] {
    var found: [Adjustment] = []
    let there = Dictionary(other.parts.settings.map { (other.place($0.key), $0.value) }) { first, _ in first }
    for (path, settings) in parts.settings.sorted(by: { $0.key < $1.key }) {
      guard let wanted = there[place(path)] else { continue }
      for (name, own) in settings.sorted(by: { $0.key < $1.key }) {
        guard let value = wanted[name], value != own else { continue }
        found.append(Adjustment(path: path, property: name, value: value, own: own))
      }
    }
    for (id, name, own, value) in parts.objectDifferences(from: other.parts) where !(objects[id] ?? "").hasPrefix("secret") {
      found.append(Adjustment(path: "/objects/" + id, property: name, value: value, own: own))
    }
    return found
  }
}

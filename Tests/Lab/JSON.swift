public import Foundation

/// A JSON value that tests can ask without declaring a type for every answer:
/// `answer["from"]["version"].string`. What is not there is `.null`.
public enum JSON: Sendable, Equatable {
  case null
  case bool(Bool)
  case number(Double)
  case text(String)
  case list([JSON])
  case object([String: JSON])

  public init(parsing data: Data) throws {
    self.init(try JSONSerialization.jsonObject(with: data, options: [.fragmentsAllowed]))
  }

  init(_ value: Any) {
    switch value {
    case let value as String: self = .text(value)
    case let value as [Any]: self = .list(value.map { JSON($0) })
    case let value as [String: Any]: self = .object(value.mapValues { JSON($0) })
    case let value as NSNumber:
      // Foundation makes no other difference between `true` and `1`.
      self = String(cString: value.objCType) == "c" || value === kCFBooleanTrueObject || value === kCFBooleanFalseObject
        ? .bool(value.boolValue) : .number(value.doubleValue)
    case let value as Bool: self = .bool(value)
    case let value as Double: self = .number(value)
    case let value as Int: self = .number(Double(value))
    default: self = .null
    }
  }

  public subscript(name: String) -> JSON {
    if case .object(let members) = self { members[name] ?? .null } else { .null }
  }
  public subscript(index: Int) -> JSON {
    if case .list(let items) = self, items.indices.contains(index) { items[index] } else { .null }
  }
  public var string: String? { if case .text(let value) = self { value } else { nil } }
  public var double: Double? { if case .number(let value) = self { value } else { nil } }
  public var int: Int? { double.map { Int($0) } }
  public var bool: Bool? { if case .bool(let value) = self { value } else { nil } }
  public var array: [JSON] { if case .list(let value) = self { value } else { [] } }
  public var members: [String: JSON] { if case .object(let value) = self { value } else { [:] } }

  var foundation: Any {
    switch self {
    case .null: NSNull()
    case .bool(let value): value
    case .number(let value): value == value.rounded() && abs(value) < 1e15 ? Int(value) : value
    case .text(let value): value
    case .list(let value): value.map(\.foundation)
    case .object(let value): value.mapValues(\.foundation)
    }
  }
}

private let kCFBooleanTrueObject = NSNumber(value: true)
private let kCFBooleanFalseObject = NSNumber(value: false)

extension JSON: ExpressibleByStringLiteral, ExpressibleByIntegerLiteral, ExpressibleByBooleanLiteral,
  ExpressibleByArrayLiteral, ExpressibleByDictionaryLiteral, ExpressibleByFloatLiteral
{
  public init(stringLiteral value: String) { self = .text(value) }
  public init(integerLiteral value: Int) { self = .number(Double(value)) }
  public init(floatLiteral value: Double) { self = .number(value) }
  public init(booleanLiteral value: Bool) { self = .bool(value) }
  public init(arrayLiteral elements: JSON...) { self = .list(elements) }
  public init(dictionaryLiteral elements: (String, JSON)...) {
    self = .object(Dictionary(elements) { $1 })
  }
}

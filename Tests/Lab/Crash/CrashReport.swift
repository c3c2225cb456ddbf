import Foundation

/// A result on its way from one process to another: a line of JSON.
public struct CrashReport: Codable, Sendable {
  public var name: String
  public var kind: String
  public var faults: String
  public var recovery: Double?
  public var silence: Double
  public var hasEnded: Bool
  public var seconds: Double

  /// Nil if the line is something else.
  public init?(_ line: String) {
    do { self = try JSONDecoder().decode(CrashReport.self, from: Data(line.utf8)) } catch { return nil }
  }

  init(_ result: CrashResult, seconds: Double) {
    name = "\(result.test)"
    kind = result.test.kind + (result.needsCommand ? ", from the next command on" : "")
    faults = result.faults.joined(separator: "\n  ")
    recovery = result.recovery
    silence = result.silence
    hasEnded = result.hasEnded
    self.seconds = seconds
  }
}

extension CrashResult {
  public func line(seconds: Double) -> String {
    do { return String(decoding: try JSONEncoder().encode(CrashReport(self, seconds: seconds)), as: UTF8.self) } catch {
      return "\(test): \(error)"
    }
  }
}

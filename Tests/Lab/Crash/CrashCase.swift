/// A point of the matrix: at which record of which command, or at which of its calls of ptrace(2), what is done to whom.
///
/// Its name is how it is asked for alone: `upgrade/shared/switch.begin/after/kill-moult`.
public struct CrashCase: Sendable, Hashable, CustomStringConvertible {
  public enum Operation: String, Sendable, CaseIterable {
    case upgrade, rollback
    /// `moult recover` of an upgrade that was killed before the new QEMU was given the connections, after that, and after
    /// the guest ran in it.
    case undo = "recover-undo"
    case onward = "recover-onward"
    case finish = "recover-finish"

    /// The record after which the upgrade is killed.
    var interruption: String? {
      switch self {
      case .upgrade, .rollback: nil
      case .undo: "exchange.done"
      case .onward: "verify.done"
      case .finish: "resume.done"
      }
    }
    var recovers: Bool { interruption != nil }
  }
  public enum Memory: String, Sendable, CaseIterable { case shared, copy }
  /// The record is about to be written, or has been, and nothing after it is done. So with a call.
  public enum Moment: String, Sendable, CaseIterable { case before, after }
  public enum Act: String, Sendable, CaseIterable {
    case kill
    /// SIGSTOP, and SIGCONT after ``CrashRig/stopSeconds``.
    case stop
  }
  public enum Victim: String, Sendable, CaseIterable {
    /// The command itself.
    case moult
    case guardian
    /// The QEMU that the command moves the guest out of, and the one it moves it into.
    case old, new
    case both = "moult+guardian"
  }

  public var operation: Operation
  public var memory: Memory
  /// The record: `switch.begin`. Or a call of ptrace(2) after it: `switch.begin+setregs`.
  public var record: String
  public var moment: Moment
  public var act: Act
  public var victim: Victim

  public var kind: String { "\(act)-\(victim.rawValue)" }
  public var description: String {
    [operation.rawValue, memory.rawValue, record, moment.rawValue, kind].joined(separator: "/")
  }

  public init?(_ name: String) {
    let words = name.split(separator: "/", omittingEmptySubsequences: false).map(String.init)
    guard words.count == 5, let operation = Operation(rawValue: words[0]), let memory = Memory(rawValue: words[1]),
      let moment = Moment(rawValue: words[3]), let dash = words[4].firstIndex(of: "-"),
      let act = Act(rawValue: String(words[4][..<dash])),
      let victim = Victim(rawValue: String(words[4][words[4].index(after: dash)...]))
    else { return nil }
    self.init(operation, memory, words[2], moment, act, victim)
  }

  init(_ operation: Operation, _ memory: Memory, _ record: String, _ moment: Moment, _ act: Act, _ victim: Victim) {
    self.operation = operation
    self.memory = memory
    self.record = record
    self.moment = moment
    self.act = act
    self.victim = victim
  }
}

/// What one undisturbed run of a command did: the points at which it can be disturbed.
struct CrashScript: Sendable {
  struct Point: Sendable {
    var record: String
    var moment: CrashCase.Moment
    /// Who there was.
    var cast: Set<CrashCase.Victim>
    /// Nothing has been done since the point before: whoever dies here dies there.
    var isRedundant: Bool
    /// It is a call by which a running QEMU is changed.
    var isCall = false
  }
  var operation: CrashCase.Operation
  var memory: CrashCase.Memory
  var points: [Point]

  /// Every victim at every point that differs from the one before. A process that is stopped and goes on
  /// is disturbed as much at the beginning of a step as anywhere in it.
  var cases: [CrashCase] {
    points.flatMap { point -> [CrashCase] in
      CrashCase.Act.allCases.flatMap { act -> [CrashCase] in
        if point.isRedundant { return [] }
        // In the middle of a change it matters who makes it.
        if point.isCall {
          return act == .stop ? [] : [.moult, .both].filter(point.cast.contains).map { CrashCase(operation, memory, point.record, point.moment, act, $0) }
        }
        if act == .stop, point.moment == .before || !point.record.contains(".begin") && !operation.recovers { return [] }
        return CrashCase.Victim.allCases.compactMap { victim in
          guard point.cast.contains(victim), act == .kill || victim != .both else { return nil }
          return CrashCase(operation, memory, point.record, point.moment, act, victim)
        }
      }
    }
  }

  func position(_ test: CrashCase) -> Int? { position(test.record, test.moment) }
  func position(_ record: String, _ moment: CrashCase.Moment) -> Int? {
    points.firstIndex { $0.record == record && $0.moment == moment }
  }
}

/// Whether the VM may, or must, end in a case: when the only QEMU that had the guest was killed.
enum CrashExpectation: Sendable { case survives, ends, either }

extension CrashScript {
  /// - Parameter newLives: whether the new QEMU lived when the case's victim was killed.
  func expectation(_ test: CrashCase, newLives: Bool) -> CrashExpectation {
    guard test.act == .kill, test.victim == .old || test.victim == .new, let here = position(test) else { return .survives }
    let killsOld = test.victim == .old
    switch test.operation {
    // Interrupted when the new QEMU had everything, before it ran: either can go on.
    case .undo: return killsOld && !newLives ? .ends : .survives
    case .onward:
      guard let runs = position("resume.done", .before) else { return .either }
      return killsOld || here < runs ? .survives : .ends
    case .finish: return killsOld ? .survives : .ends
    case .upgrade, .rollback:
      // QEMU sends the rest by itself once it has begun: when it is over only the end of `switch` says.
      guard let over = position("switch.done", .before), let begun = position("migrate.begin", .after),
        let runs = position("resume.done", .before)
      else { return .either }
      if killsOld { return here >= over ? .survives : here < begun ? .ends : .either }
      return here < runs ? .survives : .ends
    }
  }
}

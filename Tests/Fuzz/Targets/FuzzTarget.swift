/// A parser that reads what others wrote, with what must hold for every input. The fuzzer looks for inputs
/// that break it; the unit tests replay the inputs that were kept.
public enum FuzzTarget: String, CaseIterable, Sendable {
  /// The words of a command line, each ended by a zero byte, as in `/proc/PID/cmdline`.
  case argv
  /// A file for `-readconfig`.
  case readconfig
  /// What a QMP monitor sends, line by line.
  case qmp
  /// Two texts of `-dump-vmstate`, parted by a zero byte.
  case vmstate

  /// Runs the parser.
  /// - Returns: what did not hold, or nil. A trap is a failure too, of course.
  public func violation(_ input: [UInt8]) -> String? {
    switch self {
    case .argv: CommandLineInvariants.violation(input)
    case .readconfig: ConfigFileInvariants.violation(input)
    case .qmp: QMPInvariants.violation(input)
    case .vmstate: VMStateInvariants.violation(input)
    }
  }
}

/// What a QEMU writes to its standard error.
public enum QEMUMessages {
  /// The last lines that can be the reason why it went wrong: warnings and information are not, and a QEMU that was killed
  /// has often written nothing else. `qemu-system-x86_64: warning: …`. Source: QEMU's util/qemu-error.c, `print_loc`, `vreport`.
  /// - Returns: at most three lines, as one; nil if there is none.
  public static func complaint(_ text: String) -> String? {
    let lines = text.split(separator: "\n").filter { line in
      !["warning", "info"].contains { line.hasPrefix("\($0): ") || line.contains(": \($0): ") } && line.contains { !$0.isWhitespace }
    }
    return lines.isEmpty ? nil : lines.suffix(3).joined(separator: " / ")
  }
}

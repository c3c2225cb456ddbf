import Glibc
import Kernel
import Upgrade

/// Shows the steps of an upgrade on standard error: a live line on a terminal, plain lines elsewhere.
///
/// What happens from the start of the migration until the guest runs in the new QEMU is shown afterwards:
/// the old QEMU stops the guest by itself when the migration comes to that, and a terminal or pipe that
/// nobody reads must not keep it waiting. At other times a line that cannot be written at once waits for
/// the next: only `finish` blocks.
final class ProgressDisplay {
  private let isLive: Bool
  private let hasColour: Bool
  private let isSilent: Bool
  private var unwritten: [UInt8] = []
  private var guestMayStandStill = false

  init(isSilent: Bool) {
    let isTerminal = isatty(2) == 1
    isLive = isTerminal
    hasColour = isTerminal && getenv("NO_COLOR") == nil
    self.isSilent = isSilent
  }

  func show(_ event: Executor.Progress) {
    if isSilent { return }
    switch event {
    case .began(let step, let why):
      if isLive, unwritten.isEmpty { emit("\r\u{1B}[K  \(pad(step.rawValue)) \(why)") }
      if step == .migrate { guestMayStandStill = true }
    case .ended(let step, let milliseconds):
      if step == .resume { guestMayStandStill = false }
      line("\(colour("32", "✓")) \(pad(step.rawValue)) \(Output.duration(milliseconds))")
    case .failed(let step, let failure):
      line("\(colour("31", "✗")) \(pad(step.rawValue)) \(failure)")
    case .undoing:
      // The guest runs again only when all is undone: these lines are `finish`'s.
      line("  undoing")
    }
  }

  /// Writes what is left, waiting for whoever reads. To be called when the upgrade is over.
  func finish() {
    Output.write(unwritten, to: 2)
    unwritten = []
  }

  /// A whole line, now or as soon as it can be written without waiting.
  func line(_ text: String) { emit((isLive ? "\r\u{1B}[K" : "") + text + "\n") }

  private func emit(_ text: String) {
    unwritten += Array(text.utf8)
    while !guestMayStandStill, !unwritten.isEmpty, Output.takesMore(2) {
      // So little fits whenever there is room at all (pipe(7), PIPE_BUF).
      let piece = unwritten.prefix(512)
      Output.write(Array(piece), to: 2)
      unwritten.removeFirst(piece.count)
    }
  }
  private func pad(_ text: String) -> String { text + String(repeating: " ", count: max(0, 10 - text.count)) }
  private func colour(_ code: String, _ text: String) -> String { hasColour ? "\u{1B}[\(code)m\(text)\u{1B}[0m" : text }
}

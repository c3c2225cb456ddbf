import Glibc
import Kernel
import Upgrade

/// Shows the steps of an upgrade on standard error: a live line on a terminal, plain lines elsewhere.
///
/// What happens while the guest stands still is shown when it runs again: a terminal that does not
/// read must not keep the guest waiting.
final class ProgressDisplay {
  private let isLive: Bool
  private let hasColour: Bool
  private let isSilent: Bool
  private var held: [String] = []
  private var guestIsPaused = false

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
      if isLive, !guestIsPaused { emit("\r\u{1B}[K  \(pad(step.rawValue)) \(why)") }
    case .ended(let step, let milliseconds):
      // The pause step ends when the guest has stopped; it runs again when resume ends.
      if step == .pause { guestIsPaused = true }
      if step == .resume { guestIsPaused = false }
      line("\(colour("32", "✓")) \(pad(step.rawValue)) \(Output.duration(milliseconds))")
    case .failed(let step, let failure):
      guestIsPaused = false
      line("\(colour("31", "✗")) \(pad(step.rawValue)) \(failure)")
    case .undoing:
      guestIsPaused = false
      line("  undoing")
    }
  }

  private func line(_ text: String) {
    held.append(text)
    if guestIsPaused { return }
    for text in held { emit((isLive ? "\r\u{1B}[K" : "") + text + "\n") }
    held = []
  }

  private func emit(_ text: String) { Output.write(text, to: 2) }
  private func pad(_ text: String) -> String { text + String(repeating: " ", count: max(0, 10 - text.count)) }
  private func colour(_ code: String, _ text: String) -> String { hasColour ? "\u{1B}[\(code)m\(text)\u{1B}[0m" : text }
}

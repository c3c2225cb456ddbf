import ArgumentParser
import FoundationEssentials
import Glibc
import Kernel

enum Format: String, ExpressibleByArgument, CaseIterable {
  case text, table, json
}

struct OutputOptions: ParsableArguments {
  @Option(help: "How to print the result; text and table are the same. Progress, warnings and errors go to standard error.")
  var format: Format = .text

  var isJSON: Bool { format == .json }
}

/// Writing to the two outputs: data to standard output, everything else to standard error.
enum Output {
  static func data(_ text: String) { write(printable(text) + "\n", to: 1) }
  static func note(_ text: String) { write(printable(text) + "\n", to: 2) }

  /// Names and paths of VMs are anybody's words: no control character of theirs reaches the terminal.
  static func printable(_ text: String, newlines: Bool = true) -> String {
    func isControl(_ scalar: Unicode.Scalar) -> Bool {
      scalar.properties.generalCategory == .control && !(newlines && scalar == "\n")
    }
    guard text.unicodeScalars.contains(where: isControl) else { return text }
    var scalars = String.UnicodeScalarView()
    for scalar in text.unicodeScalars { scalars.append(isControl(scalar) ? "\u{FFFD}" : scalar) }
    return String(scalars)
  }

  /// Whether a write would not wait for a reader. Source: poll(2).
  static func takesMore(_ descriptor: CInt) -> Bool {
    var entry = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
    return poll(&entry, 1, 0) > 0
  }

  static func write(_ text: String, to descriptor: CInt) { write(Array(text.utf8), to: descriptor) }

  static func write(_ text: [UInt8], to descriptor: CInt) {
    var bytes = text[...]
    while !bytes.isEmpty {
      let count = bytes.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
      if count < 0 {
        if errno == EINTR { continue }
        return  // Nobody reads any more; there is nobody to tell either.
      }
      bytes = bytes.dropFirst(count)
    }
  }

  static func json(_ value: some Encodable) throws {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
    data(String(decoding: try encoder.encode(value), as: UTF8.self))
  }

  /// A failure as the user sees it: what, why, and what to do.
  static func failure(_ failure: Failure) {
    note("moult: \(failure)")
    if let hint = failure.hint { note("       \(hint)") }
  }

  static func duration(_ milliseconds: Double) -> String {
    if milliseconds >= 10_000 { return "\(decimals(milliseconds / 1000, 1)) s" }
    return "\(decimals(milliseconds, milliseconds < 100 ? 1 : 0)) ms"
  }

  static func decimals(_ value: Double, _ digits: Int) -> String {
    let scale = digits == 0 ? 1.0 : digits == 1 ? 10.0 : 100.0
    let scaled = (value * scale).rounded()
    if digits == 0 { return String(Int(scaled)) }
    let whole = Int(scaled / scale)
    let rest = String(Int(scaled.magnitude) % Int(scale))
    return "\(whole)." + String(repeating: "0", count: digits - rest.count) + rest
  }

  static func size(_ bytes: UInt64) -> String { "\(decimals(Double(bytes) / 1_048_576, 1)) MiB" }

  /// How many columns a terminal has; nil for whatever is none: pipes and files get everything.
  static func columns(_ descriptor: CInt) -> Int? {
    var size = winsize()
    guard isatty(descriptor) == 1, ioctl(descriptor, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 0 else { return nil }
    return Int(size.ws_col)
  }

  /// The beginning and the end of a text that does not fit into a line of the terminal beside `others` columns.
  static func shortened(_ text: String, beside others: Int = 0, on descriptor: CInt = 1) -> String {
    guard let columns = columns(descriptor) else { return text }
    let room = max(columns - others, 40)
    return text.count <= room ? text : "\(text.prefix(room - room / 3 - 1))…\(text.suffix(room / 3))"
  }

  /// Columns as wide as their widest cell.
  static func table(_ rows: [[String]]) -> String {
    var widths: [Int] = []
    let rows = rows.map { $0.map { printable($0, newlines: false) } }
    for row in rows {
      for (column, cell) in row.enumerated() {
        if column == widths.count { widths.append(0) }
        widths[column] = max(widths[column], cell.count)
      }
    }
    return rows.map { row in
      let cells = row.enumerated().map { column, cell in
        column == row.count - 1 ? cell : cell + String(repeating: " ", count: widths[column] - cell.count)
      }
      return cells.joined(separator: "  ")
    }.joined(separator: "\n")
  }
}

/// Runs a command's body and turns a failure into its message and exit code.
func reporting(_ output: OutputOptions, _ body: () throws -> ExitStatus) throws {
  let status: ExitStatus
  do { status = try body() } catch let failure as Failure {
    Output.failure(failure)
    if output.isJSON {
      try Output.json(FailureDocument(outcome: "failed", error: ErrorDocument(step: failure.step, failure)))
    }
    status = .failed
  }
  if status != .done { throw status.code }
}

struct ErrorDocument: Encodable {
  var step: String
  var message: String
  var hint: String?
  init(step: String, _ failure: Failure) {
    self.step = step
    message = failure.description
    hint = failure.hint
  }
}

struct FailureDocument: Encodable {
  var outcome: String
  var error: ErrorDocument
}

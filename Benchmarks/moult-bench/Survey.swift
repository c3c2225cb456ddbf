import Foundation
import Glibc
import Lab

/// Rows with a table of their own: what it costs to know VMs, and what the network does to an upgrade.
enum Survey: String, CaseIterable {
  case parse = "h", inspect = "i", list = "j", listStale = "k", network = "l", listeners = "m"
  case packets = "n", throughput = "o"

  var title: String {
    switch self {
    case .parse: "parse and describe the corpus of command lines"
    case .inspect: "moult inspect of a running VM"
    case .list: "moult list of \(QEMUCrowd.size) QEMUs"
    case .listStale: "the same, their binary and a library replaced"
    case .network: "pause of an upgrade with shared RAM, nothing to rewire"
    case .listeners: "pause while every port is connected to"
    case .packets: "pings through a tap, one each 2 ms"
    case .throughput: "TCP through a tap, there and back"
    }
  }
}

/// One line of the second table.
struct SurveyResult {
  var row: Survey
  var what: String
  /// Milliseconds.
  var samples: [Double]
  var remark = ""

  static func lines(_ results: [SurveyResult]) -> String {
    var lines = [["row", "", "median ms", "least", "most", ""]]
    for result in results {
      let numbers = [Results.median(result.samples), result.samples.min(), result.samples.max()].map { $0.map { String(format: "%.1f", $0) } ?? "-" }
      lines.append([result.row.rawValue, result.what] + numbers + [result.remark])
    }
    let widths = lines[0].indices.map { column in lines.map { $0[column].count }.max() ?? 0 }
    return lines.map { line in
      zip(line, widths).enumerated().map { column, cell in
        let space = String(repeating: " ", count: cell.1 - cell.0.count)
        return (2...4).contains(column) ? space + cell.0 : cell.0 + space
      }.joined(separator: "  ")
    }.joined(separator: "\n")
  }
}

extension Survey {
  /// Measures the row and its peers in turn, so that a machine that slows down slows all.
  func measure(_ options: Options) throws -> [SurveyResult] {
    let runs = options.runs
    switch self {
    case .network: return try NetworkCost(options).measure()
    case .listeners: return try ListenerProof(options).measure()
    case .packets, .throughput:
      let guest = try BridgedGuest(options)
      defer { guest.end() }
      return try self == .packets ? guest.packets(runs) : guest.throughputs(runs)
    case .parse:
      guard let corpus = CorpusParsing.load() else {
        return [SurveyResult(row: self, what: title, samples: [], remark: "no corpus: set MOULT_CORPUS")]
      }
      let samples = (0...runs).map { _ in corpus.parse() }.dropFirst()
      return [
        SurveyResult(
          row: self, what: title, samples: Array(samples),
          remark: "\(corpus.files) files, \(corpus.words) words, \(corpus.bindings) bindings; no peer: nothing else reads them all")
      ]
    case .inspect:
      let vm = try LabVM(
        VMConfiguration("bench-inspect") {
          $0.memory = .memfd()
          $0.disk = "qcow2"
        })
      defer { vm.end() }
      let pid = String(try vm.pid())
      return try compare(
        runs, [Lab.paths.moult, "inspect", "bench-inspect", "--format", "json"],
        with: [["lsof", "-n", "-P", "-p", pid], ["ss", "-xtap"]]
      ) { try $0.json()["bindings"].array.contains { !$0["descriptors"].array.isEmpty } }
    case .list, .listStale:
      let crowd = try QEMUCrowd()
      defer { crowd.end() }
      if self == .listStale { try crowd.replaceFiles() }
      let isStale = self == .listStale
      return try compare(
        runs, [Lab.paths.moult, "list", "--format", "json"],
        with: [["needrestart", "-b", "-r", "l"], ["checkrestart"], ["lsof", "-n", "-P", "-p", crowd.pids.map(String.init).joined(separator: ",")], ["dpkg", "-S", "/usr/bin/qemu-system-x86_64"]]
      ) { outcome in
        let own = try outcome.json().array.filter { $0["name"].string?.hasPrefix("bench-crowd-") ?? false }
        return own.count == QEMUCrowd.size && own.allSatisfy { $0["version_from"].string == "qmp" && $0["stale"].bool == isStale }
      }
    }
  }

  /// - Parameter holds: whether the program's answer is the right one.
  private func compare(
    _ runs: Int, _ command: [String], with peers: [[String]], holds: (ChildProcess.Outcome) throws -> Bool
  ) throws -> [SurveyResult] {
    let present = peers.filter { peer in
      ["/usr/bin/", "/usr/sbin/", "/bin/", "/sbin/"].contains { FileManager.default.isExecutableFile(atPath: $0 + peer[0]) }
    }
    var samples = [[Double]](repeating: [], count: 1 + present.count)
    for turn in 0...runs {
      for (index, words) in ([command] + present).enumerated() {
        let outcome = try run(words)
        if index == 0 {
          guard outcome.code == 0, try holds(outcome) else { throw LabFailure("\(words.joined(separator: " ")): exit \(outcome.code)\n\(outcome.stdout)\(outcome.stderr)") }
        }
        if turn > 0 { samples[index].append(outcome.seconds * 1000) }
      }
    }
    let absent = peers.filter { !present.contains($0) }.map { $0[0] }
    let first = SurveyResult(row: self, what: title, samples: samples[0], remark: absent.isEmpty ? "" : "not installed: \(absent.joined(separator: ", "))")
    return [first] + zip(present, samples.dropFirst()).map { peer, samples in
      SurveyResult(row: self, what: "  beside it: " + peer.joined(separator: " ").prefix(40), samples: samples)
    }
  }
}

/// Many QEMUs without machines, each with a monitor, from one copy of the binary and of a library.
final class QEMUCrowd {
  static let size = 50
  private(set) var pids: [pid_t] = []
  private let home = Lab.paths.run + "/bench-crowd"
  private var children: [ChildProcess] = []
  private let library: String
  private static let libraries = "/usr/lib/x86_64-linux-gnu/"

  init() throws {
    try FileManager.default.createDirectory(atPath: home, withIntermediateDirectories: true)
    guard let library = try FileManager.default.contentsOfDirectory(atPath: Self.libraries).first(where: { $0.hasPrefix("libslirp.so.0.") })
    else { throw LabFailure("no libslirp in \(Self.libraries)") }
    self.library = library
    try succeed(["cp", "/usr/bin/qemu-system-x86_64", Self.libraries + library, home])
    symlink(library, home + "/libslirp.so.0")
    for number in 1...Self.size {
      children.append(
        try ChildProcess(
          [
            "env", "LD_LIBRARY_PATH=" + home, "QEMU_MODULE_DIR=\(Self.libraries)qemu", home + "/qemu-system-x86_64", "-name", "bench-crowd-\(number)",
            "-machine", "none", "-nodefaults", "-display", "none", "-S", "-L", "/usr/share/seabios",
            "-qmp", "unix:\(home)/\(number).sock,server=on,wait=off",
          ], log: home + "/log"))
    }
    pids = children.map(\.pid)
    do {
      for number in 1...Self.size { _ = try QMPConnection.waiting(home + "/\(number).sock") }
    } catch {
      end()
      throw error
    }
  }

  /// By another QEMU and another library, as a package manager does: by rename.
  func replaceFiles() throws {
    guard let tree = QEMUVersion.v10_0.root else { return }
    for (path, other) in [("qemu-system-x86_64", tree + QEMUVersion.v10_0.binary), (library, Self.libraries + "libfdt.so.1")] {
      try succeed(["cp", other, home + "/new"])
      guard rename(home + "/new", home + "/" + path) == 0 else { throw LabFailure("rename \(path)") }
    }
  }

  func end() {
    for child in children { child.signal(SIGKILL) }
    for child in children { _ = try? child.wait() }
    _ = try? run(["rm", "-rf", home])
  }
}

extension QMPConnection {
  /// Connects as soon as somebody listens.
  static func waiting(_ path: String) throws -> QMPConnection {
    try eventually("\(path): a monitor", within: 60) { FileManager.default.fileExists(atPath: path) ? try? QMPConnection(path) : nil }
  }
}

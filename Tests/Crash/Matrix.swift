import Foundation
import Glibc
import Lab

/// Deals the cases out to processes with a VM each, and says what came of them.
struct Matrix {
  private var jobs = 2
  private var lists = false
  private var wanted: [String] = []
  private var versions = CrashRig.usualVersions
  private var isBusy = false

  init(_ words: [String]) throws {
    var rest = words[...]
    while let word = rest.popFirst() {
      switch word {
      case "--list": lists = true
      case "--busy": isBusy = true
      case "--versions":
        guard let value = rest.popFirst(), let two = QEMUVersion.pair(value) else {
          throw Misuse("--versions: takes two of \(QEMUVersion.allCases.map(\.rawValue).joined(separator: ", ")): 5.2,11.1")
        }
        versions = two
      case "--jobs":
        guard let value = rest.popFirst().flatMap({ Int($0) }), value > 0 else { throw Misuse("--jobs: takes a number") }
        jobs = value
      case _ where word.hasPrefix("-"): throw Misuse("\(word): unknown option")
      default: wanted.append(word)
      }
    }
  }

  func run() throws -> Bool {
    let began = monotonicNanoseconds()
    try FileManager.default.createDirectory(atPath: Lab.paths.run, withIntermediateDirectories: true)
    let image = Lab.paths.run + "/boot.qcow2"
    defer {
      unlink(image)
      rmdir(Lab.paths.run)
    }
    try CrashRig.makeImage(image) { $0.version = versions[0] }
    let workers = try (0..<jobs).map { index in
      let worker = Process()
      worker.executableURL = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath()
      worker.arguments =
        ["worker", image, "\(index)", "\(jobs)", lists ? "list" : "run", versions.map(\.rawValue).joined(separator: ","), isBusy ? "busy" : "idle"]
        + wanted
      let pipe = Pipe()
      worker.standardOutput = pipe
      try worker.run()
      return (worker, pipe)
    }
    let table = Results(isVerbose: !wanted.isEmpty)
    Ending.onSignals {
      let pids = workers.map(\.0.processIdentifier)
      for pid in pids { kill(pid, SIGTERM) }
      for pid in pids { while !Processes.hasEnded(pid) { usleep(10_000) } }
      Main.say("ended before its end: " + table.summary(seconds: Double(monotonicNanoseconds() - began) / 1e9))
      unlink(image)
      rmdir(Lab.paths.run)
    }
    let readers = workers.map { _, pipe in
      let reader = Reader(pipe.fileHandleForReading) { table.note($0) }
      reader.start()
      return reader
    }
    for ((worker, _), reader) in zip(workers, readers) {
      worker.waitUntilExit()
      reader.wait()
      Ending.waitIfBegun()
      if worker.terminationStatus != 0 { table.fail("a worker ended with \(worker.terminationStatus)") }
    }
    if lists { return true }
    Main.say(table.summary(seconds: Double(monotonicNanoseconds() - began) / 1e9))
    return table.failed == 0
  }
}

/// Hands on a stream's lines as they come.
private final class Reader: @unchecked Sendable {
  private let done = DispatchSemaphore(value: 0)
  private let handle: FileHandle
  private let body: @Sendable (String) -> Void

  init(_ handle: FileHandle, _ body: @escaping @Sendable (String) -> Void) {
    self.handle = handle
    self.body = body
  }

  func start() {
    Thread { [self] in
      var rest = Data()
      while case let data = handle.availableData, !data.isEmpty {
        rest += data
        while let end = rest.firstIndex(of: 10) {
          body(String(decoding: rest[..<end], as: UTF8.self))
          rest = Data(rest[(end + 1)...])
        }
      }
      done.signal()
    }.start()
  }

  func wait() { done.wait() }
}

/// Some of the cases, one after the other, on VMs of this process's own.
struct Worker {
  private let image: String
  private let index: Int
  private let count: Int
  private let lists: Bool
  private let versions: [QEMUVersion]
  private let isBusy: Bool
  private let wanted: CaseFilter

  init(_ words: [String]) throws {
    guard words.count >= 6, let index = Int(words[1]), let count = Int(words[2]), let versions = QEMUVersion.pair(words[4]) else {
      throw Misuse("worker: for internal use")
    }
    self.versions = versions
    image = words[0]
    self.index = index
    self.count = count
    lists = words[3] == "list"
    isBusy = words[5] == "busy"
    wanted = CaseFilter(patterns: Array(words.dropFirst(6)))
  }

  func run() throws {
    let lock = NSLock()
    nonisolated(unsafe) var current: CrashRig?
    Ending.onSignals {
      LabVM.endAll()
      lock.withLock { current }?.end()
      rmdir(Lab.paths.run)
    }
    for memory in CrashCase.Memory.allCases {
      let operations = CrashCase.Operation.allCases.filter { wanted.mayMatch("\($0.rawValue)/\(memory)/") }
      if operations.isEmpty { continue }
      let rig = try CrashRig("crash-\(memory)-\(getpid())", memory: memory, image: image, versions: versions, isBusy: isBusy)
      lock.withLock { current = rig }
      defer {
        lock.withLock { current = nil }
        rig.end()
      }
      for operation in operations { try run(operation, rig) }
    }
  }

  private func run(_ operation: CrashCase.Operation, _ rig: CrashRig) throws {
    let cases = try rig.cases(operation).filter { wanted.matches("\($0)") }
    for (number, test) in cases.enumerated() where number % count == index {
      if lists {
        Main.say("\(test)")
        continue
      }
      var result = CrashResult(test)
      let began = monotonicNanoseconds()
      do { result = try rig.run(test) } catch { result.faults.append("\(error)") }
      if !result.faults.isEmpty { try rig.reset() }
      if result.isLate { result.faults.append("the guest was heard again only after \(Text.number(result.recovery ?? 0)) ms") }
      Main.say(result.line(seconds: Double(monotonicNanoseconds() - began) / 1e9))
    }
  }
}

/// Which cases are asked for: names, beginnings of names, or patterns as in fnmatch(3); all without any.
struct CaseFilter {
  var patterns: [String]

  func matches(_ name: String) -> Bool { patterns.isEmpty || patterns.contains { fnmatch($0 + "*", name, 0) == 0 } }

  /// Whether any case may whose name begins so.
  func mayMatch(_ beginning: String) -> Bool {
    patterns.isEmpty
      || patterns.contains { pattern in
        let literal = pattern.prefix { $0 != "*" }
        return literal.hasPrefix(beginning) || beginning.hasPrefix(literal)
      }
  }
}

extension QEMUVersion {
  /// `5.2,11.1`
  static func pair(_ text: String) -> [QEMUVersion]? {
    let versions = text.split(separator: ",").compactMap { QEMUVersion(rawValue: String($0)) }
    return versions.count == 2 && versions[0] != versions[1] ? versions : nil
  }
}

/// What the workers report, line by line.
final class Results: @unchecked Sendable {
  private let lock = NSLock()
  private var times: [String: [Double]] = [:]
  private var passed = 0
  private var ended = 0
  private(set) var failed = 0
  private let isVerbose: Bool

  init(isVerbose: Bool) { self.isVerbose = isVerbose }

  func note(_ line: String) {
    lock.withLock {
      guard let report = CrashReport(line) else { return Main.say(line) }
      if isVerbose {
        let time = report.hasEnded ? "the VM has ended" : report.recovery.map { String(format: "heard after %.1f ms", $0) } ?? "not heard"
        Main.complain(String(format: "%@: %@, %.1f s", report.name, time, report.seconds))
      }
      if report.faults.isEmpty { passed += 1 } else {
        failed += 1
        Main.say("FAILED \(report.name)\n  \(report.faults)\n  alone: make crash-test CASES=\(report.name)")
      }
      if report.hasEnded { ended += 1 }
      if let time = report.recovery { times[report.kind, default: []].append(time) }
      if (passed + failed) % 50 == 0 { Main.complain("\(passed) passed, \(failed) failed") }
    }
  }

  func fail(_ what: String) {
    lock.withLock {
      failed += 1
      Main.say("FAILED \(what)")
    }
  }

  func summary(seconds: Double) -> String {
    lock.lock()
    defer { lock.unlock() }
    let lines = ["\(passed) passed, \(failed) failed, in \(Int(seconds)) s; in \(ended) the VM's only QEMU was killed", ""]
    var rows = [["what was done", "cases", "median ms", "worst ms"]]
    for (kind, all) in times.sorted(by: { $0.key < $1.key }) {
      rows.append([kind, "\(all.count)", Text.number(Text.median(all)), Text.number(all.max() ?? 0)])
    }
    return (lines + [Text.table(rows)]).joined(separator: "\n")
  }
}

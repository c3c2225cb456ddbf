import Foundation
import Glibc
import Lab

/// Upgrades and rollbacks of one VM, hundreds of them, and many VMs at once: nothing may be lost, nothing may
/// add up.
struct Soak {
  private var runs = 1000
  private var vms = 20

  init(_ words: [String]) throws {
    var rest = words[...]
    while let word = rest.popFirst() {
      guard let value = rest.popFirst().flatMap({ Int($0) }), value >= 0 else { throw Misuse("\(word): takes a number") }
      switch word {
      case "--runs": runs = value
      case "--vms": vms = value
      default: throw Misuse("\(word): unknown option")
      }
    }
  }

  func run() throws -> Bool {
    try FileManager.default.createDirectory(atPath: Lab.paths.run, withIntermediateDirectories: true)
    let image = Lab.paths.run + "/boot.qcow2"
    let network = runs > 0 ? try NetworkLoad() : nil
    Ending.onSignals {
      LabVM.endAll()
      network?.end()
      unlink(image)
    }
    defer {
      LabVM.endAll()
      network?.end()
      unlink(image)
      rmdir(Lab.paths.run)
    }
    Main.say("load average at the start: \(Self.load())")
    var faults: [String] = []
    if let network {
      try CrashRig.makeImage(image, words: ["fill=4", "churn=16", "tick=20", "sample=20000", "sync=1"] + network.words, network.attach)
      faults += try chain(image, network)
      unlink(image)
    }
    if vms > 0 {
      // Guests that do little: there are two processors for twenty.
      try CrashRig.makeImage(image, words: ["fill=4", "churn=1", "tick=50", "sample=50000", "sync=100"])
      faults += try crowd(image)
    }
    Main.say("load average at the end: \(Self.load())")
    for fault in faults { Main.say("FAILED \(fault)") }
    Main.say(faults.isEmpty ? "nothing was lost, nothing was left" : "\(faults.count) faults")
    return faults.isEmpty
  }

  private static func load() -> String {
    Processes.text("/proc/loadavg")
      .split(separator: " ").prefix(3).joined(separator: " ")
  }

  private static func restore(_ name: String, _ image: String, _ change: (inout VMConfiguration) -> Void) throws -> LabVM {
    try LabVM(CrashRig.configuration(name, image: image, change))
  }

  // One VM, again and again.

  private func chain(_ image: String, _ network: NetworkLoad) throws -> [String] {
    let vm = try Self.restore("soak-\(getpid())", image) {
      $0.memory = .file()
      network.attach(&$0)
    }
    try network.start()
    let before = Leftovers.snapshot([vm.configuration.home])
    let tenth = max(1, runs / 10)
    var (faults, samples, rows): ([String], [Sample], [[String]]) = ([], [], [])
    var checked = 0
    for number in 1...runs {
      do { samples.append(try Sample(number, of: vm)) } catch {
        return faults + ["run \(number): \(error)"]
      }
      guard number % tenth == 0 || number == runs else { continue }
      let lines = vm.serial.lines(from: checked)
      checked += lines.count
      let pulse = Pulse(lines)
      faults += (pulse.complaints + pulse.discontinuities(tick: 20)).map { "run \(number): \($0)" }
      rows.append(try Sample.row(samples.suffix(tenth), vm, number))
      Main.complain("\(number) of \(runs)")
    }
    let table = [["runs", "pause", "worst", "total", "descriptors", "RSS MiB", "mounts", "processes", "files", "synced"]] + rows
    Main.say("\(runs) upgrades and rollbacks of one VM, 7.2 and 10.0 in turn: milliseconds, medians of each tenth\n" + Text.table(table))
    Main.say("\n" + Sample.cost(samples) + "\n" + (try GuardianCost.measure(vm)))
    let pings = try network.stop()
    Main.say("\npings to the guest, every 5 ms: \(pings.sent) sent, \(pings.sent - pings.received) lost in \(runs) moves")
    faults += Sample.trend(samples, tenth)
    if pings.received < pings.sent / 2 { faults.append("the network: \(pings.received) of \(pings.sent) pings came back") }
    faults += Leftovers.snapshot([vm.configuration.home]).difference(from: before)
      .filter { $0.contains(vm.configuration.name) && !$0.hasPrefix("process ") && !$0.hasPrefix("file \(vm.configuration.home)/vm/") }
      .map { "left behind: \($0)" }
    faults += try vm.endAndVerifyDisk()
    return faults
  }

  // Many at once.

  private func crowd(_ image: String) throws -> [String] {
    let all = try (1...vms).map { number in
      try Self.restore("crowd-\(getpid())-\(number)", image) { if number % 2 == 0 { $0.memory = .file() } }
    }
    var faults: [String] = []
    for target in [QEMUVersion.v10_0, .v7_2] {
      let began = monotonicNanoseconds()
      let running = try all.map { vm in
        (vm, try vm.pid(), try start(moult: ["upgrade", vm.configuration.name, "--format", "json"] + CrashRig.destination(target)))
      }
      var pauses: [Double] = []
      for (vm, old, upgrade) in running {
        let outcome = try upgrade.wait(seconds: 600)
        if outcome.code != 0 {
          faults.append("\(vm.configuration.name): exit \(outcome.code): \(outcome.stderr)")
          continue
        }
        pauses.append(try outcome.json()["pause_ms"].double ?? 0)
        if vm.processes != [try vm.pid()] || vm.processes == [old] { faults.append("\(vm.configuration.name): \(vm.processes), it was \(old)") }
      }
      pauses.sort()
      Main.say(
        String(
          format: "%d VMs to QEMU %@ at once: %.1f s in all, pause %.0f ms (median), %.0f ms (worst)", vms, "\(target)",
          Double(monotonicNanoseconds() - began) / 1e9, pauses.isEmpty ? 0 : pauses[pauses.count / 2], pauses.last ?? 0))
    }
    for vm in all {
      let name = vm.configuration.name
      try vm.ticks(10, within: 60)
      faults += (vm.pulse.complaints + vm.pulse.discontinuities(tick: 50)).map { "\(name): \($0)" }
      faults += try vm.endAndVerifyDisk().map { "\(name): \($0)" }
    }
    return faults
  }
}

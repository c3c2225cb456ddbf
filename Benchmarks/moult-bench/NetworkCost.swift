import Foundation
import Lab

/// What the step `rewire` adds to the pause: VMs that differ in nothing else, one of them running at a time, in turn.
struct NetworkCost {
  private struct Kind {
    var name: String
    /// Taps, ports or clients.
    var count: Int
    var arguments: [String]
    var hasClient = false
    /// Exported by NBD: to whoever writes, too, or not; nil for nothing.
    var isWritable: Bool?
  }
  private let options: Options
  private let version: QEMUVersion

  init(_ options: Options) throws {
    self.options = options
    guard let version = QEMUVersion(rawValue: options.version) else { throw Misuse("no QEMU \(options.version) in the lab") }
    self.version = version
  }

  private static func kinds() -> [Kind] {
    let number = 8
    return [
      Kind(name: "nothing to rewire", count: 0, arguments: []),
      Kind(
        name: "\(number) taps", count: number,
        arguments: (0..<number).flatMap { ["-netdev", "tap,id=n\($0),ifname=mb\(getpid())-\($0),script=no,downscript=no"] }),
      Kind(
        name: "\(number) TCP ports", count: number,
        arguments: LoopbackSocket.freePorts(number).flatMap { ["-monitor", "tcp:127.0.0.1:\($0),server=on,wait=off"] }),
      Kind(name: "1 client of a console", count: 1, arguments: [], hasClient: true),
      Kind(name: "1 NBD export, only read", count: 1, arguments: NBDExport.node, isWritable: false),
      Kind(name: "1 NBD export that may be written to", count: 1, arguments: NBDExport.node, isWritable: true),
    ]
  }

  func measure() throws -> [SurveyResult] {
    let kinds = Self.kinds()
    var vms: [LabVM] = []
    defer { for vm in vms { vm.end() } }
    for (index, kind) in kinds.enumerated() {
      let vm = try LabVM(
        VMConfiguration("bench-network-\(index)") {
          $0.version = version
          $0.memory = .file()
          $0.extraArguments = kind.arguments
        }, within: 240)
      vms.append(vm)
      if !kind.hasClient { vm.serial.stop() }
      if let isWritable = kind.isWritable { try NBDExport.start(in: vm, port: LoopbackSocket.freePorts(1)[0], isWritable: isWritable) }
      try vm.qmp("stop")
    }
    var samples = [[Sample]](repeating: [], count: kinds.count)
    for run in 0...options.runs {
      for (index, vm) in vms.enumerated() {
        try vm.qmp("cont")
        let sample = try MoultSwitch(vm: vm, version: version).upgrade(shared: true)
        if run > 0 { samples[index].append(sample) }
        try vm.qmp("stop")
      }
    }
    let alone = Results.median(samples[0].map(\.pause)) ?? 0
    return zip(kinds, samples).map { kind, samples in
      let rewire = Results.median(samples.compactMap { $0.steps.first { $0.name == "rewire" }.map { $0.end - $0.start } })
      let more = (Results.median(samples.map(\.pause)) ?? 0) - alone
      let remark = rewire.map { String(format: "%+.2f ms, %+.3f ms each; the step alone %.2f ms", more, more / Double(kind.count), $0) }
      return SurveyResult(row: .network, what: kind.count == 0 ? Survey.network.title : "  \(kind.name)", samples: samples.map(\.pause), remark: remark ?? "")
    }
  }
}

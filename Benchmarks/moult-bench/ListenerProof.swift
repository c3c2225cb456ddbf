import Foundation
import Lab

/// Connects to every kind of listener all the time while its VM goes from QEMU to QEMU: nobody is to be refused. Not
/// to gdb's: who connects there stops the guest.
struct ListenerProof {
  private let options: Options
  private let version: QEMUVersion
  /// Microseconds between two attempts: what is left of the processors is QEMU's.
  private static let pause: UInt32 = 200

  init(_ options: Options) throws {
    self.options = options
    guard let version = QEMUVersion(rawValue: options.version) else { throw Misuse("no QEMU \(options.version) in the lab") }
    self.version = version
  }

  func measure() throws -> [SurveyResult] {
    let ports = LoopbackSocket.freePorts(7)
    let name = "bench-listeners-\(getpid())"
    // Of the lab's QEMUs the host's own has SPICE.
    let hasSPICE = version.root == nil
    let vm = try LabVM(
      VMConfiguration("bench-listeners") {
        $0.version = version
        $0.memory = .file()
        $0.words = ["net=10.0.2.15/24", "tick=100"]
        let directory = ($0.qmpSocket as NSString).deletingLastPathComponent
        $0.extraArguments = [
          "-netdev", "user,id=u,hostfwd=tcp:127.0.0.1:\(ports[5])-10.0.2.15:7", "-device", "virtio-net-pci,netdev=u",
          "-vga", "std", "-vnc", "127.0.0.1:\(ports[0] - 5900),websocket=\(ports[1])", "-qmp", "tcp:127.0.0.1:\(ports[2]),server=on,wait=off",
          "-monitor", "tcp:127.0.0.1:\(ports[3]),server=on,wait=off", "-serial", "tcp:127.0.0.1:\(ports[4]),server=on,wait=off",
          "-chardev", "socket,id=hidden,path=\(name),abstract=on,server=on,wait=off", "-device", "virtio-serial-pci",
          "-device", "virtserialport,chardev=hidden,name=hidden", "-vnc", "unix:\(directory)/vnc.sock",
          "-qmp", "unix:\(directory)/events.sock,server=on,wait=off", "-monitor", "unix:\(directory)/monitor.sock,server=on,wait=off",
        ] + (hasSPICE ? ["-spice", "port=\(ports[6]),addr=127.0.0.1,disable-ticketing=on"] : [])
      }, within: 240)
    defer { vm.end() }
    let directory = (vm.configuration.qmpSocket as NSString).deletingLastPathComponent
    let ofPorts = ["VNC", "VNC websocket", "QMP over TCP", "human monitor over TCP", "serial port over TCP", "forwarded port"] + (hasSPICE ? ["SPICE"] : [])
    var probers = zip(ofPorts, ports).map { ($0, ConnectionProber(port: $1, pause: Self.pause)) }
    probers.append(("abstract unix socket", try ConnectionProber(abstract: name, pause: Self.pause)))
    for (what, path) in [
      ("serial port over a unix socket", vm.configuration.serialSocket), ("VNC over a unix socket", directory + "/vnc.sock"),
      ("QMP over a unix socket", directory + "/events.sock"), ("human monitor over a unix socket", directory + "/monitor.sock"),
    ] { probers.append((what, try ConnectionProber(path: path, pause: Self.pause))) }
    // Those that are done leave the processors to the others.
    var counts = [ConnectionProber.Counts?](repeating: nil, count: probers.count)
    defer { for (index, (_, prober)) in probers.enumerated() where counts[index] == nil { _ = prober.stop() } }
    var pauses: [Double] = []
    let moult = MoultSwitch(vm: vm, version: version)
    while counts.contains(where: { $0 == nil }) {
      pauses.append(try moult.upgrade(shared: true).pause)
      for (index, (_, prober)) in probers.enumerated() where counts[index] == nil && prober.attempts >= options.attempts {
        counts[index] = prober.stop()
      }
    }
    var first = SurveyResult(row: .listeners, what: Survey.listeners.title, samples: pauses, remark: "\(pauses.count) upgrades")
    let failed = counts.reduce(0) { $0 + ($1?.failed ?? 0) }
    first.remark += ", 0 of \(options.attempts) at each fail: " + (failed == 0 ? "reached" : "NOT REACHED, \(failed) did")
    return [first] + zip(probers, counts).map { SurveyResult(row: .listeners, what: "  \($0.0)", samples: [], remark: $1.map { "\($0)" } ?? "") }
  }
}

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
    let ports = LoopbackSocket.freePorts(6)
    let name = "bench-listeners-\(getpid())"
    let vm = try LabVM(
      VMConfiguration("bench-listeners") {
        $0.version = version
        $0.memory = .file()
        $0.words = ["net=10.0.2.15/24", "tick=100"]
        $0.extraArguments = [
          "-netdev", "user,id=u,hostfwd=tcp:127.0.0.1:\(ports[5])-10.0.2.15:7", "-device", "virtio-net-pci,netdev=u",
          "-vga", "std", "-vnc", "127.0.0.1:\(ports[0] - 5900),websocket=\(ports[1])", "-qmp", "tcp:127.0.0.1:\(ports[2]),server=on,wait=off",
          "-monitor", "tcp:127.0.0.1:\(ports[3]),server=on,wait=off", "-serial", "tcp:127.0.0.1:\(ports[4]),server=on,wait=off",
          "-chardev", "socket,id=hidden,path=\(name),abstract=on,server=on,wait=off", "-device", "virtio-serial-pci",
          "-device", "virtserialport,chardev=hidden,name=hidden",
        ]
      }, within: 240)
    defer { vm.end() }
    var probers = zip(["VNC", "VNC websocket", "QMP over TCP", "human monitor over TCP", "serial port over TCP", "forwarded port"], ports).map {
      ($0, ConnectionProber(port: $1, pause: Self.pause))
    }
    probers.append(("abstract unix socket", try ConnectionProber(abstract: name, pause: Self.pause)))
    probers.append(("serial port over a unix socket", try ConnectionProber(path: vm.configuration.serialSocket, pause: Self.pause)))
    var counts: [ConnectionProber.Counts] = []
    defer { if counts.isEmpty { for (_, prober) in probers { _ = prober.stop() } } }
    var pauses: [Double] = []
    let moult = MoultSwitch(vm: vm, version: version)
    repeat { pauses.append(try moult.upgrade(shared: true).pause) } while probers.contains { $0.1.attempts < options.attempts }
    counts = probers.map { $0.1.stop() }
    let first = SurveyResult(row: .listeners, what: Survey.listeners.title, samples: pauses, remark: "\(pauses.count) upgrades")
    return [first] + zip(probers, counts).map { SurveyResult(row: .listeners, what: "  \($0.0)", samples: [], remark: "\($1)") }
  }
}

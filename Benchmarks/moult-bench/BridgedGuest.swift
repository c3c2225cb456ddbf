import Foundation
import Glibc
import Kernel
import Lab
import SystemPackage

/// A guest behind a tap of a bridge, in a network namespace of its own, and what others on the bridge notice of its
/// moves: by moult, which keeps the tap, and by the bare script, whose QEMUs have a tap each.
final class BridgedGuest {
  enum Way: String, CaseIterable {
    case moult = "moult upgrade", bare = "plain migration, a tap for each QEMU"
  }

  private let namespace = "moult-bench-\(getpid())"
  private let version: QEMUVersion
  private let vm: LabVM
  /// The tap that is in use now: the bare script changes to the other one.
  private var tap = 0
  private static let address = "10.95.0.2"

  init(_ options: Options) throws {
    guard let version = QEMUVersion(rawValue: options.version) else { throw Misuse("no QEMU \(options.version) in the lab") }
    self.version = version
    let namespace = namespace
    try succeed(["ip", "netns", "add", namespace])
    do {
      for words in [
        "link set lo up", "link add br0 type bridge", "address add 10.95.0.1/24 dev br0", "link set br0 up",
        "tuntap add tap0 mode tap vnet_hdr", "link set tap0 master br0 up", "tuntap add tap1 mode tap vnet_hdr", "link set tap1 master br0 up",
      ] { try succeed(["ip", "-n", namespace] + words.split(separator: " ").map(String.init)) }
      vm = try LabVM(
        VMConfiguration("bench-bridged") {
          $0.version = version
          $0.memory = .file()
          $0.words = ["net=\(Self.address)/24", "tick=100"]
          $0.launcher = ["ip", "netns", "exec", namespace]
          $0.extraArguments = ["-netdev", "tap,id=n0,ifname=tap0,script=no,downscript=no", "-device", "virtio-net-pci,netdev=n0"]
        }, within: 240)
    } catch {
      _ = try? succeed(["ip", "netns", "delete", namespace])
      throw error
    }
  }

  func end() {
    vm.end()
    do { try succeed(["ip", "netns", "delete", namespace]) } catch { print(error) }
  }

  private func move(_ way: Way) throws -> Sample {
    if way == .moult { return try MoultSwitch(vm: vm, version: version).upgrade(shared: true) }
    // The arguments that the VM was booted with have the first one.
    defer { tap = 1 - tap }
    return try BareSwitch(vm: vm).migrate(shared: true, replacing: ["ifname=tap0": "ifname=tap\(1 - tap)"])
  }

  /// What moves cost in echoes of ICMP, one asked for each 2 ms.
  func packets(_ runs: Int) throws -> [SurveyResult] {
    let pid = try vm.pid()
    let socket = try Namespaces.within(pid, [.network]) { () throws(Failure) in try EchoSocket(to: Self.address) }
    try eventually("the guest answers", within: 60) { try socket.count(during: { usleep(20_000) }).lost == 0 }
    var samples: [Way: [(pause: Double, lost: Int)]] = [:]
    for run in 0...runs {
      for way in Way.allCases {
        var sample: Sample?
        let counts = try socket.count { sample = try move(way) }
        if run > 0, let sample { samples[way, default: []].append((sample.pause, counts.lost)) }
      }
    }
    return Way.allCases.map { way in
      let lost = samples[way, default: []].map { Double($0.lost) }
      var remark = String(format: "lost in a move: median %.1f, %.0f to %.0f", Results.median(lost) ?? 0, lost.min() ?? 0, lost.max() ?? 0)
      if way == .moult { remark += "; at most 2: " + ((Results.median(lost) ?? .infinity) <= 2 ? "reached" : "NOT REACHED") }
      return SurveyResult(
        row: .packets, what: way == .moult ? Survey.packets.title : "  beside it: \(way.rawValue)", samples: samples[way, default: []].map(\.pause),
        remark: remark)
    }
  }

  /// MiB/s of what the guest sends back while it is sent: of several transfers, since others use the processors, too.
  private func throughput() throws -> Double {
    let mebibytes = 16
    let speeds = try (0..<7).map { _ in
      let outcome = try run([
        "ip", "netns", "exec", namespace, "sh", "-c", "head -c \(mebibytes)M /dev/zero | socat -t 60 - TCP:\(Self.address):7 | wc -c",
      ])
      guard outcome.stdout == "\(mebibytes << 20)\n" else { throw LabFailure("transfer: \(outcome)") }
      return Double(mebibytes) / outcome.seconds
    }
    return Results.median(speeds) ?? 0
  }

  /// What a TCP connection carries before and after moves. An emulator that has just been started translates the guest
  /// anew: so the first transfers after each do not count.
  func throughputs(_ runs: Int) throws -> [SurveyResult] {
    try eventually("the guest answers", within: 60) { (try? throughput()) != nil }
    var samples: [Way: [(pause: Double, before: Double, after: Double)]] = [:]
    for run in 0...runs {
      for way in Way.allCases {
        let before = try throughput()
        let sample = try move(way)
        _ = try throughput()
        let after = try throughput()
        if run > 0 { samples[way, default: []].append((sample.pause, before, after)) }
      }
    }
    return Way.allCases.map { way in
      let own = samples[way, default: []]
      func median(_ value: ((pause: Double, before: Double, after: Double)) -> Double) -> Double { Results.median(own.map(value)) ?? 0 }
      return SurveyResult(
        row: .throughput, what: way == .moult ? Survey.throughput.title : "  beside it: \(way.rawValue)", samples: own.map(\.pause),
        remark: String(
          format: "after / before: median %.2f; %.1f MiB/s before, %.1f after", median { $0.after / $0.before }, median(\.before), median(\.after)))
    }
  }
}

/// Asks for echoes (RFC 792) every 2 ms and counts which came.
final class EchoSocket: @unchecked Sendable {
  private let descriptor: CInt
  private let identifier = UInt16(truncatingIfNeeded: getpid())
  private static let interval: Int64 = 2_000_000
  private let lock = NSLock()
  private var isStopped = false
  private var counts: (sent: Int, lost: Int)?

  /// In the calling thread's network namespace.
  init(to address: String) throws(Failure) {
    descriptor = socket(AF_INET, CInt(SOCK_RAW.rawValue) | CInt(SOCK_CLOEXEC.rawValue) | CInt(SOCK_NONBLOCK.rawValue), CInt(IPPROTO_ICMP))
    var peer = sockaddr_in()
    peer.sin_family = sa_family_t(AF_INET)
    inet_aton(address, &peer.sin_addr)
    // What waits here while the processor does something else is not lost.
    var room: CInt = 4 << 20
    setsockopt(descriptor, SOL_SOCKET, SO_RCVBUFFORCE, &room, socklen_t(MemoryLayout<CInt>.size))
    let result = withUnsafePointer(to: &peer) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) }
    }
    if result != 0 { throw Failure(step: "open a raw socket to", subject: address, errno: Errno(rawValue: errno), hint: "root may") }
  }

  deinit { close(descriptor) }

  /// Counts from half a second before `body` to half a second after it, and waits a second more for the last echoes.
  func count(during body: () throws -> Void) throws -> (sent: Int, lost: Int) {
    (isStopped, counts) = (false, nil)
    Thread { [self] in
      let counts = ask()
      lock.withLock { self.counts = counts }
    }.start()
    defer { lock.withLock { isStopped = true } }
    usleep(500_000)
    try body()
    usleep(500_000)
    lock.withLock { isStopped = true }
    return try eventually("the last echoes") { lock.withLock { counts } }
  }

  private func ask() -> (sent: Int, lost: Int) {
    var answered: [Bool] = []
    var next = monotonicNanoseconds()
    var end: Int64?
    while end.map({ monotonicNanoseconds() < $0 }) ?? true {
      // When an echo came does not matter.
      usleep(UInt32(max(0, next - monotonicNanoseconds()) / 1000))
      while let number = receive() { if number < answered.count { answered[number] = true } }
      if end == nil, lock.withLock({ isStopped }) { end = monotonicNanoseconds() + 1_000_000_000 }
      if end == nil {
        send(answered.count)
        answered.append(false)
      }
      next = max(next + Self.interval, monotonicNanoseconds())
    }
    return (answered.count, answered.count { !$0 })
  }

  private func send(_ number: Int) {
    var packet = [UInt8](repeating: 0, count: 64)
    packet[0] = 8
    packet.withUnsafeMutableBytes {
      $0.storeBytes(of: identifier, toByteOffset: 4, as: UInt16.self)
      $0.storeBytes(of: UInt32(number), toByteOffset: 8, as: UInt32.self)
      let words = $0.bindMemory(to: UInt16.self)
      var sum = words.reduce(UInt32(0)) { $0 + UInt32($1) }
      while sum > 0xffff { sum = (sum & 0xffff) + (sum >> 16) }
      words[1] = ~UInt16(sum)
    }
    _ = Glibc.send(descriptor, packet, packet.count, 0)
  }

  /// The number of an echo that has come; nil if there is none (any more).
  private func receive() -> Int? {
    var packet = [UInt8](repeating: 0, count: 2048)
    while true {
      let count = recv(descriptor, &packet, packet.count, 0)
      if count <= 0 { return nil }
      let header = Int(packet[0] & 15) * 4
      guard count >= header + 12, packet[header] == 0 else { continue }
      let (own, number) = packet.withUnsafeBytes {
        ($0.loadUnaligned(fromByteOffset: header + 4, as: UInt16.self), $0.loadUnaligned(fromByteOffset: header + 8, as: UInt32.self))
      }
      if own == identifier { return Int(number) }
    }
  }
}

import Foundation
import Glibc
import Lab
import Testing

extension EndToEnd {
  /// Packets, ports and open connections go on as if nothing had happened.
  @Suite struct Network {
    /// A TCP socket of this process's network namespace.
    private static func connect(_ port: UInt16) -> (descriptor: CInt, error: CInt) {
      let descriptor = socket(AF_INET, CInt(SOCK_STREAM.rawValue) | CInt(SOCK_CLOEXEC.rawValue), 0)
      var address = sockaddr_in()
      address.sin_family = sa_family_t(AF_INET)
      address.sin_port = port.bigEndian
      address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
      var time = timeval(tv_sec: 20, tv_usec: 0)
      for option in [SO_SNDTIMEO, SO_RCVTIMEO] {
        setsockopt(descriptor, SOL_SOCKET, option, &time, socklen_t(MemoryLayout<timeval>.size))
      }
      let result = withUnsafePointer(to: &address) {
        $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { Glibc.connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) }
      }
      return (descriptor, result == 0 ? 0 : errno)
    }

    /// What arrives until it contains `end`.
    private static func read(_ descriptor: CInt, until end: String) throws -> String {
      var text = ""
      var bytes = [UInt8](repeating: 0, count: 4096)
      while !text.contains(end) {
        let count = recv(descriptor, &bytes, bytes.count, 0)
        if count <= 0 { throw LabFailure("the connection ended after “\(text)” (\(count), errno \(errno))") }
        text += String(decoding: bytes[..<count], as: UTF8.self)
      }
      return text
    }

    private static func say(_ text: String, on descriptor: CInt) {
      let bytes = Array(text.utf8)
      #expect(send(descriptor, bytes, bytes.count, CInt(MSG_NOSIGNAL)) == bytes.count)
    }

    /// Connects to ports in turn until it is told to stop, or to the end of its time.
    private static func probe(_ ports: [UInt16], while goesOn: () throws -> Void) throws -> (connected: Int, failed: [CInt: Int]) {
      let outcome = Counter()
      let thread = Thread {
        while !outcome.isStopped {
          for port in ports {
            let (descriptor, error) = connect(port)
            close(descriptor)
            outcome.add(error)
          }
        }
        outcome.hasEnded = true
      }
      thread.start()
      defer {
        outcome.isStopped = true
        while !outcome.hasEnded { usleep(1000) }
      }
      try goesOn()
      return outcome.counts
    }

    /// Lets a guest repeat numbers that are sent one by one, until it is told to stop.
    private static func count(on vm: LabVM, while goesOn: () throws -> Void) throws -> (sent: Int, heard: [String]) {
      let counter = Counter(), start = vm.serial.count
      let heard = { @Sendable in vm.serial.lines(from: start).map(\.text).filter { $0.hasPrefix("echo ") } }
      let thread = Thread {
        while !counter.isStopped {
          // The guest's terminal holds 4096 bytes.
          if counter.counts.0 - heard().count < 100 {
            counter.add(0)
            do { try vm.serial.send("echo \(counter.counts.0)") } catch { print(error) }
          }
          usleep(2000)
        }
        counter.hasEnded = true
      }
      thread.start()
      defer {
        counter.isStopped = true
        while !counter.hasEnded { usleep(1000) }
      }
      try goesOn()
      counter.isStopped = true
      while !counter.hasEnded { usleep(1000) }
      try vm.ticks(3)
      try eventually("the guest repeats the last number") { heard().count >= counter.counts.0 }
      return (counter.counts.0, heard())
    }

    private final class Counter: @unchecked Sendable {
      private let lock = NSLock()
      private var connected = 0
      private var failed: [CInt: Int] = [:]
      private var stopped = false, ended = false
      func add(_ error: CInt) { lock.withLock { if error == 0 { connected += 1 } else { failed[error, default: 0] += 1 } } }
      var counts: (Int, [CInt: Int]) { lock.withLock { (connected, failed) } }
      var isStopped: Bool { get { lock.withLock { stopped } } set { lock.withLock { stopped = newValue } } }
      var hasEnded: Bool { get { lock.withLock { ended } } set { lock.withLock { ended = newValue } } }
    }

    @Test
    func `ports are never closed, and consoles keep their clients`() throws {
      let ports = LoopbackSocket.freePorts(6)
      let display = ports[0] - 5900
      try leavingNothing {
        let vm = try LabVM(
          VMConfiguration("e2e-ports") {
            $0.memory = .file()
            $0.words = ["net=10.0.2.15/24"]
            $0.extraArguments = [
              "-netdev", "user,id=u,hostfwd=tcp:127.0.0.1:\(ports[5])-10.0.2.15:7,hostfwd=udp:127.0.0.1:\(ports[5])-:9",
              "-device", "virtio-net-pci,netdev=u", "-vga", "std", "-vnc", "127.0.0.1:\(display),websocket=\(ports[1])", "-qmp", "tcp:localhost:\(ports[2]),server=on,wait=off",
              "-monitor", "tcp::\(ports[3]),server=on,wait=off", "-serial", "tcp:127.0.0.1:\(ports[4]),server=on,wait=off",
              "-chardev", "socket,id=hidden,path=e2e-ports-\(getpid()),abstract=on,server=on,wait=off", "-device", "virtio-serial-pci",
              "-device", "virtserialport,chardev=hidden,name=hidden",
            ]
          })
        defer { vm.end() }
        // A client of the monitor and one of the second console, from before the first upgrade to after the last.
        let (monitor, console) = (Self.connect(ports[3]), Self.connect(ports[4]))
        defer { for descriptor in [monitor.descriptor, console.descriptor] { close(descriptor) } }
        try #require(monitor.error == 0 && console.error == 0)
        _ = try Self.read(monitor.descriptor, until: "(qemu)")
        let connections = vm.serial.connections
        let datagrams = try Datagrams.connected(ports[5], CInt(SOCK_DGRAM.rawValue))
        defer { close(datagrams) }
        try Datagrams.mustComeBack(datagrams, "before")
        let counts = try Self.probe([ports[0], ports[1], ports[2], ports[5]]) {
          let numbers = try Self.count(on: vm) {
            try vm.mustUpgrade(to: .v11_1, ["--hold"], strategy: "shared", outcome: "held")
            try Datagrams.mustComeBack(datagrams, "in 11.1")
            try vm.mustRollBack(to: .v7_2)
            try Datagrams.mustComeBack(datagrams, "in 7.2")
            // Its state is saved at the switchover gate.
            try vm.mustUpgrade(to: .v5_2, ["--memory", "copy"])
          }
          #expect(numbers.heard == (1...numbers.sent).map { "echo \($0)" }, "none lost, none twice")
          print("console: \(numbers.sent) lines there and back")
        }
        #expect(counts.failed == [:] && counts.connected > 10, "\(counts)")
        print("ports: \(counts.connected) connections, none refused")
        // The guest's own service, through a forwarded port.
        let forwarded = Self.connect(ports[5])
        defer { close(forwarded.descriptor) }
        Self.say("ping\n", on: forwarded.descriptor)
        #expect(try Self.read(forwarded.descriptor, until: "\n") == "ping\n")
        try Datagrams.mustComeBack(datagrams, "in 5.2")
        #expect(try vm.qmp("human-monitor-command", ["command-line": "info usernet"]).string?.split(whereSeparator: \.isNewline).count { $0.contains("HOST_FORWARD") && $0.contains(" \(ports[5]) ") } == 2)
        Self.say("info status\n", on: monitor.descriptor)
        #expect(try Self.read(monitor.descriptor, until: "VM status").contains("VM status: running"))
        Self.say("x", on: console.descriptor)
        #expect(vm.serial.connections == connections, "the client of the console on a unix socket")

        // Everything answers where it did.
        let vnc = Self.connect(ports[0]), qmp = Self.connect(ports[2]), websocket = Self.connect(ports[1])
        defer { for descriptor in [vnc.descriptor, qmp.descriptor, websocket.descriptor] { close(descriptor) } }
        #expect(try Self.read(vnc.descriptor, until: "\n").hasPrefix("RFB 003"))
        #expect(try Self.read(qmp.descriptor, until: "\n").contains(#""minor": 2, "major": 5"#))
        Self.say("GET / HTTP/1.1\r\nHost: x\r\n\r\n", on: websocket.descriptor)
        #expect(try Self.read(websocket.descriptor, until: "\n").hasPrefix("HTTP/1.1"))
        vm.end()
      }
    }

    /// Of the lab's QEMUs the host's own has SPICE.
    @Test
    func `a port of SPICE is never closed`() throws {
      let port = LoopbackSocket.freePorts(1)[0]
      try leavingNothing {
        let vm = try LabVM(
          VMConfiguration("e2e-spice") {
            $0.memory = .file()
            $0.extraArguments = ["-spice", "port=\(port),addr=127.0.0.1,disable-ticketing=on", "-vga", "qxl"]
          })
        defer { vm.end() }
        let counts = try Self.probe([port]) { try vm.mustUpgrade(to: .v7_2) }
        #expect(counts.failed == [:] && counts.connected > 10, "\(counts)")
        let client = Self.connect(port)
        defer { close(client.descriptor) }
        // A link to the main channel: magic, version 2.2, 18 bytes that follow.
        func number(_ value: UInt8) -> String { "\(UnicodeScalar(value))\0\0\0" }
        Self.say("REDQ" + number(2) + number(2) + number(18) + number(0) + "\u{1}\0" + number(0) + number(0) + number(18), on: client.descriptor)
        #expect(try Self.read(client.descriptor, until: "REDQ").hasPrefix("REDQ"))
        vm.end()
      }
    }

    /// One QEMU has the guest, the tap and the ports then, and clients of the consoles do not notice.
    @Test(.enabled(if: access("/dev/net/tun", R_OK | W_OK) == 0))
    func `moult is killed around the exchange`() throws {
      let port = LoopbackSocket.freePorts(1)[0]
      let tap = "mtap\(getpid())"
      try leavingNothing {
        let vm = try LabVM(
          VMConfiguration("e2e-wired") {
            $0.memory = .file()
            $0.extraArguments = [
              "-monitor", "tcp:127.0.0.1:\(port),server=on,wait=off",
              "-netdev", "tap,id=n0,ifname=\(tap),script=no,downscript=no", "-device", "virtio-net-pci,netdev=n0",
            ]
          })
        defer { vm.end() }
        let index = try String(contentsOfFile: "/sys/class/net/\(tap)/ifindex", encoding: .utf8)
        try succeed(["ip", "link", "set", tap, "up"])
        let connections = vm.serial.connections
        for (record, killsGuardian) in [("rewire.begin", false), ("rewire.done", false), ("resume.begin", false), ("rewire.begin", true), ("resume.begin", true)] {
          let client = Self.connect(port)
          defer { close(client.descriptor) }
          _ = try Self.read(client.descriptor, until: "(qemu)")
          let version: QEMUVersion = try vm.version().hasPrefix("7.2") ? .v11_1 : .v7_2
          let old = try vm.pid()
          let upgrade = try TracedRun(moult: ["upgrade", "e2e-wired"] + CrashRig.destination(version), of: vm)
          try upgrade.go(to: record)
          try upgrade.finishRecord()
          if killsGuardian {
            try upgrade.killAll()
            #expect(try run(moult: ["recover", "e2e-wired"]).code == 0)
          } else {
            kill(upgrade.pid, SIGKILL)
            _ = try upgrade.wait()
          }
          try eventually("the guardian ends") { !Processes.all().contains { $0.arguments.contains("guard") && $0.arguments.contains { $0.hasPrefix("e2e-wired-") } } }
          try eventually("one QEMU runs the guest after \(record)") { try vm.processes == [vm.pid()] && vm.status() == "running" }
          // Once it has the connections it may have read what their clients say.
          #expect((try vm.pid() == old) == (record == "rewire.begin"), "\(record)")
          try vm.ticks(3)
          #expect(try String(contentsOfFile: "/sys/class/net/\(tap)/carrier", encoding: .utf8) == "1\n")
          #expect(try String(contentsOfFile: "/sys/class/net/\(tap)/ifindex", encoding: .utf8) == index)
          Self.say("info status\n", on: client.descriptor)
          #expect(try Self.read(client.descriptor, until: "VM status").contains("VM status: running"), "\(record)")
        }
        #expect(vm.serial.connections == connections)
        vm.end()
      }
    }

    @Test(.enabled(if: access("/dev/net/tun", R_OK | W_OK) == 0))
    func `what is plugged in after an upgrade goes along in the next`() throws {
      let port = LoopbackSocket.freePorts(1)[0]
      let tap = "mtap\(getpid())"
      try leavingNothing {
        let vm = try LabVM(
          VMConfiguration("e2e-plugged") {
            $0.memory = .file()
            $0.extraArguments = ["-device", "pcie-root-port,id=rp,chassis=1", "-device", "virtio-serial-pci,id=vs"]
          })
        defer { vm.end() }
        try vm.mustUpgrade(to: .v10_0)
        try vm.qmp("netdev_add", ["type": "tap", "id": "hot", "ifname": .text(tap), "script": "no", "downscript": "no"])
        try vm.qmp("device_add", ["driver": "virtio-net-pci", "netdev": "hot", "bus": "rp", "id": "hotnic"])
        let address: JSON = ["type": "inet", "data": ["host": "127.0.0.1", "port": .text("\(port)")]]
        try vm.qmp("chardev-add", ["id": "c", "backend": ["type": "socket", "data": ["addr": address, "server": true, "wait": false]]])
        try vm.qmp("device_add", ["driver": "virtserialport", "chardev": "c", "name": "org.moult.hot", "bus": "vs.0", "id": "p"])
        let client = Self.connect(port)
        defer { close(client.descriptor) }
        func connected() throws -> Bool { try vm.qmp("qom-get", ["path": "/chardevs/c", "property": "connected"]).bool == true }
        try eventually("QEMU has accepted") { try connected() }
        try succeed(["ip", "link", "set", tap, "up"])
        let index = try String(contentsOfFile: "/sys/class/net/\(tap)/ifindex", encoding: .utf8)
        for version in [QEMUVersion.v7_2, .v11_1] {
          try vm.mustUpgrade(to: version)
          #expect(try connected())
          #expect(try vm.qmp("human-monitor-command", ["command-line": "info network"]).string?.contains("hot: index=0,type=tap") == true)
          #expect(try String(contentsOfFile: "/sys/class/net/\(tap)/ifindex", encoding: .utf8) == index)
          #expect(try String(contentsOfFile: "/sys/class/net/\(tap)/carrier", encoding: .utf8) == "1\n")
        }
        vm.end()
      }
    }

    /// A bridge in a network namespace of its own, to which the VM's taps belong.
    private struct Bridge {
      let name = "moult-e2e-\(getpid())"
      init() throws {
        try succeed(["ip", "netns", "add", name])
        for words in ["link set lo up", "link add br0 type bridge", "address add 10.98.0.1/24 dev br0", "link set br0 up"] { try ip(words) }
      }
      func ip(_ words: String) throws { try succeed(["ip", "-n", name] + words.split(separator: " ").map(String.init)) }
      func tap(_ tap: String, _ options: String = "") throws {
        try ip("tuntap add \(tap) mode tap vnet_hdr \(options)")
        try ip("link set \(tap) master br0 up")
      }
      func output(_ command: String) throws -> String { try succeed(["ip", "netns", "exec", name, "sh", "-c", command]) }
      func end() { do { try succeed(["ip", "netns", "delete", name]) } catch { print(error) } }
    }

    @Test(.enabled(if: access("/dev/net/tun", R_OK | W_OK) == 0))
    func `taps stay in their bridge, a transfer and pings go on`() throws {
      let bridge = try Bridge()
      defer { bridge.end() }
      try bridge.tap("tap0", "multi_queue")
      try leavingNothing {
        let vm = try LabVM(
          VMConfiguration("e2e-taps") {
            $0.memory = .file()
            $0.words = ["net=10.98.0.2/24"]
            $0.launcher = ["ip", "netns", "exec", bridge.name]
            $0.extraArguments = [
              "-netdev", "tap,id=n0,ifname=tap0,queues=2,script=no,downscript=no", "-device", "virtio-net-pci,netdev=n0,mq=on,vectors=6",
              "-netdev", "tap,id=n1,ifname=tap1,script=no", "-device", "e1000,netdev=n1",
            ]
          })
        defer { vm.end() }
        try eventually("the guest answers", within: 20) { try bridge.output("busybox ping -c 1 -W 1 10.98.0.2 || true").contains(" 1 packets received") }
        try bridge.ip("link set tap1 master br0 up")
        let before = try bridge.output("ip -o link show tap0")
        // Pings every 2 ms during two switches, then 64 MiB there and back during two more.
        let ping = try ChildProcess(["ip", "netns", "exec", bridge.name, "busybox", "ping", "-q", "-i", "0.002", "-c", "3000", "10.98.0.2"])
        try vm.mustUpgrade(to: .v11_1)
        try vm.mustUpgrade(to: .v5_2)
        let answer = try ping.wait(seconds: 120)
        print("taps: \(answer.stdout.split(separator: "\n").dropFirst().joined(separator: "; "))")
        let words = answer.stdout.split(separator: "\n").first { $0.contains("packets transmitted") }?.split(separator: " ") ?? []
        try #require(words.count > 3, "\(answer.stdout)")
        // How many are lost depends on how busy the host is; most are not.
        #expect((Int(words[3]) ?? 0) > (Int(words[0]) ?? 0) / 2)
        let home = vm.configuration.home
        try write(["head", "-c", "64M", "/dev/urandom"], to: home + "/sent")
        let transfer = try ChildProcess(["ip", "netns", "exec", bridge.name, "sh", "-c", "socat -t 60 - TCP:10.98.0.2:7 <\(home)/sent >\(home)/received"])
        try vm.mustUpgrade(to: .v10_0, ["--hold"], outcome: "held")
        try vm.mustRollBack(to: .v5_2)
        #expect(try transfer.wait(seconds: 120).code == 0)
        try succeed(["cmp", home + "/sent", home + "/received"])
        // The same interface, in the bridge, with the address it had.
        #expect(try bridge.output("ip -o link show tap0") == before)
        vm.end()
      }
    }
  }
}

/// Runs a command with its output in a file.
private func write(_ command: [String], to path: String) throws {
  try succeed(["sh", "-c", "exec \"$@\" >\"$0\"", path] + command)
}

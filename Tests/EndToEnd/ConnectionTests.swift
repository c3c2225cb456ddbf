import Foundation
import Glibc
import Lab
import Testing

extension EndToEnd {
  /// Programs that QEMU connects to.
  @Suite struct Connections {
    /// A program that listens, and whose connections are counted.
    private final class Peer {
      private let listener: CInt
      private(set) var connections: [CInt] = []
      let port: UInt16

      /// - Parameters:
      ///   - path: of a unix socket; nil for a TCP port.
      ///   - port: 0 for a free one.
      init(_ path: String? = nil, port wanted: UInt16 = 0) throws {
        listener = socket(path == nil ? AF_INET : AF_UNIX, CInt(SOCK_STREAM.rawValue) | CInt(SOCK_CLOEXEC.rawValue), 0)
        var address = sockaddr_storage()
        var size: socklen_t
        if let path {
          unlink(path)
          size = socklen_t(MemoryLayout<sockaddr_un>.size)
          withUnsafeMutableBytes(of: &address) { room in
            room.storeBytes(of: sa_family_t(AF_UNIX), as: sa_family_t.self)
            room[2...].copyBytes(from: Array(path.utf8))
          }
        } else {
          size = socklen_t(MemoryLayout<sockaddr_in>.size)
          withUnsafeMutableBytes(of: &address) { room in
            room.storeBytes(of: sa_family_t(AF_INET), as: sa_family_t.self)
            room.storeBytes(of: wanted.bigEndian, toByteOffset: 2, as: UInt16.self)
            room.storeBytes(of: UInt32(0x7f00_0001).bigEndian, toByteOffset: 4, as: UInt32.self)
          }
        }
        let listener = listener
        var on: CInt = 1
        setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, socklen_t(MemoryLayout<CInt>.size))
        let failed = withUnsafeMutablePointer(to: &address) {
          $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
            bind(listener, $0, size) != 0 || listen(listener, 8) != 0 || getsockname(listener, $0, &size) != 0
          }
        }
        if failed { throw LabFailure("listen at \(path ?? "a port"): errno \(errno)") }
        port = withUnsafeBytes(of: &address) { UInt16(bigEndian: $0.load(fromByteOffset: 2, as: UInt16.self)) }
      }

      func end() { for descriptor in connections + [listener] { close(descriptor) } }

      private static func isReady(_ descriptor: CInt, _ milliseconds: CInt) -> Bool {
        var state = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        return poll(&state, 1, milliseconds) == 1
      }

      /// Whether another connection comes within so long.
      func accepts(within milliseconds: CInt) -> Bool {
        guard Self.isReady(listener, milliseconds) else { return false }
        connections.append(accept(listener, nil, nil))
        return true
      }

      func say(_ text: String) {
        let bytes = Array((text + "\n").utf8)
        #expect(send(connections.last ?? -1, bytes, bytes.count, CInt(MSG_NOSIGNAL)) == bytes.count)
      }

      /// What arrives until it contains `end`, or the connection ends.
      func hear(until end: String) throws -> String {
        var text = ""
        var bytes = [UInt8](repeating: 0, count: 4096)
        while !text.contains(end) {
          guard let connection = connections.last, Self.isReady(connection, 20_000) else { throw LabFailure("silence after “\(text)”") }
          let count = recv(connection, &bytes, bytes.count, 0)
          if count <= 0 { return text }
          text += String(decoding: bytes[..<count], as: UTF8.self)
        }
        return text
      }

      /// The human monitor at the other end.
      func mustAnswer(_ comment: Comment, at location: SourceLocation = #_sourceLocation) throws {
        say("info status")
        #expect(try hear(until: "VM status").contains("VM status: running"), comment, sourceLocation: location)
      }

      /// The agent at the other end.
      func mustSync(_ number: Int, at location: SourceLocation = #_sourceLocation) throws {
        say(#"{"execute":"guest-sync","arguments":{"id":\#(number)}}"#)
        #expect(try hear(until: "\(number)}").contains(#""return": \#(number)"#), sourceLocation: location)
      }
    }

    @Test
    func `the peers of raw connections do not notice, a watcher of events is connected to again`() throws {
      try leavingNothing {
        let home = VMConfiguration("e2e-peers").home + "-peers"
        try FileManager.default.createDirectory(atPath: home, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: home) }
        let (agent, watcher, monitor, console) = (
          try Peer(home + "/agent.sock"), try Peer(home + "/events.sock"), try Peer(), try Peer(home + "/monitor.sock"))
        // QEMU knows their addresses for good.
        let (farWatcher, farConsole) = (try Peer(), try Peer())
        var peers = [agent, watcher, monitor, console, farWatcher, farConsole]
        defer { for peer in peers { peer.end() } }
        let vm = try LabVM(
          VMConfiguration("e2e-peers") {
            $0.memory = .file()
            $0.hasAgent = true
            $0.agentOption = "path=\(home)/agent.sock,reconnect=1"
            $0.extraArguments = [
              "-chardev", "socket,id=events,path=\(home)/events.sock,reconnect=1", "-mon", "chardev=events,mode=control",
              "-monitor", "tcp:127.0.0.1:\(monitor.port)", "-chardev", "socket,id=console,path=\(home)/monitor.sock",
              "-mon", "chardev=console,mode=readline",
              // A host that is a name may mean any address.
              "-chardev", "socket,id=far,host=localhost,port=\(farWatcher.port),reconnect=1", "-mon", "chardev=far,mode=control",
              "-chardev", "socket,id=farcon,host=127.0.0.1,port=\(farConsole.port),reconnect=1", "-mon", "chardev=farcon,mode=readline",
            ]
          })
        defer { vm.end() }
        for peer in peers { try #require(peer.accepts(within: 5000)) }
        _ = try monitor.hear(until: "(qemu)")
        try agent.mustSync(1)

        func move(_ number: Int, _ version: String, _ body: () throws -> Void) throws {
          try body()
          try agent.mustSync(number)
          for peer in [monitor, console, farConsole] { try peer.mustAnswer("\(version)") }
          // A watcher hears that it is over with the old one, and only then has another connection.
          for watcher in [watcher, farWatcher] {
            _ = try watcher.hear(until: "never said")
            #expect(try watcher.accepts(within: 10_000) && watcher.hear(until: "\n").contains(version), "\(version)")
          }
          for peer in [agent, monitor, console, farConsole] { #expect(!peer.accepts(within: 0) && peer.connections.count == 1) }
        }
        try move(2, #""major": 11"#) { try vm.mustUpgrade(to: .v11_1, ["--hold"], strategy: "shared", outcome: "held") }
        try move(3, #""major": 7"#) { try vm.mustRollBack(to: .v7_2) }
        try move(4, #""major": 5"#) { try vm.mustUpgrade(to: .v5_2) }
        // The agent's peer is started anew: QEMU connects to the real path again, and that goes along as well.
        agent.end()
        let successor = try Peer(home + "/agent.sock")
        peers[0] = successor
        #expect(successor.accepts(within: 10_000))
        try successor.mustSync(5)
        // One that has gone is gone for the new QEMU, too: it waits as the old one did.
        for peer in [watcher, farConsole] { peer.end() }
        unlink(home + "/events.sock")
        try vm.mustUpgrade(to: .v10_0)
        try successor.mustSync(6)
        #expect(!successor.accepts(within: 0))
        let last = try Peer(home + "/events.sock")
        peers[1] = last
        let far = try Peer(port: farConsole.port)
        peers[5] = far
        try #require(far.accepts(within: 10_000))
        try far.mustAnswer("a port that was closed during an upgrade")
        #expect(try last.accepts(within: 10_000) && last.hear(until: "\n").contains(#""major": 10"#))
        vm.end()
      }
    }

    /// One QEMU has the guest and the connections then, and what was typed in between.
    @Test
    func `moult is killed around the exchange, and peers and the console's client do not notice`() throws {
      try leavingNothing {
        let home = VMConfiguration("e2e-killed-peers").home + "-peers"
        try FileManager.default.createDirectory(atPath: home, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: home) }
        let (console, monitor) = (try Peer(home + "/monitor.sock"), try Peer())
        defer { for peer in [console, monitor] { peer.end() } }
        let vm = try LabVM(
          VMConfiguration("e2e-killed-peers") {
            $0.memory = .file()
            $0.extraArguments = [
              "-chardev", "socket,id=console,path=\(home)/monitor.sock,reconnect=1", "-mon", "chardev=console,mode=readline",
              "-monitor", "tcp:127.0.0.1:\(monitor.port)",
            ]
          })
        defer { vm.end() }
        for peer in [console, monitor] { try #require(peer.accepts(within: 5000)) }
        for (record, killsGuardian) in [("launch.begin", true), ("rewire.begin", false), ("rewire.done", true), ("resume.begin", false), ("resume.begin", true)] {
          let version: QEMUVersion = try vm.version().hasPrefix("7.2") ? .v11_1 : .v7_2
          let old = try vm.pid()
          let upgrade = try TracedRun(moult: ["upgrade", "e2e-killed-peers"] + CrashRig.destination(version), of: vm)
          try upgrade.go(to: record)
          try upgrade.finishRecord()
          let start = vm.serial.count
          try vm.serial.send("echo at \(record)")
          usleep(20_000)  // Whoever has the connection reads.
          if killsGuardian {
            try upgrade.killAll()
            #expect(try run(moult: ["recover", "e2e-killed-peers"]).code == 0)
          } else {
            kill(upgrade.pid, SIGKILL)
            _ = try upgrade.wait()
          }
          try eventually("the guardian ends") { !Processes.all().contains { $0.arguments.contains("guard") && $0.arguments.contains { $0.hasPrefix("e2e-killed-peers-") } } }
          try eventually("one QEMU runs the guest after \(record)") { try vm.processes == [vm.pid()] && vm.status() == "running" }
          #expect((try vm.pid() == old) == ["launch.begin", "rewire.begin"].contains(record), "\(record)")
          try vm.ticks(3)
          #expect(vm.serial.lines(from: start).map(\.text).filter { $0.hasPrefix("echo ") } == ["echo at \(record)"])
          for peer in [console, monitor] { try peer.mustAnswer("\(record)") }
        }
        for peer in [console, monitor] { #expect(!peer.accepts(within: 0) && peer.connections.count == 1) }
        vm.end()
      }
    }

    /// QEMU's arguments, its first version, and the ones that it goes to. With `reconnect=` (since 8.0) it knows the path
    /// of its peer for good.
    static let networks: [(options: String, versions: [QEMUVersion])] = [
      ("", [.v7_2, .v11_1, .v10_0]), (",reconnect=1", [.v10_0, .v11_1]),
    ]

    @Test(.enabled(if: access("/usr/bin/passt", X_OK) == 0), arguments: networks)
    func `a guest's connections through passt go on`(options: String, versions: [QEMUVersion]) throws {
      let namespace = "moult-e2e-passt-\(getpid())"
      try succeed(["ip", "netns", "add", namespace])
      defer { _ = try? succeed(["ip", "netns", "delete", namespace]) }
      // Passt wants a way to the outside.
      for words in ["link set lo up", "link add br0 type bridge", "address add 10.97.0.1/24 dev br0", "link set br0 up", "route add default via 10.97.0.2"] {
        try succeed(["ip", "-n", namespace] + words.split(separator: " ").map(String.init))
      }
      try leavingNothing {
        let home = VMConfiguration("e2e-passt").home + "-peer"
        try FileManager.default.createDirectory(atPath: home, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: home) }
        func inNamespace(_ words: String...) throws -> ChildProcess { try ChildProcess(["ip", "netns", "exec", namespace] + words) }
        func passt() throws -> ChildProcess {
          // It ends with its first client.
          let process = try inNamespace(
            "passt", "-f", "-1", "-s", home + "/passt.sock", "-a", "10.98.1.2", "-n", "24", "-g", "10.98.1.1", "-t", "45997:7", "--runas", "0")
          try eventually("passt listens") { access(home + "/passt.sock", F_OK) == 0 }
          return process
        }
        var peer = try passt()
        defer { peer.signal(SIGKILL) }
        let vm = try LabVM(
          VMConfiguration("e2e-passt") {
            $0.version = versions[0]
            $0.memory = .file()
            $0.words = ["net=10.98.1.2/24"]
            $0.launcher = ["ip", "netns", "exec", namespace]
            $0.extraArguments = [
              "-netdev", "stream,id=n0,server=off,addr.type=unix,addr.path=\(home)/passt.sock\(options)", "-device", "virtio-net-pci,netdev=n0",
            ]
          })
        defer { vm.end() }
        // The first connection ends without an answer: passt does not know the guest yet. It would take ten seconds for that.
        func echoes() throws -> Bool {
          try inNamespace("sh", "-c", "echo hello | timeout 1 socat -t 1 - TCP:127.0.0.1:45997").wait(seconds: 40).stdout == "hello\n"
        }
        try eventually("the guest answers", within: 90) { try echoes() }
        try succeed(["sh", "-c", "head -c 12M /dev/urandom >\(home)/sent; : >\(home)/received"])
        // It ends when everything is back: this passt takes the guest's FIN for the end even if frames before it are missing
        // (`tcp_data_from_tap` in its tcp.c), and each move may lose one, which the guest sends again sooner or later.
        let size = 12 << 20
        let words = "{ cat \(home)/sent; until [ \"$(stat -c %s \(home)/received)\" = \(size) ]; do sleep 0.1; done; } | socat -t 60 - TCP:127.0.0.1:45997 >\(home)/received"
        let transfer = try inNamespace("sh", "-c", words)
        if options.isEmpty {
          try vm.mustUpgrade(to: versions[1], ["--hold"], strategy: "shared", outcome: "held")
          try vm.mustRollBack(to: versions[0])
        }
        try vm.mustUpgrade(to: versions[versions.count - 1])
        #expect(try transfer.wait(seconds: 120).code == 0)
        try succeed(["cmp", home + "/sent", home + "/received"])
        #expect(peer.isRunning)
        try eventually("the guest answers still", within: 90) { try echoes() }
        if options.isEmpty { return vm.end() }
        // Another one in its place is found under the real path.
        peer.signal(SIGKILL)
        // It had the forwarded port.
        try eventually("passt ends") { !peer.isRunning }
        unlink(home + "/passt.sock")
        peer = try passt()
        try eventually("the guest answers through the other passt", within: 90) { try echoes() }
        vm.end()
      }
    }
  }
}

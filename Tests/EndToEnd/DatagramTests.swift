import Foundation
import Glibc
import Lab
import Testing

extension EndToEnd {
  /// Sockets of UDP, and networks between QEMUs and other programs.
  @Suite struct Datagrams {
    /// A program on the guest's network that asks who has the guest's address (RFC 826).
    private final class Neighbour {
      let name: String
      private let socket: CInt
      private let target: (address: sockaddr_in, isStream: Bool)
      private let own: [UInt8]
      private static let guest: [UInt8] = [10, 98, 3, 2]
      private var unread: [UInt8] = []

      /// - Parameters:
      ///   - socket: connected, if frames go over a stream; else bound.
      ///   - number: the last one of its address, no other's.
      init(_ name: String, _ socket: CInt, sendsTo port: UInt16 = 0, _ host: UInt32 = 0x7f00_0001, isStream: Bool = false, number: UInt8) {
        (self.name, self.socket, target, own) = (name, socket, (Datagrams.address(port, host), isStream), [10, 98, 3, number])
        var time = timeval(tv_sec: 0, tv_usec: 200_000)
        setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &time, socklen_t(MemoryLayout<timeval>.size))
      }

      deinit { close(socket) }

      private var request: [UInt8] {
        let mac: [UInt8] = [2, 0, 0, 0, 0, own[3]]
        let body = [0, 1, 8, 0, 6, 4, 0, 1] + mac + own + [UInt8](repeating: 0, count: 6) + Self.guest
        return [UInt8](repeating: 0xff, count: 6) + mac + [8, 6] + body + [UInt8](repeating: 0, count: 18)
      }

      private func isAnswer(_ frame: [UInt8]) -> Bool {
        frame.count >= 42 && Array(frame[12..<14]) == [8, 6] && frame[21] == 2 && Array(frame[28..<32]) == Self.guest && Array(frame[38..<42]) == own
      }

      /// The next frame; nil if none comes for a while, or the connection has ended.
      private func next() -> [UInt8]? {
        var bytes = [UInt8](repeating: 0, count: 65536)
        while true {
          if target.isStream, unread.count >= 4 {
            let end = 4 + unread[..<4].reduce(0) { $0 << 8 | Int($1) }
            if unread.count >= end {
              defer { unread.removeFirst(end) }
              return Array(unread[4..<end])
            }
          }
          let count = recv(socket, &bytes, bytes.count, 0)
          if count <= 0 { return nil }
          if !target.isStream { return Array(bytes[..<count]) }
          unread += bytes[..<count]
        }
      }

      func isAnswered() -> Bool {
        let frame = target.isStream ? [0, 0, 0, UInt8(request.count)] + request : request
        if target.isStream {
          if Glibc.send(socket, frame, frame.count, CInt(MSG_NOSIGNAL)) != frame.count { return false }
        } else {
          Datagrams.send(frame, socket, target.address)
        }
        while let frame = next() { if isAnswer(frame) { return true } }
        return false
      }
    }

    fileprivate static func address(_ port: UInt16, _ host: UInt32 = 0x7f00_0001) -> sockaddr_in {
      var address = sockaddr_in()
      address.sin_family = sa_family_t(AF_INET)
      address.sin_port = port.bigEndian
      address.sin_addr.s_addr = host.bigEndian
      return address
    }

    private static func with(_ address: sockaddr_in, _ body: (UnsafePointer<sockaddr>, socklen_t) -> CInt) -> CInt {
      var address = address
      return withUnsafePointer(to: &address) { $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, socklen_t(MemoryLayout<sockaddr_in>.size)) } }
    }

    fileprivate static func send(_ bytes: [UInt8], _ socket: CInt, _ address: sockaddr_in) {
      _ = with(address) { CInt(sendto(socket, bytes, bytes.count, 0, $0, $1)) }
    }

    private static func bound(_ port: UInt16, _ host: UInt32 = 0x7f00_0001, isShared: Bool = false) throws -> CInt {
      let descriptor = socket(AF_INET, CInt(SOCK_DGRAM.rawValue) | CInt(SOCK_CLOEXEC.rawValue), 0)
      var on = CInt(isShared ? 1 : 0)
      setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &on, socklen_t(MemoryLayout<CInt>.size))
      guard with(address(port, host), { bind(descriptor, $0, $1) }) == 0 else { throw LabFailure("bind \(port): errno \(errno)") }
      return descriptor
    }

    private static func member(_ port: UInt16, of group: UInt32) throws -> CInt {
      let descriptor = try bound(port, group, isShared: true)
      var request = ip_mreq(imr_multiaddr: in_addr(s_addr: group.bigEndian), imr_interface: in_addr(s_addr: UInt32(0x7f00_0001).bigEndian))
      let joined = setsockopt(descriptor, CInt(IPPROTO_IP), IP_ADD_MEMBERSHIP, &request, socklen_t(MemoryLayout<ip_mreq>.size))
      let chosen = setsockopt(descriptor, CInt(IPPROTO_IP), IP_MULTICAST_IF, &request.imr_interface, socklen_t(MemoryLayout<in_addr>.size))
      if joined != 0 || chosen != 0 { throw LabFailure("join a group: errno \(errno)") }
      return descriptor
    }

    static func connected(_ port: UInt16, _ type: CInt = CInt(SOCK_STREAM.rawValue)) throws -> CInt {
      let descriptor = socket(AF_INET, type | CInt(SOCK_CLOEXEC.rawValue), 0)
      guard with(address(port), { connect(descriptor, $0, $1) }) == 0 else { throw LabFailure("connect to \(port): errno \(errno)") }
      return descriptor
    }

    /// Whoever has the port sends a datagram back.
    static func mustComeBack(_ socket: CInt, _ word: String) throws {
      try eventually("the datagram \(word) comes back", within: 20) {
        var time = timeval(tv_sec: 0, tv_usec: 300_000)
        setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &time, socklen_t(MemoryLayout<timeval>.size))
        Glibc.send(socket, word, word.utf8.count, 0)
        var bytes = [UInt8](repeating: 0, count: 100)
        while case let count = recv(socket, &bytes, bytes.count, 0), count > 0 {
          if String(decoding: bytes[..<count], as: UTF8.self) == word { return true }
        }
        return false
      }
    }

    /// The human monitor answers a datagram from this socket.
    private static func mustAnswer(_ socket: CInt, _ target: sockaddr_in, _ what: String) throws {
      var time = timeval(tv_sec: 1, tv_usec: 0)
      setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &time, socklen_t(MemoryLayout<timeval>.size))
      try eventually(what, within: 20) {
        send(Array("info status\n".utf8), socket, target)
        var bytes = [UInt8](repeating: 0, count: 4096)
        while case let count = recv(socket, &bytes, bytes.count, 0), count > 0 {
          if String(decoding: bytes[..<count], as: UTF8.self).contains("VM status: running") { return true }
        }
        return false
      }
    }

    @Test
    func `UDP, and networks over sockets, go along`() throws {
      let ports = LoopbackSocket.freePorts(9)
      let group: UInt32 = 0xe600_0007
      try leavingNothing {
        let networks = [
          "dgram,local.type=inet,local.host=127.0.0.1,local.port=\(ports[0]),remote.type=inet,remote.host=127.0.0.1,remote.port=\(ports[1])",
          "socket,udp=127.0.0.1:\(ports[2]),localaddr=127.0.0.1:\(ports[3])", "socket,mcast=230.0.0.7:\(ports[4]),localaddr=127.0.0.1",
          "stream,server=on,addr.type=inet,addr.host=127.0.0.1,addr.port=\(ports[5])",
        ]
        // The kernel chooses the second one's port.
        let (sender, asker) = (try Self.bound(ports[6]), try Self.bound(ports[7]))
        defer { for descriptor in [sender, asker] { close(descriptor) } }
        let vm = try LabVM(
          VMConfiguration("e2e-datagrams") {
            $0.memory = .file()
            $0.words = ["net=10.98.3.2/24"]
            // All of them in one hub, with the guest's card.
            $0.extraArguments = ["-netdev", "hubport,hubid=0,id=hub", "-device", "virtio-net-pci,netdev=hub"]
            for (number, network) in networks.enumerated() {
              $0.extraArguments += ["-netdev", "\(network),id=n\(number)", "-netdev", "hubport,hubid=0,id=h\(number),netdev=n\(number)"]
            }
            $0.extraArguments += ["-monitor", "udp:127.0.0.1:\(ports[6])@127.0.0.1:\(ports[8])", "-monitor", "udp:127.0.0.1:\(ports[7])"]
          })
        defer { vm.end() }
        let neighbours = [
          Neighbour("dgram", try Self.bound(ports[1]), sendsTo: ports[0], number: 11), Neighbour("socket", try Self.bound(ports[2]), sendsTo: ports[3], number: 12),
          Neighbour("multicast", try Self.member(ports[4], of: group), sendsTo: ports[4], group, number: 13),
          Neighbour("stream", try Self.connected(ports[5]), isStream: true, number: 14),
        ]
        let own = try #require(
          try succeed(["ss", "-Huanp"]).split(separator: "\n").first { $0.contains("127.0.0.1:\(ports[7]) ") && $0.contains("qemu") }?
            .split(separator: " ").first { $0.hasPrefix("127.0.0.1:") && !$0.hasSuffix(":\(ports[7])") })
        let chosen = try #require(UInt16(own.split(separator: ":")[1]))
        func mustGoOn(_ version: String) throws {
          for neighbour in neighbours {
            try eventually("the guest answers over \(neighbour.name) in \(version)", within: 30) { neighbour.isAnswered() }
          }
          try Self.mustAnswer(sender, Self.address(ports[8]), "the monitor in \(version)")
          try Self.mustAnswer(asker, Self.address(chosen), "the monitor at its own port in \(version)")
        }
        try mustGoOn("7.2")
        for version in [QEMUVersion.v11_1, .v7_2] {
          try vm.mustUpgrade(to: version)
          try mustGoOn("\(version)")
        }
        vm.end()
      }
    }
  }
}

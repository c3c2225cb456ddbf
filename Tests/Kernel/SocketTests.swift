import Glibc
import SystemPackage
import Testing

@testable import Kernel

/// A directory for one test, which removes what it is told of when it ends.
func withTemporaryDirectory<Result>(_ body: (String) throws -> Result) throws -> Result {
  var template = Array("/tmp/moult-test-XXXXXX".utf8CString)
  let path = try #require(mkdtemp(&template).map { String(cString: $0) })
  defer { removeTree(path) }
  return try body(path)
}

func removeTree(_ path: String) {
  if let names = try? Files.names(in: path), (try? Files.status(path, noFollow: true))?.isDirectory == true {
    for name in names { removeTree(path + "/" + name) }
    rmdir(path)
  } else {
    unlink(path)
  }
}

@Suite struct SocketTests {
  @Test(arguments: [0, 150])
  func connectsToPathsOfAnyLength(padding: Int) throws {
    try withTemporaryDirectory { directory in
      // A listener cannot be bound to a long path directly, but its directory can be renamed to one.
      let short = directory + "/d"
      mkdir(short, 0o700)
      let listener = try UnixSocket.listen(short + "/s")
      var place = short
      if padding > 0 {
        place = directory + "/" + String(repeating: "x", count: padding)
        try Exchange.move(short, to: place)
      }
      let client = try UnixSocket.connect(place + "/s")
      let server = try UnixSocket.accept(listener.raw)
      #expect(try UnixSocket.peerCredentials(client.raw) == PeerCredentials(pid: getpid(), user: getuid(), group: getgid()))
      try UnixMessage.send([1, 2, 3], to: client.raw)
      #expect(try UnixSocket.receive(over: server.raw).bytes == [1, 2, 3])
    }
  }

  @Test func aFullQueueTimesOut() throws {
    try withTemporaryDirectory { directory in
      let listener = try UnixSocket.listen(directory + "/s", backlog: 0)
      let first = try UnixSocket.connect(directory + "/s")
      #expect {
        _ = try UnixSocket.connect(directory + "/s", timeoutMilliseconds: 50)
      } throws: {
        ($0 as? Failure)?.errno == .timedOut
      }
      _ = first.raw + listener.raw
    }
  }

  private static func impatientPair() throws -> SocketPair {
    let pair = try UnixSocket.pair()
    for descriptor in [pair.first.raw, pair.second.raw] { #expect(fcntl(descriptor, F_SETFL, O_NONBLOCK) == 0) }
    return pair
  }

  /// The two ends of a connection that nobody waits at.
  static func connection(overTCP: Bool) throws -> SocketPair {
    if !overTCP { return try impatientPair() }
    let listener = OwnedFD(socket(AF_INET, CInt(SOCK_STREAM.rawValue), 0))
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
    var size = socklen_t(MemoryLayout<sockaddr_in>.size)
    let raw = listener.raw
    withUnsafeMutablePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        _ = bind(raw, $0, size) + listen(raw, 1) + getsockname(raw, $0, &size)
      }
    }
    let client = try LoopbackConnection(to: UInt16(bigEndian: address.sin_port), isIPv6: false).socket.duplicate()
    return SocketPair(first: try UnixSocket.accept(listener.raw), second: client)
  }

  @Test(arguments: [false, true]) func whatIsPassedOnGetsBehindAllThatAClientHasNotRead(overTCP: Bool) throws {
    let words = try Self.impatientPair(), client = try Self.connection(overTCP: overTCP)
    let (first, second, mouth, ear) = (client.first.raw, client.second.raw, words.first.raw, words.second.raw)
    func limit() -> CInt {
      var bytes: CInt = 0
      var size = socklen_t(MemoryLayout<CInt>.size)
      getsockopt(first, SOL_SOCKET, SO_SNDBUF, &bytes, &size)
      return bytes
    }
    func say(_ byte: UInt8, on socket: CInt) -> Int {
      let bytes = [UInt8](repeating: byte, count: 1000)
      var total = 0
      while true {
        let count = send(socket, bytes, bytes.count, CInt(MSG_DONTWAIT))
        if count < 0 { return total }
        total += count
      }
    }
    let before = say(1, on: first), had = limit(), after = say(2, on: mouth)
    try StreamSocket.passOn(from: ear, to: first)
    #expect(limit() == had)
    var heard: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 65536)
    while heard.count < before + after {
      let count = recv(second, &chunk, chunk.count, 0)
      if count < 0, errno == EAGAIN { continue }
      if count <= 0 { break }
      heard += chunk[..<count]
    }
    #expect(heard == [UInt8](repeating: 1, count: before) + [UInt8](repeating: 2, count: after))
    // Nothing is there any more, and a client that has gone takes nothing.
    try StreamSocket.passOn(from: ear, to: first)
    shutdown(second, CInt(SHUT_RDWR))
    _ = say(3, on: mouth)
    try StreamSocket.passOn(from: ear, to: first)
    _ = client.first.raw + words.first.raw
  }

  @Test func whatCannotBePassedOnIsThereStill() throws {
    let words = try UnixSocket.pair()
    let (mouth, ear) = (words.first.raw, words.second.raw)
    let null = try OwnedFD.open("/dev/null", O_WRONLY)
    #expect(send(mouth, [1, 2, 3] as [UInt8], 3, 0) == 3)
    #expect(throws: Failure.self) { try StreamSocket.passOn(from: ear, to: null.raw) }
    #expect(try SocketQueue.peek(ear) == [1, 2, 3])
    try StreamSocket.passOn(from: ear, to: nil)
    #expect(try SocketQueue.peek(ear) == [])
    _ = words.first.raw + words.second.raw
  }

  @Test func nobodyListens() throws {
    #expect {
      _ = try UnixSocket.connect("/nowhere/s")
    } throws: {
      "\($0)" == "connect to /nowhere/s: No such file or directory"
    }
  }

  @Test func descriptorsTravel() throws {
    let pair = try UnixSocket.pair()
    let null = try OwnedFD.open("/dev/null", O_RDONLY)
    try UnixMessage.send([42], descriptor: null.raw, to: pair.first.raw)
    let (bytes, descriptors) = try UnixSocket.receive(over: pair.second.raw)
    #expect(bytes == [42])
    let received = OwnedFD(try #require(descriptors.first))
    #expect(try Files.link(received.procPath) == "/dev/null")
    #expect(fcntl(received.raw, F_GETFD) == FD_CLOEXEC)
  }
}

@Suite struct VsockTableTests {
  /// vsock_diag_msg: family, type, state, shutdown; both ends, the inode, a cookie.
  static func socket(_ state: UInt8, to cid: UInt32, inode: UInt32 = 7) -> [UInt8] {
    var bytes: [UInt8] = [40, 1, state, 0]
    for number in [UInt32.max, 5000, cid, 9, inode, 0, 0] { withUnsafeBytes(of: number) { bytes += $0 } }
    return bytes
  }

  /// Listening, closed by its user but not yet by the other end, another guest's, cut off.
  @Test func thoseOfAGuestThatAreOpen() {
    let sockets = [
      Self.socket(1, to: 3), Self.socket(1, to: 3), Self.socket(10, to: 3), Self.socket(1, to: 3, inode: 0), Self.socket(1, to: 4), [], [40, 1, 1],
    ]
    #expect(VhostVsock.count(sockets, with: 3) == 2 && VhostVsock.count(sockets, with: 5) == 0)
  }
}

@Suite struct UnixSocketTableTests {
  @Test func goldenPacket() throws {
    var packet: [UInt8] = []
    func u16(_ value: UInt16) { withUnsafeBytes(of: value) { packet += $0 } }
    func u32(_ value: UInt32) { withUnsafeBytes(of: value) { packet += $0 } }
    u32(16 + 16 + 12 + 12 + 12 + 8)  // nlmsghdr: length
    u16(20); u16(2); u32(1); u32(0)
    packet += [1, 1, 10, 0]; u32(12345); u32(1); u32(0)  // unix_diag_msg: stream, listening
    u16(11); u16(0); packet += Array("/run/s\0".utf8) + [0]  // name, padded
    u16(12); u16(1); u32(77); u32(254 << 20 | 3)  // file
    u16(12); u16(4); u32(2); u32(128)  // queues
    u16(8); u16(2); u32(99)  // peer
    u32(20); u16(3); u16(2); u32(1); u32(0); u32(0)  // the end
    let (entries, done) = try UnixSocketTable.parse(packet[...])
    #expect(done)
    #expect(
      entries == [
        UnixSocketEntry(
          inode: 12345, type: 1, state: .listening, path: "/run/s", fileInode: 77,
          fileDevice: DeviceNumber.make(major: 254, minor: 3), peerInode: 99, receiveQueue: 2, sendQueue: 128)
      ])
  }

  @Test func anErrorAnswerIsAFailure() {
    var packet: [UInt8] = []
    for value in [UInt32(20), 2, 1, 0, UInt32(bitPattern: -EPERM)] { withUnsafeBytes(of: value) { packet += $0 } }
    #expect {
      try UnixSocketTable.parse(packet[...])
    } throws: { ($0 as? Failure)?.errno == .notPermitted }
  }

  @Test(arguments: 0..<40)
  func cutPacketsDoNotCrash(length: Int) throws {
    var packet = [UInt8](repeating: 0, count: length)
    if length > 0 { packet[0] = 200 }
    if length > 4 { packet[4] = 20 }
    #expect(try UnixSocketTable.parse(packet[...]).entries.isEmpty)
  }

  @Test func findsAListenerByItsFile() throws {
    try withTemporaryDirectory { directory in
      let path = directory + "/s"
      let listener = try UnixSocket.listen(path, backlog: 5)
      let client = try UnixSocket.connect(path)
      let file = try Files.status(path)
      let entry = try #require(try UnixSocketTable.read().first { $0.state == .listening && $0.isBound(to: file) })
      #expect(entry.path == path)
      #expect(entry.inode == (try Files.status(of: listener.raw)).inode)
      #expect(entry.receiveQueue == 1)
      _ = client.raw
    }
  }
}

@Suite struct ExchangeTests {
  func fill(_ path: String, _ text: String) throws {
    _ = try OwnedFD.open(path, O_CREAT | O_WRONLY, mode: 0o600)
    try Files.write(text, to: path)
  }

  @Test func namesAreExchanged() throws {
    try withTemporaryDirectory { directory in
      try fill(directory + "/a", "A")
      try fill(directory + "/b", "B")
      try Exchange.names(directory + "/a", directory + "/b")
      #expect(try Files.readText(directory + "/a") == "B")
      let open = try OwnedFD.naming(directory)
      try Exchange.names("a", in: open.raw, with: "b", in: open.raw)
      #expect(try Files.readText(directory + "/a") == "A")
    }
  }

  @Test func aTakenNameIsNotOverwritten() throws {
    try withTemporaryDirectory { directory in
      try fill(directory + "/a", "A")
      try fill(directory + "/b", "B")
      #expect {
        try Exchange.move(directory + "/a", to: directory + "/b")
      } throws: { ($0 as? Failure)?.errno == .fileExists }
      try Exchange.move(directory + "/a", to: directory + "/c")
      #expect(try Files.readText(directory + "/c") == "A")
    }
  }

  @Test func exchangeNeedsBoth() {
    #expect {
      try Exchange.names("/nowhere/a", "/nowhere/b")
    } throws: {
      "\($0)" == "exchange names /nowhere/a and /nowhere/b: No such file or directory"
    }
  }
}

@Suite struct MountViewTests {
  private static func mounts(_ text: String) -> [MountInfo] { MountInfo.parse(text) }
  private static let host = "27 1 254:0 / / rw - ext4 /dev/vda rw\n30 27 0:5 / /srv/share/sub rw,nosuid - tmpfs t rw\n31 27 0:6 / /srv/shared rw - tmpfs t rw"

  /// What virtiofsd sees of /srv/share in its sandbox, and whether that is what the host has there.
  @Test(arguments: [
    ("66 42 254:0 /srv/share / rw - ext4 /dev/vda rw\n67 66 0:5 / /sub rw,nosuid - tmpfs t rw", true),
    ("66 42 254:0 /srv/share / ro - ext4 /dev/vda rw\n67 66 0:5 / /sub rw,nosuid - tmpfs t rw", false),
    ("66 42 254:0 /srv/share / rw - ext4 /dev/vda rw", false), ("66 42 254:0 /srv/other / rw - ext4 /dev/vda rw\n67 66 0:5 / /sub rw,nosuid - tmpfs t rw", false),
    ("66 42 254:0 /srv/share / rw - ext4 /dev/vda rw\n67 66 0:9 / /sub rw,nosuid - tmpfs t rw", false), ("", false),
  ])
  func aSandboxSeesTheSame(mounts: String, isSame: Bool) {
    #expect((MountInfo.view(of: "/", in: Self.mounts(mounts)) == MountInfo.view(of: "/srv/share", in: Self.mounts(Self.host))) == isSame)
  }

  @Test func theHostIsSeenAsItIs() {
    let host = Self.mounts(Self.host)
    #expect(MountInfo.view(of: "/srv/share", in: host).count == 2 && MountInfo.view(of: "/srv/shared", in: host).count == 1)
    #expect(MountInfo.view(of: "/srv/shared", in: host) == MountInfo.view(of: "/", in: Self.mounts("1 0 0:6 / / rw - tmpfs t rw")))
  }
}

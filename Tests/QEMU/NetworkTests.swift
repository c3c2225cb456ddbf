import Testing

@testable import QEMU

@Suite struct NetworkTests {
  struct Case: Sendable, CustomTestStringConvertible {
    var words: [String]
    /// Each as `purpose name`, with ` raw` behind it where bytes go through as they are.
    var endpoints: [String]
    var substituted: [String]
    init(_ words: String, _ endpoints: [String], _ substituted: String? = nil) {
      self.words = words.split(separator: " ").map(String.init)
      self.endpoints = endpoints
      self.substituted = (substituted ?? words).split(separator: " ").map(String.init)
    }
    var testDescription: String { words.joined(separator: " ") }
  }

  static let cases = [
    // Nothing of the network namespace.
    Case("-vnc none -vnc unix:/run/v -serial null -chardev socket,id=a,host=h,port=5 -qmp tcp:h:5,server=off", []),
    Case("-vnc 127.0.0.1:1,reverse=on -spice port=0,tls-port=x -spice unix=on,port=5,addr=/s -serial tcp:h:0,server=on", []),
    Case("-chardev socket,id=moult-control,fd=3,server=on -display gtk -gdb none", []),
    Case("-serial unix:/run/s,server=on,wait=off", ["serial /run/s raw"]),
    Case("-qmp unix:/run/q,server,nowait", ["qmp /run/q"]),
    // Ports. A listener waits for its client unless it is told not to, which would hold the twin up.
    Case("-serial tcp:127.0.0.1:4444,server", ["serial port 4444 raw"], "-serial tcp:127.0.0.1:7000,server,wait=off"),
    Case("-serial mon:tcp:[::1]:44,server=on,wait=off", ["serial port 44 raw"], "-serial mon:tcp:[::1]:7000,server=on,wait=off"),
    Case("-serial telnet::44,server=on,wait=off", ["serial port 44"], "-serial telnet::7000,server=on,wait=off"),
    Case("-monitor tcp::44,server=on,wait=off,to=50", ["monitor ports 44 to 50 raw"], "-monitor tcp::7000,server=on,wait=off"),
    Case("-qmp tcp:0.0.0.0:44,server=on,wait=off", ["qmp port 44"], "-qmp tcp:0.0.0.0:7000,server=on,wait=off"),
    Case(
      "-chardev socket,id=a,host=::,port=44,server=on,wait=off,to=46,ipv6=on", ["chardev a ports 44 to 46 raw"],
      "-chardev socket,id=a,host=::,port=7000,server=on,wait=off,ipv6=on"),
    Case(
      "-chardev socket,id=a,port=44,host=,server=on,websocket=on", ["chardev a port 44"],
      "-chardev socket,id=a,port=7000,host=,server=on,websocket=on,wait=off"),
    Case(
      "-chardev socket,id=a,port=44,host=,server=on,wait=off -mon chardev=a,mode=control", ["chardev a port 44"],
      "-chardev socket,id=a,port=7000,host=,server=on,wait=off -mon chardev=a,mode=control"),
    Case("-s", ["gdb port 1234"], "-gdb tcp::7000"),
    Case("-gdb tcp:localhost:99", ["gdb port 99"], "-gdb tcp:localhost:7000"),
    // VNC counts displays.
    Case("-vnc :7", ["vnc port 5907"], "-vnc :1100"),
    Case("-vnc [::1]:7,password=on,to=9", ["vnc ports 5907 to 5916"], "-vnc [::1]:1100,password=on"),
    Case("-vnc 127.0.0.1:7,websocket=on", ["vnc port 5907", "vnc websocket port 5707"], "-vnc 127.0.0.1:1100,websocket=7001"),
    Case("-vnc h:7,websocket=h2:80", ["vnc port 5907", "vnc websocket port 80"], "-vnc h:1100,websocket=h2:7001"),
    Case("-vnc :7,websocket=off", ["vnc port 5907"], "-vnc :1100,websocket=off"),
    Case("-display vnc=:7", ["vnc port 5907"], "-display vnc=:1100"),
    Case("-spice port=44,addr=::1,disable-ticketing=on", ["spice port 44"], "-spice port=7000,addr=::1,disable-ticketing=on"),
    Case("-spice tls-port=45,port=0,addr=h", ["spice over TLS port 45"], "-spice tls-port=7000,port=0,addr=h"),
    Case("-spice port=44,tls-port=45", ["spice port 44", "spice over TLS port 45"], "-spice port=7000,tls-port=7001"),
    // Who takes part in a protocol is in one QEMU's memory.
    Case("-chardev socket,id=a,path=/a,server=on -device usb-redir,chardev=a", ["chardev a /a"]),
    Case("-chardev socket,id=a,path=/a,server=on -gdb chardev:a", ["chardev a /a"]),
    Case("-chardev socket,id=a,path=/a,server=on -object rng-egd,id=r,chardev=a", ["chardev a /a"]),
    Case("-chardev socket,id=a,path=/a,server=on -device virtserialport,chardev=a -mon chardev=a", ["chardev a /a raw"]),
    // Ports of the host that are forwarded to the guest.
    Case("-netdev user,id=u,restrict=on -nic user -nic none -netdev tap,id=t,ifname=x,hostfwd=tcp::1-:1", []),
    Case(
      "-netdev user,id=u,hostfwd=tcp::2222-:22,net=10.0.3.0/24,hostfwd=udp:127.0.0.1:53-10.0.3.9:53",
      ["hostfwd port 2222", "hostfwd UDP port 53"],
      "-netdev user,id=u,hostfwd=tcp::7000-:22,net=10.0.3.0/24,hostfwd=udp:127.0.0.1:7001-10.0.3.9:53"),
    Case("-nic hostfwd=::80-:80", ["hostfwd port 80"], "-nic hostfwd=tcp::7000-:80"),
    Case("-net nic -net user,hostfwd=tcp::80-:80", ["hostfwd port 80"], "-net nic -net user,hostfwd=tcp::7000-:80"),
    Case(
      #"-netdev {"type":"user","id":"u","hostfwd":[{"str":"tcp::1-:1"},{"str":"tcp:10.0.0.1:2-:2"}]}"#, ["hostfwd port 1", "hostfwd port 2"],
      #"-netdev {"type":"user","id":"u","hostfwd":[{"str":"tcp::7000-:1"},{"str":"tcp:10.0.0.1:7001-:2"}]}"#),
    // Datagrams: the port of its own that QEMU has, or the other's, if the kernel chose.
    Case("-chardev udp,id=a,host=h,port=5,localaddr=::1,localport=6", ["chardev a UDP port 6"], "-chardev udp,id=a,host=h,port=5,localaddr=::1,localport=7000"),
    Case("-chardev udp,id=a,host=,port=5,localaddr=,localport=0", ["chardev a UDP from port 5"], "-chardev udp,id=a,host=,port=5,localaddr=,localport=7000"),
    Case("-chardev udp,id=a,port=5", ["chardev a UDP from port 5"], "-chardev udp,id=a,port=5,localport=7000"),
    Case("-chardev udp,id=a,port=http -serial udp:h:0 -serial udp:h", []),
    Case("-serial udp:h:5@l:6", ["serial UDP port 6"], "-serial udp:h:5@l:7000"),
    Case("-serial mon:udp::5", ["serial UDP from port 5"], "-serial mon:udp::5@:7000"),
    // Networks over sockets.
    Case("-netdev socket,id=n,udp=1.2.3.4:5,localaddr=:6", ["network n UDP port 6"], "-netdev socket,id=n,udp=1.2.3.4:5,localaddr=:7000"),
    Case("-netdev socket,id=n,mcast=230.0.0.1:5,localaddr=h", ["network n UDP group 230.0.0.1:5"]),
    Case("-netdev socket,id=n,mcast=1.2.3.4:5 -netdev socket,id=m,udp=h:1 -netdev socket,id=o,listen=:3 -netdev socket,id=p,fd=3", []),
    Case(
      "-netdev dgram,id=n,local.type=inet,local.host=h,local.port=6,remote.type=inet,remote.host=h,remote.port=5", ["network n UDP port 6"],
      "-netdev dgram,id=n,local.type=inet,local.host=h,local.port=7000,remote.type=inet,remote.host=h,remote.port=5"),
    Case(
      #"-netdev {"type":"dgram","id":"n","local":{"type":"inet","host":"h","port":"6"},"remote":{"type":"inet","host":"h","port":"5"}}"#, ["network n UDP port 6"],
      #"-netdev {"type":"dgram","id":"n","local":{"type":"inet","host":"h","port":"7000"},"remote":{"type":"inet","host":"h","port":"5"}}"#),
    Case(
      "-netdev dgram,id=n,remote.type=inet,remote.host=239.1.1.1,remote.port=5,local.type=inet,local.host=h,local.port=0", ["network n UDP group 239.1.1.1:5"]),
    Case("-netdev dgram,id=n,local.type=unix,local.path=/a,remote.type=unix,remote.path=/b -netdev dgram,id=m,local.type=fd,local.str=3", []),
    Case("-netdev stream,id=n,server=on,addr.type=inet,addr.host=h,addr.port=5", ["network n port 5 raw"], "-netdev stream,id=n,server=on,addr.type=inet,addr.host=h,addr.port=7000"),
    Case("-netdev stream,id=n,server=on,addr.type=unix,addr.path=/p", ["network n /p raw"]),
    Case("-netdev stream,id=n,server=on,addr.type=unix,addr.path=p,addr.abstract=on -netdev stream,id=m,server=on,addr.type=inet,addr.host=h,addr.port=5,addr.to=7", []),
    // Which sockets these are cannot be told.
    Case("-netdev user,id=u,hostfwd=tcp::0-:22,hostfwd=tcp:host:1-:1,hostfwd=unix:/a-:22,hostfwd=tcp:22,hostfwd=tcp::http-:80", []),
    // Abstract names.
    Case(
      "-chardev socket,id=a,path=x,abstract=on,server=on,wait=off", ["chardev a @x raw"],
      "-chardev socket,id=a,path=n0,abstract=on,server=on,wait=off"),
  ]

  @Test(arguments: cases) func listenersAreFoundAndReplaced(_ item: Case) {
    let line = CommandLine(argv: ["qemu"] + item.words)
    let endpoints = line.networkEndpoints
    #expect(endpoints.map { "\($0.purpose) \($0.text)\($0.isRaw ? " raw" : "")" } == item.endpoints)
    var substitution = NetworkSubstitution()
    for (index, endpoint) in endpoints.enumerated() {
      switch endpoint.name {
      case .port, .datagrams, .datagramsFrom: substitution.ports[.init(endpoint)] = 7000 + UInt16(index)
      case .abstract: substitution.abstractNames[.init(endpoint)] = "n\(index)"
      case .path, .multicast: break
      }
    }
    #expect(substitution.applied(to: line).argv == ["qemu"] + item.substituted)
    #expect(NetworkSubstitution().applied(to: line) == line)
  }

  @Test func twinsMustSendToTheSameAddresses() {
    let lines = [
      ("n: index=0,type=tap,ifname=t0", ""), ("n: index=0,type=stream,", ""), ("n: index=0,type=socket,socket: udp=127.0.0.1:7", "socket: udp=127.0.0.1:7"),
      (" \\ h0: n: index=0,type=dgram,udp=127.0.0.1:6/127.0.0.1:7", "127.0.0.1:7"), ("n: index=0,type=dgram,mcast=230.0.0.1:7", "mcast=230.0.0.1:7"),
    ]
    for (line, comparable) in lines { #expect(Rebuilding.Network(line[...])?.comparableSettings == comparable, "\(line)") }
  }

  @Test func whatIsForwardedNowIsReadFromTheMonitor() {
    let text = """
      Hub -1 (u):\r
        Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r
        TCP[HOST_FORWARD]  12               *  2222       10.0.2.15    22     0     0\r
        TCP[ESTABLISHED]   25       10.0.2.15 34222       192.0.2.1    80     0     0\r
        UDP[HOST_FORWARD]  13       127.0.0.1    53       10.0.2.15    53     0     0\r
        UDP[236 sec]       26       10.0.2.15 52000        10.0.2.3    53     0     0\r
      """
    #expect(LiveMachine.forwards(text) == ["port 2222", "UDP port 53"])
    #expect(LiveMachine.forwards("unknown command: 'info usernet'") == [])
  }

  /// Words of a tap, and what would run when it goes.
  static let downscripts: [(String, String?)] = [
    ("tap,id=n", "/etc/qemu-ifdown"), ("tap,id=n,downscript=/x", "/x"), ("tap,id=n,downscript=no", nil), ("tap,id=n,script=no", "/etc/qemu-ifdown"),
    ("tap,id=n,fd=3", nil), ("bridge,id=n", nil), ("tap,id=n,helper=/h", nil),
  ]

  @Test(arguments: downscripts) func aTapsLastScript(words: String, script: String?) {
    let line = CommandLine(argv: ["qemu", "-netdev", words])
    #expect(line.downscript(line.taps[0]) == script)
  }

  static let taps: [(String, String)] = [
    ("-netdev tap,id=n,ifname=tap0,script=no,downscript=no", "-netdev tap,id=n,fd=20"),
    ("-netdev tap,id=n,ifname=t,queues=2,sndbuf=0", "-netdev tap,id=n,sndbuf=0,fds=20:21"),
    ("-netdev tap,id=n,fd=33,vhost=off", "-netdev tap,id=n,vhost=off,fd=20"),
    ("-netdev tap,id=n,fds=33:34", "-netdev tap,id=n,fds=20:21"),
    ("-netdev bridge,id=n,br=br1", "-netdev tap,id=n,fd=20"),
    ("-netdev tap,id=n,helper=/usr/lib/h,br=b", "-netdev tap,id=n,fd=20"),
    ("-nic tap,model=e1000,vnet_hdr=off", "-nic tap,model=e1000,fd=20"),
    ("-net nic -net tap,script=/etc/x", "-net nic -net tap,fd=20"),
    (#"-netdev {"type":"tap","id":"n","ifname":"t"}"#, #"-netdev {"type":"tap","id":"n","fd":"20"}"#),
    // Those that the kernel serves, or is to serve.
    ("-netdev tap,id=n,ifname=t,vhost=on", "-netdev tap,id=n,vhost=on,fd=20,vhostfd=30"),
    ("-netdev tap,id=n,fd=33,vhostfd=34", "-netdev tap,id=n,fd=20,vhost=on,vhostfd=30"),
    ("-netdev tap,id=n,fds=3:4,vhost=on,vhostfds=5:6", "-netdev tap,id=n,vhost=on,fds=20:21,vhostfds=30:31"),
    ("-netdev tap,id=n,queues=2,ifname=t,vhostforce=on", "-netdev tap,id=n,vhostforce=on,fds=20:21,vhost=on,vhostfds=30:31"),
    ("-netdev tap,id=none,ifname=t,vhost=on,vhostforce=on", "-netdev tap,id=none,vhost=off,fd=20"),
    ("-netdev tap,id=n,ifname=t,vhost=off,vhostfd=9", "-netdev tap,id=n,vhost=off,fd=20"),
    ("-netdev user,id=n -netdev socket,id=m,fd=3", "-netdev user,id=n -netdev socket,id=m,fd=3"),
  ]

  @Test(arguments: taps) func tapsAreGivenByDescriptor(before: String, after: String) {
    let line = CommandLine(argv: ("-S " + before).split(separator: " ").map(String.init))
    var substitution = NetworkSubstitution()
    for tap in line.taps {
      substitution.taps[tap.option] = (0..<tap.queues).map { 20 + Int32($0) }
      if tap.wantsVhost { substitution.vhosts[tap.option] = tap.id == "none" ? [] : (0..<tap.queues).map { 30 + Int32($0) } }
    }
    #expect(substitution.applied(to: line).argv.joined(separator: " ") == "-S " + after)
  }

  /// What QEMU connects to: peer, raw or not, what becomes of the words when another address stands in.
  static let outgoing: [(words: String, found: [String], substituted: String?)] = [
    ("-chardev socket,id=a,path=/p", ["/p a raw 0"], "-chardev socket,id=a,path=s0,abstract=on"),
    ("-chardev socket,id=a,path=p,abstract=on,tight=off", ["@p a raw 0"], "-chardev socket,id=a,path=s0,abstract=on"),
    ("-chardev socket,id=a,host=h,port=44,ipv6=on", ["h:44 a raw 0"], "-chardev socket,id=a,host=127.0.0.1,port=7000"),
    ("-serial tcp:[::1]:44", ["[::1]:44 serial0 raw 0"], "-serial tcp:127.0.0.1:7000"),
    ("-serial mon:unix:/p", ["/p serial0 raw 0"], "-serial mon:unix:s0,abstract=on"),
    ("-qmp tcp:h:44", ["h:44 compat_monitor0 0"], nil),
    ("-chardev socket,id=a,path=/p,reconnect=2 -mon chardev=a,mode=control", ["/p a 2000"], nil),
    ("-chardev socket,id=a,path=/p,reconnect-ms=1500,server=off", ["/p a raw 1500"], nil),
    ("-chardev socket,id=a,path=/p,telnet=on -chardev socket,id=b,port=1,tls-creds=t", ["/p a 0", ":1 b 0"], nil),
    (
      "-netdev stream,id=n,server=off,addr.type=unix,addr.path=/p", ["/p n raw 0"],
      "-netdev stream,id=n,server=off,addr.type=unix,addr.path=s0,addr.abstract=on"
    ),
    (
      #"-netdev {"type":"stream","id":"n","addr":{"type":"inet","host":"::1","port":"5"},"server":false}"#, ["[::1]:5 n raw 0"],
      "-netdev stream,id=n,server=off,addr.type=inet,addr.host=127.0.0.1,addr.port=7000"
    ),
    (#"-netdev {"type":"stream","id":"n","addr":{"type":"unix","path":"/p"},"server":false,"reconnect":5}"#, ["/p n raw 5000"], nil),
    ("-netdev stream,id=n,server=on,addr.type=unix,addr.path=/p -netdev socket,id=m,connect=:1 -netdev stream,id=o,addr.type=fd,addr.str=3", [], nil),
    // Not outgoing: it listens, it has a descriptor, it is moult's own.
    ("-chardev socket,id=a,path=/p,server=on -serial unix:/q,server -chardev socket,id=b,fd=4 -chardev socket,id=moult-control,fd=3", [], nil),
    ("-gdb tcp::1 -chardev socket,id=a,port=x", [], nil),
    (
      "-chardev socket,id=a,path=/p -tpmdev emulator,id=t,chardev=a", ["/p a 0"],
      "-chardev socket,id=a,path=s0,abstract=on -tpmdev emulator,id=t,chardev=a"
    ),
  ]

  @Test(arguments: outgoing) func outgoingConnectionsAreFoundAndReplaced(words: String, found: [String], substituted: String?) {
    let line = CommandLine(argv: ["qemu"] + words.split(separator: " ").map(String.init))
    let connections = line.outgoingConnections
    #expect(connections.map { "\($0.text) \($0.user.text.split(separator: " ").last ?? "")\($0.isRaw ? " raw" : "") \($0.reconnectMilliseconds)" } == found)
    guard let substituted else { return }
    var substitution = NetworkSubstitution()
    for (index, connection) in connections.enumerated() {
      if case .port = connection.peer {
        substitution.peers[connection.option] = .port(7000 + UInt16(index))
      } else {
        substitution.peers[connection.option] = .abstract("s\(index)")
      }
    }
    #expect(substitution.applied(to: line).argv.joined(separator: " ") == "qemu " + substituted)
  }

  static let bound: [(String, Binding.Handover)] = [
    ("-chardev socket,id=a,path=/p", .duplicate), ("-chardev socket,id=a,path=/p,reconnect=1", .duplicate),
    ("-monitor tcp:h:44", .duplicate), ("-chardev socket,id=a,path=p,abstract=on", .duplicate),
    ("-netdev stream,id=n,addr.type=inet,addr.host=::1,addr.port=5", .duplicate), ("-netdev stream,id=n,addr.type=unix,addr.path=/p,reconnect=5", .duplicate),
    ("-netdev stream,id=n,addr.type=inet,addr.host=h,addr.port=5", .refuse), ("-netdev socket,id=n,connect=127.0.0.1:5", .refuse), ("-netdev stream,id=n,addr.type=inet,addr.host=::1,addr.port=5,reconnect=5", .duplicate),
    ("-netdev stream,id=n,addr.type=inet,addr.host=h,addr.port=5,reconnect=5", .refuse), ("-netdev stream,id=n,addr.type=unix,addr.path=p,addr.abstract=on,reconnect=5", .duplicate),
    // Another must be made: that needs reconnect=.
    ("-chardev socket,id=a,path=/p,reconnect-ms=5000 -mon chardev=a,mode=control", .reopen),
    ("-chardev socket,id=a,path=/p -mon chardev=a,mode=control", .refuse), ("-qmp tcp:h:44", .refuse),
    ("-qmp tcp:h:44,reconnect=1", .reopen), ("-chardev socket,id=a,host=h,port=44,reconnect=1", .duplicate),
    ("-chardev socket,id=a,path=p,abstract=on,reconnect=1", .duplicate),
    // What was negotiated is not known.
    ("-chardev socket,id=a,path=/p,telnet=on,reconnect=1", .refuse), ("-chardev socket,id=a,host=h,port=https", .refuse),
    ("-chardev socket,id=a,path=/p,reconnect=1 -device usb-redir,chardev=a", .refuse),
    ("-chardev socket,id=a,path=/p,reconnect=1,websocket=on -mon chardev=a,mode=control", .refuse),
  ]

  @Test(arguments: bound) func outgoingConnectionsGoAlongOrAreRefused(words: String, handover: Binding.Handover) {
    let description = MachineDescription(CommandLine(argv: ["qemu", "-nodefaults"] + words.split(separator: " ").map(String.init)))
    let binding = description.bindings.first { $0.role == .connect }
    #expect(binding?.handover == handover)
    #expect(description.blockers.isEmpty == (handover != .refuse), "\(description.blockers)")
  }

  /// `reconnect-ms` came with 9.2, and `reconnect` went some time after.
  static let spellings: [(String, String?, String)] = [
    ("-chardev socket,id=a,path=/p,reconnect=2", "11.1", "-chardev socket,id=a,path=/p,reconnect-ms=2000"),
    ("-chardev socket,id=a,path=/p,reconnect-ms=1500", "7.2", "-chardev socket,id=a,path=/p,reconnect=2"),
    ("-serial unix:/p,reconnect=1", "11.1", "-serial unix:/p,reconnect-ms=1000"),
    ("-netdev stream,id=n,addr.type=unix,addr.path=/p,reconnect=5", "11.1", "-netdev stream,id=n,addr.type=unix,addr.path=/p,reconnect-ms=5000"),
    ("-chardev socket,id=a,path=/p,reconnect=2", "9.1", "-chardev socket,id=a,path=/p,reconnect=2"),
    ("-chardev socket,id=a,path=/p,reconnect=2", nil, "-chardev socket,id=a,path=/p,reconnect=2"),
    ("-chardev socket,id=a,path=/p,reconnect=0", "11.1", "-chardev socket,id=a,path=/p"),
  ]

  @Test(arguments: spellings) func reconnectIsSaidAsTheNewVersionKnowsIt(words: String, version: String?, expected: String) {
    var twin = TwinArguments()
    twin.version = version.map { text in
      let parts = text.split(separator: ".").map { Int($0)! }
      return QEMUVersion(major: parts[0], minor: parts[1])
    }
    let line = CommandLine(argv: ["qemu"] + words.split(separator: " ").map(String.init))
    #expect(twin.applied(to: line).argv.joined(separator: " ") == "qemu \(expected) -incoming defer -S")
  }

  /// Lengths of frames, how many bytes of the first are read already, how many of the last have not come; the beginning.
  static let queues: [(lengths: [Int], read: Int, missing: Int, expected: Int?)] = [
    ([], 0, 0, 0), ([60], 0, 0, 0), ([60, 1514, 42], 0, 0, 0), ([69632], 0, 0, 0),
    // The first was read in part: its length only, or most of it.
    ([60, 1514, 42], 2, 0, 62), ([60, 1514, 42], 4, 0, 60), ([1514, 60], 1500, 0, 18), ([65535, 60], 40000, 0, 25539),
    // The sender is not done with the last.
    ([60], 0, 30, 0), ([60, 1514], 0, 1000, 0), 
    ([1514, 60, 60, 1514, 42], 100, 20, 1418),
    // Nothing whole, or too little: nothing tells.
    ([60], 0, 62, nil), ([1514], 100, 0, nil), ([60, 1514], 10, 1000, nil),
  ]

  @Test(arguments: queues) func aFrameIsFoundInWhatWaits(lengths: [Int], read: Int, missing: Int, expected: Int?) {
    var bytes: [UInt8] = []
    for length in lengths {
      bytes += [UInt8(length >> 24 & 255), UInt8(length >> 16 & 255), UInt8(length >> 8 & 255), UInt8(length & 255)]
      bytes += (0..<length).map { UInt8($0 * 7 & 255) }
    }
    bytes = Array(bytes.dropFirst(read).dropLast(missing))
    #expect(FrameStream.beginning(of: bytes) == expected)
    // The rest of the first, then whole ones; nothing where none begins.
    let pieces = FrameStream.pieces(of: bytes)
    let whole = lengths.dropFirst(read > 0 ? 1 : 0).dropLast(missing > 0 ? 1 : 0).map { $0 + 4 }
    #expect(pieces.map(\.count) == (expected == nil ? [] : (read > 0 ? [expected ?? 0] : []) + whole))
    #expect(Array(pieces.joined()) == Array(bytes.prefix(pieces.joined().count)))
  }

  @Test func twoBeginningsAreNone() {
    // In the rest of a frame that was read in part lies what looks like another one's beginning.
    let frame: [UInt8] = [0, 0, 0, 60] + [UInt8](repeating: 0xaa, count: 60)
    var bytes = [UInt8](repeating: 0xbb, count: 100) + frame + frame
    bytes.replaceSubrange(10..<14, with: [0, 0, 0, 150])  // It ends where the second frame begins.
    #expect(FrameStream.beginning(of: bytes) == nil)
  }
}

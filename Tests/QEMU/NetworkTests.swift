import QEMU
import Testing

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
    Case("-vnc 127.0.0.1:1,reverse=on -spice port=44 -serial tcp:h:0,server=on", []),
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
    // Who takes part in a protocol is in one QEMU's memory.
    Case("-chardev socket,id=a,path=/a,server=on -device usb-redir,chardev=a", ["chardev a /a"]),
    Case("-chardev socket,id=a,path=/a,server=on -gdb chardev:a", ["chardev a /a"]),
    Case("-chardev socket,id=a,path=/a,server=on -object rng-egd,id=r,chardev=a", ["chardev a /a"]),
    Case("-chardev socket,id=a,path=/a,server=on -device virtserialport,chardev=a -mon chardev=a", ["chardev a /a raw"]),
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
      case .port: substitution.ports[.init(endpoint)] = 7000 + UInt16(index)
      case .abstract: substitution.abstractNames[.init(endpoint)] = "n\(index)"
      case .path: break
      }
    }
    #expect(substitution.applied(to: line).argv == ["qemu"] + item.substituted)
    #expect(NetworkSubstitution().applied(to: line) == line)
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
    ("-netdev user,id=n -netdev socket,id=m,fd=3", "-netdev user,id=n -netdev socket,id=m,fd=3"),
  ]

  @Test(arguments: taps) func tapsAreGivenByDescriptor(before: String, after: String) {
    let line = CommandLine(argv: ("-S " + before).split(separator: " ").map(String.init))
    var substitution = NetworkSubstitution()
    for tap in line.taps {
      let parameters = line.options[tap.option].parameters
      let queues = max(tap.descriptors.count, Int(parameters["queues"] ?? "1") ?? 1)
      substitution.taps[tap.option] = (0..<queues).map { 20 + Int32($0) }
    }
    #expect(substitution.applied(to: line).argv.joined(separator: " ") == "-S " + after)
  }
}

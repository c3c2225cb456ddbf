import Testing

@testable import QEMU

/// Devices and what stands behind them, plugged in or out since the VM was started.
@Suite struct LiveDeviceTests {
  struct Case: Sendable, CustomTestStringConvertible {
    var what: String
    var argv: String
    /// Descriptors of /dev/vhost-net.
    var vhosts = 0
    var now: String?
    var refused: String?
    var change: @Sendable (inout LiveMachine) -> Void
    var testDescription: String { what }
  }

  static let peripheral = "/machine/peripheral/", anonymous = "/machine/peripheral-anon/device["
  static let argv = "-device pcie-root-port,id=rp1 -device virtio-rng-pci -device virtio-net-pci,id=nic,netdev=n0 -netdev user,id=n0,restrict=on -drive file=/d/x,if=virtio"

  /// What `argv` makes, with a bus and an address for everything.
  static var live: LiveMachine {
    var live = LiveDiskTests.live(["#1 raw /d/x file=#2", "#2 file /d/x", "virtio0@/machine/peripheral-anon/device[1]/virtio-backend>#1"])
    live.devices = ["rp1": "pcie-root-port", "nic": "virtio-net-pci"]
    (live.anonymousDevices, live.anonymousNumbers) = (["virtio-rng-pci", "virtio-blk-pci"], [0, 1])
    live.networkText = "nic: index=0,type=nic,model=virtio-net-pci,macaddr=52:54:00:12:34:56\r\n \\ n0: index=0,type=user,net=10.0.2.0,restrict=on\r\n"
    for (path, address) in [(peripheral + "rp1", 8), (anonymous + "0]", 16), (peripheral + "nic", 25), (anonymous + "1]", 32)] {
      live.parts.devices[path] = .init(
        type: "", bus: "/machine/q35/pcihost/pcie.0", properties: ["addr": .integer(Int64(address))], defaults: [:])
    }
    live.parts.devices[peripheral + "nic"]?.properties["mac"] = "52:54:00:12:34:56"
    return live
  }

  static func plug(
    _ live: inout LiveMachine, _ id: String?, _ type: String, bus: String = "/machine/peripheral/rp1/rp1", _ properties: [String: JSONValue],
    defaults: [String: JSONValue] = [:]
  ) {
    var path = peripheral + (id ?? "")
    if let id {
      live.devices[id] = type
    } else {
      let number = (live.anonymousNumbers.last ?? -1) + 2
      live.anonymousNumbers.append(number)
      live.anonymousDevices.append(type)
      path = "\(anonymous)\(number)]"
    }
    live.parts.devices[path] = .init(type: type, bus: bus, properties: properties, defaults: defaults)
  }

  static func console(_ live: inout LiveMachine, _ id: String, _ text: String, path: String? = nil) {
    live = LiveMachine(answers: Array(repeating: .null, count: 20))
    live.chardevs = [id]
    live.chardevFiles = [id: text]
    if let path { live.parts.sockets[id] = ["type": "unix", "path": .string(path)] }
  }

  static func object(_ live: inout LiveMachine, _ id: String, _ type: String, _ properties: [String: JSONValue]) {
    live = LiveMachine(answers: Array(repeating: .null, count: 20))
    live.objects = [id: type]
    live.parts.objects[id] = properties
  }

  static let cases: [Case] = [
    .init(what: "nothing changed", argv: argv) { _ in },
    .init(
      what: "a network card", argv: argv,
      now: argv + " -netdev user,id=n1,restrict=on -device virtio-net-pci,id=hot,bus=rp1,addr=00.0,mac=52:54:00:aa:00:01,netdev=n1,num-queues=3"
    ) {
      $0.networkText += "hot: index=0,type=nic,model=virtio-net-pci,macaddr=52:54:00:aa:00:01\r\n \\ n1: index=0,type=user,net=10.0.2.0,restrict=on\r\n"
      plug(
        &$0, "hot", "virtio-net-pci",
        ["addr": 0, "mac": "52:54:00:aa:00:01", "netdev": "n1", "num-queues": 3, "bootindex": -1, "romfile": "efi-virtio.rom", "event_idx": true,
          "guest_uso4": false, "x-pcie-ext-tag": false, "realized": true],
        defaults: ["event_idx": true, "addr": -1, "num-queues": 1])
    },
    .init(what: "a card without a ROM", argv: argv, now: argv + " -device e1000,id=hot,bus=rp1,addr=00.0,mac=52:54:00:aa:00:01,romfile=") {
      plug(&$0, "hot", "e1000", ["addr": 0, "mac": "52:54:00:aa:00:01", "romfile": ""])
    },
    .init(what: "a card of a failover pair", argv: argv, refused: "failover") {
      plug(&$0, "hot", "virtio-net-pci", ["addr": 0, "failover": true])
    },
    .init(what: "a disk on a node", argv: argv, now: argv + " -blockdev driver=file,node-name=hot,filename=/d/h,auto-read-only=on -device virtio-blk-pci,id=hotblk,bus=rp1,addr=1f.7,drive=hot,iothread=io1,serial=a,,b") {
      $0.graph.nodes["hot"] = .init(name: "hot", driver: "file", file: "/d/h")
      $0.graph.backends.append(.init(label: "", device: "/machine/peripheral/hotblk/virtio-backend", root: "hot"))
      plug(&$0, "hotblk", "virtio-blk-pci", ["addr": 255, "drive": "hot", "serial": "a,b", "iothread": "/objects/io1"])
    },
    .init(what: "a disk on a drive, on a controller that came after it in the alphabet", argv: argv,
      now: argv + " -drive if=none,id=d,file=/d/h,format=raw -device virtio-scsi-pci,id=z,bus=rp1,addr=00.0 -device scsi-hd,id=a,bus=z.0,drive=d,lun=0,scsi-id=2") {
      $0.graph.nodes["#5"] = .init(name: "#5", driver: "raw", file: "/d/h", children: ["file": "#6"])
      $0.graph.nodes["#6"] = .init(name: "#6", driver: "file", file: "/d/h")
      $0.graph.backends.append(.init(label: "d", device: "a", root: "#5"))
      plug(&$0, "a", "scsi-hd", bus: "/machine/peripheral/z/virtio-backend/z.0", ["drive": "d", "scsi-id": 2, "lun": 0])
      plug(&$0, "z", "virtio-scsi-pci", ["addr": 0])
    },
    .init(what: "memory", argv: argv, now: argv + " -object memory-backend-ram,id=m,size=1048576 -device pc-dimm,id=dimm,addr=4294967296,memdev=m,slot=0") {
      $0.objects["m"] = "memory-backend-ram"
      $0.parts.objects["m"] = ["type": "memory-backend-ram", "size": 1_048_576, "share": false, "merge": true, "host-nodes": .array([]), "policy": "default"]
      plug(&$0, "dimm", "pc-dimm", bus: "", ["addr": 4_294_967_296, "slot": 0, "memdev": "/objects/m", "size": 1_048_576], defaults: ["slot": -1])
    },
    .init(what: "memory bound to a node of the host", argv: argv, refused: "settings that cannot be rebuilt") {
      $0.objects["m"] = "memory-backend-ram"
      $0.parts.objects["m"] = ["size": 1_048_576, "host-nodes": .array([0]), "policy": "bind"]
    },
    .init(what: "a CPU", argv: argv, now: argv + " -device qemu64-x86_64-cpu,id=cpu1,socket-id=1,core-id=0,thread-id=0") {
      plug(&$0, "cpu1", "qemu64-x86_64-cpu", bus: "", ["socket-id": 1, "core-id": 0, "thread-id": 0, "die-id": -1, "sse": true])
    },
    .init(what: "a USB device without id", argv: argv, now: argv + " -device usb-tablet,bus=xhci.0,port=2") {
      $0.parts.usb = "  Device 0.1, Port 1, Speed 480 Mb/s, Product QEMU USB Mouse, ID: m\r\n  Device 0.2, Port 2, Speed 480 Mb/s, Product QEMU USB Tablet\r\n"
      plug(&$0, nil, "usb-tablet", bus: "/machine/peripheral/rp1/xhci.0", ["port": "", "attached": true])
    },
    .init(what: "two USB devices without id", argv: argv, refused: "does not tell its port") {
      $0.parts.usb = "  Device 0.1, Port 1, Speed 480 Mb/s, Product A\r\n  Device 0.2, Port 2, Speed 480 Mb/s, Product B\r\n"
      plug(&$0, nil, "usb-tablet", bus: "/machine/peripheral/rp1/xhci.0", ["port": ""])
    },
    .init(what: "a device that tells nothing", argv: argv, refused: "does not tell its properties") { $0.devices["odd"] = "odd" },
    .init(what: "a console", argv: argv, now: argv + " -chardev socket,id=c,path=/r/c.sock,server=on,wait=off -device virtserialport,id=p,bus=vs.0,chardev=c,name=org.x,nr=2") {
      $0.chardevs = ["c"]
      $0.chardevFiles = ["c": "disconnected:unix:/r/c.sock,server=on"]
      $0.parts.sockets["c"] = ["type": "unix", "path": "/r/c.sock"]
      plug(&$0, "p", "virtserialport", bus: "/machine/peripheral/vs/virtio-backend/vs.0", ["chardev": "c", "nr": 2, "name": "org.x"], defaults: ["nr": 4_294_967_295])
    },
    .init(what: "a console at a port", argv: argv, now: argv + " -chardev socket,id=c,host=::1,port=5,server=on,wait=off") {
      $0.chardevs = ["c"]
      $0.chardevFiles = ["c": "tcp:[::1]:5,server=on <-> [::1]:40000"]
      $0.parts.sockets["c"] = ["type": "inet", "host": "::1", "port": "5"]
    },
    .init(what: "a console at an abstract name", argv: argv, now: argv + " -chardev socket,id=c,path=n,abstract=on,tight=off,server=on,wait=off") {
      $0.chardevs = ["c"]
      $0.chardevFiles = ["c": "disconnected:unix:n,abstract=on,server=on"]
      $0.parts.sockets["c"] = ["type": "unix", "path": "n", "abstract": true, "tight": false]
    },
    .init(what: "a console at a port, with TLS perhaps", argv: argv + " -object tls-creds-x509,id=t", refused: "no socket that QEMU listens on and passes on") {
      $0.objects["t"] = "tls-creds-x509"
      $0.chardevs = ["c"]
      $0.chardevFiles = ["c": "disconnected:tcp:127.0.0.1:5,server=on"]
      $0.parts.sockets["c"] = ["type": "inet", "host": "127.0.0.1", "port": "5"]
    },
    .init(what: "a console with telnet", argv: argv, refused: "passes on what arrives") {
      $0.chardevs = ["c"]
      $0.chardevFiles = ["c": "disconnected:telnet:127.0.0.1:5,server=on"]
      $0.parts.sockets["c"] = ["type": "inet", "host": "127.0.0.1", "port": "5"]
    },
    .init(what: "a console that connects", argv: argv, refused: "no socket that QEMU listens on") {
      $0.chardevs = ["c"]
      $0.chardevFiles = ["c": "tcp:127.0.0.1:5 <-> 127.0.0.1:44444"]
      $0.parts.sockets["c"] = ["type": "inet", "host": "127.0.0.1", "port": "5"]
    },
    // Under the same id.
    .init(what: "a console whose socket was changed", argv: "-chardev socket,id=c,path=/r/c.sock,server=on,wait=off",
      now: "-chardev socket,id=c,path=/r/d.sock,server=on,wait=off") { console(&$0, "c", "unix:/r/d.sock,server=on", path: "/r/d.sock") },
    .init(what: "a console that was put elsewhere", argv: "-chardev null,id=c", refused: "it is file now") { console(&$0, "c", "file") },
    .init(what: "a console that was switched off", argv: "-chardev socket,id=c,path=/r/c.sock,server=on,mux=on", now: "-chardev null,id=c") { console(&$0, "c", "null") },
    .init(what: "a multiplexer, and what it stands before", argv: "-chardev socket,id=c,path=/r/c.sock,server=on,mux=on") {
      console(&$0, "c", "mux")
      $0.chardevs.append("c-base")
      $0.chardevFiles["c-base"] = "disconnected:unix:/r/c.sock,server=on"
    },
    .init(what: "the second of two serial ports", argv: "-serial null -serial null", now: "-serial null -serial unix:/r/d.sock,server=on,wait=off") {
      console(&$0, "serial0", "null")
      $0.chardevs.append("serial1")
      $0.chardevFiles["serial1"] = "disconnected:unix:/r/d.sock,server=on"
      $0.parts.sockets["serial1"] = ["type": "unix", "path": "/r/d.sock"]
    },
    .init(what: "a serial port at a path that its short form cannot have", argv: "-serial null", refused: "it is unix:/r/a,b") {
      console(&$0, "serial0", "unix:/r/a,b,server=on", path: "/r/a,b")
    },
    .init(what: "a device unplugged, and another plugged in", argv: "-device virtio-rng-pci,id=r,rng=a", now: "-device virtio-rng-pci,id=r,bus=pcie.0,addr=02.0,max-bytes=9,rng=b") {
      $0 = LiveMachine(answers: Array(repeating: .null, count: 20))
      plug(&$0, "r", "virtio-rng-pci", bus: "/machine/q35/pcihost/pcie.0", ["addr": 16, "rng": "/objects/b", "max-bytes": 9])
      $0.parts.hotplugged = ["/machine/peripheral/r"]
    },
    .init(what: "an object of the same type made anew", argv: "-object rng-random,id=r", now: "-object rng-random,id=r,filename=/dev/hwrng") { object(&$0, "r", "rng-random", ["filename": "/dev/hwrng"]) },
    .init(what: "an object of another type made anew", argv: "-object rng-random,id=r", now: "-object rng-builtin,id=r") { object(&$0, "r", "rng-builtin", ["type": "rng-builtin"]) },
    .init(what: "limits that were changed", argv: "-object throttle-group,id=g,x-iops-total=100", now: "-object throttle-group,id=g,x-bps-read=7,x-iops-total=5") {
      object(&$0, "g", "throttle-group", ["x-iops-total": 5, "x-bps-read": 7, "x-iops-total-max-length": 1, "limits": ["iops-total": 5]])
    },
    .init(what: "limits as said, in JSON", argv: #"-object {"qom-type":"throttle-group","id":"g","limits":{"iops-total":100}}"#) {
      object(&$0, "g", "throttle-group", ["x-iops-total": 100, "x-iops-total-max-length": 1])
    },
    .init(what: "an I/O thread's polling switched off", argv: "-object iothread,id=i", now: "-object iothread,id=i,poll-max-ns=0") { object(&$0, "i", "iothread", ["poll-max-ns": 0, "poll-grow": 2]) },
    .init(what: "an I/O thread as said, with a suffix", argv: "-object iothread,id=i,poll-max-ns=64K") { object(&$0, "i", "iothread", ["poll-max-ns": 65536, "poll-grow": 0]) },
    .init(what: "RAM that an earlier upgrade gave by descriptor", argv: "-object memory-backend-memfd,id=m,size=1M") { object(&$0, "m", "memory-backend-file", ["size": 1_048_576]) },
    // Hubs.
    .init(what: "a port of a hub gone, and others made", argv: "-netdev user,id=n0,restrict=on -netdev hubport,id=h1,hubid=3,netdev=n0",
      now: "-netdev user,id=n0,restrict=on -netdev user,id=n9,restrict=on -netdev hubport,id=h8,hubid=5 -netdev hubport,id=h9,hubid=3,netdev=n9") {
      $0 = LiveMachine(answers: Array(repeating: .null, count: 20))
      $0.networkText = "hub 5\r\n \\ h8\r\nhub 3\r\n \\ h9: n9: index=0,type=user,net=10.0.2.0,restrict=on\r\nn0: index=0,type=user,net=10.0.2.0,restrict=on\r\n"
    },
    .init(what: "hubs as said", argv: "-net nic -net user,restrict=on -netdev user,id=hu,restrict=on -netdev hubport,id=h1,hubid=3,netdev=hu -netdev hubport,id=h2,hubid=3 -device e1000,netdev=h2,id=e") {
      $0 = LiveMachine(answers: Array(repeating: .null, count: 20))
      $0.devices = ["e": "e1000"]
      $0.networkText = "hub 0\r\n \\ hub0port1: #net123: index=0,type=user,net=10.0.2.0,restrict=on\r\n \\ hub0port0: e1000.0: index=0,type=nic,model=e1000,macaddr=52:54:00:12:34:56\r\n"
        + "hub 3\r\n \\ h2: e: index=0,type=nic,model=e1000,macaddr=52:54:00:12:34:57\r\n \\ h1: hu: index=0,type=user,net=10.0.2.0,restrict=on\r\n"
    },
    .init(what: "a tap", argv: argv, now: argv + " -netdev tap,id=n1,ifname=t1,script=no,downscript=no") {
      $0.networkText += "n1: index=0,type=tap,ifname=t1,script=/etc/qemu-ifup,downscript=no\r\n"
    },
    .init(what: "a tap by number", argv: argv, now: argv + " -netdev tap,id=n1,fd=31") { $0.networkText += "n1: index=0,type=tap,fd=31\r\n" },
    .init(what: "a tap of two queues", argv: argv, now: argv + " -netdev tap,id=n1,fds=30:31") {
      for queue in 0...1 { $0.networkText += "n1: index=\(queue),type=tap,fd=3\(queue)\r\n" }
    },
    .init(what: "a tap of two queues by name", argv: argv, now: argv + " -netdev tap,id=n1,ifname=t,queues=2,script=no,downscript=no") {
      for queue in 0...1 { $0.networkText += "n1: index=\(queue),type=tap,ifname=t,script=no,downscript=no\r\n" }
    },
    // The descriptor that it came by is nobody's in the new QEMU: it gets its own.
    .init(what: "a vsock device", argv: argv, now: argv + " -device vhost-vsock-pci,id=v,bus=rp1,addr=00.0,guest-cid=3") {
      plug(&$0, "v", "vhost-vsock-pci", ["addr": 0, "guest-cid": 3, "vhostfd": "vsockfd", "seqpacket": "auto"], defaults: ["guest-cid": 0, "seqpacket": "auto"])
    },
    .init(what: "taps that the kernel serves", argv: argv + " -netdev tap,id=o,ifname=o,vhost=on", vhosts: 4,
      now: argv + " -netdev tap,id=o,ifname=o,vhost=on -netdev tap,id=n1,fds=30:31,vhost=on -netdev tap,id=n2,fd=33,vhost=on") {
      $0.networkText += "o: index=0,type=tap,ifname=o,script=no,downscript=no\r\nn2: index=0,type=tap,fd=33\r\n"
      for queue in 0...1 { $0.networkText += "n1: index=\(queue),type=tap,fd=3\(queue)\r\n" }
    },
    .init(what: "one of two taps that the kernel serves: refused later", argv: argv, vhosts: 1,
      now: argv + " -netdev tap,id=n1,fd=31 -netdev tap,id=n2,fd=33") {
      $0.networkText += "n1: index=0,type=tap,fd=31\r\nn2: index=0,type=tap,fd=33\r\n"
    },
    .init(what: "a tap of a helper", argv: argv, refused: "only a tap, by name or descriptor") {
      $0.networkText += "n1: index=0,type=tap,helper=/usr/lib/qemu/qemu-bridge-helper,br=br0\r\n"
    },
    .init(what: "a network that reaches out", argv: argv, refused: "and a user network with restrict=on") {
      $0.networkText += "n1: index=0,type=user,net=10.0.2.0,restrict=off\r\n"
    },
    .init(what: "a secret", argv: argv, refused: "no secret into arguments") { $0.objects["s"] = "secret" },
    .init(what: "an unknown object", argv: argv, refused: "(odd) was added") { $0.objects["s"] = "odd" },
    .init(what: "an I/O thread", argv: argv, now: argv + " -object iothread,id=io,poll-max-ns=7") {
      $0.objects["io"] = "iothread"
      $0.parts.objects["io"] = ["poll-max-ns": 7, "poll-grow": 2, "aio-max-batch": 0]
    },
    .init(what: "the machine's own RAM", argv: argv) { $0.objects["pc.ram"] = "memory-backend-ram" },
    // What is left must stay where it is.
    .init(what: "a card unplugged, its network left", argv: argv,
      now: "-device pcie-root-port,id=rp1,bus=pcie.0,addr=01.0 -device virtio-rng-pci,bus=pcie.0,addr=02.0 -netdev user,id=n0,restrict=on "
        + "-drive file=/d/x,if=none,id=virtio0 -device virtio-blk-pci,drive=virtio0,bus=pcie.0,addr=04.0") { $0.devices["nic"] = nil },
    .init(what: "one without id unplugged, and the network too", argv: argv,
      now: "-device pcie-root-port,id=rp1,bus=pcie.0,addr=01.0 -drive file=/d/x,if=none,id=virtio0 -device virtio-blk-pci,drive=virtio0,bus=pcie.0,addr=04.0") {
      $0.devices["nic"] = nil
      $0.networkText = ""
      ($0.anonymousDevices, $0.anonymousNumbers) = (["virtio-blk-pci"], [1])
    },
    .init(what: "a device unplugged before a card that has no address of its own", argv: argv,
      now: "-device virtio-rng-pci,bus=pcie.0,addr=02.0 -device virtio-net-pci,id=nic,netdev=n0,bus=pcie.0,addr=03.1,mac=52:54:00:12:34:56 "
        + "-netdev user,id=n0,restrict=on -drive file=/d/x,if=none,id=virtio0 -device virtio-blk-pci,drive=virtio0,bus=pcie.0,addr=04.0") {
      $0.devices["rp1"] = nil
    },
    .init(what: "arguments in JSON", argv: #"-device {"driver":"pcie-root-port","id":"rp1"}"#,
      now: #"-device {"driver":"pcie-root-port","id":"rp1"} -device {"driver":"virtio-rng-pci","id":"hot","bus":"rp1","addr":"00.0","max-bytes":5,"multifunction":true}"#) {
      $0 = LiveMachine(answers: Array(repeating: .null, count: 20))
      $0.devices = ["rp1": "pcie-root-port"]
      plug(&$0, "hot", "virtio-rng-pci", ["addr": 0, "max-bytes": 5, "multifunction": true], defaults: ["multifunction": false])
    },
  ]

  @Test(arguments: cases) func isRebuilt(_ test: Case) {
    var live = Self.live
    test.change(&live)
    let line = CommandLine(argv: ["qemu"] + test.argv.split(separator: " ").map(String.init))
    let rebuilt = LiveCommandLine(line, live: live, base: "/d", vhosts: test.vhosts)
    if let refused = test.refused {
      #expect(rebuilt.drift.contains { $0.what.contains(refused) && $0.wayOut != nil }, "\(rebuilt.drift)")
      return
    }
    #expect(rebuilt.commandLine.argv.dropFirst().joined(separator: " ") == test.now ?? test.argv)
    #expect(rebuilt.drift.isEmpty == (test.now == nil), "\(rebuilt.drift)")
    #expect(rebuilt.drift.allSatisfy { $0.wayOut == nil }, "\(rebuilt.drift)")
  }

  /// Of a VM that is what its arguments say, only what may have been set is asked.
  @Test func littleIsAskedWithoutNeed() {
    let line = CommandLine(argv: ["qemu"] + Self.argv.split(separator: " ").map(String.init))
    var live = Self.live
    let wanted = Rebuilding(line, live: live, base: "/").wanted
    #expect(wanted.placed.isEmpty && wanted.devices.isEmpty && wanted.chardevs.isEmpty)
    #expect(wanted.settable.count == 4)
    live.devices["hot"] = "usb-kbd"
    #expect(Rebuilding(line, live: live, base: "/").wanted.devices == ["/machine/peripheral/hot": "usb-kbd"])
    #expect(Rebuilding(line, live: live, base: "/").wanted.placed.count == 5)
  }
}

import Testing

@testable import QEMU

/// What was set in a running VM: told, or said not to be.
@Suite struct LiveSettingTests {
  @Test(arguments: [
    // What QEMU prints, an option that makes just that, and ones that do not.
    ("null", ["null"], ["socket,path=/a,server=on", "file,path=/a"]),
    ("file", ["file,path=/a"], ["null", "pty"]),
    ("pty:/dev/pts/3", ["pty"], ["null"]),
    ("udp", ["udp,host=a,port=1"], ["null", "socket,host=a,port=1,server=on"]),
    ("ringbuf", ["ringbuf", "memory"], ["null"]),
    ("spicevmc", ["spicevmc,name=vdagent"], ["null", "file,path=/a"]),
    ("serial", ["serial,path=/dev/ttyS0", "tty,path=/dev/ttyS0"], ["parallel,path=/dev/parport0"]),
    ("unix:/a,server=on", ["socket,path=/a,server=on"], ["socket,path=/a", "socket,path=/ab,server=on", "socket,path=/,server=on", "null"]),
    ("disconnected:unix:/a,server", ["socket,path=/a,server=on,websocket=on"], ["socket,path=/b,server=on"]),
    ("unix:/a", ["socket,path=/a"], ["socket,path=/a,server=on"]),
    ("unix:/d/a,server=on", ["socket,path=a,server=on"], ["socket,path=b,server=on"]),
    ("disconnected:unix:name,abstract=on,tight=on,server=on", ["socket,path=name,abstract=on,server=on"], ["null"]),
    // Ports are the kernel's to tell.
    ("disconnected:tcp:127.0.0.1:40001,server=on", ["socket,host=127.0.0.1,port=0,server=on"], ["socket,path=/a,server=on", "socket,host=h,port=1"]),
    ("telnet:127.0.0.1:1,server=on <-> 127.0.0.1:2", ["socket,host=127.0.0.1,port=1,server=on,telnet=on"], ["file,path=/a"]),
  ])
  func aCharacterDeviceIsToldByItsText(_ text: String, _ same: [String], _ others: [String]) {
    func isSame(_ option: String) -> Bool {
      let parameters = OptionValue(option, impliedKey: "backend")
      let chardev = Chardev(id: "c", backend: parameters["backend"] ?? "", parameters: parameters, option: option)
      return ChardevText(text).isWhat(chardev) { $0.hasPrefix("/") ? $0 : "/d/" + $0 }
    }
    for option in same { #expect(isSame(option), "\(option)") }
    for option in others { #expect(!isSame(option), "\(option)") }
  }

  @Test(arguments: [
    ("-vnc unix:/v,password=on", "the password of -vnc unix:/v,password=on"), ("-vnc none,password=on", nil), ("-vnc unix:/v", nil),
    ("-spice unix=on,addr=/s", "the password of -spice"), ("-spice unix=on,addr=/s,disable-ticketing=on", nil),
    ("-watchdog i6300esb", "the watchdog (i6300esb) fires"), ("-no-reboot", "a reset or shutdown (-no-reboot)"),
    ("-action panic=none", "(-action panic=none)"), ("-m 1G", nil),
  ])
  func whatCannotBeReadBackIsSaid(_ argv: String, _ note: String?) {
    let line = CommandLine(argv: ["qemu"] + argv.split(separator: " ").map(String.init))
    let notes = Unreadable.notes(line, live: LiveMachine(answers: Array(repeating: .null, count: 20)))
    #expect(notes.count == (note == nil ? 0 : 1), "\(notes)")
    if let note { #expect(notes.first?.contains(note) ?? false, "\(notes)") }
  }

  @Test(arguments: [("i6300esb", "watchdog"), ("pvpanic", "panics"), ("vmxnet3", "link of x"), ("virtio-net-pci", nil)])
  func whatCannotBeReadBackFollowsFromTheDevices(_ type: String, _ note: String?) {
    var live = LiveMachine(answers: Array(repeating: .null, count: 20))
    live.devices = ["x": type]
    let notes = Unreadable.notes(CommandLine(argv: ["qemu"]), live: live)
    #expect(notes.count == (note == nil ? 0 : 1) && notes.allSatisfy { $0.contains(note ?? "") }, "\(notes)")
  }

  @Test func settingsOfBothTwinsAreCompared() {
    var (old, new) = (LiveMachine(answers: Array(repeating: .null, count: 20)), LiveMachine(answers: Array(repeating: .null, count: 20)))
    // The second device without id was unplugged: it has another number in the new QEMU.
    (old.anonymousDevices, old.anonymousNumbers) = (["a", "c"], [0, 2])
    (new.anonymousDevices, new.anonymousNumbers) = (["a", "c"], [0, 1])
    let (named, third, second) = ("/machine/peripheral/b", "/machine/peripheral-anon/device[2]", "/machine/peripheral-anon/device[1]")
    old.parts.settings = [named: ["bootindex": 2, "only-old": 1], third: ["guest-stats-polling-interval": 5]]
    new.parts.settings = [named: ["bootindex": 1, "only-new": 1], second: ["guest-stats-polling-interval": 0]]
    (old.objects, new.objects) = (["m": "memory-backend-ram", "s": "secret"], ["m": "memory-backend-ram", "s": "secret"])
    old.parts.objects = ["m": ["dump": false, "prealloc": true], "s": ["type": "secret", "data": "one"], "i": ["type": "iothread", "poll-grow": 0]]
    new.parts.objects = ["m": ["dump": true, "prealloc": false], "s": ["type": "secret", "data": "two"], "i": ["type": "iothread", "poll-grow": 2]]
    let found = new.adjustments(toward: old)
    #expect(
      found == [
        Adjustment(path: second, property: "guest-stats-polling-interval", value: 5, own: 0), Adjustment(path: named, property: "bootindex", value: 2, own: 1),
        Adjustment(path: "/objects/m", property: "dump", value: false, own: true),
      ])
    #expect(found.last?.drift.rebuiltAs == "qom-set /objects/m dump false")
    // A secret is not set, and not printed.
    let differences = new.differences(from: old).joined()
    #expect(differences.contains("object s: another secret") && !differences.contains("one") && !differences.contains("two"))
  }

  @Test(arguments: [
    (#"{"name":"bootindex","type":"int32"}"#, true), (#"{"name":"guest-stats-polling-interval","type":"int"}"#, true),
    (#"{"name":"event_idx","type":"bool","default-value":true}"#, false), (#"{"name":"mac","type":"str"}"#, false),
    (#"{"name":"iothread","type":"link<iothread>"}"#, false), (#"{"name":"virtio-backend","type":"child<virtio-net-device>"}"#, false),
    (#"{"name":"legacy-addr","type":"str"}"#, false),
  ])
  func whatMayBeSetHasNoDefault(_ property: String, _ isSettable: Bool) throws {
    #expect((DeviceProperties.settable(try JSONValue(parsing: Array(property.utf8))) != nil) == isSettable)
  }
}

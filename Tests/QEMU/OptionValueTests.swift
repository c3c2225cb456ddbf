import Testing

@testable import QEMU

@Suite struct OptionValueTests {
  struct Reading: Sendable {
    var text: String
    var implied: String?
    var entries: [String]
  }

  static let readings: [Reading] = [
    .init(text: "", entries: []),
    .init(text: "", implied: "type", entries: []),
    .init(text: ",", implied: "type", entries: ["type="]),
    .init(text: "user", implied: "type", entries: ["type=user"]),
    .init(text: "user,id=a", implied: "type", entries: ["type=user", "id=a"]),
    .init(text: "type=user,id=a", implied: "type", entries: ["type=user", "id=a"]),
    .init(text: "a,,b,process=c", implied: "guest", entries: ["guest=a,b", "process=c"]),
    .init(text: "file=a,,b,,,id=x", entries: ["file=a,b,", "id=x"]),
    .init(text: "path=/tmp/foo=bar.sock,server=on", entries: ["path=/tmp/foo=bar.sock", "server=on"]),
    .init(text: "socket,server,nowait", implied: "backend", entries: ["backend=socket", "server=on", "wait=off"]),
    .init(text: "x,nodelay", implied: "backend", entries: ["backend=x", "delay=off"]),
    .init(text: "a=1,a=2", entries: ["a=1", "a=2"]),
    .init(text: "a=", entries: ["a="]),
    .init(text: "a=1,", entries: ["a=1"]),
    .init(text: "file.driver=qcow2,file.file.filename=x", entries: ["file.driver=qcow2", "file.file.filename=x"]),
    .init(text: #"{"driver":"e1000","on":true,"off":false,"n":-1.5e3}"#, entries: ["driver=e1000", "on=on", "off=off", "n=-1.5e3"]),
    .init(text: #"{ "file" : { "driver":"file", "filename":"a,b" }, "l":[{"x":1},2] }"#,
      entries: ["file.driver=file", "file.filename=a,b", "l.0.x=1", "l.1=2"]),
    .init(text: #"{"a":"q\"\\\/A😀\n"}"#, entries: ["a=q\"\\/A😀\n"]),
    .init(text: "{'a':'b'}", entries: ["a=b"]),
    .init(text: "{}", entries: []),
  ]

  @Test(arguments: readings) func reads(reading: Reading) {
    let value = OptionValue(reading.text, impliedKey: reading.implied)
    #expect(value.entries.map { "\($0.key)=\($0.value)" } == reading.entries)
  }

  @Test(arguments: [
    "{", "{]", #"{"a"}"#, #"{"a":}"#, #"{"a":1,}"#, #"{"a":1} x"#, #"{"a":"\q"}"#, #"{"a":"\ud800"}"#,
    #"{"a":tru}"#, "{\"a\":\"", #"{"a":"\u12"}"#,
    String(repeating: #"{"a":"#, count: 3000) + "1" + String(repeating: "}", count: 3000),
  ])
  func malformedJSONIsNoted(text: String) {
    let value = OptionValue(text)
    #expect(value.isMalformed)
    #expect(value.entries.isEmpty)
  }

  struct Change: Sendable {
    var before: String
    var key: String
    var to: OptionValue.Scalar?
    var after: String
  }

  static let changes: [Change] = [
    // Found by the fuzzer: a comma beside what is written would become part of a value, …
    .init(before: "a=1,", key: "b", to: .string("2"), after: "a=1,b=2"),
    .init(before: "x,a,,b", key: "a", to: .string("2"), after: "x,a=2,b"),
    // … and a loop went on for ever.
    .init(before: ",", key: "backend", to: nil, after: ""),
    .init(before: "x,a,,b", key: "a", to: nil, after: "x,b"),
    .init(before: "socket,id=a", key: "wait", to: .bool(false), after: "socket,id=a,wait=off"),
    .init(before: "", key: "a", to: .string("b"), after: "a=b"),
    .init(before: "x,a=1,b=2", key: "a", to: .string("3"), after: "x,a=3,b=2"),
    .init(before: "x,a=1,a=2", key: "a", to: .string("3"), after: "x,a=1,a=3"),
    .init(before: "x,a=1", key: "a", to: .string("p,q"), after: "x,a=p,,q"),
    .init(before: "x,share=yes", key: "share", to: .bool(true), after: "x,share=yes"),
    .init(before: "x,server", key: "server", to: .bool(true), after: "x,server"),
    .init(before: "x,server", key: "server", to: .bool(false), after: "x,server=off"),
    .init(before: "pc,accel=kvm", key: "backend", to: .string("pc-q35-7.2"), after: "pc-q35-7.2,accel=kvm"),
    .init(before: "pc", key: "backend", to: .string("a=b"), after: "backend=a=b"),
    .init(before: "x,a=1,b=2", key: "a", to: nil, after: "x,b=2"),
    .init(before: "x,a=1,b=2,a=3", key: "a", to: nil, after: "x,b=2"),
    .init(before: "a=1,b=2", key: "a", to: nil, after: "b=2"),
    // A flag that comes to stand first would become the value of the implied key.
    .init(before: "a=1,noflag", key: "a", to: nil, after: "flag=off"),
    .init(before: "a=1", key: "a", to: nil, after: ""),
    .init(before: "a=,,,b=2", key: "b", to: nil, after: "a=,,"),
    .init(before: "a=1", key: "b", to: nil, after: "a=1"),
    .init(before: "{}", key: "a", to: .bool(true), after: #"{"a":true}"#),
    .init(before: #"{ "a" : 1 }"#, key: "b", to: .string("x\"y"), after: #"{ "a" : 1 ,"b":"x\"y"}"#),
    .init(before: #"{"a":"x" , "b":{"c":1}}"#, key: "b.c", to: .number(2), after: #"{"a":"x" , "b":{"c":2}}"#),
    .init(before: #"{"share":true}"#, key: "share", to: .bool(true), after: #"{"share":true}"#),
    .init(before: #"{"share": false,"x":1}"#, key: "share", to: .bool(true), after: #"{"share": true,"x":1}"#),
    .init(before: #"{"a":1, "b":[1,2], "c":3}"#, key: "b", to: nil, after: #"{"a":1, "c":3}"#),
    .init(before: #"{"a":1, "b":2}"#, key: "a", to: nil, after: #"{"b":2}"#),
    .init(before: #"{ "a":1 }"#, key: "a", to: nil, after: "{  }"),
    .init(before: #"{"a":"é","b":1}"#, key: "b", to: .number(2), after: #"{"a":"é","b":2}"#),
  ]

  @Test(arguments: changes) func changesNothingElse(change: Change) {
    var value = OptionValue(change.before, impliedKey: "backend")
    if let to = change.to { value.set(change.key, to: to) } else { value.remove(change.key) }
    #expect(value.text == change.after)
    let once = value
    if let to = change.to { value.set(change.key, to: to) } else { value.remove(change.key) }
    #expect(value == once)
  }

  @Test func onlySomeOptionsAreJSON() {
    #expect(CommandOption(name: "name", value: "{a}").parameters["guest"] == "{a}")
    #expect(CommandOption(name: "device", value: #"{"driver":"e1000"}"#).parameters["driver"] == "e1000")
  }

  @Test(arguments: [
    ("512", 512 << 20), ("512M", 512 << 20), ("1.5G", 3 << 29), ("219136k", 219136 << 10), ("0x10", 16 << 20),
    ("4096B", 4096), ("1t", 1 << 40), ("", nil), ("x", nil), ("-1", nil), ("1Q", nil), ("1.x", nil),
    ("99999999999999999999", nil), ("17179869184G", nil),
  ] as [(String, UInt64?)])
  func sizes(text: String, bytes: UInt64?) {
    #expect(Size.bytes(text, unit: 1 << 20) == bytes)
  }
}

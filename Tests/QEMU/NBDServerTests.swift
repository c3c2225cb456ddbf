import Testing

@testable import QEMU

/// What an NBD server tells of its exports.
@Suite struct NBDInquiryTests {
  private static let greeting = Array("NBDMAGICIHAVEOPT".utf8) + [0, 3]
  private static func reply(_ option: UInt8, _ type: [UInt8], _ data: [UInt8] = []) -> [UInt8] {
    [0, 3, 0xe8, 0x89, 4, 0x55, 0x65, 0xa9, 0, 0, 0, option] + type + [0, 0, UInt8(data.count >> 8), UInt8(data.count & 255)] + data
  }
  private static func word(_ number: Int) -> [UInt8] { [0, 0, UInt8(number >> 8), UInt8(number & 255)] }
  private static let (acknowledged, information): ([UInt8], [UInt8]) = ([0, 0, 0, 1], [0, 0, 0, 3])
  private static let structured = reply(8, acknowledged)
  private static func listed(_ name: [UInt8], _ description: [UInt8] = []) -> [UInt8] { reply(3, [0, 0, 0, 2], word(name.count) + name + description) }
  private static func exported(_ flags: [UInt8]) -> [UInt8] { reply(6, information, [0, 0, 0, 0, 0, 0, 0, 0, 2, 0] + flags) + reply(6, acknowledged) }
  private static func context(_ name: String) -> [UInt8] { reply(9, [0, 0, 0, 4], word(0) + Array(name.utf8)) }

  @Test func itHearsAllOfEachInPiecesOfAnySize() {
    // As QEMU 7.2 has said it.
    let conversation = Self.greeting + Self.structured
      + Self.listed(Array("one".utf8)) + Self.listed(Array("d1".utf8), Array("hello".utf8)) + Self.reply(3, Self.acknowledged)
      + Self.reply(6, Self.information, [0, 3, 0, 0, 0, 1, 0, 0, 16, 0, 2, 0, 0, 0]) + Self.exported([0x0d, 0xed])
      + Self.context("base:allocation") + Self.context("qemu:allocation-depth") + Self.reply(9, Self.acknowledged)
      + Self.exported([0x05, 0x8f]) + Self.context("base:allocation") + Self.reply(9, Self.acknowledged)
    for size in [1, 7, conversation.count] {
      var (inquiry, said, outcome) = (NBDInquiry(most: 2), [UInt8](), NBDOutcome<[NBDInquiry.Export]>.waiting)
      for start in stride(from: 0, to: conversation.count, by: size) {
        #expect(outcome == .waiting)
        let next = inquiry.hear(Array(conversation[start..<min(start + size, conversation.count)]))
        (said, outcome) = (said + next.answer, next.outcome)
      }
      #expect(
        outcome
          == .found([
            .init(name: "one", flags: 0x0ded, size: 512, contexts: ["base:allocation", "qemu:allocation-depth"]),
            .init(name: "d1", description: "hello", flags: 0x058f, size: 512, contexts: ["base:allocation"]),
          ]))
      // Structured replies, the list, twice what it is and its contexts, the end.
      let mark = Array("IHAVEOPT".utf8)
      let options = said.indices.filter { said[$0...].starts(with: mark) }.map { said[$0 + 11] }
      #expect(options == [8, 3, 6, 9, 6, 9, 2])
    }
  }

  @Test(arguments: [
    (Array("QMP".utf8), "does not speak"), (greeting + reply(8, [0x80, 0, 0, 1]), "does not tell"), (greeting + reply(8, [0x80, 0, 0, 5]), "wants TLS"),
    (greeting + structured + reply(3, [0x80, 0, 0, 5]), "wants TLS"),
    (greeting + structured + reply(3, [0, 0, 0, 2], [0, 0]), "not understood"),
    (greeting + structured + reply(3, [0, 0, 0, 2], [0xff, 0xff, 0xff, 0xff, 65]), "not understood"),
    (greeting + structured + listed([0xc3, 0x28]), "not understood"), (greeting + structured + listed([65], [0xff]), "not understood"),
    (greeting + structured + listed([65]) + listed([66]) + listed([67]), "more than the 2"),
    (greeting + structured + listed([65]) + reply(3, acknowledged) + reply(6, acknowledged), "tells nothing of the export A"),
    (greeting + structured + listed([65]) + reply(3, acknowledged) + reply(6, [0x80, 0, 0, 6]), "no such export"),
    (greeting + structured + listed([65]) + reply(3, acknowledged) + exported([0, 1]) + reply(9, [0, 0, 0, 4], [0]), "not understood"),
    (greeting + structured + [UInt8](repeating: 7, count: 20), "not understood"),
    (greeting + Array(structured.dropLast(4)) + [0x7f, 0, 0, 0], "not understood"),
  ] as [([UInt8], String)])
  func itIsRefused(_ said: [UInt8], _ why: String) {
    var inquiry = NBDInquiry(most: 2)
    guard case .refused(let reason) = inquiry.hear(said).outcome else {
      Issue.record("not refused")
      return
    }
    #expect(reason.contains(why))
  }

  @Test func aServerWithoutExportsHasNone() {
    var inquiry = NBDInquiry(most: 0)
    #expect(inquiry.hear(Self.greeting + Self.structured + Self.reply(3, Self.acknowledged)).outcome == .found([]))
  }
}

/// Which of a server's offers is which export.
@Suite struct NBDServerTests {
  /// `a` is a disk's, `b` has a name of its own, `#block7` is the drive `d0`'s, `#block8` nobody's.
  private static let graph: BlockGraph = {
    var graph = BlockGraph()
    for name in ["a", "b", "#block7", "#block8"] { graph.nodes[name] = .init(name: name, driver: "raw", file: "", virtualSize: 1024) }
    graph.backends = [.init(label: "d0", device: "", root: "#block7"), .init(label: "", device: "/machine/x", root: "#block8")]
    return graph
  }()
  private static let (onlyRead, written): (UInt16, UInt16) = (0x58f, 0xded)
  private static func offer(_ name: String, _ flags: UInt16 = onlyRead, size: UInt64 = 1024, _ contexts: String...) -> NBDInquiry.Export {
    .init(name: name, flags: flags, size: size, contexts: ["base:allocation"] + contexts)
  }
  private static func find(_ listed: [BlockExport], _ offered: [NBDInquiry.Export], version: QEMUVersion = .init(major: 7, minor: 2)) -> NBDServer.Finding {
    NBDServer.find(listed, offered, graph, version: version)
  }

  @Test func theLastOneThatQEMUListsIsTheFirstOfTheServers() {
    let listed = [BlockExport(id: "d0", node: "#block7"), BlockExport(id: "y", node: "b"), BlockExport(id: "x", node: "a")]
    let offered = [Self.offer("one", Self.written), Self.offer("two", Self.onlyRead, "qemu:allocation-depth"), Self.offer("d0")]
    #expect(
      Self.find(listed, offered)
        == .server(
          NBDServer(
            exports: [
              .init(id: "x", node: "a", drive: nil, name: "one", description: nil, isWritable: true, tellsDepth: false),
              .init(id: "y", node: "b", drive: nil, name: "two", description: nil, isWritable: false, tellsDepth: true),
              .init(id: "d0", node: nil, drive: "d0", name: "d0", description: nil, isWritable: false, tellsDepth: false),
            ], servesOne: false)))
  }

  struct Case: Sendable, CustomTestStringConvertible {
    var listed: [BlockExport]
    var offered: [NBDInquiry.Export]
    var why: String
    var testDescription: String { why }
    init(_ listed: [BlockExport], _ offered: [NBDInquiry.Export], _ why: String) { (self.listed, self.offered, self.why) = (listed, offered, why) }
  }

  @Test(arguments: [
    Case([.init(id: "x", node: "a", type: "fuse")], [offer("x")], "type fuse"),
    Case([.init(id: "x", node: "a", isEnding: true)], [offer("x")], "just being ended"),
    Case([.init(id: "x", node: "a"), .init(id: "y", node: "b")], [offer("x")], "QEMU has 2 exports, its server offers 1"),
    Case([.init(id: "x", node: "a")], [], "its server offers 0"),
    Case([.init(id: "x", node: "a"), .init(id: "y", node: "b")], [offer("n"), offer("n")], "one name twice"),
    // By its name it is the other one.
    Case([.init(id: "y", node: "b"), .init(id: "x", node: "a")], [offer("y"), offer("n")], "called y"),
    Case([.init(id: "y", node: "b"), .init(id: "x", node: "a")], [offer("b"), offer("n")], "called b"),
    Case([.init(id: "x", node: "a")], [offer("x", size: 2048)], "2048 bytes, and its disk 1024"),
    Case([.init(id: "x", node: "a")], [offer("x", onlyRead, "qemu:dirty-bitmap:monday")], "dirty bitmap (monday)"),
    Case([.init(id: "x", node: "a")], [offer("x", onlyRead, "qemu:joint-allocation")], "qemu:joint-allocation"),
    Case([.init(id: "x", node: "#block8")], [offer("x")], "without a name (#block8)"),
    Case([.init(id: "x", node: "gone")], [offer("x")], "does not tell of"),
  ])
  func whatCannotBeToldIsRefused(_ example: Case) {
    guard case .untold(let why) = Self.find(example.listed, example.offered) else {
      Issue.record("not refused")
      return
    }
    #expect(why.contains(example.why))
  }

  /// From 7.1 on a server that is not limited to one client promises that several see the same.
  @Test(arguments: [(7, 2, 0xced, true), (7, 2, 0xded, false), (5, 2, 0xced, false), (7, 2, 0x48f, false)] as [(Int, Int, UInt16, Bool)])
  func aLimitToOneClientShows(major: Int, minor: Int, flags: UInt16, servesOne: Bool) {
    guard case .server(let server) = Self.find([.init(id: "x", node: "a")], [Self.offer("x", flags)], version: .init(major: major, minor: minor)) else {
      Issue.record("not told")
      return
    }
    #expect(server.servesOne == servesOne)
    #expect((server.startArguments(socket: "s")["max-connections"] != nil) == servesOne)
  }

  @Test func aDriveIsLookedForWhereItIsNow() {
    let export = NBDServer.Export(id: "x", node: nil, drive: "d0", name: "n", description: "words", isWritable: true, tellsDepth: true)
    let drives: JSONValue = [["device": "d1"], ["device": "d0", "inserted": ["node-name": "#block99"]]]
    #expect(
      export.arguments(drives: drives)
        == ["type": "nbd", "id": "x", "node-name": "#block99", "name": "n", "writable": true, "description": "words", "allocation-depth": true])
    #expect(export.arguments(drives: [["device": "d0"]]) == nil)
  }
}

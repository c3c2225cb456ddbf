import Testing

@testable import QEMU

@Suite struct RemoteNodeTests {
  struct Case: Sendable, CustomTestStringConvertible {
    var file: String
    var server: RemoteNode.Server?
    var export = ""
    init(_ file: String, _ server: RemoteNode.Server?, _ export: String = "") { (self.file, self.server, self.export) = (file, server, export) }
    var testDescription: String { file }
  }

  /// As QEMU prints them.
  @Test(arguments: [
    Case("", nil), Case("nbd", nil), Case("rbd:pool/image", nil), Case("json:{broken", nil), Case("nbd://h/e", nil, "e"),
    Case("nbd://h:x/e", nil, "e"), Case(#"json:{"driver":"nbd","server":{"type":"fd","str":"7"}}"#, nil),
    Case(#"json:{"driver":"nbd","server":{"type":"vsock","cid":"1","port":"x"}}"#, nil),
    Case("nbd+unix:///e", nil),
    Case("nbd://h:10809", .port(10809, host: "h")), Case("nbd://h:10809/a/b?c", .port(10809, host: "h"), "a/b?c"),
    Case("nbd://[::1]:5/e", .port(5, host: "::1"), "e"), Case("nbd+tcp://10.0.0.1:5/", .port(5, host: "10.0.0.1")),
    Case("nbd+unix://?socket=/s", .path("/s")), Case("nbd+unix:///?socket=/s", .path("/s")), Case("nbd+unix:///e?socket=/a b?c", .path("/a b?c"), "e"),
    Case(#"json:{"driver":"nbd","export":"e","server":{"type":"inet","host":"h","port":"5"}}"#, .port(5, host: "h"), "e"),
    Case(#"json:{"driver":"nbd","server.type":"unix","server.path":"/s"}"#, .path("/s")),
  ])
  func aServerIsTold(_ example: Case) {
    let node = RemoteNode(driver: "nbd", file: example.file, isReadOnly: false)
    #expect(node.server == example.server && node.export == example.export)
  }

  @Test(arguments: [
    ("iscsi", "json:{}", nil), ("iscsi", "iscsi://h:x/t/0", nil), ("ssh", "json:{}", nil), ("ssh", "ssh://u@h/p", .port(22, host: "h")),
    ("ssh", #"json:{"driver":"ssh","path":"/i","server":{"host":"::1","port":"5"},"user":"u"}"#, .port(5, host: "::1")),
    ("ssh", #"json:{"driver":"ssh","server.host":"h","path":"/i"}"#, .port(22, host: "h")),
    ("iscsi", "iscsi://10.0.0.1/iqn.x:y/1", .port(3260, host: "10.0.0.1")), ("iscsi", "iscsi://u%p@h:5/iqn.x:y/1", .port(5, host: "h")),
    ("iscsi", #"json:{"driver":"iscsi","portal":"127.0.0.1:7","target":"iqn.x:y","lun":1}"#, .port(7, host: "127.0.0.1")),
    ("iscsi", #"json:{"driver":"iscsi","portal":"[::1]","target":"iqn.x:y"}"#, .port(3260, host: "::1")),
    ("http", "http://h/x:1", .port(80, host: "h")), ("https", "https://u:p@h:5/x@y", .port(5, host: "h")),
    ("http", #"json:{"driver":"http","url":"http://[::1]:8/x","readahead":65536}"#, .port(8, host: "::1")),
  ] as [(String, String, RemoteNode.Server?)])
  func aServerIsToldByItsURL(_ driver: String, _ file: String, _ server: RemoteNode.Server?) {
    #expect(RemoteNode(driver: driver, file: file, isReadOnly: true).server == server)
  }

  @Test func namesOfTheServersAreNoNodes() {
    let option = BlockOption([("driver", "iscsi"), ("target", "iqn.x"), ("lun", "1")].map { (key: $0.0, value: $0.1) })
    #expect(option.children.isEmpty && option.keys["target"] == "iqn.x")
  }

  @Test func remoteNodesAreWhatDisksEndAt() {
    let graph = LiveDiskTests.live([
      "#1 raw nbd://h:5/x file=#2", "#2 nbd nbd://h:5/x ro", "#3 qcow2 /d backing=#1 file=#4", "#4 file /d", "virtio0@/machine/x>#1", "ide0@/machine/y>#3",
    ])
    #expect(graph.graph.remoteNodes == [RemoteNode(driver: "nbd", file: "nbd://h:5/x", isReadOnly: true)])
    #expect(graph.graph.backends.map { graph.graph.isRemote(graph.graph.nodes[$0.root!]!) } == [true, false])
  }
}

@Suite struct NBDHandshakeTests {
  private static let greeting = Array("NBDMAGICIHAVEOPT".utf8) + [0, 3]
  private static func reply(_ type: [UInt8], _ data: [UInt8] = []) -> [UInt8] {
    [0, 3, 0xe8, 0x89, 4, 0x55, 0x65, 0xa9, 0, 0, 0, 6] + type + [0, 0, 0, UInt8(data.count)] + data
  }
  private static let (information, acknowledged): ([UInt8], [UInt8]) = ([0, 0, 0, 3], [0, 0, 0, 1])
  private static func export(_ flags: [UInt8]) -> [UInt8] { reply(information, [0, 0, 0, 0, 0, 0, 0, 0, 2, 0] + flags) }
  private static let blockSizes = reply(information, [0, 3, 0, 0, 0, 1, 0, 0, 16, 0, 2, 0, 0, 0])

  @Test func itAsksAndHearsInPiecesOfAnySize() {
    // qemu-nbd 7.2 with --shared=4, and with 1.
    for (flags, servesSeveral) in [([0x0d, 0x6d], true), ([0x0c, 0x6d], false)] as [([UInt8], Bool)] {
      let conversation = Self.greeting + Self.blockSizes + Self.export(flags) + Self.reply(Self.acknowledged)
      for size in [1, 7, conversation.count] {
        var (handshake, said, outcome) = (NBDHandshake(export: "ab"), [UInt8](), NBDOutcome<NBDHandshake.Export>.waiting)
        for start in stride(from: 0, to: conversation.count, by: size) {
          #expect(outcome == .waiting)
          let next = handshake.hear(Array(conversation[start..<min(start + size, conversation.count)]))
          said += next.answer
          outcome = next.outcome
        }
        #expect(outcome == .found(.init(flags: UInt16(flags[0]) << 8 | UInt16(flags[1]), size: 512)))
        guard case .found(let export) = outcome else { continue }
        #expect(export.servesSeveral == servesSeveral)
        #expect(said == [0, 0, 0, 1] + Array("IHAVEOPT".utf8) + [0, 0, 0, 6, 0, 0, 0, 8, 0, 0, 0, 2] + Array("ab".utf8) + [0, 0]
          + Array("IHAVEOPT".utf8) + [0, 0, 0, 2, 0, 0, 0, 0])
      }
    }
  }

  @Test(arguments: [
    (Array("SSH-2.0-OpenSSH\r\n".utf8), "does not speak"), (Array("NBDMAGIC".utf8) + [0, 0, 0x42, 2, 0x81, 0x86, 0x12, 0x53], "newer form"),
    (Array("NBDMAGICIHAVEOPT".utf8) + [0, 0], "does not tell of its exports"), (greeting + reply([0x80, 0, 0, 1]), "does not tell of its exports"),
    (greeting + reply([0x80, 0, 0, 5], Array("TLS".utf8)), "wants TLS"), (greeting + reply([0x80, 0, 0, 6]), "no such export"),
    (greeting + reply([0x80, 0, 0, 99]), "error 80000063"), (greeting + reply(acknowledged), "tells nothing"),
    (greeting + [UInt8](repeating: 7, count: 20), "not understood"),
    (greeting + Array(reply(information).dropLast(4)) + [0x7f, 0, 0, 0], "not understood"),
  ] as [([UInt8], String)])
  func itIsRefused(_ said: [UInt8], _ why: String) {
    var handshake = NBDHandshake(export: "")
    guard case .refused(let reason) = handshake.hear(said).outcome else {
      Issue.record("not refused")
      return
    }
    #expect(reason.contains(why))
  }
}

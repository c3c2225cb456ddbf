import Testing

@testable import QEMU

@Suite struct GuestAgentTests {
  @Test(arguments: [
    (what: "the answer", bytes: "\u{1}{\"return\":7}\n", isAnswered: true),
    (what: "what another asked, then the answer", bytes: "{\"return\":1}\n\u{1}{\"return\":7}\n", isAnswered: true),
    (what: "half of what another asked", bytes: "urn\":1}\n\u{1}{\"return\":7}\n", isAnswered: true),
    (what: "nothing", bytes: "", isAnswered: false),
    (what: "half of the answer", bytes: "\u{1}{\"return\":7}", isAnswered: false),
    (what: "the answer to another's call", bytes: "\u{1}{\"return\":8}\n", isAnswered: false),
    (what: "an answer that is not delimited", bytes: "{\"return\":7}\n", isAnswered: false),
    (what: "an error", bytes: "\u{1}{\"error\":{\"class\":\"GenericError\",\"desc\":\"x\"}}\n", isAnswered: false),
    (what: "garbage", bytes: "\u{1}}{\n", isAnswered: false),
  ])
  func theAnswerIsFound(what: String, bytes: String, isAnswered: Bool) {
    // 0xFF is no character: 0x01 stands for it here.
    #expect(GuestAgent.isAnswered(bytes.utf8.map { $0 == 1 ? 0xFF : $0 }, by: 7) == isAnswered, "\(what)")
  }

  @Test(arguments: [
    (argv: "-chardev socket,id=a,path=/r/a,server=on,wait=off -device virtserialport,chardev=a,name=org.qemu.guest_agent.0", path: "/r/a"),
    (argv: "-device virtserialport,chardev=a,name=org.qemu.guest_agent.0 -chardev socket,id=a,path=a,server=on,wait=off", path: "a"),
    (argv: "-chardev socket,id=a,path=/r/a,server=on,wait=off -device virtserialport,chardev=a,name=org.example.0", path: nil),
    (argv: "-chardev socket,id=a,path=/r/a -device virtserialport,chardev=a,name=org.qemu.guest_agent.0", path: nil),
    (argv: "-chardev null,id=a -device virtserialport,chardev=a,name=org.qemu.guest_agent.0", path: nil),
    (argv: "-device virtserialport,name=org.qemu.guest_agent.0", path: nil),
  ] as [(String, String?)])
  func itsSocketIsFound(argv: String, path: String?) {
    let description = MachineDescription(CommandLine(argv: ["qemu-system-x86_64"] + argv.split(separator: " ").map(String.init)))
    #expect(description.guestAgent == path.map { GuestAgent(chardev: "a", path: $0) })
  }
}

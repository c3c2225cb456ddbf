import Kernel
import QEMU
import Testing

/// Command lines as people keep them.
@Suite struct CommandLineFileTests {
  @Test(arguments: [
    ("qemu-system-x86_64 -m 512", ["qemu-system-x86_64", "-m", "512"]),
    ("# a comment\nLC_ALL=C HOME=/x \\\n/usr/bin/kvm \\\n  -name 'a b' \\\n  -m 1G\n", ["/usr/bin/kvm", "-name", "a b", "-m", "1G"]),
    (#"kvm -name "a\"b\x\\" -append a\ b -k ''"#, ["kvm", "-name", #"a"b\x\"#, "-append", "a b", "-k", ""]),
    (#"kvm -blockdev '{"a":"\n"}'"#, ["kvm", "-blockdev", #"{"a":"\n"}"#]),
    ("kvm -drive file=a'b'c,if=none", ["kvm", "-drive", "file=abc,if=none"]),
    ("kvm -append 'two\nlines'", ["kvm", "-append", "two\nlines"]),
    ("qemu-system-x86_64\0-name\0a b\0-append\0\0", ["qemu-system-x86_64", "-name", "a b", "-append", ""]),
    ("kvm\0-S", ["kvm", "-S"]),
    ("kvm \\\r\n-name x \r\n-S\r\n", ["kvm", "-name", "x", "-S"]),
    ("-device e1000\n-m 1G\n", ["", "-device", "e1000", "-m", "1G"]),
    ("# c\n\n[device \"d\"]\n  driver = \"e1000\"\n", ["", "-device", "id=d,driver=e1000"]),
    ("sudo -u me nohup env A=b /usr/libexec/qemu-kvm -name x", ["/usr/libexec/qemu-kvm", "-name", "x"]),
    ("#!/bin/sh\nexec qemu-system-x86_64 -S", ["qemu-system-x86_64", "-S"]),
    ("docker run -it image qemu-system-i386 -m 64", ["qemu-system-i386", "-m", "64"]),
    ("-D qemu-system-x86_64 -S", ["", "-D", "qemu-system-x86_64", "-S"]),
    ("kvm -name qemu-system-x86_64", ["kvm", "-name", "qemu-system-x86_64"]),
    ("./a.out --machine none", ["./a.out", "--machine", "none"]),
  ])
  func `is read`(text: String, argv: [String]) throws {
    #expect(try CommandLine(reading: Array(text.utf8), subject: "t").argv == argv)
  }

  @Test(arguments: [
    ("", "empty"), ("# nothing\n", "empty"), ("ls -l", "no command of QEMU"), ("kvm -name 'a", "quote"), ("kvm \"", "quote"),
    ("kvm -S \\\n", "backslash"), ("kvm -S | tee log", "more than one command"), ("kvm -S; kvm -m 1", "more than one command"),
    ("qemu-system-x86_64 -m 64 a.img\nqemu-system-x86_64 b.img", "more than one command"),
  ])
  func `is refused`(text: String, reason: String) {
    let failure = #expect(throws: Failure.self) { try CommandLine(reading: Array(text.utf8), subject: "f") }
    #expect(failure?.subject == "f" && failure?.reason?.contains(reason) ?? false && failure?.hint != nil)
  }

  @Test func `bytes that are no text are refused`() {
    #expect(throws: Failure.self) { try CommandLine(reading: [0x7f, 0x45, 0x4c, 0x46, 2, 1, 0xff, 0], subject: "f") }
  }
}

import Kernel
import Testing

@testable import QEMU
@testable import Upgrade

@Suite struct ReplacedFileTests {
  static func file(_ name: String, _ successor: ReplacedFile.Successor) -> ReplacedFile {
    ReplacedFile(path: "/l/" + name, successor: successor, successorPath: "/l/" + name)
  }

  @Test(arguments: [
    ([], nil),
    ([file("qemu", .other)], "the binary was replaced"),
    ([file("qemu", .none), file("a.so", .other)], "a.so was replaced, the binary was deleted"),
    ([file("qemu", .sameBuild)], "the binary was replaced by the same build"),
    ([file("a.so", .other), file("b.so", .other)], "a.so and b.so were replaced"),
    ([file("qemu", .other), file("a.so", .other), file("b.so", .other), file("c.so", .other)], "the binary was replaced, a.so and 2 more libraries were replaced"),
  ] as [([ReplacedFile], String?)])
  func sentence(files: [ReplacedFile], text: String?) { #expect(ReplacedFile.sentence(files, binary: "/l/qemu") == text) }

  @Test func `updates are counted by package, and the same build is none`() {
    let updates = PendingUpdate.ofFiles(
      [
        Self.file("qemu", .other), Self.file("module.so", .other), Self.file("libslirp.so", .other), Self.file("same.so", .sameBuild),
        Self.file("gone.so", .none), Self.file("nobodys.so", .other), Self.file("another.so", .other),
      ],
      binary: "/l/qemu",
      packages: [
        "/l/qemu": .init(name: "qemu-system-x86", version: "1:10.0-2"), "/l/module.so": .init(name: "qemu-system-x86", version: "1:10.0-2"),
        "/l/libslirp.so": .init(name: "libslirp0", version: "4.8-1"),
      ],
      version: QEMUVersion(major: 7, minor: 2, micro: 22, package: "Debian 1:7.2-7"), installed: QEMUVersion(major: 10, minor: 0),
      before: ["libslirp0": "4.7-1"])
    #expect(
      updates == [
        PendingUpdate(what: "QEMU, module.so", package: "qemu-system-x86", running: "1:7.2-7", installed: "1:10.0-2", resolution: .upgrade),
        PendingUpdate(what: "libslirp.so", package: "libslirp0", running: "4.7-1", installed: "4.8-1", resolution: .upgrade),
        PendingUpdate(what: "nobodys.so", resolution: .upgrade), PendingUpdate(what: "another.so", resolution: .upgrade),
      ])
  }

  @Test func `a binary that no package owns is known by its versions`() {
    let updates = PendingUpdate.ofFiles(
      [Self.file("qemu", .other)], binary: "/l/qemu", packages: [:], version: QEMUVersion(major: 7, minor: 2, package: "Debian 1:7.2-7"),
      installed: QEMUVersion(major: 10, minor: 0), before: [:])
    #expect(updates == [PendingUpdate(what: "QEMU", running: "7.2.0", installed: "10.0.0", resolution: .upgrade)])
  }
}

@Suite struct BuildTests {
  /// A header, one program header and a segment.
  private static func file(type: UInt32, _ content: [UInt8]) -> [UInt8] {
    var bytes: [UInt8] = [0x7f, 0x45, 0x4c, 0x46, 2, 1] + [UInt8](repeating: 0, count: 58)
    func put(_ value: some FixedWidthInteger, _ offset: Int) {
      withUnsafeBytes(of: value.littleEndian) { for (index, byte) in $0.enumerated() { bytes[offset + index] = byte } }
    }
    bytes += [UInt8](repeating: 0, count: 56)
    put(UInt64(64), 32)
    put(UInt16(56), 54)
    put(UInt16(1), 56)
    put(type, 64)
    put(UInt64(120), 72)
    put(UInt64(content.count), 96)
    return bytes + content
  }
  private static let other: [UInt8] = [4, 0, 0, 0, 4, 0, 0, 0, 1, 0, 0, 0] + Array("GNU\0".utf8) + [9, 9, 9, 9]
  private static let build: [UInt8] = [4, 0, 0, 0, 5, 0, 0, 0, 3, 0, 0, 0] + Array("GNU\0".utf8) + [1, 2, 3, 4, 5, 0, 0, 0]

  @Test func `the build id is in a note`() {
    #expect(ELF.buildID(in: Self.file(type: 4, Self.other + Self.build)) == [1, 2, 3, 4, 5])
    #expect(ELF.buildID(in: Self.file(type: 4, Self.other)) == nil)
    #expect(ELF.buildID(in: Self.file(type: 1, Self.build)) == nil)
    #expect(ELF.buildID(in: Array(Self.file(type: 4, Self.build).dropLast(8))) == nil, "cut off")
    #expect(ELF.buildID(in: Array("#!/bin/sh\n".utf8)) == nil)
    #expect(ELF.buildID(in: []) == nil)
  }

  @Test func `a library that is installed has name and build id`() throws {
    let bytes = try Files.read("/proc/self/exe", limit: 1 << 16)
    #expect(ELF.buildID(in: bytes) != nil)
    #expect(try ELF.soname(of: "/lib/x86_64-linux-gnu/libc.so.6") == "libc.so.6")
  }

  @Test func `a module's source version`() {
    let module = Self.file(type: 1, Array("\0license=GPL\0srcversion=9FC1C06\0\0depends=kvm\0".utf8))
    #expect(ELF.moduleInfo("srcversion", in: module) == "9FC1C06")
    #expect(ELF.moduleInfo("depends", in: module) == "kvm")
    #expect(ELF.moduleInfo("version", in: module) == nil)
  }
}

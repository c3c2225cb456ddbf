import Testing

@testable import QEMU

@Suite struct VMStateTests {
  typealias Description = VMStateDump.Description

  /// A dump of one device `dev`, as QEMU writes it.
  static func dump(_ description: String) throws -> VMStateDump {
    try VMStateDump(parsing: Array(#"{"vmschkmachine":{"Name":"pc"},"dev":{"Name":"dev","version_id":1,"minimum_version_id":1,"Description":"#.utf8) + Array(description.utf8) + Array("}}".utf8))
  }

  static func field(_ name: String, _ size: Int = 4, num: Int? = nil, version: Int = 0, exists: Bool = false) -> String {
    #"{"field":"\#(name)","version_id":\#(version),"field_exists":\#(exists),\#(num.map { #""num":\#($0),"# } ?? "")"size":\#(size)}"#
  }
  static func structure(_ name: String, _ description: String, exists: Bool = false, num: Int? = nil) -> String {
    #"{"field":"\#(name)","version_id":0,"field_exists":\#(exists),\#(num.map { #""num":\#($0),"# } ?? "")"size":99,"Description":\#(description)}"#
  }
  static func description(_ fields: [String] = [], version: Int = 1, oldest: Int = 1, name: String = "d", subsections: [String] = []) -> String {
    let more = subsections.isEmpty ? "" : #","Subsections":[\#(subsections.joined(separator: ","))]"#
    return #"{"name":"\#(name)","version_id":\#(version),"minimum_version_id":\#(oldest),"Fields":[\#(fields.joined(separator: ","))]\#(more)}"#
  }

  struct Case: Sendable {
    var what: String
    var saved: String
    var loaded: String
    var certain: [String] = []
    var possible: [String] = []
  }

  static let cases: [Case] = [
    Case(what: "the same", saved: description([field("a")]), loaded: description([field("a")])),
    Case(what: "another section name", saved: description(name: "vga"), loaded: description(name: "vga-isa"),
      certain: ["its section is called vga here and vga-isa there"]),
    Case(what: "a newer version", saved: description(version: 2), loaded: description(), certain: ["version 2 is saved, up to 1 is loaded"]),
    Case(what: "an older version that is loaded still", saved: description([field("a")], version: 1), loaded: description([field("b")], version: 3, oldest: 1)),
    Case(what: "an older version that is not", saved: description(version: 0), loaded: description(version: 1, oldest: 1),
      certain: ["version 0 is saved, 1 and later is loaded"]),
    Case(what: "a field more", saved: description([field("a"), field("b")]), loaded: description([field("a")]), certain: ["not loaded there: field b"]),
    Case(what: "a field less", saved: description([field("a")]), loaded: description([field("a"), field("b"), field("c")]),
      certain: ["expected there but not saved: fields b, c"]),
    Case(what: "a field of another size", saved: description([field("a", 4)]), loaded: description([field("a", 8)]),
      certain: ["not loaded there: field a; expected there but not saved: field a"]),
    Case(what: "a field of a later version than is saved", saved: description([field("a"), field("b", version: 2)]), loaded: description([field("a")])),
    Case(what: "another name", saved: description([field("a")]), loaded: description([field("b")])),
    Case(what: "fields that became a hole", saved: description([field("a", 1), field("b", 1, num: 5)]), loaded: description([field("unused", 3, num: 2)])),
    Case(what: "a field that moved into a structure", saved: description([field("a"), field("b")]),
      loaded: description([structure("s", description([field("a"), field("b")]))])),
    Case(what: "a longer array of structures", saved: description([structure("s", description([field("a")]), num: 3)]),
      loaded: description([structure("s", description([field("a")]), num: 2)]),
      certain: ["not loaded there: field a; expected there but not saved: field a"]),
    Case(what: "an array whose length one dump does not tell", saved: description([field("a", num: 3)]), loaded: description([field("a")])),
    Case(what: "a hole of which it cannot be told whether it fits", saved: description([field("a"), field("b")]), loaded: description([field("unused", 7)]),
      possible: ["not loaded there: fields a, b; expected there but not saved: field unused"]),
    Case(what: "a field that became permanent", saved: description([field("a"), field("b", exists: true)]), loaded: description([field("a"), field("b")])),
    Case(what: "a structure that became permanent", saved: description([structure("s", description([field("a")]), exists: true)]),
      loaded: description([structure("s", description([field("a")]))])),
    Case(what: "a field by the device's choice", saved: description([field("a", exists: true)]), loaded: description([]),
      possible: ["not loaded there, if saved: field a"]),
    Case(what: "a custom field", saved: description([field("a"), field("msix", 0)]), loaded: description([field("a")]),
      certain: ["not loaded there: field msix"]),
    Case(what: "a subsection", saved: description(subsections: [description(name: "d/x")]), loaded: description(),
      possible: ["subsection d/x is not known there"]),
    Case(what: "a subsection more is no loss", saved: description(), loaded: description(subsections: [description(name: "d/x")])),
    Case(what: "a subsection of a structure", saved: description([structure("s", description(subsections: [description(name: "s/x")]))]),
      loaded: description([structure("s", description())]), possible: ["subsection s/x is not known there"]),
    Case(what: "many fields", saved: description((1...6).map { field("f\($0)") }), loaded: description(),
      certain: ["not loaded there: fields f1, f2, f3, f4 and 2 more"]),
  ]

  @Test(arguments: cases) func findsWhatIsLost(_ one: Case) throws {
    let losses = try Self.dump(one.saved).losses(to: try Self.dump(one.loaded), devices: ["dev", "other"])
    #expect(losses.filter(\.isCertain).map(\.what) == one.certain, "\(one.what)")
    #expect(losses.filter { !$0.isCertain }.map(\.what) == one.possible, "\(one.what)")
  }

  @Test func onlyTheVMsDevicesCount() throws {
    let (saved, loaded) = (try Self.dump(Self.description(version: 2)), try Self.dump(Self.description()))
    #expect(saved.losses(to: loaded, devices: ["virtio-blk-pci"]) == [])
    #expect(saved.losses(to: VMStateDump(), devices: ["dev"]) == [], "made of other devices there")
    #expect(saved.sections["vmschkmachine"] == nil)
  }

  @Test func aSectionWithoutADescriptionHasItsVersion() throws {
    let dump = try VMStateDump(parsing: Array(#"{"nvme":{"Name":"nvme","version_id":0,"minimum_version_id":0}}"#.utf8))
    #expect(dump.sections["nvme"] == Description(name: "nvme", version: 0, oldest: 0, fields: [], subsections: []))
  }

  @Test(arguments: ["", "{", "[]", "1", #"{"dev":1}"#, #"{"dev":{"version_id":"x"}}"#, #"{"dev":{"version_id":1,"Description":{"Fields":7}}}"#,
    #"{"dev":{"version_id":9223372036854775807,"Description":{"version_id":9e99,"Fields":[{"size":-1,"num":9223372036854775807}]}}}"#])
  func nonsenseTrapsNothing(text: String) {
    guard let dump = try? VMStateDump(parsing: Array(text.utf8)) else { return }
    _ = dump.losses(to: dump, devices: ["dev"])
  }
}

@Suite struct GuestViewTests {
  static let old = """
                    Block Name    PSize              Offset               Used              Total
                        pc.ram    4 KiB  0x0000000000000000 0x0000000004000000 0x0000000004000000
          /rom@etc/acpi/tables    4 KiB  0x0000000004080000 0x0000000000020000 0x0000000000200000
       0000:00:02.0/e1000 a.rom    4 KiB  0x0000000004280000 0x0000000000040000 0x0000000000040000
    """
  static let new = """
                    Block Name    PSize              Offset               Used              Total                HVA  RO\r
                        pc.ram    4 KiB  0x0000000000000000 0x0000000004000000 0x0000000004000000 0x00007f05f7e00000  rw\r
          /rom@etc/acpi/tables    2 MiB  0x0000000004080000 0x0000000000040000 0x0000000000200000 0x00007f05f7800000  ro\r
       0000:00:02.0/e1000 a.rom    4 KiB  0x0000000004280000 0x0000000000080000 0x0000000000080000 0x00007f0648200000  ro\r
    """

  @Test func theTableIsReadInAnyVersion() {
    let rom = "0000:00:02.0/e1000 a.rom"
    #expect(RAMBlock.parse(Self.old) == [
      RAMBlock(name: "pc.ram", used: 0x400_0000, total: 0x400_0000), RAMBlock(name: "/rom@etc/acpi/tables", used: 0x2_0000, total: 0x20_0000),
      RAMBlock(name: rom, used: 0x4_0000, total: 0x4_0000),
    ])
    #expect(RAMBlock.parse(Self.new)?.map(\.name) == ["pc.ram", "/rom@etc/acpi/tables", rom])
    #expect(RAMBlock.parse(Self.new)?.map(\.used) == [0x400_0000, 0x4_0000, 0x8_0000])
  }

  @Test(arguments: ["", "x", "Block Name", "Block Name PSize Used Total\nshort", "Block Name PSize Offset Used Total\n a 4 KiB 0x0 0xz 0x1",
    "Block Name PSize Offset Used Total\n a 4 KiB 0x0 0x2 0x1", "Block Name PSize Offset Used Total\n 4 KiB 0x0 0x1 0x1"])
  func whatIsNoTableIsNotRead(text: String) { #expect(RAMBlock.parse(text) == nil) }

  @Test func blocksMustFit() throws {
    let (old, new) = (try #require(RAMBlock.parse(Self.old)), try #require(RAMBlock.parse(Self.new)))
    #expect(RAMBlock.mismatches(old: old, new: old) == [])
    #expect(RAMBlock.mismatches(old: old, new: new) == [
      "memory block 0000:00:02.0/e1000 a.rom: 524288 bytes here, 262144 there (a ROM or firmware of another size)"
    ])
    #expect(RAMBlock.mismatches(old: old, new: []).count == 3)
    #expect(RAMBlock.mismatches(old: [], new: new) == [], "a block more is not sent and not missed")
    let large = [RAMBlock(name: "t", used: 0x30_0000, total: 0x30_0000)]
    #expect(RAMBlock.mismatches(old: large, new: [RAMBlock(name: "t", used: 1, total: 0x20_0000)]).count == 1, "does not grow so far")
  }

  @Test func `bits that follow from the topology are no difference`() {
    // As 7.2 and 10.0 tell the same CPU with two cores.
    var (old, new) = (GuestView(cpu: ["CPUID 0x1 EDX": 0x783_fbfd, "CPUID 0x80000001 ECX": 1]), GuestView(cpu: ["CPUID 0x1 EDX": 0x1783_fbfd, "CPUID 0x80000001 ECX": 3]))
    #expect(!new.hasSameCPU(as: old))
    old.setTopologyBits()
    new.setTopologyBits()
    #expect(new.hasSameCPU(as: old) && old.cpu["CPUID 0x1 EDX"] == 0x1783_fbfd)
    let one: JSONValue = [["props": ["socket-id": 1, "core-id": 0, "thread-id": 0]]]
    #expect(!GuestView.hasSeveralThreads(cpus: one, possible: nil))
    #expect(GuestView.hasSeveralThreads(cpus: one, possible: [["props": ["socket-id": 0, "core-id": 1]]]), "one that is not plugged in counts")
    #expect(GuestView.hasSeveralThreads(cpus: [["props": ["thread-id": 1]]], possible: nil))
  }

  @Test func cpusMustLookAlike() {
    let old = GuestView(cpu: ["type": "a", "CPUID 0x1 ECX": 5])
    #expect(old.differences(from: old) == [])
    let newer = GuestView(cpu: ["type": "a", "CPUID 0x1 ECX": 5, "CPUID 0x24.1 EAX": 0])
    #expect(newer.hasSameCPU(as: old), "a word that is all off is as good as one that is not known")
    let other = GuestView(cpu: ["type": "b", "CPUID 0x1 ECX": 4])
    #expect(other.differences(from: old) == [#"CPU type: "b" here, "a" there"#, "CPU features: CPUID 0x1 ECX differ"])
    #expect(GuestView(cpu: ["type": "a", "CPUID 0x1 ECX": 4]).differences(from: old, features: (here: ["y"], there: ["x"])) == [
      "CPU features that the guest would lose: x", "CPU features that the guest would gain: y",
    ])
    #expect(GuestView().differences(from: GuestView(blocks: [RAMBlock(name: "a", used: 1, total: 1)])) == [], "what is not told is not compared")
  }
}

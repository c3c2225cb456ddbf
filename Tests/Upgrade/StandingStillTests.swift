import QEMU
import Testing

@testable import Upgrade

/// Which guests must not run while memory is copied: those of whose writes QEMU may not hear.
@Suite struct StandingStillTests {
  struct Case: Sendable, CustomTestStringConvertible {
    var kvm = false
    var version = QEMUVersion(major: 7, minor: 2)
    var asked = MemoryStrategy.auto
    /// Blocks beside the fixture's backend `ram`; nil for a table that cannot be read.
    var blocks: [String]? = []
    var ids = ["ram"]
    var stops: Bool
    /// MiB that are copied while the guest stands still; a block of the table has one.
    var copied: UInt64 = 0
    var testDescription: String { "\(kvm ? "KVM" : "TCG"), \(version), \(asked), \(blocks?.description ?? "no table")" }
  }

  static let roms = ["pc.bios", "pc.rom", "isa-bios", "/rom@etc/acpi/tables", "0000:00:02.0/virtio-net-pci.rom", "system.flash0"]

  static let cases: [Case] = [
    // RAM is copied: no version is safe, whatever the size.
    .init(version: .init(major: 5, minor: 2), asked: .copy, stops: true, copied: 512),
    .init(asked: .copy, stops: true, copied: 512),
    .init(version: .init(major: 9, minor: 0), asked: .copy, stops: true, copied: 512),
    .init(version: .init(major: 11, minor: 1), asked: .copy, stops: true, copied: 512),
    .init(asked: .copy, blocks: ["vga.vram"] + roms, stops: true, copied: 513),
    .init(asked: .copy, blocks: nil, stops: true, copied: 512),
    // RAM is shared, but not what devices have.
    .init(stops: false),
    .init(blocks: roms, stops: false),
    .init(blocks: roms + ["0000:00:01.0/vga.vram"], stops: true, copied: 1),
    .init(version: .init(major: 11, minor: 1), blocks: ["0000:00:02.0/qxl.vram", "0000:00:02.0/qxl.vgavram"], stops: true, copied: 2),
    .init(blocks: nil, stops: true),
    .init(blocks: ["/objects/m1", "m0"], ids: ["m0", "m1", "ram"], stops: false),
    // `-mem-path`: the backend has no id.
    .init(blocks: ["pc.ram"], ids: ["", "ram"], stops: false),
    .init(blocks: ["pc.ram"], stops: true, copied: 1),
    // KVM's log of written pages is the kernel's.
    .init(kvm: true, asked: .copy, stops: false), .init(kvm: true, blocks: ["vga.vram"], stops: false), .init(kvm: true, blocks: nil, stops: false),
  ]

  @Test(arguments: cases) func decides(_ test: Case) {
    var observation = Fixture.observation()
    (observation.usesKVM, observation.version) = (test.kvm, test.version)
    observation.memory = test.ids.map { ObservedMemory(id: $0, bytes: 512 << 20, descriptor: 9, isNamedFile: true, whyPrivate: nil) }
    observation.live.memoryBlocks = test.blocks.map { (["ram"] + $0).map { RAMBlock(name: $0, used: 1 << 20, total: 1 << 20) } }
    let plan = Fixture.plan(observation, Fixture.request(memory: test.asked))
    #expect(plan.memory.stopsGuest == test.stops)
    #expect(plan.bytesCopiedStill == test.copied << 20)
    #expect(plan.warnings.contains { $0.contains("stands still") } == test.stops)
    #expect(plan.pause.basis.contains("stands still") == test.stops)
  }
}

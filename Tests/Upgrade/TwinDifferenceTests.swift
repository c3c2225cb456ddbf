import Testing

@testable import QEMU

/// What makes two QEMUs different machines, and what does not.
@Suite struct TwinDifferenceTests {
  struct Case: Sendable, CustomTestStringConvertible {
    var what: String
    /// Part of the only difference; nil for none.
    var says: String?
    var change: @Sendable (inout LiveMachine) -> Void
    var testDescription: String { what }
  }

  static let cases: [Case] = [
    .init(what: "nothing", says: nil) { _ in },
    .init(what: "the run state", says: nil) { $0.status = "inmigrate" },
    .init(what: "thread ids", says: nil) { $0.vcpuThreads = [7, 8] },
    .init(what: "migration settings", says: nil) { $0.migrationCapabilities = [:] },
    .init(what: "moult's own monitor", says: nil) { $0.chardevs.append("moult-control") },
    .init(what: "the machine type", says: "machine type") { $0.machineType = "pc-q35-10.0" },
    .init(what: "a vCPU", says: "vCPUs: 3 here, 2 there") { $0.vcpuThreads.append(9) },
    .init(what: "an I/O thread", says: "I/O threads") { $0.iothreads = [:] },
    .init(what: "a memory device", says: "memory devices") { $0.memoryDevices = 1 },
    .init(what: "a chardev", says: "character devices") { $0.chardevs = [] },
    .init(what: "a device gone", says: "device blk0: absent here, virtio-blk-pci there") { $0.devices = [:] },
    .init(what: "a device's type", says: "device blk0: e1000 here") { $0.devices["blk0"] = "e1000" },
    .init(what: "the order of devices without id", says: "devices without id") { $0.anonymousDevices.append("usb-tablet") },
    .init(what: "an object", says: "objects") { $0.objects["secret"] = "secret" },
    .init(what: "a node", says: "block node here only") { $0.nodes.append(.init(name: "x", driver: "raw", file: "/x", depth: 0)) },
    .init(what: "the same node twice", says: "block nodes: 3 here, 2 there") { $0.nodes.append($0.nodes[0]) },
  ]

  @Test(arguments: cases) func isFound(_ test: Case) {
    var twin = Fixture.live
    test.change(&twin)
    let found = twin.differences(from: Fixture.live)
    #expect(found.count == (test.says == nil ? 0 : 1), "\(found)")
    if let says = test.says { #expect(found.first?.contains(says) == true, "\(found)") }
    #expect(Fixture.live.differences(from: twin).count == found.count)
  }

  /// A drive that differs is named from both sides.
  @Test func drivesAreComparedWithTheirLimits() {
    var twin = Fixture.live
    twin.drives[0].limits = "bps=1 "
    let found = twin.differences(from: Fixture.live)
    #expect(found.map { String($0.prefix(16)) } == ["drive here only:", "drive there only"])
  }
}

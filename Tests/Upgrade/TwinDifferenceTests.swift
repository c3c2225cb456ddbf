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
    .init(what: "a node", says: "disk here only: file x /x") { $0.graph.nodes["x"] = .init(name: "x", driver: "file", file: "/x") },
    .init(what: "a node that QEMU named by itself", says: "disk here only: file /x") {
      $0.graph.nodes["#block9"] = .init(name: "#block9", driver: "file", file: "/x")
    },
    .init(what: "an empty drive without a device", says: nil) { $0.graph.backends.append(.init(label: "sd0", device: "", root: nil)) },
    .init(what: "an empty drive", says: "disk here only: cd cd0: empty") { $0.graph.backends.append(.init(label: "cd", device: "cd0", root: nil)) },
  ]

  @Test(arguments: cases) func isFound(_ test: Case) {
    var twin = Fixture.live
    test.change(&twin)
    let found = twin.differences(from: Fixture.live)
    #expect(found.count == (test.says == nil ? 0 : 1), "\(found)")
    if let says = test.says { #expect(found.first?.contains(says) == true, "\(found)") }
    #expect(Fixture.live.differences(from: twin).count == found.count)
  }

  /// Trees of block nodes: what makes them different disks.
  static let disks: [(String, String?, @Sendable (inout BlockGraph) -> Void)] = [
    ("names that QEMU made up", nil, { $0 = TwinDifferenceTests.graph(root: "#block7", file: "#block8") }),
    ("a name that moult made up", nil, { $0 = TwinDifferenceTests.graph(root: "moult-1", file: "#block8") }),
    ("the number of a device of the machine's own", nil, { $0.backends[0].device = "/machine/unattached/device[9]" }),
    ("a name", "qcow2 mine", { $0 = TwinDifferenceTests.graph(root: "mine", file: "#block8") }),
    ("another image", "/d/other", { $0.nodes["#block2"]?.file = "/d/other" }),
    ("a guest's disk of another size", "qcow2 4096", { $0.nodes["#block1"]?.virtualSize = 4096 }),
    ("a file that has grown", nil, { $0.nodes["#block2"]?.virtualSize = 4096 }),
    ("the same image in JSON", nil, { $0.nodes["#block2"]?.file = #"json:{"driver":"file","filename":"/d/top"}"# }),
    ("the image below it alone", "disk here only: disk0 : raw", { $0.nodes["#block1"]?.driver = "raw" }),
    ("another image below", "/d/wrong", { $0.nodes["#block3"]?.file = "/d/wrong" }),
    ("nothing below", "disk here only", { $0.nodes["#block1"]?.children["backing"] = nil }),
    ("only read", "read-only", { $0.nodes["#block1"]?.isReadOnly = true }),
    ("past the host's cache", "direct", { $0.nodes["#block1"]?.isDirect = true }),
    ("another device", "disk here only: disk0 /machine/peripheral/x", { $0.backends[0].device = "/machine/peripheral/x" }),
    ("a limit", "bps=5", { $0.backends[0].limits = ["bps": 5] }),
    ("an empty drive", "disk here only: disk0 : empty", { $0.backends[0].root = nil }),
  ]

  static func graph(root: String = "#block1", file: String = "#block2") -> BlockGraph {
    var graph = BlockGraph()
    graph.nodes[root] = .init(name: root, driver: "qcow2", file: "/d/top", children: ["file": file, "backing": "#block3"])
    graph.nodes[file] = .init(name: file, driver: "file", file: "/d/top")
    graph.nodes["#block3"] = .init(name: "#block3", driver: "file", file: "/d/base", isReadOnly: true)
    graph.backends = [.init(label: "disk0", device: "/machine/unattached/device[3]", root: root)]
    return graph
  }

  @Test(arguments: disks) func disksAreComparedAsTrees(
    _ what: String, _ says: String?, _ change: @Sendable (inout BlockGraph) -> Void
  ) {
    var (twin, other) = (Fixture.live, Fixture.live)
    other.graph = Self.graph()
    twin.graph = other.graph
    change(&twin.graph)
    let found = twin.differences(from: other)
    #expect(found.isEmpty == (says == nil), "\(what): \(found)")
    if let says { #expect(found.contains { $0.contains(says) }, "\(what): \(found)") }
  }

  /// The device without id that has become the first is the first of the other, too.
  @Test func devicesWithoutIdAreToldByTheirOrder() {
    var (twin, other) = (Fixture.live, Fixture.live)
    (twin.graph, other.graph) = (Self.graph(), Self.graph())
    (twin.anonymousNumbers, other.anonymousNumbers) = ([0], [4])
    twin.graph.backends[0].device = "/machine/peripheral-anon/device[0]/virtio-backend"
    other.graph.backends[0].device = "/machine/peripheral-anon/device[4]/virtio-backend"
    #expect(twin.differences(from: other) == [])
    other.graph.backends[0].device = "/machine/peripheral-anon/device[3]/virtio-backend"
    #expect(twin.differences(from: other).count == 2)
  }

  @Test func drivesAreComparedWithTheirLimits() {
    var twin = Fixture.live
    twin.drives[0].limits = "bps=1 "
    #expect(twin.differences(from: Fixture.live).map { String($0.prefix(27)) } == ["limits and caches of drives"])
  }
}

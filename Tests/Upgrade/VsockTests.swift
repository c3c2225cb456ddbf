@testable import Kernel
import Testing

@testable import QEMU
@testable import Upgrade

/// A guest's vsock that the kernel serves: as values, without any.
@Suite struct VsockTests {
  static let plan = Fixture.plan(Fixture.vsock())

  @Test func theNewQEMUHasADeviceOfItsOwn() {
    #expect(Self.plan.blockers == [])
    // 3 and 4 are the monitor and the stream, 5 is the guest's RAM, 6 would be a working directory.
    #expect(Self.plan.rewiring.vsock == .init(cid: 3, source: 18, given: 7))
    #expect(Self.plan.rewiring.isEmpty && Self.plan.hasStandIns)
    #expect(Self.plan.steps.first { $0.name == .rewire }?.why == "vsock: the new QEMU's device gets the CID 3")
    #expect(Self.plan.steps.first { $0.name == .launch }?.why.hasSuffix("traced until it has given its vsock device a CID") ?? false)
    #expect(Self.plan.warnings.contains("connections by vsock between the host and the guest (CID 3) end (2 are open now), and have to be made again"))
  }

  static let options: [(String, String)] = [
    ("vhost-vsock-pci,guest-cid=3", "vhost-vsock-pci,guest-cid=3,vhostfd=7"),
    ("vhost-vsock-pci,id=v,guest-cid=3,vhostfd=32,bus=b", "vhost-vsock-pci,id=v,guest-cid=3,vhostfd=7,bus=b"),
    (#"{"driver":"vhost-vsock-pci","guest-cid":3,"vhostfd":"32"}"#, #"{"driver":"vhost-vsock-pci","guest-cid":3,"vhostfd":"7"}"#),
  ]

  @Test(arguments: options) func itsOptionHasTheDescriptor(option: String, becomes: String) {
    let line = CommandLine(argv: ["qemu", "-m", "1", "-device", option])
    var substitution = NetworkSubstitution()
    substitution.vsocks = [1: 7]
    #expect(substitution.applied(to: line).argv == ["qemu", "-m", "1", "-device", becomes])
  }

  static let devices: [(String, UInt32?)] = [
    ("vhost-vsock-pci,guest-cid=3", 3), ("vhost-vsock-ccw,guest-cid=0x10", 16), ("vhost-vsock-device,guest-cid=010", 8),
    ("vhost-vsock-pci-transitional,guest-cid=3", 3), ("vhost-vsock-pci-non-transitional,guest-cid=4294967294", 0xffff_fffe),
    (#"{"driver":"vhost-vsock-pci","guest-cid":4}"#, 4), ("vhost-vsock-pci", nil), ("vhost-vsock-pci,guest-cid=x", nil), ("vhost-vsock-pci,guest-cid=4294967296", nil),
  ]

  @Test(arguments: devices) func itsCIDIsInItsOption(option: String, cid: UInt32?) {
    #expect(CommandLine(argv: ["qemu", "-device", option]).vsockDevices == [.init(option: 0, cid: cid)])
  }

  @Test(arguments: ["vhost-user-vsock-pci,chardev=c", "virtio-rng-pci", "vhost-scsi-pci"]) func otherDevicesAreNone(option: String) {
    #expect(CommandLine(argv: ["qemu", "-device", option]).vsockDevices == [])
  }

  /// Words, descriptors of /dev/vhost-vsock; why it cannot be told which is whose.
  static let found: [(words: String, count: Int, why: String?)] = [
    ("-device vhost-vsock-pci,guest-cid=3", 1, nil), ("-device vhost-vsock-pci,guest-cid=3,vhostfd=99", 1, nil),
    ("-device vhost-vsock-pci", 1, "the guest's CID is not in the option (guest-cid=)"),
    ("-device vhost-vsock-pci,guest-cid=3", 2, "which descriptor is this device's cannot be told: QEMU has 2 of /dev/vhost-vsock open, for 1 devices"),
    ("-device vhost-vsock-pci,guest-cid=3", 0, "which descriptor is this device's cannot be told: QEMU has 0 of /dev/vhost-vsock open, for 1 devices"),
    ("-device vhost-vsock-pci,guest-cid=3 -device vhost-vsock-pci,guest-cid=4", 2, "which descriptor is this device's cannot be told: QEMU has 2 of /dev/vhost-vsock open, for 2 devices"),
  ]

  @Test(arguments: found) func itsDescriptorIsTheOnlyOne(words: String, count: Int, why: String?) throws {
    let network = try RewiringTests.Process(descriptors: Self.descriptors(count)).network(words)
    #expect(network.vsock == (why == nil ? .init(option: 0, cid: 3, descriptor: 30) : nil))
    #expect(Set(network.unresolved.map(\.why)) == Set([why].compactMap(\.self)))
    #expect(network.descriptors == Set((0..<count).map { 30 + CInt($0) }), "accounted for: what cannot be told is said once")
  }

  @Test func oneThatNoDeviceExplainsIsForeign() throws {
    #expect(try RewiringTests.Process(descriptors: Self.descriptors(1)).network("-vnc none").descriptors == [])
  }

  private static func descriptors(_ count: Int) throws -> [OpenDescriptor] {
    var status = try Files.status("/dev/null")
    status.specialDevice = DeviceNumber.make(major: 10, minor: 241)
    return (0..<count).map { OpenDescriptor(number: 30 + CInt($0), target: "/dev/vhost-vsock", flags: 0, position: 0, status: status) }
  }

  /// Back before the old QEMU goes on, whenever the upgrade is taken back.
  @Test func theCIDGoesOverLastAndComesBackFirst() throws {
    let whole = ModelHost(Self.plan)
    #expect(ExecutorTests.run(whole).outcome == .committed)
    let handed = try #require(whole.calls.firstIndex(of: "hand over CID 3"))
    #expect(whole.guestCID == .new && whole.calls[..<handed].contains { $0.hasPrefix("exchange") } && !whole.calls[..<handed].contains { $0.hasPrefix("new cont") })
    let undone = ModelHost(Self.plan, faults: [handed: .happensAndFails(.ioError)])
    #expect(ExecutorTests.run(undone).outcome == .failed)
    #expect(undone.guestCID == .old && undone.old.runs)
  }
}

import Kernel
import QEMU

extension ObservedNetwork {
  /// The guest's vsock, which the kernel serves.
  public struct Vsock: Sendable, Equatable {
    /// The device's option.
    public var option: Int
    public var cid: UInt32
    /// The running QEMU's.
    public var descriptor: CInt
    /// Connections that this host has with the guest; nil if the kernel does not tell.
    public var connections: Int?
  }

  /// A descriptor does not say what its CID is, nor does QEMU say which is whose.
  mutating func findVsock(_ commandLine: CommandLine, _ descriptors: [OpenDescriptor]) {
    let devices = commandLine.vsockDevices
    if devices.isEmpty { return }
    vsocks = Set(descriptors.filter { VhostVsock.isDevice($0.status) }.map(\.number))
    if devices.count == 1, vsocks.count == 1, let device = devices.first, let cid = device.cid, let descriptor = vsocks.first {
      vsock = Vsock(option: device.option, cid: cid, descriptor: descriptor)
      return
    }
    for device in devices {
      unresolved.append(
        (commandLine.options[device.option].text,
          device.cid == nil ? "the guest's CID is not in the option (guest-cid=)"
            : "which descriptor is this device's cannot be told: QEMU has \(vsocks.count) of /dev/vhost-vsock open, for \(devices.count) devices"))
    }
  }
}

extension Observer {
  /// Nil where the kernel cannot be asked: it may lack vsock_diag.
  static func connections(with cid: UInt32) -> Int? {
    do throws(Failure) { return try VhostVsock.connections(with: cid) } catch { return nil }
  }
}

import CKernel
import Glibc

/// Tap interfaces. Source: the kernel's documentation, networking/tuntap.
public enum Tap {
  /// What an interface is: a tap (not a tun), frames without a protocol word, virtio headers, several queues.
  public struct Flags: OptionSet, Sendable, Equatable, Codable {
    public let rawValue: UInt32
    public init(rawValue: UInt32) { self.rawValue = rawValue }
    public static let multipleQueues = Flags(rawValue: 0x0100)
    public static let tap = Flags(rawValue: 0x0002)
    /// Of those that TUNGETIFF reports, the ones that are asked for when an interface is made: tap, no packet
    /// information, one queue, multiple queues, virtio header.
    static let kind = Flags(rawValue: 0x0002 | 0x1000 | 0x2000 | 0x0100 | 0x4000)
  }

  /// Whether a file is the device that queues of taps are opened at.
  public static func isQueue(_ status: FileStatus) -> Bool {
    status.isCharacterDevice && status.specialDevice == DeviceNumber.make(major: 10, minor: 200)
  }

  /// The major numbers of the devices of which there is one for each tap that lies upon another interface (`/dev/tap7`); the
  /// kernel gives them out as its modules come. Source: proc_devices(5).
  public static func upperMajors() throws(Failure) -> Set<UInt32> {
    let lines = try Files.readText("/proc/devices").split(separator: "\n").map { $0.split(separator: " ") }
    return Set(lines.filter { $0.count == 2 && ["macvtap", "ipvtap"].contains($0[1]) }.compactMap { UInt32($0[0]) })
  }

  /// The interface that a descriptor is a queue of; nil if it is none.
  public static func interface(of descriptor: CInt) -> (name: String, flags: Flags)? {
    var name = [CChar](repeating: 0, count: 17)
    var flags: UInt32 = 0
    guard moult_tap_interface(descriptor, &name, &flags) == 0 else { return nil }
    return (String(decoding: name.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self), Flags(rawValue: flags))
  }
}

/// A tap of one queue that is connected to nothing, in a network namespace that nobody else is in: stands for a
/// real one until it is exchanged. It goes when the last descriptor of it is closed.
public struct DetachedTap: ~Copyable, Sendable {
  /// The queue, not blocking.
  public let queue: OwnedFD
  /// - Parameter flags: of the tap that it stands for: QEMU asks for them.
  public init(like flags: Tap.Flags) throws(Failure) {
    queue = try Namespaces.withNew([.network]) { () throws(Failure) in
      // Nothing of its own must be in its way: no router solicitation, no neighbour discovery.
      let ipv6 = "/proc/sys/net/ipv6/conf/default/disable_ipv6"
      if access(ipv6, F_OK) == 0 { try Files.write("1", to: ipv6) }
      var name = Array("moult%d".utf8CString) + [CChar](repeating: 0, count: 16)
      let kind = flags.intersection(.kind).rawValue
      let queue = OwnedFD(
        try valueOrErrno("make a tap", "", hint: "is /dev/net/tun there?") { moult_tap_open(&name, kind) })
      try valueOrErrno("bring up a tap", "") { moult_interface_up(name) }
      return queue
    }
  }
}

/// Sends on the interface of a tap that is connected to nothing.
public struct FrameSocket: ~Copyable, Sendable {
  private let socket: OwnedFD

  /// - Parameter queue: of the tap; stays the caller's.
  public init(tap queue: CInt) throws(Failure) {
    guard let interface = Tap.interface(of: queue) else {
      throw Failure(step: "open a frame socket of", subject: "descriptor \(queue)", reason: "it is no tap")
    }
    let namespace = OwnedFD(try valueOrErrno("find the network namespace of", interface.name) { moult_tap_namespace(queue) })
    socket = try Namespaces.within(network: namespace) { () throws(Failure) in
      OwnedFD(try valueOrErrno("open a frame socket of", interface.name) { moult_frame_socket(interface.name) })
    }
  }

  /// Makes a queue of the tap readable, by a frame that is for nobody.
  public borrowing func stir() throws(Failure) {
    // Destination and source are a local address; the type is the one for experiments (0x88b5).
    let address: [UInt8] = [2, 0, 0, 0, 0, 1]
    let frame = address + address + [0x88, 0xb5] + [UInt8](repeating: 0, count: 46)
    let socket = socket.raw
    try valueOrErrno("send a frame to", "a tap") { send(socket, frame, frame.count, 0) }
  }
}

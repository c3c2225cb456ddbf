import CKernel
import Glibc

/// The kernel's side of a guest's vsock (vsock(7)): a device for each guest, which has the guest's CID. Source: the kernel's
/// drivers/vhost/vsock.c.
///
/// A device can be given another CID at any time, by any process that has it open: what the guest reads of its CID is QEMU's
/// affair. No two have one at once.
public enum VhostVsock {
  private static let path = "/dev/vhost-vsock"
  /// The ioctl(2) that gives a device its CID, at 8 bytes: VHOST_VSOCK_SET_GUEST_CID.
  public static let setCID: UInt32 = 0x4008_AF60

  public static func isDevice(_ status: FileStatus) -> Bool {
    status.isCharacterDevice && status.specialDevice == DeviceNumber.make(major: 10, minor: 241)
  }

  /// A device that serves nobody yet, in the caller's network namespace. It is for the process that first asks it to (VHOST_SET_OWNER).
  public static func open() throws(Failure) -> OwnedFD {
    do throws(Failure) { return try OwnedFD.open(path, O_RDWR) } catch {
      var failure = error
      failure.hint = "the guest's vsock is served by the kernel: is the module vhost_vsock there still?"
      throw failure
    }
  }

  /// - Throws: EADDRINUSE if another device has it.
  public static func set(_ cid: UInt32, of device: CInt) throws(Failure) {
    try valueOrErrno("give a vsock device the CID", "\(cid)", hint: "end the program that has it: another QEMU with this guest-cid=?") {
      moult_set_guest_cid(device, UInt64(cid))
    }
  }

  /// Gives a device a CID that no other has, so that its own is free.
  @discardableResult
  public static func setFreeCID(of device: CInt) throws(Failure) -> UInt32 {
    for _ in 0..<100 {
      // Users count from 3 on. The highest number of all means any.
      let cid = UInt32.random(in: 1 << 31..<UInt32.max)
      do throws(Failure) {
        try set(cid, of: device)
        return cid
      } catch where error.errno == .addressInUse {}
    }
    throw Failure(step: "give a vsock device", subject: "a free CID", errno: .addressInUse)
  }

  /// Ends connections of this host to a CID that no device has: their users hear of it (ECONNRESET). The kernel looks for
  /// them when a device is closed, after a grace period of RCU: 15 to 20 ms.
  public static func endOrphans() throws(Failure) { _ = try open() }

  /// How many connections this host has with a guest, made by either side; of the caller's network namespace.
  public static func connections(with cid: UInt32) throws(Failure) -> Int {
    let socket = try SocketDump.open()
    return count(try SocketDump.read(request, from: socket.raw, ("vsock sockets", "vsock_diag")), with: cid)
  }

  /// vsock_diag_req: every state and inode, no cookie.
  private static var request: [UInt8] {
    [UInt8(AF_VSOCK), 0] + SocketDump.bytes(UInt16(0)) + SocketDump.bytes(UInt32.max) + SocketDump.bytes(UInt64(0)) + SocketDump.bytes(UInt64.max)
  }

  /// - Parameter sockets: a vsock_diag_msg each.
  static func count(_ sockets: [[UInt8]], with cid: UInt32) -> Int {
    sockets.count { socket in
      guard socket.count >= 28 else { return false }
      let (isOpen, peer, inode) = (socket[2] == 1, socket[...].integer(at: 12, as: UInt32.self), socket[...].integer(at: 20, as: UInt32.self))
      // One without an inode nobody has any more.
      return isOpen && peer == cid && inode != 0
    }
  }
}

import Glibc

/// The kernel's own server of a virtio network card's rings, one descriptor for each queue. What it is to serve it is told
/// when the guest runs, and forgets when that stops. Source: the kernel's drivers/vhost/net.c.
public enum VhostNet {
  private static let path = "/dev/vhost-net"

  public static func isDevice(_ status: FileStatus) -> Bool {
    status.isCharacterDevice && status.specialDevice == DeviceNumber.make(major: 10, minor: 238)
  }

  /// One that serves nothing yet. It is for the process that first asks it to (VHOST_SET_OWNER): any that has it.
  public static func open() throws(Failure) -> OwnedFD {
    do throws(Failure) { return try OwnedFD.open(path, O_RDWR) } catch {
      var failure = error
      failure.hint = "the VM's network cards are served by the kernel: is the module vhost_net there still?"
      throw failure
    }
  }
}

/// What block drivers and file name protocols reach.
enum BlockDriver {
  /// What a node opens on the host.
  struct Target: Equatable {
    var kind: Binding.Kind
    /// Nil if the right to write tells.
    var role: Binding.Role?
    var address: String
    /// Why it cannot be handed over; nil if it can.
    var refusal: Refusal?
  }

  /// Formats, filters and protocols that stay on local files.
  static let known: Set<String> = [
    "file", "host_device", "raw", "qcow2", "qcow", "qed", "vmdk", "vdi", "vhdx", "vpc", "parallels",
    "cloop", "dmg", "bochs", "luks", "throttle", "copy-on-read", "copy-before-write", "null-co",
    "null-aio", "preallocate", "quorum", "blkverify", "blkreplay", "snapshot-access", "compress",
    "zeroinit", "blkdebug", "alloc-track",
  ]

  private static let remote: Set<String> = [
    "nbd", "rbd", "iscsi", "http", "https", "ftp", "ftps", "ssh", "gluster", "nfs", "sheepdog", "vxhs",
    "pbs", "tftp", "iser",
  ]

  /// Remote disks that both QEMUs may have open: see ``RemoteNode``.
  private static let shared: Set<String> = ["nbd", "iscsi", "http", "https", "ssh"]

  /// Why a remote disk cannot be open in both QEMUs; nil if it can.
  static func refusal(_ driver: String) -> Refusal? {
    if shared.contains(driver) { return nil }
    if driver == "rbd" {
      return Refusal(
        reason: "the old QEMU would end with the image's lock (exclusive-lock), and Ceph waits until it is sure of that: tried with Ceph 16, the guest's writes stood still for 25 s",
        wayOut: "give the VM the disk as a block device of the host (rbd map); or migrate it to another host")
    }
    return Refusal(
      reason: "both QEMUs would have the remote disk (\(driver)) open at once, which has not been tried yet",
      wayOut: "give the VM the disk as a local block device")
  }

  static let negotiated = Refusal(
    reason: "its server is spoken to by TLS, so that moult cannot ask it whether it serves two QEMUs",
    wayOut: "without TLS, or give the VM the disk as a local block device")

  static func isRemote(_ driver: String) -> Bool { remote.contains(driver) }

  /// The port of a server that is written without one.
  static let defaultPorts: [String: UInt16] = ["nbd": 10809, "iscsi": 3260, "http": 80, "https": 443, "ssh": 22]

  /// The protocol before the first colon, if there is one before any slash, and what follows it.
  static func split(_ filename: String) -> (scheme: String?, path: String) {
    guard let colon = filename.firstIndex(of: ":"),
      filename.firstIndex(of: "/").map({ colon < $0 }) ?? true
    else { return (nil, filename) }
    let scheme = String(filename[..<colon])
    let rest = String(filename[filename.index(after: colon)...])
    return (scheme == "fat" ? "vvfat" : scheme, rest)
  }

  /// What a node of this driver opens; nil for a file or device of the host by its path, or nothing.
  ///
  /// - Parameter filename: the file name with its protocol, if it was given so.
  static func target(_ driver: String, _ own: [String: String], filename: String? = nil) -> Target? {
    // `nbd+unix`, `gluster+tcp`, …
    let base = String(driver.prefix { $0 != "+" })
    if remote.contains(base) {
      return Target(
        kind: .blockRemote, role: .connect, address: filename ?? own["filename"] ?? url(base, own),
        refusal: own["tls-creds"] != nil ? negotiated : refusal(own["transport"] == "iser" ? "iser" : base))
    }
    let path = own["filename"] ?? ""
    func refused(
      _ kind: Binding.Kind, _ address: String, _ reason: String, _ wayOut: String, role: Binding.Role? = .own
    ) -> Target {
      Target(kind: kind, role: role, address: address, refusal: Refusal(reason: reason, wayOut: wayOut))
    }
    let libblkio = "a disk by libblkio (\(base)) cannot be handed over yet"
    switch base {
    case "vvfat":
      var directory = own["dir"] ?? path
      for word in ["floppy:", "12:", "16:", "32:", "rw:"] {
        if directory.hasPrefix(word) { directory.removeFirst(word.count) }
      }
      return refused(
        .directory, directory, "a directory shown as a disk (vvfat) blocks migration", "use a disk image", role: .share)
    case "host_cdrom": return cdrom(path)
    case "nvme":
      // `nvme://0000:01:00.0/1`: the part after the slash is the namespace.
      let device = own["device"] ?? String(path.drop { $0 == "/" }.prefix { $0 != "/" })
      return refused(
        .vfio, Describer.pciAddress(device), "an NVMe controller of the host, driven by vfio, has one owner",
        "bind the kernel's nvme driver and use its block device")
    case "io_uring":
      return refused(.disk, path, libblkio, "use the driver host_device or file")
    case "nvme-io_uring":
      return refused(.disk, own["path"] ?? path, libblkio, "use the driver host_device")
    case "virtio-blk-vhost-user":
      return refused(.vhostUser, own["path"] ?? path, libblkio, "use a local disk", role: .connect)
    case "virtio-blk-vhost-vdpa":
      return refused(.vhostVdpa, own["path"] ?? path, libblkio, "use a local disk")
    case "virtio-blk-vfio-pci":
      return refused(.vfio, own["path"] ?? path, libblkio, "use a local disk")
    default: break
    }
    if path == "/dev/cdrom" || path.hasPrefix("/dev/sr") { return cdrom(path) }
    if path.hasPrefix("/dev/fdset/") || path.hasPrefix("/dev/fd/") || path.hasPrefix("/proc/self/fd/") {
      return refused(
        .disk, path, "an image passed by descriptor, which the new QEMU would not have",
        "start the VM with the image's path", role: nil)
    }
    if path.hasPrefix("/dev/sg") {
      return refused(
        .disk, path, "a SCSI device passed through keeps state that migration does not carry",
        "detach the device first", role: nil)
    }
    return nil
  }

  private static func cdrom(_ path: String) -> Target {
    Target(
      kind: .disk, role: .share, address: path,
      refusal: Refusal(
        reason: "a CD-ROM drive of the host (its tray and lock) has one owner",
        wayOut: "use an image of the disc, or eject it first"))
  }

  /// The address of a remote disk that is given by keys, as the URL that QEMU takes for the same.
  private static func url(_ driver: String, _ own: [String: String]) -> String {
    func first(_ keys: String...) -> String? { keys.lazy.compactMap { own[$0] }.first }
    var host = first("server.host", "server.0.host", "host") ?? ""
    if host.contains(":") { host = "[\(host)]" }
    let authority = host + (first("server.port", "server.0.port", "port").map { ":" + $0 } ?? "")
    let socket = first("server.path", "server.socket", "server.0.path", "server.0.socket")
    func url(_ path: String, user: String? = nil) -> String {
      let path = path.drop { $0 == "/" }
      if let socket { return "\(driver)+unix:///\(path)?socket=\(socket)" }
      return "\(driver)://" + (user.map { $0 + "@" } ?? "") + authority + (path.isEmpty ? "" : "/" + path)
    }
    switch driver {
    case "nbd":
      // Without a server's address, `path` is the socket's.
      if socket == nil, host.isEmpty, let path = own["path"] {
        return "nbd+unix:///\(own["export"] ?? "")?socket=\(path)"
      }
      return first("server.str").map { "nbd:fd=" + $0 } ?? url(own["export"] ?? "")
    case "rbd":
      let image = [own["pool"], own["namespace"], own["image"]].compactMap(\.self).joined(separator: "/")
      return "rbd:" + image + (own["snapshot"].map { "@" + $0 } ?? "")
    case "iscsi":
      let target = [own["portal"], own["target"], own["lun"] ?? "0"].compactMap(\.self).joined(separator: "/")
      return (own["transport"] == "iser" ? "iser" : "iscsi") + "://" + target
    case "gluster": return url([own["volume"], own["path"]].compactMap(\.self).joined(separator: "/"))
    case "sheepdog": return url(own["vdi"] ?? "")
    case "vxhs": return url(own["vdisk-id"] ?? "")
    case "ssh": return url(own["path"] ?? "", user: own["user"])
    case "nfs": return url(own["path"] ?? "")
    default: return own["url"] ?? own["uri"] ?? url(own["path"] ?? "")
    }
  }
}

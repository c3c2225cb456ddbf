/// What block drivers and file name protocols reach.
enum BlockDriver {
  struct Refusal {
    var kind: Binding.Kind
    var address: String
    var reason: String
    var wayOut: String
  }

  /// Formats, filters and protocols that stay on local files.
  static let known: Set<String> = [
    "file", "host_device", "raw", "qcow2", "qcow", "qed", "vmdk", "vdi", "vhdx", "vpc", "parallels",
    "cloop", "dmg", "bochs", "luks", "throttle", "copy-on-read", "copy-before-write", "null-co",
    "null-aio", "preallocate", "quorum", "blkverify", "blkreplay", "snapshot-access", "compress",
    "zeroinit", "blkdebug",
  ]

  private static let remote: Set<String> = [
    "nbd", "rbd", "iscsi", "http", "https", "ftp", "ftps", "ssh", "gluster", "nfs", "sheepdog", "vxhs",
    "pbs", "tftp", "iser",
  ]

  /// The protocol before the first colon, if there is one before any slash, and what follows it.
  static func split(_ filename: String) -> (scheme: String?, path: String) {
    guard let colon = filename.firstIndex(of: ":"),
      filename.firstIndex(of: "/").map({ colon < $0 }) ?? true
    else { return (nil, filename) }
    let scheme = String(filename[..<colon])
    let rest = String(filename[filename.index(after: colon)...])
    return (scheme == "fat" ? "vvfat" : scheme, rest)
  }

  /// Why a node cannot be handed over; nil if it can.
  static func rules(
    _ driver: String, _ own: [String: String], filename: String? = nil
  ) -> Refusal? {
    // `nbd+unix`, `gluster+tcp`, …
    let base = String(driver.prefix { $0 != "+" })
    let path = own["filename"] ?? ""
    let address =
      filename
      ?? ["filename", "server.path", "server.host", "path", "url", "uri", "portal", "device", "dir", "pool"]
      .lazy.compactMap { own[$0] }.first ?? base
    if remote.contains(base) {
      return Refusal(
        kind: .blockRemote, address: address,
        reason: "a remote disk (\(base)) is out of reach in a private network namespace",
        wayOut: "give the VM the disk as a local block device")
    }
    switch base {
    case "vvfat":
      return Refusal(
        kind: .directory, address: own["dir"] ?? path,
        reason: "a directory shown as a disk (vvfat) blocks migration", wayOut: "use a disk image")
    case "host_cdrom":
      return cdrom(path)
    case "nvme":
      return Refusal(
        kind: .vfio, address: address, reason: "an NVMe device of the host has one owner",
        wayOut: "use the kernel's block device of it")
    case "io_uring", "nvme-io_uring", "virtio-blk-vhost-user", "virtio-blk-vhost-vdpa",
      "virtio-blk-vfio-pci":
      return Refusal(
        kind: base == "io_uring" ? .disk : .vhostUser, address: address,
        reason: "a disk by libblkio (\(base)) cannot be handed over yet", wayOut: "use the driver host_device or file")
    case "blklogwrites":
      return Refusal(
        kind: .file, address: address, reason: "the log of writes would be truncated",
        wayOut: "start the VM without blklogwrites")
    case "replication":
      return Refusal(
        kind: .disk, address: address, reason: "replication (COLO) has two QEMUs of its own",
        wayOut: "stop the replication")
    default: break
    }
    if path.hasPrefix("/dev/fdset/") || path.hasPrefix("/dev/fd/") || path.hasPrefix("/proc/self/fd/") {
      return Refusal(
        kind: .fd, address: path,
        reason: "an image passed by descriptor, which the new QEMU would not have",
        wayOut: "start the VM with the image's path")
    }
    if path == "/dev/cdrom" || path.hasPrefix("/dev/sr") { return cdrom(path) }
    if path.hasPrefix("/dev/sg") {
      return Refusal(
        kind: .disk, address: path,
        reason: "a SCSI device passed through keeps state that migration does not carry",
        wayOut: "detach the device first")
    }
    return nil
  }

  private static func cdrom(_ path: String) -> Refusal {
    Refusal(
      kind: .disk, address: path, reason: "a CD-ROM drive of the host has one owner",
      wayOut: "use an image of the disc, or eject it first")
  }
}

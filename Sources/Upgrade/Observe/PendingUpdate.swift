import Kernel
import QEMU

/// Something newer that lies on the disk than what a VM runs on.
public struct PendingUpdate: Sendable, Hashable {
  /// What brings it into use.
  public enum Resolution: String, Sendable {
    case upgrade = "moult upgrade"
    case reboot = "host reboot"
  }
  /// `QEMU`, names of libraries, `kernel`, `KVM module`, `microcode`.
  public var what: String
  public var package: String?
  public var running: String?
  public var installed: String?
  public var resolution: Resolution

  public init(what: String, package: String? = nil, running: String? = nil, installed: String? = nil, resolution: Resolution) {
    self.what = what
    self.package = package
    self.running = running
    self.installed = installed
    self.resolution = resolution
  }
}

extension PendingUpdate {
  /// Updates of a VM's own files, one for each package: all of them are resolved by an upgrade.
  /// - Parameters:
  ///   - packages: by the path of what lies there now.
  ///   - before: package → version that was replaced first since the VM's start.
  static func ofFiles(
    _ files: [ReplacedFile], binary: String, packages: [String: InstalledPackage], version: QEMUVersion?, installed: QEMUVersion?,
    before: [String: String]
  ) -> [PendingUpdate] {
    // QEMU names the package that it was built as: `Debian 1:7.2+dfsg-7+deb12u18`.
    let built = version?.package.split(separator: " ").last.map(String.init)
    var updates: [PendingUpdate] = []
    for file in files where file.successor == .other {
      let package = packages[file.successorPath]
      let isBinary = file.path == binary
      let name = isBinary ? "QEMU" : Paths.base(file.path)
      if let index = updates.firstIndex(where: { $0.package != nil && $0.package == package?.name }) {
        updates[index].what += ", " + name
        continue
      }
      let ofQEMU = isBinary || package?.name.hasPrefix("qemu-") ?? false
      updates.append(
        PendingUpdate(
          what: name, package: package?.name,
          running: package.flatMap { before[$0.name] } ?? (ofQEMU ? (package == nil ? version?.description : built ?? version?.description) : nil),
          installed: package?.version ?? (isBinary ? installed?.description : nil), resolution: .upgrade))
    }
    return updates
  }
}

import Foundation
import Glibc

/// A VM of the lab: plain values, which become the argv that a user could have typed.
public struct VMConfiguration: Sendable {
  public enum Memory: Sendable, Equatable {
    /// QEMU's own: `-m` and nothing else.
    case anonymous
    /// A file: a path, or nil for one of the VM's own in /dev/shm.
    case file(String? = nil, share: Bool = true)
    case memfd(share: Bool = true)
  }

  /// Where the VM's public names are: QMP and serial socket, pidfile.
  public enum Layout: Sendable, Equatable {
    /// In a directory that has nothing else.
    case exclusive
    /// In a directory that others use too; the VM's name tells them apart.
    case shared(String)  // absolute; best below Lab.paths.run
    /// The QMP socket and the pidfile under /run, the serial socket under /dev/shm.
    case separateFilesystems
    /// In an exclusive directory that argv knows by a symbolic link.
    case symlinked
    /// In this directory, made for them, spelled as it is.
    case at(String)
  }

  /// How argv says what the disk is.
  public enum DiskSyntax: Sendable { case drive, blockdev }

  public enum Accelerator: String, Sendable { case tcg, kvm }

  public enum Guest: Sendable, Equatable {
    /// Linux; what it does is in Tests/Lab/guest/pulse.c.
    case linux
    /// One sector in real mode: all that some hosts' KVM can run. Needs a `pc` machine.
    case bootSector
  }

  /// Must be unique among the VMs of this process: it is what `-name` says and how leftovers are found.
  public var name: String
  public var version: QEMUVersion = .v7_2
  /// By default one that all versions know.
  public var machine = "pc-q35-5.2"
  public var accelerator = Accelerator.tcg
  public var guest = Guest.linux
  public var mebibytes = 256
  public var memory = Memory.anonymous
  public var layout = Layout.exclusive
  /// A virtio disk on which the guest counts: its format, or nil for none.
  public var disk: String?
  public var diskMebibytes = 16
  /// An image that becomes the disk, with a snapshot in it that the VM is restored from instead of being
  /// booted: see ``LabVM/snapshot``. That takes a tenth of the time.
  public var restoredFrom: String?
  public var diskSyntax = DiskSyntax.drive
  /// The disk is an overlay over another image that holds nothing yet.
  public var diskIsBacked = false
  /// The disk lies where the QMP socket is.
  public var diskIsBesideSockets = false
  /// Where the pidfile lies, if not beside the QMP socket.
  public var pidfileDirectory: String?
  /// The root tree it runs in, if not the version's own.
  public var tree: String?
  /// The binary, if not the version's own.
  public var binary: String?
  /// More words for the guest's kernel command line: `fill=100`, `tick=5`.
  public var words: [String] = []
  public var daemonize = false
  /// uid and gid, both this number, that QEMU runs as; nil for this process's own.
  public var user: uid_t?
  /// Its supplementary groups, when it runs on the host's own root.
  public var groups: [gid_t] = []
  /// Keep all that the guest says in a file too (`logfile=`, appended to), whether or not anybody is connected.
  public var serialLog = false
  /// Debian's guest agent runs in the guest, and is spoken to at `agentSocket`.
  public var hasAgent = false
  /// How the agent's character device is made, if it does not listen at `agentSocket`.
  public var agentOption: String?
  public var extraArguments: [String] = []
  /// Put before the command: `["taskset", "-c", "0"]`.
  public var launcher: [String] = []

  public init(_ name: String, _ change: (inout VMConfiguration) -> Void = { _ in }) {
    self.name = name
    change(&self)
  }

  // Paths. All of a VM's are in one directory of its own and, for some layouts, one more.

  /// Holds everything of this VM that is not elsewhere for a reason.
  public var home: String { Lab.paths.run + "/" + name }
  private var shm: String { "/dev/shm/moult-lab-\(getpid())-\(name)" }

  private func path(_ name: String) -> String {
    switch layout {
    case .exclusive: home + "/vm/" + name
    case .shared(let directory): directory + "/" + self.name + "-" + name
    case .separateFilesystems: (name == "serial.sock" ? shm : home + "/vm") + "/" + name
    case .symlinked: home + "/link/" + name
    case .at(let directory): directory + "/" + name
    }
  }
  public var qmpSocket: String { path("qmp.sock") }
  public var serialSocket: String { path("serial.sock") }
  public var pidfile: String { pidfileDirectory.map { $0 + "/qemu.pid" } ?? path("qemu.pid") }
  public var log: String { home + "/qemu.log" }
  public var serialLogFile: String { home + "/serial.log" }
  var kernel: String { user == nil ? Lab.paths.kernel : home + "/vmlinuz" }
  var initrd: String { user == nil ? hasAgent ? Lab.paths.initrdWithAgent : Lab.paths.initrd : home + "/initrd" }
  public var agentSocket: String { path("agent.sock") }
  public var diskImage: String { diskIsBesideSockets ? path("disk.img") : home + "/disk.img" }
  public var backingImage: String { home + "/backing.img" }
  public var memoryFile: String? {
    if case .file(let path, _) = memory { path ?? shm + ".ram" } else { nil }
  }

  /// The directories to make, and to remove with all that is in them.
  var directories: [String] {
    switch layout {
    case .exclusive: [home, home + "/vm"]
    case .shared(let directory): [home, directory]
    case .separateFilesystems: [home, home + "/vm", shm]
    case .symlinked: [home, home + "/real"]
    case .at(let directory): [home, directory]
    }
  }
  /// What is the VM's alone and goes with it.
  var belongings: [String] {
    var paths = [home, shm, qmpSocket, serialSocket, pidfile, diskImage]
    if let memoryFile { paths.append(memoryFile) }
    return paths
  }

  /// QEMU's argv.
  public func arguments() throws -> [String] {
    var argv = [binary ?? version.binary, "-name", name]
    var machine = machine
    switch memory {
    case .anonymous: break
    case .file(_, let share):
      machine += ",memory-backend=pc.ram"
      argv += [
        "-object",
        "memory-backend-file,id=pc.ram,size=\(mebibytes)M,mem-path=\(memoryFile ?? ""),share=\(share ? "on" : "off")",
      ]
    case .memfd(let share):
      machine += ",memory-backend=pc.ram"
      argv += ["-object", "memory-backend-memfd,id=pc.ram,size=\(mebibytes)M,share=\(share ? "on" : "off")"]
    }
    argv += ["-M", machine, "-accel", accelerator.rawValue, "-cpu", "qemu64", "-m", "\(mebibytes)M"]
    argv += ["-display", "none", "-nodefaults"]
    switch guest {
    case .linux:
      let words = [try Lab.paths.commandLine()] + words + (disk == nil ? [] : ["disk=1"]) + (hasAgent ? ["agent"] : [])
      argv += ["-kernel", kernel, "-initrd", initrd]
      argv += ["-append", words.joined(separator: " ")]
    case .bootSector:
      argv += ["-drive", "file=\(home)/boot-sector,format=raw,if=ide"]
    }
    if let disk {
      switch diskSyntax {
      case .drive: argv += ["-drive", "file=\(diskImage),format=\(disk),if=virtio"]
      case .blockdev:
        argv += ["-blockdev", "driver=\(disk),node-name=disk0,file.driver=file,file.filename=\(diskImage)"]
        argv += ["-device", "virtio-blk-pci,drive=disk0"]
      }
    }
    let logging = serialLog ? ",logfile=\(serialLogFile),logappend=on" : ""
    argv += ["-chardev", "socket,id=serial0,path=\(serialSocket),server=on,wait=off\(logging)"]
    argv += ["-serial", "chardev:serial0"]
    if hasAgent {
      argv += ["-device", "virtio-serial-pci", "-chardev", "socket,id=agent0," + (agentOption ?? "path=\(agentSocket),server=on,wait=off")]
      argv += ["-device", "virtserialport,chardev=agent0,name=org.qemu.guest_agent.0"]
    }
    argv += ["-qmp", "unix:\(qmpSocket),server=on,wait=off", "-pidfile", pidfile]
    if restoredFrom != nil { argv += ["-loadvm", LabVM.snapshot] }
    if daemonize { argv.append("-daemonize") }
    return argv + extraArguments
  }

  /// The command that starts it: argv itself, or a launcher that puts it into its root tree first.
  public func command() throws -> [String] {
    let argv = try arguments()
    let launcher = ["env", "--chdir", home] + launcher
    guard let root = tree ?? (binary == nil ? version.root : nil) else {
      let user = user.map {
        ["setpriv", "--reuid", "\($0)", "--regid", "\($0)", "--inh-caps=-all"]
          + (groups.isEmpty ? ["--clear-groups"] : ["--groups", groups.map { "\($0)" }.joined(separator: ",")])
      }
      return launcher + (user ?? []) + argv
    }
    guard FileManager.default.fileExists(atPath: root + version.binary) else {
      throw LabFailure("no QEMU \(version) in \(root): scripts/make-root-tree \(version)")
    }
    // In a mount namespace of its own, so the host keeps no mount; over the tree, so the tree stays
    // as it is. The VM's paths are the host's.
    let script = """
      set -eu
      tree=$1 user=$2; shift 2
      mount -t tmpfs -o mode=755 moult-lab /mnt
      mkdir /mnt/upper /mnt/work /mnt/root
      mount -t overlay -o lowerdir="$tree",upperdir=/mnt/upper,workdir=/mnt/work moult-lab /mnt/root
      for directory in /dev /proc /sys /run /tmp /var/tmp \(Lab.paths.cache); do
        mkdir -p "/mnt/root$directory"
        mount --rbind "$directory" "/mnt/root$directory"
      done
      cd /mnt/root
      mount --move . /
      exec chroot ${user:+"--userspec=$user:$user" --groups=} . "$@"
      """
    return launcher
      + ["unshare", "--mount", "--propagation", "slave", "bash", "-c", script, "moult-lab", root]
      + [user.map { "\($0)" } ?? ""] + argv
  }
}

import Glibc
import Kernel

/// Copies of the files that a version of QEMU runs from.
extension KeptRuntime {
  static func directory(_ state: StateDirectory, id: String) -> String { state.keptPath + "/" + id }

  /// Copies what the process runs: its binary, the libraries and modules it has mapped, and the firmware
  /// that a start of it reads. Taken from the kernel's own links, so that it is these very files, deleted
  /// or not, and no name is followed.
  static func keep(_ observation: Observation, id: String, state: StateDirectory) throws(Failure) -> KeptRuntime {
    let pid = observation.process.pid
    var kept = KeptRuntime(
      directory: directory(state, id: id), binary: observation.binary, root: observation.root, files: [])
    try Files.makeDirectories(kept.directory, mode: 0o755)
    do throws(Failure) {
      try kept.add(observation.binary, from: "/proc/\(pid)/exe")
      var seen: Set<String> = [observation.binary]
      for file in try ProcFS.mappedFiles(of: pid) where file.permissions.contains("x") && file.path.hasPrefix("/") {
        // Programs are mapped privately. Shared and executable is memory such as `/memfd:tcg-jit`: no file of the runtime.
        if file.isShared { continue }
        guard seen.insert(file.path).inserted else { continue }
        let source = file.linkPath(pid: pid)
        try kept.add(file.path, from: source)
        // The dynamic linker looks for the library by its soname: a link that the package manager has moved on.
        if let name = try ELF.soname(of: source), name != Paths.base(file.path) {
          try kept.link(Stage.join(Paths.parent(file.path), name), to: Paths.base(file.path))
        }
      }
      for path in try Self.firmware(of: pid) where seen.insert(path).inserted {
        try kept.add(path, from: "/proc/\(pid)/root\(path)")
      }
    } catch {
      try remove(kept)
      throw error
    }
    return kept
  }

  /// Firmware and option ROMs in QEMU's data directories; what is larger is named by the VM itself (`-drive if=pflash`).
  private static let dataDirectories = [
    "/usr/share/qemu", "/usr/share/qemu-kvm", "/usr/share/seabios", "/usr/share/seavgabios", "/usr/lib/ipxe/qemu",
    "/usr/share/ipxe/qemu", "/usr/local/share/qemu", "/usr/share/sgabios",
  ]
  private static let firmwareSuffixes = [".bin", ".rom", ".dtb", ".img"]
  private static let largestFirmware: Int64 = 2 << 20

  private static func firmware(of pid: pid_t) throws(Failure) -> [String] {
    var found: [String] = []
    for directory in dataDirectories {
      let seen = "/proc/\(pid)/root\(directory)"
      guard let status = try Files.statusIfPresent(seen), status.isDirectory else { continue }
      for name in try Files.names(in: seen).sorted() where firmwareSuffixes.contains(where: name.hasSuffix) {
        guard let file = try Files.statusIfPresent(seen + "/" + name), file.isRegularFile, file.size <= largestFirmware else { continue }
        found.append(directory + "/" + name)
      }
    }
    return found
  }

  private mutating func add(_ path: String, from source: String) throws(Failure) {
    let status = try Files.status(source)
    let copy = directory + path
    try Files.makeDirectories(Paths.parent(copy), mode: 0o755)
    try Files.copy(source, to: copy, mode: status.mode & 0o777)
    files.append(File(path: path, original: status.identity))
  }

  private func link(_ path: String, to target: String) throws(Failure) {
    let copy = directory + path
    try valueOrErrno("link", copy) { symlink(target, copy) == 0 || errno == EEXIST ? 0 : -1 }
  }

  /// Removes the copies, and the directory that holds all kept runtimes when it is empty.
  static func remove(_ kept: KeptRuntime) throws(Failure) { try remove(directory: kept.directory) }

  static func remove(directory: String) throws(Failure) {
    try Files.removeTree(directory)
    let parent = Paths.parent(directory)
    // Not empty: another VM's are in there.
    if rmdir(parent) == 0 { _ = rmdir(Paths.parent(parent)) }
  }

  /// Directories in which a kept file is not what lies there now; none when the version can be started as
  /// it is. One that is gone is given by what is left of its path, and inner ones by the outer.
  func changedDirectories() throws(Failure) -> [String] {
    var changed: [String] = []
    for file in files {
      if try Files.statusIfPresent((root ?? "") + file.path)?.identity == file.original { continue }
      var directory = Paths.parent(file.path)
      while try Files.statusIfPresent((root ?? "") + directory) == nil, directory != "/" { directory = Paths.parent(directory) }
      if !changed.contains(directory) { changed.append(directory) }
    }
    return changed.filter { inner in !changed.contains { $0 != inner && Paths.contains($0, inner) } }.sorted()
  }
}

extension LinuxHost {
  public func keepRuntime(_ plan: UpgradePlan) throws(Failure) -> KeptRuntime {
    try KeptRuntime.keep(plan.observation, id: plan.id, state: state)
  }
  public func dropRuntime(_ runtime: KeptRuntime) throws(Failure) { try KeptRuntime.remove(runtime) }
}

extension Files {
  /// Copies a file's content; the target must not exist.
  static func copy(_ source: String, to target: String, mode: mode_t) throws(Failure) {
    let from = try OwnedFD.open(source, O_RDONLY, step: "copy")
    let to = try OwnedFD.open(target, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, mode: mode, step: "copy to")
    var chunk = [UInt8](repeating: 0, count: 1 << 20)
    while true {
      let size = try valueOrErrno("copy", source) { Glibc.read(from.raw, &chunk, chunk.count) }
      if size == 0 { return }
      var done = 0
      while done < size {
        done += try valueOrErrno("copy to", target, hint: "the way back needs room for a copy of QEMU's files") {
          chunk[done..<size].withUnsafeBytes { Glibc.write(to.raw, $0.baseAddress, $0.count) }
        }
      }
    }
  }

  /// rm -r of a directory that only root can write to; symbolic links are removed, not followed.
  static func removeTree(_ path: String) throws(Failure) {
    let status: FileStatus
    do { status = try Files.status(path, noFollow: true) } catch where error.errno == .noSuchFileOrDirectory { return }
    guard status.isDirectory else { return try remove(path) }
    for name in try names(in: path) { try removeTree(path + "/" + name) }
    try removeDirectory(path)
  }
}

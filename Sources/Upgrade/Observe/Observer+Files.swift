import Glibc
import Kernel
import QEMU

extension Observer {
  /// The paths that the VM's QEMU made, and what the kernel says lies there.
  static func names(
    _ description: MachineDescription, pid: pid_t, absolute: (String) -> String, descriptors: [OpenDescriptor],
    sockets: [UnixSocketEntry]
  ) throws(Failure) -> [PublicName] {
    let own = Set(descriptors.compactMap(\.socketInode))
    let listening = sockets.filter { $0.state == .listening && own.contains($0.inode) }
    var names: [PublicName] = []
    func add(_ kind: PublicName.Kind, _ written: String) throws(Failure) {
      let path = absolute(written)
      let directory = try Paths.real(Paths.parent(path))
      let base = Paths.base(path)
      let status = try Files.statusIfPresent(Stage.join(directory, base))
      let present = status.map(\.identity)
      var owned: FileIdentity?
      if kind == .socket, let status {
        // Bound by this QEMU: it owns what is there. Otherwise it owns something else, or nothing.
        owned = listening.contains { $0.isBound(to: status) } ? present : FileIdentity(device: 0, inode: 0)
      } else if kind == .pidfile, let status {
        // QEMU keeps it open; one that was written anew still says the pid. Any other is not the VM's: a
        // relative path may have been resolved to the wrong place.
        var isOurs = descriptors.contains { $0.status.isSameFile(as: status) }
        if !isOurs, status.isRegularFile {
          isOurs = pid_t(try Files.readText(Stage.join(directory, base)).trimmingWhitespace) == pid
        }
        owned = isOurs ? present : FileIdentity(device: 0, inode: 0)
      }
      names.append(PublicName(kind: kind, path: path, directory: directory, base: base, present: present, owned: owned))
    }
    var seen: Set<String> = []
    for binding in description.bindings where binding.handover == .swap {
      guard seen.insert(binding.address).inserted else { continue }
      switch binding.kind {
      case .unixSocket, .vhostUser: try add(.socket, binding.address)
      case .pidfile: try add(.pidfile, binding.address)
      default: continue
      }
    }
    for backend in description.memoryBackends where backend.kind == .file && backend.share {
      guard let path = backend.path, !path.hasPrefix("/proc/"), seen.insert(path).inserted else { continue }
      // A directory stands for a nameless file in it: nothing public.
      if let status = try Files.statusIfPresent(absolute(path)), !status.isDirectory { try add(.memory, path) }
    }
    return names
  }

  /// The files that QEMU opened by path: those that argv names, and the images below them that only QEMU knows.
  /// - Parameter displaced: paths of images at which another file lies than the VM's.
  static func files(
    _ description: MachineDescription, _ live: LiveMachine, pid: pid_t, absolute: (String) -> String,
    descriptors: [OpenDescriptor], displaced: Set<String>
  ) throws(Failure) -> [ObservedFile] {
    let open = Set(descriptors.map(\.status.identity))
    // In the same mount namespace and root the same path is the same file.
    let (theirs, ours) = (try ProcFS.namespace("mnt", of: pid), try ProcFS.namespace("mnt", of: getpid()))
    let (theirRoot, ourRoot) = (try Files.status("/proc/\(pid)/root/"), try Files.status("/"))
    let sharesView = theirs == ours && theirRoot.isSameFile(as: ourRoot)
    var files: [ObservedFile] = []
    var seen: Set<String> = []
    func add(_ written: String, isImage: Bool, mayBeMissing: Bool) throws(Failure) {
      let path = absolute(written)
      // Descriptors by number are refused as such.
      guard !path.hasPrefix("/dev/fdset/"), seen.insert(path).inserted else { return }
      let onHost = try Files.statusIfPresent(path)
      if onHost == nil, mayBeMissing { return }
      let forQEMU = sharesView ? onHost : try Files.statusIfPresent(path, inRootOf: pid)
      files.append(
        ObservedFile(
          path: path, realPath: onHost == nil ? path : try Paths.real(path), onHost: onHost?.identity,
          forQEMU: forQEMU?.identity, isOpen: onHost.map { open.contains($0.identity) && !(isImage && displaced.contains(path)) } ?? false, isImage: isImage))
    }
    for image in description.images { try add(image.path, isImage: true, mayBeMissing: false) }
    for node in live.nodes where ["file", "host_device"].contains(node.driver) && !node.file.hasPrefix("json:") {
      try add(node.file, isImage: true, mayBeMissing: false)
    }
    // What chardevs write to: in a root tree it would otherwise be made anew, and lost.
    for binding in description.bindings
    where binding.kind == .file && binding.handover != .refuse && binding.purpose != Binding.configuration {
      try add(binding.address, isImage: false, mayBeMissing: true)
    }
    for file in description.files where file.use != .image {
      try add(file.path, isImage: false, mayBeMissing: file.isSearched || file.use == .log)
    }
    return files
  }

  /// Finds the descriptor behind each RAM backend by what the process has mapped.
  static func memory(
    _ description: MachineDescription, pid: pid_t, absolute: (String) -> String, descriptors: [OpenDescriptor]
  ) throws(Failure) -> [ObservedMemory] {
    let credentials = try ProcessStatus.read(pid: pid).credentials
    var mapped: [FileIdentity: UInt64] = [:]
    for region in try ProcFS.mappedFiles(of: pid) where region.isShared && region.permissions.contains("w") {
      mapped[FileIdentity(device: region.device, inode: region.inode), default: 0] += region.size
    }
    var memory: [ObservedMemory] = []
    var claimed: Set<FileIdentity> = []
    for backend in description.guestRAM {
      var observed = ObservedMemory(
        id: backend.id, bytes: backend.size, descriptor: nil, isNamedFile: backend.kind == .file, whyPrivate: nil)
      if backend.kind == .ram || !backend.share || backend.isImplicit {
        observed.whyPrivate = "it is private memory of the running QEMU (no share=on)"
      } else {
        // Mapped with the backend's size, and not taken by another backend already.
        var candidates = descriptors.filter { descriptor in
          descriptor.status.isRegularFile && descriptor.isWritable && !claimed.contains(descriptor.status.identity)
            && mapped[descriptor.status.identity].map { $0 >= backend.size } ?? false
        }
        if let path = backend.path {
          if path.hasPrefix("/proc/self/fd/") {
            let wanted = descriptors.first { "/proc/self/fd/\($0.number)" == path }?.status.identity
            candidates.removeAll { $0.status.identity != wanted }
          } else {
            let file = absolute(path)
            let status = try Files.statusIfPresent(file)?.identity
            candidates.removeAll { $0.status.identity != status && !$0.target.hasPrefix(file) }
          }
        } else {
          candidates.removeAll { !$0.target.hasPrefix("/memfd:") && !$0.target.hasPrefix("/dev/shm/") }
        }
        let files = Set(candidates.map(\.status.identity))
        if files.count == 1, let found = candidates.first, !found.status.isOpenable(by: credentials) {
          observed.whyPrivate = "its file was opened before QEMU dropped root (-runas), and the new one starts without"
        } else if files.count == 1, let found = candidates.first {
          observed.descriptor = found.number
          claimed.insert(found.status.identity)
        } else {
          observed.whyPrivate = files.isEmpty ? "its file is not among the running QEMU's descriptors" : "its file cannot be told from others of the same size"
        }
      }
      memory.append(observed)
    }
    return memory
  }

  /// RAM that came by descriptor has a number for a path, which says nothing to anybody: its file's name instead.
  static func nameMemory(_ description: inout MachineDescription, descriptors: [OpenDescriptor]) {
    for backend in description.guestRAM {
      guard let path = backend.path, path.hasPrefix("/proc/self/fd/"),
        let descriptor = descriptors.first(where: { "/proc/self/fd/\($0.number)" == path })
      else { continue }
      let name = descriptor.path.path
      description.setAddress(name.hasPrefix("/memfd:") ? "memfd:" + backend.id : name, ofMemory: backend.option)
    }
  }

  /// Descriptors that stand for something outside which no step hands over. What QEMU makes for itself
  /// (event descriptors, KVM's), files (checked as images) and pipes are its own affair.
  static func foreign(
    _ descriptors: [OpenDescriptor], sockets: [UnixSocketEntry], names: [PublicName], memory: [ObservedMemory],
    network: ObservedNetwork, pid: pid_t
  ) throws(Failure) -> [ForeignDescriptor] {
    let table = Dictionary(sockets.map { ($0.inode, $0) }) { first, _ in first }
    let own = Set(descriptors.compactMap(\.socketInode))
    let listening = Set(
      sockets.filter { entry in
        entry.state == .listening && names.contains { $0.kind == .socket && $0.present != nil && $0.present == $0.owned && isBound(entry, $0) }
      }.compactMap(\.path))
    var foreign: [ForeignDescriptor] = []
    for backend in memory {
      guard let number = backend.descriptor, try Files.isOnHugePages("/proc/\(pid)/fd/\(number)") else { continue }
      foreign.append(ForeignDescriptor(number: number, what: "RAM backend \(backend.id) on huge pages"))
    }
    // The private monitor that the last upgrade started it with. Its guardian may still be ending, with the other end open.
    let control = CommandLine(argv: try ProcFS.arguments(of: pid)).options.lazy
      .filter { $0.name == "chardev" && $0.parameters["id"] == TwinArguments.controlID }
      .compactMap { $0.parameters["fd"].flatMap { CInt($0) } }.first
    for descriptor in descriptors where descriptor.number > 2 {
      func flag(_ what: String) { foreign.append(ForeignDescriptor(number: descriptor.number, what: what)) }
      if network.descriptors.contains(descriptor.number) { continue }
      if let inode = descriptor.socketInode {
        if network.inodes.contains(inode) { continue }
        guard let entry = table[inode] else {
          // Unless it was closed since: the last moult's private monitor is, just after that moult has ended.
          if try Files.isLink("/proc/\(pid)/fd/\(descriptor.number)", to: descriptor.target) { flag("a network socket") }
          continue
        }
        switch entry.state {
        case .listening, .established:
          if let path = entry.path, listening.contains(path) { continue }
          if entry.path == nil, entry.peerInode == nil { continue }  // its other end is gone: an old control channel
          if entry.isInternalPair(of: own) { continue }
          let peer = entry.peerInode.flatMap { table[$0]?.path }
          if descriptor.number == control, entry.state == .established, entry.path == nil, peer == nil { continue }
          flag(
            entry.state == .listening ? "a unix socket listening at \(entry.path ?? "no path")"
              : "a connection to a unix socket " + (entry.path ?? peer ?? "without a name"))
        default: continue
        }
      } else if descriptor.target.hasPrefix("anon_inode:") {
        let kind = descriptor.target.dropFirst("anon_inode:".count)
        if !["[event", "[timerfd", "[signalfd", "[io_uring", "inotify", "kvm", "[pidfd", "[userfaultfd"].contains(where: kind.hasPrefix) {
          flag("\(descriptor.target)")
        }
      } else if descriptor.status.isCharacterDevice {
        let harmless = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/kvm"]
        if !harmless.contains(descriptor.target) { flag("the device \(descriptor.target)") }
      }
    }
    return foreign
  }

  private static func isBound(_ entry: UnixSocketEntry, _ name: PublicName) -> Bool {
    guard let present = name.present else { return false }
    return entry.fileInode == UInt32(truncatingIfNeeded: present.inode) && entry.fileDevice == present.device
  }
}

extension UnixSocketEntry {
  /// One of a socketpair(2) whose ends are both the same process's: threads of QEMU talk over it (SPICE's display
  /// workers), and nobody else.
  func isInternalPair(of own: Set<UInt64>) -> Bool { path == nil && peerInode.map(own.contains) ?? false }
}

extension Files {
  /// Whether a symbolic link is there and says `target`.
  static func isLink(_ path: String, to target: String) throws(Failure) -> Bool {
    do throws(Failure) { return try link(path) == target } catch where error.errno == .noSuchFileOrDirectory { return false }
  }

  /// stat(2); nil when nothing is there.
  static func statusIfPresent(_ path: String) throws(Failure) -> FileStatus? {
    do { return try status(path) } catch {
      if error.errno == .noSuchFileOrDirectory || error.errno == .notDirectory { return nil }
      throw error
    }
  }

  /// The same for a path as a process with a root or mount namespace of its own sees it.
  static func statusIfPresent(_ path: String, inRootOf pid: pid_t) throws(Failure) -> FileStatus? {
    // Its root directory, not its namespace's: it may have changed root within that.
    do throws(Failure) {
      let file = try OwnedFD.resolving(path, inRoot: "/proc/\(pid)/root")
      return try status(of: file.raw)
    } catch {
      if error.errno == .noSuchFileOrDirectory || error.errno == .notDirectory { return nil }
      throw error
    }
  }
}

extension FileStatus {
  /// Whether a process with these credentials may open the file for reading and writing, by its mode alone.
  func isOpenable(by credentials: Credentials) -> Bool {
    if credentials.user.effective == 0 { return true }
    if credentials.user.effective == owner { return mode & 0o600 == 0o600 }
    if credentials.group.effective == group || credentials.supplementaryGroups.contains(group) { return mode & 0o060 == 0o060 }
    return mode & 0o006 == 0o006
  }
}

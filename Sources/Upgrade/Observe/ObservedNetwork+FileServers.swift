import Glibc
import Kernel
import QEMU

/// A program that serves a directory to the guest (`vhost-user-fs`, virtiofsd). It serves one QEMU and ends with it: the new QEMU
/// gets another one, and takes its state there in the migration (since QEMU 8.2).
public struct FileServer: Sendable, Equatable {
  /// The process that was started: the one that serves may be its child, in namespaces of its own.
  public var pid: pid_t
  public var program: String
  /// With which another one takes its connection from ``listeningDescriptor``.
  public var arguments: [String]
  public var workingDirectory: String

  private static let programs = ["virtiofsd"]
  static func isProgram(_ path: String) -> Bool { programs.contains(path.split(separator: "/").last.map(String.init) ?? "") }
  /// Of its own listening socket, in the other one.
  static let listeningDescriptor: CInt = 3

  /// The abstract name at which the new QEMU finds its own, and later upgrades know it by.
  static func name(chardev: String, id: String) -> String { prefix(id: id) + chardev }
  static func prefix(id: String) -> String { "moult-\(id)-files-" }
  static func isName(_ path: String?, ofChardev chardev: String) -> Bool {
    path.map { $0.hasPrefix("@moult-") && $0.hasSuffix("-files-" + chardev) } ?? false
  }
}

extension ObservedNetwork {
  /// Finds the programs that serve directories to the guest.
  /// - Parameters:
  ///   - numbers: the running QEMU's descriptors by their sockets.
  ///   - server: who has the socket with this inode, and all the sockets that it has; why another one cannot be started like it.
  mutating func findFileServers(
    _ commandLine: CommandLine, _ numbers: [UInt64: CInt], unix: [UnixSocketEntry],
    server: (UInt64) throws(Failure) -> (server: FileServer?, sockets: Set<UInt64>, why: String)
  ) throws(Failure) {
    for (index, found) in outgoing.enumerated() where found.peer.backEnd == .fileSystem {
      func refuse(_ why: String) { unresolved.append((commandLine.options[found.peer.option].text, why)) }
      guard let socket = found.socket, let peer = unix.first(where: { $0.inode == socket.inode })?.peerInode else {
        refuse("QEMU is not connected to \(found.peer.text)")
        continue
      }
      let (server, theirs, why) = try server(peer)
      if server == nil { refuse(why) }
      outgoing[index].fileServer = server
      outgoing[index].channels = Self.channels(numbers, unix, theirs: theirs).filter { !inodes.contains($0.inode) }
    }
  }

  /// The same, of a process.
  mutating func findFileServers(_ commandLine: CommandLine, _ descriptors: [OpenDescriptor], unix: [UnixSocketEntry], pid: pid_t) throws(Failure) {
    try findFileServers(commandLine, Self.numbers(descriptors), unix: unix) { inode throws(Failure) in
      guard let holder = try SocketHolders.find([inode], except: pid)[inode] else { return (nil, [], "the program behind it cannot be found") }
      let sockets = Set(try ProcFS.openDescriptors(of: holder.pid).compactMap(\.socketInode))
      do throws(Failure) { return (try FileServer(serving: holder.pid), sockets, "") } catch { return (nil, sockets, error.reason ?? "\(error)") }
    }
  }
}

extension FileServer {
  /// - Parameter pid: of the process that serves.
  /// - Throws: why another one cannot be started like it.
  init(serving pid: pid_t) throws(Failure) {
    func failure(_ reason: String) -> Failure { Failure(step: "start another one of", subject: "pid \(pid)", reason: reason) }
    let serves = try ProcFS.executable(of: pid).path
    guard Self.isProgram(serves) else {
      throw failure("whether another one of its back end (\(serves)) takes over the state is not known; that of \(Self.programs.joined(separator: ", ")) does")
    }
    let serving = try ProcFS.status(pid)
    if ["T", "t"].contains(serving.state) { throw failure("its back end (pid \(pid)) is stopped (SIGSTOP, or by a debugger): kill -CONT lets it go on") }
    // In its sandbox of namespaces it is a child, whose parent only waits.
    var starter = pid
    if serving.parent > 1, let parent = try unlessGone({ () throws(Failure) in try Files.status("/proc/\(serving.parent)/exe") }),
      try parent.isSameFile(as: Files.status("/proc/\(pid)/exe"))
    {
      starter = serving.parent
    }
    if serving.credentials.user.real != 0 { throw failure("its back end (pid \(starter)) does not run as root, which cannot be done yet") }
    for kind in ["user", "pid"] where try ProcFS.namespace(kind, of: starter) != ProcFS.namespace(kind, of: getpid()) {
      throw failure("its back end (pid \(starter)) was started in another namespace (\(kind)): another one cannot be started like it")
    }
    // Its arguments are its own memory. A parent's are safe from a child that was broken into; without a sandbox there is nothing to break
    // out of.
    guard try ProcFS.root(of: pid) == "/" else {
      throw failure("its back end (pid \(pid)) has another root (--sandbox=chroot): start it with --sandbox=namespace")
    }
    let executable = try ProcFS.executable(of: starter)
    guard let file = try Files.statusIfPresent(executable.path) else {
      throw failure("the program of its back end (pid \(starter)), \(executable.path), is not there any more")
    }
    // One that was replaced has been upgraded.
    if !executable.deleted, try !file.isSameFile(as: Files.status("/proc/\(starter)/exe")) {
      throw failure("\(executable.path) is not the program of its back end (pid \(starter)), which was started in another root")
    }
    let arguments = FileServerArguments(try ProcFS.arguments(of: starter))
    guard let others = arguments.listening(at: Self.listeningDescriptor) else {
      throw failure("its back end (pid \(starter)) is not told where it listens by --socket-path or --fd: a virtiofsd before 1.11, and the one of QEMU itself, has no state that another one takes over")
    }
    guard let directory = arguments.directory, let here = try Files.statusIfPresent(directory) else {
      throw failure("which directory its back end (pid \(starter)) serves cannot be told: --shared-dir with an absolute path says so")
    }
    // Its sandboxes make it the root.
    var isThere = try Files.status("/proc/\(pid)/root/").isSameFile(as: here)
    if !isThere { isThere = try unlessGone { () throws(Failure) in try Files.status("/proc/\(pid)/root\(directory)") }?.isSameFile(as: here) ?? false }
    guard isThere else { throw failure("\(directory) is another directory for its back end (pid \(starter)): it was replaced, or that was started in another root") }
    // Made root or not, it may be another mount than here, read-only for one, or have others in it.
    let isRoot = try Files.status("/proc/\(pid)/root/").isSameFile(as: here)
    let seen = MountInfo.view(of: isRoot ? "/" : try Paths.real(directory), in: try MountInfo.read(pid: pid))
    guard try seen == MountInfo.view(of: Paths.real(directory), in: MountInfo.ofSelf()) else {
      throw failure("its back end (pid \(starter)) sees \(directory) by other mounts than the host's (a read-only one, or others in it): another one would give the guest more, or less")
    }
    self.init(
      pid: starter, program: executable.path, arguments: others,
      workingDirectory: try ProcFS.workingDirectory(of: starter))
  }
}

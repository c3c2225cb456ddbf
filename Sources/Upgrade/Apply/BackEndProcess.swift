import Glibc
import Kernel
import QEMU
import Sandbox

/// moult's end of a ``StandInServer``.
final class BackEndProcess {
  private let channel: DescriptorBox
  private let process: ProcessHandle
  private let backEnd: BackEnd
  private var said = ""

  /// - Parameters:
  ///   - key: the VM's, for whoever lists processes.
  ///   - meeting: where the new QEMU is met.
  init(_ backEnd: BackEnd, key: String, _ meeting: Meeting) throws(Failure) {
    self.backEnd = backEnd
    let pair = try Channel()
    channel = pair.ours
    let program = try OwnedFD.open("/proc/self/exe", O_RDONLY, step: "open moult's own program")
    var arguments = [StandInServer.command, "--", backEnd.word, key]
    var inherited = [ProcessPlan.Inherited(source: pair.theirs.raw, number: StandInServer.Descriptor.channel)]
    switch meeting {
    case .listener(let listener): inherited.append(ProcessPlan.Inherited(source: listener, number: StandInServer.Descriptor.listener))
    case .path(let path): arguments.append(path)
    }
    let plan = ProcessPlan.moult(program.raw, arguments, environment: try ProcFS.environment(of: getpid()), inherited: inherited)
    process = try ProcessHandle(pid: try Sandbox.launch(SandboxPlan(), plan).pid)
  }

  enum Meeting {
    /// A listening unix socket, to which it connects.
    case listener(CInt)
    /// Where it listens itself, by the path that it knows.
    case path(String)
  }

  /// Lets it answer this process, and nobody else.
  func expect(_ pid: pid_t) throws(Failure) { try UnixMessage.send(StandInServer.bytes(pid), to: channel.raw) }

  /// What it did not answer, and why, if that is news.
  func complaint() -> String? {
    var bytes = [UInt8](repeating: 0, count: 4096)
    let count = recv(channel.raw, &bytes, bytes.count, CInt(MSG_DONTWAIT))
    if count > 0 { said += String(decoding: bytes[..<count], as: UTF8.self) }
    return said.isEmpty ? nil : said
  }

  /// The new QEMU's descriptors whose other ends are here, the connection first, then what was opened over it.
  func numbers(in new: ProcessHandle) throws(Failure) -> [CInt] {
    let own = Set(try ProcFS.openDescriptors(of: process.pid).compactMap(\.socketInode))
    let table = try UnixSocketTable.read(networkOf: new.pid)
    let names = Dictionary(table.map { ($0.inode, $0.path) }) { first, _ in first }
    let peers = Dictionary(table.compactMap { entry in entry.peerInode.map { (entry.inode, $0) } }) { first, _ in first }
    let ends = try ProcFS.openDescriptors(of: new.pid).filter { $0.socketInode.flatMap { peers[$0] }.map(own.contains) ?? false }
    // Whoever listened has a name; a pair has none.
    func isConnection(_ end: OpenDescriptor) -> Bool { [end.socketInode, end.socketInode.flatMap { peers[$0] }].contains { $0.flatMap { names[$0] } ?? nil != nil } }
    return ends.filter(isConnection).map(\.number) + ends.filter { !isConnection($0) }.map(\.number)
  }

  /// The other end of one of the new QEMU's that ``numbers(in:)`` has named, and the inode of its own.
  func end(of number: CInt, in new: ProcessHandle) throws(Failure) -> (inode: UInt64, other: DescriptorBox) {
    guard let inode = try ProcFS.openDescriptors(of: new.pid).first(where: { $0.number == number })?.socketInode else {
      throw Failure(step: "find in the new QEMU", subject: "descriptor \(number)", reason: "it has been closed", hint: "try again")
    }
    return (inode, try Self.otherEnd(of: inode, in: new, heldBy: process))
  }

  /// The other end of a new QEMU's socket.
  /// - Parameter holder: who has it; looked for if nil.
  static func otherEnd(of inode: UInt64, in new: ProcessHandle, heldBy holder: ProcessHandle? = nil) throws(Failure) -> DescriptorBox {
    func failure() -> Failure {
      Failure(step: "find the other end of", subject: "the new QEMU's socket \(inode)", reason: "whoever stood in for the back end has closed it", hint: "restart the VM")
    }
    guard let peer = try UnixSocketTable.read(networkOf: new.pid).first(where: { $0.inode == inode })?.peerInode else { throw failure() }
    var holder = holder
    if holder == nil { holder = try SocketHolders.find([peer], except: new.pid)[peer].map { found throws(Failure) in try ProcessHandle(pid: found.pid) } }
    guard let holder, let end = try ProcFS.openDescriptors(of: holder.pid).first(where: { $0.socketInode == peer }) else { throw failure() }
    return DescriptorBox(try holder.duplicate(descriptor: end.number))
  }

  /// Returns when it is gone.
  deinit {
    do throws(Failure) {
      try UnixMessage.send([0], to: channel.raw)
      if !process.exits(withinMilliseconds: 2000) { try process.kill() }
    } catch where error.errno == .brokenPipe || error.errno == .noSuchProcess {
    } catch { FileDescriptorOutput.error("moult: could not end the stand-in of \(backEnd.word) (pid \(process.pid)): \(error)") }
  }
}

extension ProcessPlan {
  /// A process of moult's own, apart from the one that starts it: an orphan in a session of its own.
  /// - Parameter program: moult's own file.
  static func moult(_ program: CInt, _ arguments: [String], environment: [String], inherited: [Inherited]) -> ProcessPlan {
    ProcessPlan(
      executable: .descriptor(program), arguments: ["moult"] + arguments, environment: environment, workingDirectory: "/", umask: 0o077,
      standardInput: .null, standardOutput: .null, standardError: .null, inherited: inherited, newSession: true, orphan: true)
  }
}

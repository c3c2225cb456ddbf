import Glibc
import Kernel
import QEMU
import Sandbox

/// Another process of a ``FileServer``, for the new QEMU. It ends with the connection that it serves, whoever ends that.
struct FileServerProcess {
  /// Not the first one's, in whose memory it is: whoever breaks into that could have root load a library of his.
  private static let environment = ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]

  private let server: FileServer
  private let process: ProcessHandle

  /// What is wrong with it, while the new QEMU has not connected.
  var complaint: String? {
    process.hasExited ? "another \(server.program) has ended at its start; it says why where the first one (pid \(server.pid)) writes its messages" : nil
  }

  /// It begins as root, as the first one did, and gives up by itself what it does not need: what that had at its start cannot be told
  /// any more. It lives in the VM's control groups: those of the first one may end with it (a service of systemd's).
  /// - Parameters:
  ///   - listener: a listening unix socket, which it takes its connection from.
  ///   - old: the running QEMU.
  ///   - isTrial: it leaves no word where the first one writes its messages.
  init(_ server: FileServer, listener: CInt, old: pid_t, isTrial: Bool) throws(Failure) {
    self.server = server
    let (attributes, first) = (try ProcessAttributes.read(pid: server.pid), try ProcessHandle(pid: server.pid))
    // Where it writes its messages the other one does.
    var (streams, kept): ([ProcessPlan.Stream], [DescriptorBox]) = ([], [])
    for number in CInt(1)...2 {
      if isTrial {
        streams.append(.null)
        continue
      }
      do throws(Failure) {
        let box = DescriptorBox(try first.duplicate(descriptor: number))
        kept.append(box)
        streams.append(.descriptor(box.raw))
      } catch where error.errno == .badFileDescriptor { streams.append(.null) }
    }
    defer { withExtendedLifetime(kept) {} }
    let child = try Sandbox.launch(
      SandboxPlan(),
      ProcessPlan(
        executable: .path(server.program), arguments: server.arguments, environment: Self.environment, workingDirectory: server.workingDirectory,
        umask: attributes.status.umask, limits: attributes.limits, scheduling: attributes.scheduling, cgroups: try CgroupMembership.of(process: old),
        standardInput: .null, standardOutput: streams[0], standardError: streams[1],
        inherited: [.init(source: listener, number: FileServer.listeningDescriptor)], newSession: true, orphan: true,
        ignoredSignals: attributes.status.ignoredSignals))
    process = try ProcessHandle(pid: child.pid)
  }

  /// Those that serve a QEMU.
  /// - Parameter wakes: has them look at their rings, too. What the guest asked for right when it was stopped waits in a ring, and QEMU's
  /// own word of it (the counter of a new kick descriptor begins at 1, `virtio_bus_set_host_notifier` in its hw/virtio/virtio-bus.c)
  /// is lost if the program hears it before it is told to begin (rust-vmm/vhost, issue 247): the guest would wait for ever. To be
  /// looked at in vain does no harm, neither to a ring nor to a guest, whose interrupts go by the same kind of descriptor.
  static func used(by qemu: ProcessHandle, wakes: Bool) throws(Failure) -> FileServerUse {
    var use = FileServerUse()
    let own = Set(try ProcFS.openDescriptors(of: qemu.pid).compactMap(\.socketInode))
    let peers = try UnixSocketTable.read(networkOf: qemu.pid).filter { $0.state == .established && own.contains($0.inode) }.compactMap(\.peerInode)
    let known = try EventDescriptor.all(of: qemu.pid)
    for holder in Set(try SocketHolders.find(Set(peers), except: qemu.pid).values) {
      guard FileServer.isProgram(try ProcFS.executable(of: holder.pid).path) else { continue }
      let server = try ProcessHandle(pid: holder.pid)
      use.programs += 1
      // Others are its own business: one tells its threads to end.
      for (id, number) in try EventDescriptor.all(of: holder.pid) where known[id] != nil {
        use.events += 1
        if !wakes { continue }
        let descriptor = DescriptorBox(try server.duplicate(descriptor: number))
        try EventDescriptor.signal(descriptor.raw)
      }
    }
    return use
  }

  /// Ends those of an upgrade that wait for a connection still: their QEMU ended before it made one, or was never started.
  /// - Parameter pid: whose network namespace they listen in; nil for the caller's own.
  static func endWaiting(upgrade id: String, networkOf pid: pid_t?) throws(Failure) {
    let name = "@" + FileServer.prefix(id: id)
    let waiting = Set(try UnixSocketTable.read(networkOf: pid).filter { $0.state == .listening && $0.path?.hasPrefix(name) ?? false }.map(\.inode))
    if waiting.isEmpty { return }
    // A sandboxed one is two processes.
    for _ in 0..<2 {
      for holder in try SocketHolders.find(waiting, except: getpid()).values {
        do throws(Failure) { try ProcessHandle(pid: holder.pid).kill() } catch where error.errno == .noSuchProcess {}
      }
    }
  }
}

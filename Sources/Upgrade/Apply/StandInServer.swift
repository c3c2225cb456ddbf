import Glibc
import Kernel
import QEMU

/// The process that speaks to a new QEMU in the place of a back end (``BackEnd``).
///
/// It is moult itself, run again from the file that runs, because QEMU asks when moult waits for other things: at its
/// start, and in the middle of loading a state. It holds nothing but its sockets, and ends when moult says so; when moult has
/// ended, with the connections of the new QEMU, which may be the only one left that has the guest.
public enum StandInServer {
  /// The subcommand that starts it; not for users.
  public static let command = "stand-in"

  /// The numbers of what it inherits.
  enum Descriptor {
    /// A stream socket. First comes who is to be answered, a pid; then a byte that ends the process. What it cannot answer,
    /// and why, goes back.
    static let channel: CInt = 3
    static let listener: CInt = 4
  }

  /// Answers the new QEMU, each of its connections for itself, until it is to end.
  /// - Parameters:
  ///   - word: ``BackEnd/word``.
  ///   - key: of the VM, for messages.
  ///   - path: where the new QEMU listens, as it knows it; nil if it connects to ``Descriptor/listener``.
  public static func serve(_ word: String, key: String, path: String?) throws(Failure) {
    let subject = "\(word) of \(key)"
    guard let backEnd = BackEnd(word: word) else {
      throw Failure(step: "stand in for", subject: subject, reason: "no such back end is known", hint: "moult starts this by itself")
    }
    for number in [Descriptor.channel] + (path == nil ? [Descriptor.listener] : []) {
      try valueOrErrno("stand in for", subject, hint: "moult starts this by itself") { fcntl(number, F_SETFD, FD_CLOEXEC) }
    }
    signal(SIGPIPE, SIG_IGN)
    let reactor = Reactor()
    var (isOver, isAlone) = (false, false)
    var client: pid_t?
    var conversations: [Conversation] = []
    func hear() throws(Failure) {
      let bytes = try UnixSocket.receive(over: Descriptor.channel, limit: client == nil ? bytes(pid_t()).count : 1).bytes
      if bytes.isEmpty {
        isAlone = true
        reactor.remove(Descriptor.channel)
      } else if client == nil {
        client = bytes.withUnsafeBytes { $0.count == MemoryLayout<pid_t>.size ? $0.loadUnaligned(as: pid_t.self) : nil }
      } else {
        isOver = true
      }
    }
    reactor.add(Descriptor.channel, handler: hear)
    if let path {
      try hear()
      if let client, let connection = try connection(to: path, of: client) { conversations.append(Conversation(backEnd.standIn(), connection, reactor)) }
    } else {
      reactor.add(Descriptor.listener) { () throws(Failure) in
        let connection = DescriptorBox(try UnixSocket.accept(Descriptor.listener))
        // It was told before the new QEMU started. Anybody can connect to an abstract name.
        if client == nil, !isAlone { try hear() }
        guard try UnixSocket.peerCredentials(connection.raw).pid == client else { return }
        conversations.append(Conversation(backEnd.standIn(), connection, reactor))
      }
    }
    _ = try reactor.wait(seconds: nil, step: "stand in for", subject: subject) { () throws(Failure) -> Bool? in
      isOver || isAlone && conversations.allSatisfy(\.isOver) ? true : nil
    }
  }

  /// Connects to where the new QEMU listens, as soon as it does: in its own view, where a stage lies over the public name.
  /// - Returns: nil if moult has something to say, or has ended, before that.
  private static func connection(to path: String, of client: pid_t) throws(Failure) -> DescriptorBox? {
    while true {
      do throws(Failure) {
        let file = try OwnedFD.resolving(path, inRoot: "/proc/\(client)/root")
        // Before it has a view of its own, the name is the running QEMU's.
        let isPublic = try Files.statusIfPresent(path)?.isSameFile(as: Files.status(of: file.raw)) ?? false
        if !isPublic {
          // It is listed where it is made.
          let connection = try Namespaces.within(client, [.network]) { () throws(Failure) in DescriptorBox(try UnixSocket.unconnected()) }
          try UnixSocket.connect(connection.raw, to: "/proc/self/fd/\(file.raw)")
          if try UnixSocket.peerCredentials(connection.raw).pid == client { return connection }
        }
      } catch where [.noSuchFileOrDirectory, .connectionRefused, .noSuchProcess].contains(error.errno) {}
      var word = pollfd(fd: Descriptor.channel, events: Int16(POLLIN), revents: 0)
      if try valueOrErrno("wait for", path, { poll(&word, 1, 1) }) > 0 { return nil }
    }
  }

  static func bytes(_ pid: pid_t) -> [UInt8] { withUnsafeBytes(of: pid) { Array($0) } }

  /// One connection, and what was opened over it.
  private final class Conversation {
    private var standIn: any BackEndStandIn
    private var channels: [DescriptorBox] = []
    var isOver: Bool { channels.isEmpty }
    private let reactor: Reactor

    init(_ standIn: any BackEndStandIn, _ connection: DescriptorBox, _ reactor: Reactor) {
      (self.standIn, self.reactor) = (standIn, reactor)
      add(connection)
    }

    private func add(_ channel: DescriptorBox) {
      let index = channels.count
      channels.append(channel)
      reactor.add(channel.raw) { [unowned self] () throws(Failure) in
        // QEMU finds the connection closed, fails, and says what it was doing.
        do throws(Failure) { if try !hear(index) { close() } } catch { close() }
      }
    }

    /// - Returns: false at the channel's end.
    private func hear(_ index: Int) throws(Failure) -> Bool {
      let channel = channels[index].raw
      let (bytes, numbers) = try UnixSocket.receive(over: channel)
      let descriptors = numbers.map { DescriptorBox(OwnedFD($0)) }
      if bytes.isEmpty { return false }
      let reply: BackEndReply
      do throws(Failure) { reply = try standIn.receive(bytes, descriptors: descriptors.count, on: index) } catch {
        // Moult may have ended.
        do throws(Failure) { try UnixMessage.send(Array("\(error)".utf8), to: Descriptor.channel) } catch where error.errno == .brokenPipe {}
        throw error
      }
      if reply.opensChannel, let first = descriptors.first { add(first) }
      if !reply.bytes.isEmpty { try UnixMessage.send(reply.bytes, to: channel) }
      return true
    }

    private func close() {
      for channel in channels { reactor.remove(channel.raw) }
      channels = []
    }
  }
}

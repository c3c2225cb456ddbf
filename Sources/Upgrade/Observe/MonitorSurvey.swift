import Kernel
import QEMU

/// Asks many QEMUs for their versions at once. Their greeting says it: no command is sent.
struct MonitorSurvey {
  /// Seconds for all of them together. A healthy one greets within a millisecond.
  static let seconds = 0.15

  let reactor: Reactor
  private var connections: [(pid: Int32, connection: QMPConnection)] = []

  init(reactor: Reactor) { self.reactor = reactor }

  /// Connects to the first monitor that is free. Not to one that has a client or that another waits for: a
  /// monitor serves one at a time.
  mutating func ask(_ pid: Int32, at paths: [String], own: Set<UInt64>, sockets: [UnixSocketEntry]) throws(Failure) {
    for path in paths {
      // Its file, and no other program's that took the name.
      guard let file = try unlessGone({ () throws(Failure) in try Files.status(path) }),
        let listener = sockets.first(where: { $0.state == .listening && own.contains($0.inode) && $0.isBound(to: file) }),
        listener.receiveQueue == 0,
        !sockets.contains(where: { $0.state == .established && own.contains($0.inode) && $0.path == listener.path })
      else { continue }
      let socket: OwnedFD
      // Full, or closed meanwhile: the binary's own word is asked for instead.
      do throws(Failure) { socket = try UnixSocket.connect(path, timeoutMilliseconds: 5) } catch { continue }
      connections.append((pid, QMPConnection(socket, subject: path, reactor: reactor)))
      return
    }
  }

  /// The versions of those that have greeted by the deadline.
  mutating func answers() throws(Failure) -> [Int32: QEMUVersion] {
    let deadline = Instant.now().adding(seconds: Self.seconds)
    var versions: [Int32: QEMUVersion] = [:]
    while !connections.isEmpty {
      do throws(Failure) {
        let open = connections
        try reactor.wait(seconds: max(0, (deadline - Instant.now()) / 1000), step: "await QMP greetings", subject: "") {
          open.contains { $0.connection.version != nil || $0.connection.isClosed } ? () : nil
        }
      } catch {
        if error.errno == .timedOut { break }
        // What is no QMP monitor after all is asked no further.
        guard connections.contains(where: { $0.connection.subject == error.subject }) else { throw error }
        connections.removeAll { $0.connection.subject == error.subject }
      }
      for entry in connections { if let version = entry.connection.version { versions[entry.pid] = version } }
      connections.removeAll { $0.connection.version != nil || $0.connection.isClosed }
    }
    connections = []
    return versions
  }
}

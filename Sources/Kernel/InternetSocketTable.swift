import Glibc

/// One TCP or UDP socket of a network namespace (proc_pid_net(5)).
public struct InternetSocketEntry: Sendable, Equatable {
  public enum Transport: String, Sendable { case tcp, udp }
  public struct Endpoint: Sendable, Hashable {
    /// As written in addresses: `127.0.0.1`, `::1`; a version 4 address mapped into version 6 as version 4.
    public var host: String
    public var port: UInt16

    public var isLoopback: Bool { host.hasPrefix("127.") || host == "::1" }
    public init(host: String, port: UInt16) {
      self.host = host
      self.port = port
    }

    /// An address of 4 or 16 bytes.
    static func text(_ address: [UInt8]) -> String? {
      let isMapped = address.count == 16 && address.prefix(12).elementsEqual([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff])
      let bytes = isMapped ? Array(address.suffix(4)) : address
      var room = [CChar](repeating: 0, count: Int(INET6_ADDRSTRLEN))
      guard inet_ntop(bytes.count == 4 ? AF_INET : AF_INET6, bytes, &room, socklen_t(room.count)) != nil else { return nil }
      return String(decoding: room.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
  }
  public var transport: Transport
  public var local: Endpoint
  /// Port 0: not connected.
  public var remote: Endpoint
  public var isListening: Bool
  /// Its connect(2) has not been answered yet.
  public var isConnecting = false
  /// The number in `socket:[N]`; 0 for connections that no process has any more.
  public var inode: UInt64
}

/// The TCP and UDP sockets of a network namespace.
public enum InternetSocketTable {
  /// Of a process's network namespace.
  public static func read(networkOf pid: pid_t) throws(Failure) -> [InternetSocketEntry] {
    var entries: [InternetSocketEntry] = []
    for (name, transport) in [("tcp", InternetSocketEntry.Transport.tcp), ("tcp6", .tcp), ("udp", .udp), ("udp6", .udp)] {
      // A kernel without IPv6 has no table of it.
      do throws(Failure) { entries += parse(try Files.readText("/proc/\(pid)/net/\(name)"), transport) } catch
        where error.errno == .noSuchFileOrDirectory {}
    }
    return entries
  }

  /// Parses one of the tables; lines that are not understood are left out.
  public static func parse(_ text: String, _ transport: InternetSocketEntry.Transport) -> [InternetSocketEntry] {
    text.split(separator: "\n").dropFirst().compactMap { line in
      let fields = line.split(separator: " ")
      guard fields.count > 9, let local = endpoint(fields[1]), let remote = endpoint(fields[2]), let inode = UInt64(fields[9]) else { return nil }
      return InternetSocketEntry(
        transport: transport, local: local, remote: remote, isListening: fields[3] == "0A", isConnecting: transport == .tcp && fields[3] == "02", inode: inode)
    }
  }

  /// `0100007F:07E8`: words of the address in the host's byte order, the port in hexadecimal.
  private static func endpoint(_ text: Substring) -> InternetSocketEntry.Endpoint? {
    let parts = text.split(separator: ":")
    guard parts.count == 2, let port = UInt16(parts[1], radix: 16), [8, 32].contains(parts[0].utf8.count) else { return nil }
    var bytes: [UInt8] = []
    var rest = parts[0]
    while !rest.isEmpty {
      guard let word = UInt32(rest.prefix(8), radix: 16) else { return nil }
      withUnsafeBytes(of: word) { bytes.append(contentsOf: $0) }
      rest = rest.dropFirst(8)
    }
    return InternetSocketEntry.Endpoint.text(bytes).map { .init(host: $0, port: port) }
  }
}

/// Which processes have sockets open.
public enum SocketHolders {
  public struct Holder: Sendable, Hashable, CustomStringConvertible {
    public var pid: pid_t
    public var name: String
    public init(pid: pid_t, name: String) {
      self.pid = pid
      self.name = name
    }
    public var description: String { "\(name) (pid \(pid))" }
  }

  /// The first process that holds each of these sockets, by the number in `socket:[N]`.
  /// - Parameter except: a process that is not asked for.
  public static func find(_ inodes: Set<UInt64>, except: pid_t = 0) throws(Failure) -> [UInt64: Holder] {
    var missing = Set(inodes.map { "socket:[\($0)]" })
    var found: [UInt64: Holder] = [:]
    for pid in try ProcFS.allPids() where pid != except {
      if missing.isEmpty { break }
      do throws(Failure) {
        for number in try Files.names(in: "/proc/\(pid)/fd") {
          guard let target = try unlessGone({ () throws(Failure) in try Files.link("/proc/\(pid)/fd/\(number)") }), missing.contains(target),
            let inode = UInt64(target.dropFirst("socket:[".count).dropLast())
          else { continue }
          found[inode] = Holder(pid: pid, name: try ProcFS.threadName(pid, of: pid))
          missing.remove(target)
        }
      } catch where error.meansGone || error.meansForbidden {
        continue  // It ended meanwhile, or is another container's.
      }
    }
    return found
  }
}

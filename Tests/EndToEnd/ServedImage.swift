import Foundation
import Glibc
import Lab
import Testing

/// An image that another program serves to a VM, in a directory of its own, and the check at its end.
final class ServedImage {
  let directory: String
  var path: String { directory + "/image" }
  /// Where the program listens.
  var socket: String { directory + "/socket" }
  private(set) var servers: [ChildProcess] = []

  init(_ name: String) throws {
    directory = Lab.paths.run + "/" + name
    try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
    try succeed(["qemu-img", "create", "-q", "-f", "raw", path, "16M"])
  }

  /// Starts a program; the first one is who serves the image.
  func serve(_ arguments: [String]) throws -> ChildProcess {
    let server = try ChildProcess(arguments, log: directory + "/log")
    servers.append(server)
    if servers.count == 1 { try eventually("\(arguments[0]) listens") { access(self.socket, F_OK) == 0 } }
    return server
  }

  /// Ends the VM and then the server.
  /// - Returns: what is wrong with the image: see ``LabVM/diskFaults(image:format:)``.
  func endAndVerify(_ vm: LabVM) throws -> [String] {
    vm.end(keepDisk: true)
    servers[0].signal(SIGTERM)
    try eventually("the server ends") { !self.servers[0].isRunning }
    return try vm.diskFaults(image: path)
  }

  deinit {
    for server in servers { server.signal(SIGKILL) }
    _ = try? run(["rm", "-r", directory])
  }
}

extension LabVM {
  /// The guest's disk takes so many more synced writes.
  func mustWriteOn(_ count: Int = 3) throws {
    let synced = lastSynced ?? 0
    try eventually("the disk takes writes") { self.lastSynced ?? 0 > synced + count }
  }
}

import Lab

/// A block node that a VM exports by NBD, as it is told over a monitor.
enum NBDExport {
  /// Of no disk: what is measured is the server.
  static let node = ["-blockdev", "driver=null-co,node-name=exported,size=1048576,read-zeroes=on"]

  static func start(in vm: LabVM, port: UInt16, isWritable: Bool) throws {
    let address: JSON = .object(["type": .text("inet"), "data": .object(["host": .text("127.0.0.1"), "port": .text("\(port)")])])
    try vm.qmp("nbd-server-start", .object(["addr": address]))
    try vm.qmp(
      "block-export-add", .object(["type": .text("nbd"), "id": .text("exported"), "node-name": .text("exported"), "writable": .bool(isWritable)]))
  }
}

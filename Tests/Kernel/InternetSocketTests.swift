import Glibc
import Kernel
import Testing

@Suite struct InternetSocketTests {
  static let header = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"

  @Test func `addresses, states and inodes`() {
    let table =
      Self.header + """
           0: 0100007F:170C 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1528 1 000000002c0c36a7 100 0 0 10 0
           1: 0100007F:170C 0100007F:EBD2 01 00000000:00000000 00:00000000 00000000     0        0 1530 1 0000000000000000 20 4 30 10 -1
           2: 0100007F:EBD2 0100007F:170C 06 00000000:00000000 03:00000000 00000000     0        0 0 3 0000000000000000
        broken
           3: 0100007F 0 0 0 0 0 0 0 0 0

        """
    let entries = InternetSocketTable.parse(table, .tcp)
    #expect(entries.map(\.inode) == [1528, 1530, 0])
    #expect(entries.map(\.isListening) == [true, false, false])
    #expect(entries[0].local == .init(host: "127.0.0.1", port: 5900) && entries[0].remote.port == 0)
    #expect(entries[1].remote == .init(host: "127.0.0.1", port: 60370))
  }

  @Test(arguments: [
    ("00000000000000000000000001000000:1F90", "::1"), ("0000000000000000FFFF00000100007F:1F90", "127.0.0.1"),
    ("00000000000000000000000000000000:1F90", "::"), ("B80D0120000000000000000001000000:1F90", "2001:db8::1"),
  ])
  func `version 6`(text: String, host: String) {
    let line = Self.header + "   0: \(text) 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 7 1\n"
    #expect(InternetSocketTable.parse(line, .tcp).first?.local == .init(host: host, port: 8080))
  }

  @Test func `our own listener is found, and who holds it`() throws {
    let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    defer { close(descriptor) }
    #expect(listen(descriptor, 1) == 0)
    let inode = try #require(try ProcFS.openDescriptors(of: getpid()).first { $0.number == descriptor }?.socketInode)
    #expect(try InternetSocketTable.read(networkOf: getpid()).first { $0.inode == inode }?.isListening == true)
    #expect(try SocketHolders.find([inode])[inode]?.pid == getpid())
    #expect(try SocketHolders.find([inode], except: getpid()).isEmpty)
    #expect(try SocketHolders.find([]).isEmpty)
  }

  @Test func `resident memory by its kind`() {
    let memory = ProcessMemory.parse(status: "Name:\tqemu\nVmRSS:\t 400 kB\nRssAnon:\t     100 kB\nRssFile:\t 44 kB\nRssShmem:\t 256 kB\nHugetlbPages:\t 2048 kB\n")
    #expect(memory == ProcessMemory(anonymous: 100 << 10, file: 44 << 10, shared: 256 << 10, huge: 2048 << 10))
    #expect(ProcessMemory.parse(status: "State:\tZ (zombie)\n") == ProcessMemory(anonymous: 0, file: 0, shared: 0, huge: 0))
  }
}

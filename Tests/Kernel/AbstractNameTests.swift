import Glibc
import Testing

@testable import Kernel

/// By which a stand-in is told from what others have put at its descriptor's number.
@Suite struct AbstractNameTests {
  @Test func isTheSocketsOwn() throws {
    let name = "moult-test-name-\(getpid())"
    let socket = try UnixSocket.listen(abstract: name)
    let client = try UnixSocket.connect(abstract: name)
    #expect(try UnixSocket.abstractName(of: socket.raw) == name)
    #expect(try UnixSocket.abstractName(of: client.raw) == nil)
  }

  @Test func othersHaveNone() throws {
    let file = try OwnedFD.open("/dev/null", O_RDONLY, step: "open")
    #expect(try UnixSocket.abstractName(of: file.raw) == nil)
    let port = OwnedFD(socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0))
    #expect(try UnixSocket.abstractName(of: port.raw) == nil)
  }
}

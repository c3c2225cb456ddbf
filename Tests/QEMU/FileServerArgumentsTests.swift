import Testing

@testable import QEMU

/// Another virtiofsd is started with the words of the first, but for where it listens.
@Suite struct FileServerArgumentsTests {
  static let cases: [(words: String, others: String?)] = [
    ("virtiofsd --socket-path=/run/fs.sock --shared-dir=/srv --cache=never", "virtiofsd --shared-dir=/srv --cache=never --fd=3"),
    ("virtiofsd --shared-dir /srv --socket-path /run/fs.sock --socket-group kvm", "virtiofsd --shared-dir /srv --fd=3"),
    ("/usr/libexec/virtiofsd --fd=41 --shared-dir=/srv", "/usr/libexec/virtiofsd --shared-dir=/srv --fd=3"),
    ("virtiofsd --fd 41 --shared-dir=/srv", "virtiofsd --shared-dir=/srv --fd=3"),
    // Of QEMU before 8.0, or not told.
    ("virtiofsd -o vhost_user_socket=/run/fs.sock -o source=/srv", nil), ("virtiofsd --shared-dir=/srv --socket-group=kvm", nil),
    ("virtiofsd --socket-path", nil), ("", nil),
  ]
  @Test(arguments: cases) func itListensAtADescriptor(words: String, others: String?) {
    let arguments = FileServerArguments(words.split(separator: " ").map(String.init))
    #expect(arguments.listening(at: 3)?.joined(separator: " ") == others)
  }

  @Test(arguments: [
    ("--shared-dir=/srv", "/srv"), ("--shared-dir /srv", "/srv"), ("--shared-dir=srv", nil), ("--shared-dir", nil), ("--cache=auto", nil),
  ])
  func itsDirectoryIsTold(words: String, directory: String?) {
    #expect(FileServerArguments(["virtiofsd"] + words.split(separator: " ").map(String.init)).directory == directory)
  }
}

import Foundation
import Testing

@testable import Upgrade

@Suite struct PackageDatabaseTests {
  @Test func `packages by name, and by name and architecture, if they are installed`() {
    let status = """
      Package: libslirp0
      Status: install ok installed
      Architecture: amd64
      Version: 4.7.0-1

      Package: libslirp0
      Status: install ok installed
      Architecture: i386
      Version: 4.7.0-1
      Description: more
       Version: 9

      Package: gone
      Status: deinstall ok config-files
      Architecture: all
      Version: 1

      Package: half
      Status: install ok half-configured
      Version: 2
      """
    #expect(
      PackageDatabase.parse(status: Array(status.utf8)) { _ in true }
        == ["libslirp0": "4.7.0-1", "libslirp0:amd64": "4.7.0-1", "libslirp0:i386": "4.7.0-1"])
    #expect(PackageDatabase.parse(status: Array(status.utf8)) { $0 == "half" } == [:])
  }

  @Test func `what was replaced first since a moment`() {
    let log = """
      2026-11-20 09:00:00 upgrade libslirp0:amd64 4.6.0-1 4.7.0-1
      2026-11-21 10:00:00 startup archives unpack
      2026-11-21 10:00:01 upgrade libslirp0:amd64 4.7.0-1 4.8.0-1
      2026-11-21 10:00:02 status half-configured libslirp0:amd64 4.7.0-1
      2026-11-21 11:00:00 upgrade libslirp0:amd64 4.8.0-1 4.9.0-1
      2026-11-21 11:00:01 install new:amd64 <none> 1
      """
    #expect(PackageDatabase.replaced(since: "2026-11-21 09:59:59", log: log) == ["libslirp0": "4.7.0-1"])
    #expect(PackageDatabase.replaced(since: "2026-11-21 10:30:00", log: log) == ["libslirp0": "4.8.0-1"])
    #expect(PackageDatabase.replaced(since: "2026-11-22 00:00:00", log: log) == [:])
  }

  @Test(.enabled(if: FileManager.default.fileExists(atPath: "/var/lib/dpkg/info/dpkg.list")))
  func `this host's own files have their packages`() throws {
    let owners = try PackageDatabase.owners(of: ["/usr/bin/dpkg", "/usr/lib/x86_64-linux-gnu/libc.so.6", "/nobody's"])
    #expect(owners["/usr/bin/dpkg"]?.name == "dpkg" && owners["/usr/bin/dpkg"]?.version.first?.isNumber ?? false)
    #expect(owners["/usr/lib/x86_64-linux-gnu/libc.so.6"]?.name == "libc6")
    #expect(owners["/nobody's"] == nil)
  }

  /// The examples of Debian Policy 5.6.12 and of deb-version(7), and kernels' names.
  @Test(arguments: [
    ("~~", "~~a"), ("~~a", "~"), ("~", ""), ("", "a"), ("1.0~beta1~svn1245", "1.0~beta1"), ("1.0~beta1", "1.0"),
    ("1.0-1", "1.0-2"), ("1.9", "1.10"), ("9:1", "10:1"), ("2.0", "1:1.0"), ("1.0a", "1.0+"), ("1.0-1", "1.0-1+b1"),
    ("1:7.2+dfsg-7+deb12u9", "1:7.2+dfsg-7+deb12u18"), ("6.1.0-9", "6.1.0-18"), ("6.1.76-1", "6.1.90-1"),
  ])
  func `versions are ordered`(less: String, more: String) {
    #expect(PackageVersion.compare(less, more) < 0 && PackageVersion.compare(more, less) > 0)
    #expect(PackageVersion.compare(less, less) == 0)
  }

  @Test(arguments: [("1.0", "1.00"), ("0:1", "1"), ("007", "7")])
  func `versions are equal`(a: String, b: String) { #expect(PackageVersion.compare(a, b) == 0) }
}

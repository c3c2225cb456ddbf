import Glibc
import Kernel
import SystemPackage
import Testing

@testable import Sandbox

extension LaunchTests {
  /// What an upgrade does after the exchange of names: the staging mount goes away inside, and only there.
  @Test(arguments: [false, true])
  func aMountInsideCanBeDetachedFromOutside(tree: Bool) throws {
    try withTemporaryDirectory { directory in
      for name in ["public", "stage", "tree"] { mkdir(directory + "/" + name, 0o755) }
      for name in ["public/real", "stage/staged"] {
        _ = try OwnedFD.open(directory + "/" + name, O_CREAT | O_WRONLY, mode: 0o644)
      }
      let target = directory + "/public"
      var operations: [MountOperation] = [.bind(source: directory + "/stage", target: target)]
      var plan = SandboxPlan(namespaces: .all, operations: operations)
      if tree {
        for name in ["bin", "lib", "lib64"] { symlink("usr/" + name, directory + "/tree/" + name) }
        operations.insert(.bind(source: target, target: target), at: 0)
        operations.insert(.bind(source: "/usr", target: "/usr"), at: 0)
        plan = .tree(directory + "/tree", files: operations)
      }
      let before = try openDescriptors()
      let child = try launch(
        plan,
        ProcessPlan(executable: .path("/bin/sleep"), arguments: ["sleep", "30"], environment: [], standardOutput: .null))
      let inside = "/proc/\(child.pid)/root" + target
      #expect(try Files.names(in: inside) == ["staged"])
      try Namespaces.within(child.pid, [.mount]) { () throws(Failure) in try Mount.detach(target) }
      #expect(try Files.names(in: inside) == ["real"])
      #expect(try Files.names(in: target) == ["real"])
      let ended = child.pidfd.hasExited
      #expect(!ended)
      try child.kill()
      close(child)
      #expect(try openDescriptors() == before)
    }
  }

  @Test func metadataOfAFileAndASocketIsCopied() throws {
    try withTemporaryDirectory { directory in
      let source = directory + "/a"
      let target = directory + "/b"
      let one = try UnixSocket.listen(source)
      let two = try UnixSocket.listen(target)
      _ = one.raw + two.raw
      chown(source, 64055, 107)
      chmod(source, 0o660)
      try Metadata.copy(from: source, to: target)
      let status = try Files.status(target)
      #expect(status.owner == 64055 && status.group == 107 && status.mode & 0o7777 == 0o660)
      symlink(target, directory + "/l")
      #expect(throws: Failure.self) { try Metadata.copy(from: source, to: directory + "/l") }
    }
  }
}

/// Ends the life of a child's descriptor.
private func close(_ child: consuming Child) {}

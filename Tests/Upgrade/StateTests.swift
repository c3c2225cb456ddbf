import Glibc
import Kernel
import QEMU
import Testing

@testable import Upgrade

/// A directory of its own for each test, removed with it.
final class Scratch {
  let path: String
  init() {
    var template = Array("/tmp/moult-test-XXXXXX".utf8CString)
    path = mkdtemp(&template) == nil ? "/nonexistent" : String(decoding: template.dropLast().map(UInt8.init(bitPattern:)), as: UTF8.self)
  }
  deinit { do { try Files.removeTree(path) } catch { print("could not remove \(path): \(error)") } }
  var state: StateDirectory { StateDirectory(path: path + "/run", persistent: path + "/lib") }
}

@Suite struct StateDirectoryTests {
  static func record(_ key: String = "vm1-1") -> UpgradeRecord {
    let plan = Fixture.plan()
    var record = Executor(plan: plan, host: ModelHost(plan), began: Instant(nanoseconds: 0)) { _ in }.record
    record.key = key
    return record
  }

  @Test func theLockIsTakenOnce() throws {
    let scratch = Scratch()
    let lock = try scratch.state.lock("k")
    let failure = #expect(throws: Failure.self) { _ = try scratch.state.lock("k").raw }
    #expect(failure?.reason == "another moult (pid \(getpid())) is working on it")
    #expect(try scratch.state.holder(of: "k") == getpid())
    // Another VM's is free.
    let other = try scratch.state.lock("k2")
    #expect(try Files.names(in: scratch.state.path).sorted() == ["k", "k2"])
    withExtendedLifetime((lock.raw, other.raw)) {}
  }

  @Test func aLockFileThatNobodyHoldsIsNoLock() throws {
    let scratch = Scratch()
    do {
      let lock = try scratch.state.lock("k")
      _ = lock.raw
    }
    #expect(try scratch.state.holder(of: "k") == nil)
    let again = try scratch.state.lock("k")
    _ = again.raw
  }

  @Test func nobodyHoldsALockThatWasNeverMade() throws {
    #expect(try Scratch().state.holder(of: "k") == nil)
    #expect(try Scratch().state.records() == [])
    #expect(try Scratch().state.record("k") == nil)
  }
}

@Suite struct ELFTests {
  @Test func aRealLibraryHasItsName() throws {
    var found = 0
    for directory in ["/lib/x86_64-linux-gnu", "/lib/aarch64-linux-gnu", "/lib64"] {
      let path = directory + "/libc.so.6"
      guard try Files.statusIfPresent(path) != nil else { continue }
      #expect(try ELF.soname(of: path) == "libc.so.6")
      found += 1
    }
    #expect(found > 0)
  }

  @Test func aProgramHasNone() throws { #expect(try ELF.soname(of: "/proc/self/exe") == nil) }

  @Test func garbageHasNone() throws {
    #expect(ELF.soname(in: []) == nil)
    #expect(ELF.soname(in: Array("#!/bin/sh\n".utf8)) == nil)
    let header: [UInt8] = [0x7f, 0x45, 0x4c, 0x46, 2, 1]
    #expect(ELF.soname(in: header) == nil)
    #expect(ELF.soname(in: [0x7f, 0x45, 0x4c, 0x46, 1, 1] + [UInt8](repeating: 0, count: 100)) == nil)
    for byte in [UInt8(0), 1, 0x7f, 0xff] { #expect(ELF.soname(in: header + [UInt8](repeating: byte, count: 4000)) == nil) }
    // A real one, cut short or with bytes turned over, must not bring the program down.
    let libraries: [String] = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib/aarch64-linux-gnu/libc.so.6"]
    let path = libraries.first { access($0, R_OK) == 0 }
    let real = try Files.read(try #require(path))
    for length in [7, 40, 63, 64, 65, 200, 1000, 100_000] { _ = ELF.soname(in: Array(real.prefix(length))) }
    var random = SystemRandomNumberGenerator()
    for _ in 0..<200 {
      var damaged = Array(real.prefix(4096))
      for _ in 0..<8 { damaged[Int.random(in: 6..<800, using: &random)] = UInt8.random(in: 0...255, using: &random) }
      _ = ELF.soname(in: damaged)
    }
  }
}

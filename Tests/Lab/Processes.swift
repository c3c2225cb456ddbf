import CLab
import Foundation
import Glibc
import Kernel

/// What /proc says of the processes there are.
public struct ProcessEntry: Sendable {
  public var pid: pid_t
  public var arguments: [String]
  var isQEMU: Bool { (arguments.first ?? "").contains("qemu-system") }

  /// The namespace of a kind (`mnt`, `net`) it is in, or nil if it may not be asked.
  func namespace(_ kind: String) -> String? {
    // The process may end at any moment: then it holds nothing.
    do {
      return try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/\(pid)/ns/\(kind)")
    } catch { return nil }
  }
}

public enum Processes {
  /// All that have an argv: neither kernel threads nor zombies do.
  public static func all() -> [ProcessEntry] {
    list("/proc").compactMap { name in
      guard let pid = pid_t(name), case let content = contents("/proc/\(name)/cmdline"), !content.isEmpty else { return nil }
      let words = content.split(separator: 0, omittingEmptySubsequences: false).map {
        String(decoding: $0, as: UTF8.self)
      }
      return ProcessEntry(pid: pid, arguments: words)
    }
  }

  /// Whether the process is gone or a zombie. One that is exiting has no argv any more, but may still
  /// have its sockets and locks: proc_pid_stat(5), state.
  public static func hasEnded(_ pid: pid_t) -> Bool {
    let text = text("/proc/\(pid)/stat")
    guard let end = text.lastIndex(of: ")") else { return true }
    // The first thread is a zombie while others, which hold the files too, are still exiting.
    return ["Z", "X"].contains(text[end...].dropFirst(2).prefix(1)) && list("/proc/\(pid)/task").count <= 1
  }

  /// Does something while this process, and not init, becomes the parent of those that have lost theirs: only a
  /// parent can free a pid, and who is init here may take its time. Those that ended meanwhile are freed.
  public static func adoptingOrphans<Result>(_ body: () throws -> Result) throws -> Result {
    let before = children()
    guard lab_adopt_orphans(1) == 0 else { throw LabFailure.system("adopt orphans", errno) }
    defer {
      _ = lab_adopt_orphans(0)
      for child in children().subtracting(before) where hasEnded(child) { waitpid(child, nil, 0) }
    }
    return try body()
  }

  /// Of this process. proc_pid_task(5), children.
  private static func children() -> Set<pid_t> {
    Set(
      list("/proc/self/task").flatMap { thread in
        text("/proc/self/task/\(thread)/children").split(separator: " ").compactMap { pid_t($0) }
      })
  }

  /// Kills a child that was adopted, and frees its pid.
  public static func killAdopted(_ pid: pid_t) throws {
    kill(pid, SIGKILL)
    guard waitpid(pid, nil, 0) == pid else { throw LabFailure.system("wait for the adopted process \(pid)", errno) }
  }

  /// A file of procfs; nothing if its process has ended. Foundation's `contents(atPath:)` leaks a page for each that is empty.
  static func contents(_ path: String) -> [UInt8] {
    do throws(Failure) { return try Files.read(path) } catch { return [] }
  }
  public static func text(_ path: String) -> String { String(decoding: contents(path), as: UTF8.self) }

  /// Names in a directory; none if there is no such directory.
  static func list(_ path: String) -> [String] {
    do { return try FileManager.default.contentsOfDirectory(atPath: path) } catch { return [] }
  }
}

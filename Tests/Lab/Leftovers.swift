import Foundation
import Glibc

/// What an upgrade could leave behind on the host, at one moment. Two of them tell what is left.
public struct Leftovers: Sendable {
  /// What there is, in words that do not change while the thing stays the same.
  public private(set) var things: Set<String> = []

  /// - Parameter directories: where VMs' public names are; looked into with all below them.
  public static func snapshot(_ directories: [String] = [Lab.paths.run]) -> Leftovers {
    var found = Leftovers()
    found.mounts()
    found.processes(directories)
    for directory in directories {
      found.tree(directory)
      // A stage is a sibling of the directory it stands in for, and has its name at the end.
      let path = directory as NSString
      for name in Processes.list(path.deletingLastPathComponent)
      where name.hasPrefix(".moult-") && name.hasSuffix("-" + path.lastPathComponent) {
        found.things.insert("file \(path.deletingLastPathComponent)/\(name)")
      }
    }
    found.tree("/dev/shm") { $0.contains("moult-lab-\(getpid())-") }
    let names = LabVM.names
    found.tree("/run/moult") { path in names.contains { path.hasPrefix($0 + "-") } }
    // What was is history, and meant to stay. What is kept for the way back does not say for which VM:
    // where others upgrade theirs at the same time, MOULT_LAB_BUSY=1 leaves it out.
    if ProcessInfo.processInfo.environment["MOULT_LAB_BUSY"] == nil {
      for name in Processes.list("/var/lib/moult/kept") { found.things.insert("kept runtime \(name)") }
    }
    return found
  }

  /// What is there now and was not in `before`, sorted.
  public func difference(from before: Leftovers) -> [String] {
    things.subtracting(before.things).sorted()
  }

  private mutating func mounts() {
    var count: [String: Int] = [:]
    for line in Processes.text("/proc/self/mountinfo").split(separator: "\n") {
      // proc_pid_mountinfo(5): id, parent, device, root, mount point, options, …, "-", type, source.
      let words = line.split(separator: " ")
      guard words.count > 6, let dash = words.firstIndex(of: "-"), dash + 1 < words.count else { continue }
      let mount = "mount \(words[4]) (\(words[dash + 1]), of \(words[3]))"
      count[mount, default: 0] += 1
      things.insert(count[mount] == 1 ? mount : "\(mount) again (\(count[mount] ?? 0))")
    }
  }

  /// Only what has to do with the lab: others may use this machine's QEMU meanwhile.
  private mutating func processes(_ directories: [String]) {
    for process in Processes.all() {
      let concerned = process.arguments.contains { word in directories.contains { word.contains($0) } }
      guard concerned || process.arguments.first == Lab.paths.moult else { continue }
      let words = process.arguments.prefix(4).joined(separator: " ")
      things.insert("process \(process.pid) \(words)")
      for kind in ["mnt", "net", "ipc", "uts"] {
        if let namespace = process.namespace(kind) { things.insert("namespace \(namespace)") }
      }
    }
  }

  private mutating func tree(_ directory: String, where condition: (String) -> Bool = { _ in true }) {
    guard FileManager.default.fileExists(atPath: directory) else { return }
    let paths: [String]
    do { paths = try FileManager.default.subpathsOfDirectory(atPath: directory) } catch {
      things.insert("unreadable \(directory): \(error)")
      return
    }
    for path in paths where condition(path) { things.insert("file \(directory)/\(path)") }
  }
}

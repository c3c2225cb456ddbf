import Foundation
import Glibc
import Lab

/// What the kernel tells of a QEMU in /proc: what one twin has to have in common with the other, and
/// what must not grow from upgrade to upgrade.
struct ProcessFacts: Sendable {
  let pid: pid_t
  init(_ pid: pid_t) { self.pid = pid }

  private func text(_ name: String) -> String {
    let data = FileManager.default.contents(atPath: "/proc/\(pid)/\(name)") ?? Data()
    return String(decoding: data, as: UTF8.self)
  }

  private func link(_ name: String) -> String {
    do { return try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/\(pid)/\(name)") } catch { return "?" }
  }

  /// Lines of /proc/PID/status, by name.
  private func status(_ path: String = "status") -> [String: String] {
    var values: [String: String] = [:]
    for line in text(path).split(separator: "\n") {
      let parts = line.split(separator: ":", maxSplits: 1)
      if parts.count == 2 { values[String(parts[0])] = parts[1].trimmingCharacters(in: .whitespaces) }
    }
    return values
  }

  /// Fields of /proc/PID/stat after the command's name: nice is the 17th of them, see proc_pid_stat(5).
  private func stat(_ path: String = "stat") -> [String] {
    let line = text(path)
    guard let end = line.lastIndex(of: ")") else { return [] }
    return line[end...].dropFirst(2).split(separator: " ").map(String.init)
  }

  /// All that makes a process what it is for the VM, by name. Equal for both twins.
  var identity: [String: String] {
    var facts: [String: String] = [:]
    let status = status()
    for name in [
      "Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Umask",
      "Cpus_allowed_list", "Mems_allowed_list", "SigIgn",
    ] {
      facts[name] = status[name] ?? ""
    }
    facts["limits"] = text("limits")
    facts["cgroup"] = text("cgroup")
    facts["oom_score_adj"] = text("oom_score_adj")
    facts["environ"] = text("environ").replacingOccurrences(of: "\0", with: "\n")
    facts["cwd"] = link("cwd")
    for number in 0...2 { facts["fd \(number)"] = link("fd/\(number)") + " " + openFlags(number) }
    facts["nice"] = stat().dropFirst(16).first
    facts["policy"] = stat().dropFirst(38).first
    return facts
  }

  /// The access mode and O_APPEND of a descriptor.
  private func openFlags(_ number: Int) -> String {
    let line = text("fdinfo/\(number)").split(separator: "\n").first { $0.hasPrefix("flags:") } ?? ""
    let flags = Int32(line.split(separator: "\t").last ?? "0", radix: 8) ?? 0
    return "mode \(flags & O_ACCMODE) append \(flags & O_APPEND != 0)"
  }

  /// Processors and scheduling of one thread.
  func thread(_ id: Int) -> [String: String] {
    let status = status("task/\(id)/status")
    let stat = stat("task/\(id)/stat")
    return [
      "Cpus_allowed_list": status["Cpus_allowed_list"] ?? "", "nice": stat.dropFirst(16).first ?? "",
      "policy": stat.dropFirst(38).first ?? "", "cgroup": text("task/\(id)/cgroup"),
    ]
  }

  /// What could stack up: mount points as it sees them, descriptors by what they lead to, namespaces of its own.
  var holdings: [String] {
    var things: [String] = []
    for line in text("mountinfo").split(separator: "\n") {
      let words = line.split(separator: " ")
      guard words.count > 6, let dash = words.firstIndex(of: "-"), dash + 2 < words.count else { continue }
      things.append("mount \(words[4]) \(words[dash + 1]) \(words[dash + 2])")
    }
    for number in Directory.entries("/proc/\(pid)/fd") {
      // Inodes of sockets and pids in names change, kinds and numbers of them do not.
      var target = link("fd/\(number)")
      for prefix in ["socket:", "pipe:"] where target.hasPrefix(prefix) { target = prefix }
      things.append("fd \(target)")
    }
    for kind in ["mnt", "net", "ipc", "uts", "pid", "user", "cgroup"] {
      if link("ns/\(kind)") != ProcessFacts(getpid()).link("ns/\(kind)") { things.append("namespace \(kind)") }
    }
    return things.sorted()
  }

  var command: [String] { text("cmdline").split(separator: "\0", omittingEmptySubsequences: false).map(String.init) }
}

/// How two maps differ, in sentences.
func differences(_ a: [String: String], _ b: [String: String]) -> [String] {
  Set(a.keys).union(b.keys).sorted().compactMap { a[$0] == b[$0] ? nil : "\($0): \(a[$0] ?? "-") → \(b[$0] ?? "-")" }
}

/// How two lists differ, each element with its count.
func differences(_ a: [String], _ b: [String]) -> [String] {
  var count: [String: Int] = [:]
  for thing in a { count[thing, default: 0] -= 1 }
  for thing in b { count[thing, default: 0] += 1 }
  return count.filter { $0.value != 0 }.map { "\($0.value > 0 ? "+" : "")\($0.value) \($0.key)" }.sorted()
}

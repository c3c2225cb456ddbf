import Glibc
import Kernel
import QEMU

extension Observer {
  /// The options of a running QEMU: its arguments, with its configuration files read as it sees them.
  static func commandLine(of pid: pid_t, startTime: UInt64) throws(Failure) -> ExpandedCommandLine {
    let started = try ProcFS.arguments(of: pid)
    let line = CommandLine(argv: try KeptWords.words(in: try ProcFS.environment(of: pid), started: started) ?? started)
    let files = line.options.filter { $0.name == "readconfig" }.compactMap(\.value)
    var expanded = line
    var base = ""
    if !files.isEmpty { base = try Self.base(of: pid, daemonizes: line.options.contains { $0.name == "daemonize" }, paths: files) }
    // A QEMU reads this one unasked.
    if !line.options.contains(where: { ["no-user-config", "nodefconfig"].contains($0.name) }),
      try Files.statusIfPresent(userConfiguration, inRootOf: pid) != nil
    {
      expanded.options.insert(contentsOf: [CommandOption(name: "readconfig", value: userConfiguration), CommandOption(name: "no-user-config")], at: 0)
    }
    return expanded.expanded { path throws(Failure) in
      try configuration(path.hasPrefix("/") ? path : Stage.join(base, path), of: pid, startTime: startTime)
    }
  }

  /// Where QEMU is built to look, with the usual prefix.
  private static let userConfiguration = "/etc/qemu/qemu.conf"

  /// A file that the process has read when it started.
  private static func configuration(_ path: String, of pid: pid_t, startTime: UInt64) throws(Failure) -> [UInt8] {
    let step = "read the configuration"
    let file = try OwnedFD.resolving(path, inRoot: "/proc/\(pid)/root")
    guard try Files.status(of: file.raw).isRegularFile else {
      throw Failure(
        step: step, subject: path, reason: "it is no regular file: what QEMU read from it is gone",
        hint: "start the VM with these options on its command line")
    }
    // A second, for clocks that differ by their grain.
    if try Files.modified(file.raw) > wallClock(ofTicks: startTime) + 1 {
      throw Failure(
        step: step, subject: path, reason: "it was changed after the VM's start, so what QEMU read is not known",
        hint: "put back what it said, with its old time (cp -p, touch -d)")
    }
    return try Files.read(file.procPath)
  }

  /// Seconds since the epoch of a time that proc(5) gives in ticks since the system's start.
  private static func wallClock(ofTicks ticks: UInt64) -> Double {
    func now(_ clock: clockid_t) -> Double {
      var time = timespec()
      clock_gettime(clock, &time)
      return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
    }
    return now(CLOCK_REALTIME) - now(CLOCK_BOOTTIME) + Double(ticks) / Double(sysconf(Int32(_SC_CLK_TCK)))
  }
}

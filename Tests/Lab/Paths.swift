import Foundation
import Glibc

/// Where the lab's parts are. They are made by `scripts/`, never by the tests themselves.
public enum Lab {
  public static let paths = Paths()

  public struct Paths: Sendable {
    /// The cache outside the repository, as `scripts/lab.sh` has it.
    public let cache: String
    /// The program under test: `MOULT_BINARY`, else the one built beside the tests.
    public let moult: String
    /// Where VMs of this process have what is theirs: others may run tests on this host as well.
    public let run = "/run/moult-lab/\(getpid())"

    init() {
      let environment = ProcessInfo.processInfo.environment
      if let lab = environment["MOULT_LAB"] {
        cache = lab
      } else {
        cache = (environment["XDG_CACHE_HOME"] ?? NSHomeDirectory() + "/.cache") + "/moult-lab"
      }
      let program = ("/proc/self/exe" as NSString).resolvingSymlinksInPath as NSString
      moult = environment["MOULT_BINARY"] ?? program.deletingLastPathComponent + "/moult"
    }

    // The link is resolved here: a VM's argv must name files that stay when the guest is made anew.
    private var guest: String { (cache + "/guest" as NSString).resolvingSymlinksInPath }
    public var kernel: String { guest + "/vmlinuz" }
    public var initrd: String { guest + "/initrd" }
    public var initrdWithAgent: String { guest + "/initrd-agent" }
    /// Open vSwitch, unpacked.
    public var vSwitch: String { cache + "/switch" }
    /// A disk of one sector which counts on the serial port in real mode.
    public var bootSector: String { guest + "/boot-sector" }
    public var virtiofsd: String { cache + "/virtiofsd/trixie/virtiofsd" }
    /// What the kernel's command line starts with.
    public func commandLine() throws -> String {
      try String(contentsOfFile: guest + "/cmdline", encoding: .utf8)
        .trimmingCharacters(in: .whitespacesAndNewlines)
    }
  }
}

/// Something in the lab did not work as a test needs it to. Not a failure of the program under test.
public struct LabFailure: Error, CustomStringConvertible, Sendable {
  public var description: String
  public init(_ description: String) { self.description = description }

  /// A failure of the C function just called.
  static func system(_ what: String, _ code: CInt = errno) -> LabFailure {
    LabFailure("\(what): \(String(cString: strerror(code)))")
  }
}

/// The QEMUs there are, oldest first.
public enum QEMUVersion: String, CaseIterable, Sendable, CustomStringConvertible, Comparable {
  case v5_2 = "5.2"
  case v7_2 = "7.2"
  case v10_0 = "10.0"
  case v11_1 = "11.1"

  /// The tree it lives in; nil for the host's own.
  public var root: String? { self == .v7_2 ? nil : Lab.paths.cache + "/roots/" + rawValue }
  /// Its path in that tree, or on the host.
  public var binary: String { "/usr/bin/qemu-system-x86_64" }
  /// What `moult upgrade` is told to move a VM to it.
  public var destination: [String] {
    ["--to", binary] + (root.map { ["--root", $0] } ?? [])
  }
  public var description: String { rawValue }
  public static func < (a: QEMUVersion, b: QEMUVersion) -> Bool {
    (allCases.firstIndex(of: a) ?? 0) < (allCases.firstIndex(of: b) ?? 0)
  }
}

/// Nanoseconds on the host's monotonic clock.
public func monotonicNanoseconds() -> Int64 {
  var time = timespec()
  clock_gettime(CLOCK_MONOTONIC, &time)
  return Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec)
}

/// Looks again every 5 ms until `condition` gives a value. For tests only: the product never polls.
public func eventually<Value>(
  _ what: String, within seconds: Double = 30, _ condition: () throws -> Value?
) throws -> Value {
  let deadline = monotonicNanoseconds() + Int64(seconds * 1e9)
  while true {
    if let value = try condition() { return value }
    if monotonicNanoseconds() > deadline { throw LabFailure("\(what): not within \(seconds) s") }
    usleep(5000)
  }
}

/// The same for a condition.
public func eventually(
  _ what: String, within seconds: Double = 30, _ condition: () throws -> Bool
) throws {
  _ = try eventually(what, within: seconds) { try condition() ? () : nil }
}

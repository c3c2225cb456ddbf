import CKernel
import Glibc
import Kernel
import SystemPackage

extension ProcessPlan {
  /// For messages: the program's path, or the command's name if it is started by descriptor.
  var name: String {
    switch executable {
    case .path(let path): path
    case .descriptor: arguments.first ?? ""
    }
  }
}

/// The stages of a child before it becomes its program, each with the words a ``Failure`` uses for it.
enum ChildStage {
  /// The failure's step when the program itself could not be started.
  static let execute = "execute"

  static func failure(_ report: moult_report, _ plan: ProcessPlan, numbers: [CInt]) -> Failure {
    let index = Int(report.index)
    let (step, subject): (String, String) =
      switch moult_stage(rawValue: UInt32(bitPattern: report.stage)) {
      case moult_stage_session: ("start session of", plan.name)
      case moult_stage_descriptor:
        ("hand over descriptor", numbers.indices.contains(index) ? "\(numbers[index])" : "")
      case moult_stage_working_directory: ("enter working directory", plan.workingDirectory ?? "")
      case moult_stage_bounding: ("drop bounding capability", "\(index)")
      case moult_stage_groups: ("set supplementary groups of", plan.name)
      case moult_stage_group_ids: ("set group ids of", plan.name)
      case moult_stage_user_ids: ("set user ids of", plan.name)
      case moult_stage_capabilities: ("set capabilities of", plan.name)
      case moult_stage_ambient: ("raise ambient capability", "\(index)")
      case moult_stage_no_new_privileges: ("set no_new_privs of", plan.name)
      case moult_stage_signals: ("set signals of", plan.name)
      default: (execute, plan.name)
      }
    return Failure(step: step, subject: subject, errno: Errno(rawValue: report.error))
  }
}

/// What the child's stage needs, in memory that the stage can use as it is.
struct PreparedChild: ~Copyable {
  private let plan: ProcessPlan
  private let strings: CStrings
  private let environment: CStrings
  /// The program and the working directory.
  private let paths: CStrings
  private let descriptors: UnsafeMutableBufferPointer<moult_descriptor>
  private let groups: UnsafeMutableBufferPointer<gid_t>
  /// Copies above all numbers that the child gives out.
  private var copies: [CInt]
  private let start: CInt
  private let startWrite: CInt
  private let report: CInt
  private let executable: CInt

  init(_ plan: ProcessPlan, start: borrowing Pipe, report: borrowing Pipe) throws(Failure) {
    for text in plan.arguments + plan.environment where text.utf8.contains(0) {
      throw Failure(step: "launch", subject: plan.name, reason: "an argument or variable contains a NUL byte")
    }
    let streams = [plan.standardInput, plan.standardOutput, plan.standardError]
    let numbers = plan.inherited.map(\.number)
    guard Set(numbers).count == numbers.count, numbers.allSatisfy({ $0 > 2 }) else {
      throw Failure(
        step: "launch", subject: plan.name, reason: "descriptor numbers must differ and lie above 2: \(numbers)")
    }
    let floor = max(2, numbers.max() ?? 2) + 1

    // Every copy is recorded at once, so that a failure half-way closes them.
    let copies = Copies()
    func copy(_ source: CInt) throws(Failure) -> CInt {
      let raw = try valueOrErrno("duplicate descriptor", "\(source)") { fcntl(source, F_DUPFD_CLOEXEC, floor) }
      copies.raw.append(raw)
      return raw
    }
    var entries: [moult_descriptor] = []
    for (number, stream) in streams.enumerated() {
      switch stream {
      case .inherit: break
      case .closed: entries.append(moult_descriptor(source: -1, number: CInt(number)))
      case .descriptor(let source): entries.append(moult_descriptor(source: try copy(source), number: CInt(number)))
      case .null:
        let null = try Devices.openNull(number == 0 ? O_RDONLY : O_WRONLY)
        entries.append(moult_descriptor(source: try copy(null.raw), number: CInt(number)))
      }
    }
    for entry in plan.inherited {
      entries.append(moult_descriptor(source: try copy(entry.source), number: entry.number))
    }
    let startCopy = try copy(start.read)
    let reportCopy = try copy(report.write)
    var executable: CInt = -1
    if case .descriptor(let source) = plan.executable { executable = try copy(source) }

    self.plan = plan
    self.start = startCopy
    startWrite = start.write
    self.report = reportCopy
    self.executable = executable
    self.copies = copies.take()
    strings = CStrings(plan.arguments)
    environment = CStrings(plan.environment)
    var paths = [plan.workingDirectory ?? ""]
    if case .path(let path) = plan.executable { paths.append(path) }
    self.paths = CStrings(paths)
    descriptors = .allocate(capacity: entries.count)
    _ = descriptors.initialize(from: entries)
    let supplementary = plan.credentials?.supplementaryGroups ?? []
    groups = .allocate(capacity: supplementary.count)
    _ = groups.initialize(from: supplementary)
  }

  /// Starts the child; it waits for a byte on the start pipe.
  borrowing func spawn() throws(Failure) -> Child {
    var child = moult_child()
    child.arguments = UnsafePointer(strings.pointers)
    child.environment = UnsafePointer(environment.pointers)
    if plan.workingDirectory != nil { child.working_directory = UnsafePointer(paths.pointers[0]) }
    switch plan.executable {
    case .path: child.executable = UnsafePointer(paths.pointers[1])
    case .descriptor: child.executable_descriptor = executable
    }
    child.umask = plan.umask.map { CInt($0) } ?? -1
    child.new_session = plan.newSession ? 1 : 0
    child.orphan = plan.orphan ? 1 : 0
    child.parent = plan.endsWithParent ? getpid() : 0
    child.descriptors = UnsafePointer(descriptors.baseAddress)
    child.descriptor_count = descriptors.count
    if let credentials = plan.credentials {
      child.set_credentials = 1
      child.uid = (credentials.user.real, credentials.user.effective, credentials.user.saved)
      child.gid = (credentials.group.real, credentials.group.effective, credentials.group.saved)
      child.groups = UnsafePointer(groups.baseAddress)
      child.group_count = groups.count
      child.inheritable = credentials.capabilities.inheritable
      child.bounding = credentials.capabilities.bounding
      child.ambient = credentials.capabilities.ambient
    }
    child.no_new_privileges = plan.noNewPrivileges || plan.credentials?.noNewPrivileges == true ? 1 : 0
    child.ignored_signals = plan.ignoredSignals
    child.signal_mask = plan.signalMask
    child.start_descriptor = start
    child.start_write_descriptor = startWrite
    child.report_descriptor = report

    var pidfd: CInt = -1
    let pid = try valueOrErrno("start process", plan.name) { moult_spawn(&child, &pidfd) }
    return Child(pid: pid, pidfd: Pidfd(owning: OwnedFD(pidfd), pid: pid))
  }

  /// Closes the parent's copies, so that the report ends when the child execs or ends.
  mutating func closeDescriptors() {
    for copy in copies { close(copy) }
    copies = []
  }

  /// Waits until the child has become its program (nil) or has failed.
  borrowing func failure(from report: CInt) throws(Failure) -> Failure? {
    var message = moult_report()
    let size = try valueOrErrno("wait for start of", plan.name) {
      read(report, &message, MemoryLayout<moult_report>.size)
    }
    guard size == MemoryLayout<moult_report>.size else { return nil }
    return ChildStage.failure(message, plan, numbers: descriptors.map(\.number))
  }

  deinit {
    for copy in copies { close(copy) }
    descriptors.deallocate()
    groups.deallocate()
  }
}

/// Descriptors under construction: closed unless taken.
private final class Copies {
  var raw: [CInt] = []

  func take() -> [CInt] {
    defer { raw = [] }
    return raw
  }

  deinit { for descriptor in raw { close(descriptor) } }
}

/// A null-terminated array of C strings.
private struct CStrings: ~Copyable {
  let pointers: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>
  private let count: Int

  init(_ strings: [String]) {
    count = strings.count
    pointers = .allocate(capacity: count + 1)
    for (index, string) in strings.enumerated() { (pointers + index).initialize(to: strdup(string)) }
    (pointers + count).initialize(to: nil)
  }

  deinit {
    for index in 0..<count { free(pointers[index]) }
    pointers.deallocate()
  }
}

/// A pipe, both ends close-on-exec.
struct Pipe: ~Copyable {
  let read: CInt
  private(set) var write: CInt

  init() throws(Failure) {
    var ends: [CInt] = [-1, -1]
    try valueOrErrno("make pipe", "") { moult_pipe(&ends) }
    read = ends[0]
    write = ends[1]
  }

  mutating func closeWrite() {
    close(write)
    write = -1
  }

  deinit {
    close(read)
    if write >= 0 { close(write) }
  }
}

import ArgumentParser
import Glibc
import Kernel
import Sandbox
import SystemPackage

/// Starts a QEMU in a sandbox and stays as its parent.
struct Run: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Start a QEMU in a sandbox, and stay as its parent.",
    discussion: """
      SIGTERM, SIGINT and SIGHUP are passed on to it.

      Ends with the command's own code, 128+n if a signal ended it, 125 if it could not be launched, 126 if it is not \
      executable and 127 if it is not found.
      """)

  @Option(help: ArgumentHelp("The profile: a name, or a file with a slash in its path.", valueName: "name|file"))
  var profile = "default"

  @Option(help: "The guest's name; becomes -name unless the arguments have one.")
  var name: String?

  @Argument(parsing: .postTerminator, help: "The QEMU and its arguments, after --.")
  var command: [String] = []

  func validate() throws {
    if command.isEmpty { throw ValidationError("nothing to run: give a QEMU and its arguments after --") }
  }

  func run() throws {
    let code: CInt
    do throws(Failure) { code = try start() } catch {
      var message = "moult run: \(error)\n"
      if let hint = error.hint { message += "  \(hint)\n" }
      FileDescriptor.standardError.writeMessage(message)
      code = Self.exitCode(for: error)
    }
    throw ExitCode(code)
  }

  /// 126 and 127 as shells have them; the rest is the launcher's own.
  static func exitCode(for failure: Failure) -> CInt {
    guard failure.step == Launching.executeStep else { return 125 }
    return failure.errno == .noSuchFileOrDirectory ? 127 : 126
  }

  private func start() throws(Failure) -> CInt {
    let environment = try Environment.current()
    let binary = try ProcFS.executable(of: getpid()).path
    let path = try Profile.find(profile, in: Profile.directories(environment: environment.values, binary: binary))
    let profile = try Profile(toml: try Files.readText(path), path: path)

    var arguments = command
    // QEMU takes its options with one dash or two.
    if let name, !arguments.contains("-name"), !arguments.contains("--name") { arguments += ["-name", name] }

    // Blocked before the child exists, so that a signal that comes meanwhile is forwarded and not lost.
    let signals = try SignalDescriptor([SIGTERM, SIGINT, SIGHUP])
    let own = try ProcessStatus.read(pid: getpid())
    var process = ProcessPlan(
      executable: .path(try Launching.find(command[0], path: environment.values["PATH"])), arguments: arguments,
      environment: environment.all.filter { !$0.hasPrefix(Profile.variable + "=") } + ["\(Profile.variable)=\(try Paths.real(path))"],
      credentials: profile.restrict(own.credentials),
      ignoredSignals: own.ignoredSignals, signalMask: signals.formerMask)
    process.noNewPrivileges = profile.noNewPrivileges
    let child = try launch(profile.sandbox, process)
    return try supervise(child, signals)
  }

  private func supervise(_ child: borrowing Child, _ signals: borrowing SignalDescriptor) throws(Failure) -> CInt {
    while true {
      var entries = [
        pollfd(fd: signals.raw, events: Int16(POLLIN), revents: 0),
        pollfd(fd: child.pidfd.raw, events: Int16(POLLIN), revents: 0),
      ]
      try valueOrErrno("wait for", command[0]) { poll(&entries, 2, -1) }
      if entries[1].revents != 0, let end = try child.wait() {
        switch end {
        case .exited(let code): return code
        case .signalled(let signal): return 128 + signal
        }
      }
      while let (signal, sender) = try signals.next() {
        // A key on the terminal has reached the whole process group, the child too (sender: the kernel).
        if sender == 0 && signal == SIGINT { continue }
        do throws(Failure) {
          try child.pidfd.send(signal: signal)
        } catch where error.errno == .noSuchProcess { continue }  // It has just ended: the next poll says so.
      }
    }
  }
}

extension FileDescriptor {
  /// Writes a message for people; if even that fails there is nobody to tell.
  fileprivate func writeMessage(_ text: String) {
    _ = Array(text.utf8).withUnsafeBytes { Glibc.write(rawValue, $0.baseAddress, $0.count) }
  }
}

/// The environment of this process.
private struct Environment {
  /// Each `NAME=VALUE`, as it came.
  var all: [String]
  var values: [String: String]

  static func current() throws(Failure) -> Environment {
    let all = try ProcFS.environment(of: getpid())
    var values: [String: String] = [:]
    for entry in all {
      guard let equals = entry.firstIndex(of: "=") else { continue }
      values[String(entry[..<equals])] = String(entry[entry.index(after: equals)...])
    }
    return Environment(all: all, values: values)
  }
}

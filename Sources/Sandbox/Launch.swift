import CKernel
import Glibc
import Kernel
import SystemPackage

/// Starts a process in a sandbox, and returns once its program runs (its exec has succeeded).
///
/// The calling process must have one thread. It enters the new namespaces, makes the mounts, starts the child and
/// goes back; the child waits meanwhile, and is moved into its control groups and given its limits before it becomes
/// the program. On failure nothing is left: no process, namespace, mount or descriptor.
///
/// - Parameter beforeStart: called when the process exists and waits: from then on it can be known, and it ends by
///   itself if the caller does.
/// - Throws: the step that failed, in the parent or in the child, and what it was done to.
public func launch(
  _ sandbox: SandboxPlan, _ process: ProcessPlan, beforeStart: (pid_t) throws(Failure) -> Void = { _ in }
) throws(Failure) -> Child {
  guard sandbox.namespaces.contains(.mount) || (sandbox.operations.isEmpty && sandbox.root == .host) else {
    throw Failure(step: "launch", subject: process.name, reason: "mounts need a mount namespace")
  }
  let start = try Pipe()
  var report = try Pipe()
  var prepared = try PreparedChild(process, start: start, report: report)

  let child: Child
  if sandbox.namespaces.isEmpty {
    child = try prepared.spawn()
  } else {
    child = try Namespaces.withNew(sandbox.namespaces) { () throws(Failure) in
      if sandbox.namespaces.contains(.network) { try Namespaces.bringLoopbackUp() }
      if sandbox.namespaces.contains(.mount) { try MountExecution.run(sandbox) }
      return try prepared.spawn()
    }
  }
  // With the parent's copies closed, the report ends when the child's does. The start pipe's reading end stays
  // open, so that a child that was killed meanwhile is no SIGPIPE here.
  report.closeWrite()
  prepared.closeDescriptors()
  let startEnd = start.write

  do throws(Failure) {
    for group in process.cgroups { try group.join(process: child.pid) }
    try process.limits.apply(to: child.pid)
    if let scheduling = process.scheduling { try scheduling.apply(to: child.pid) }
    if let adjustment = process.oomScoreAdjustment { try OOMScore.apply(adjustment, to: child.pid) }
    try beforeStart(child.pid)
    try valueOrErrno("start process", process.name) { write(startEnd, [1], 1) }
    if let failure = try prepared.failure(from: report.read) { throw failure }
  } catch {
    // It has ended by itself, or waits for the start: nothing else can have happened yet.
    if process.orphan { try child.endOrphan() } else { try child.kill() }
    throw error
  }
  return child
}

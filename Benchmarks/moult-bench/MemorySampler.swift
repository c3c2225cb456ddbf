import Foundation
import Glibc
import Lab
import Synchronization

/// The largest sum of the proportional set sizes of a VM's QEMUs and of moult, read again and again by a
/// thread of its own. Reading it walks the page tables of the guest's RAM, which the guest notices: to
/// be used apart from whatever measures time. Source: proc_pid_smaps(5), smaps_rollup.
final class MemorySampler: Sendable {
  private struct State: Sendable {
    var peak = 0
    var running = true
    var stopping = false
  }
  private let state = Mutex(State())
  private let baseline: Int

  /// - Parameters:
  ///   - name: of the VM.
  ///   - file: whose blocks count, too, while it is there: RAM that is saved to a tmpfs.
  init(_ name: String, file: String? = nil) {
    baseline = MemorySampler.now(name, file: nil)
    let thread = Thread { [self] in
      while !state.withLock({ $0.stopping }) {
        let bytes = MemorySampler.now(name, file: file)
        state.withLock { $0.peak = max($0.peak, bytes) }
        usleep(500)
      }
      state.withLock { $0.running = false }
    }
    thread.start()
  }

  /// Ends it; bytes above what the old QEMU alone had at the beginning.
  func stop() -> Int {
    state.withLock { $0.stopping = true }
    while state.withLock({ $0.running }) { usleep(500) }
    return state.withLock { $0.peak } - baseline
  }

  private static func now(_ name: String, file: String?) -> Int {
    var bytes = 0
    for process in Processes.all() {
      let words = process.arguments
      // QEMU by its -name; moult, and the child it is about to become QEMU in, by the VM it was given.
      let isTwin = words.indices.dropLast().contains { words[$0] == "-name" && words[$0 + 1] == name }
      guard isTwin || (words.first == Lab.paths.moult && words.contains(name)) else { continue }
      bytes += proportional(process.pid)
    }
    if let file {
      var status = stat()
      if stat(file, &status) == 0 { bytes += Int(status.st_blocks) * 512 }
    }
    return bytes
  }

  /// Bytes; 0 for a process that has ended meanwhile.
  private static func proportional(_ pid: pid_t) -> Int {
    guard let data = FileManager.default.contents(atPath: "/proc/\(pid)/smaps_rollup") else { return 0 }
    for line in String(decoding: data, as: UTF8.self).split(separator: "\n") where line.hasPrefix("Pss:") {
      return (line.split(separator: " ").dropFirst().first.flatMap { Int($0) } ?? 0) * 1024
    }
    return 0
  }
}

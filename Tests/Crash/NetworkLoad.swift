import Foundation
import Glibc
import Lab

/// A tap in a network namespace of its own, and pings to the guest behind it that go on all the time.
/// Used by one thread, but for what a signal's end does.
final class NetworkLoad: @unchecked Sendable {
  private let namespace = "moult-soak-\(getpid())"
  private var ping: ChildProcess?

  init() throws {
    try run(["ip", "netns", "add", namespace])
    for words in ["tuntap add soak0 mode tap vnet_hdr", "address add 10.97.0.1/24 dev soak0", "link set soak0 up"] {
      try run(["ip", "-n", namespace] + words.split(separator: " ").map(String.init))
    }
  }

  func attach(_ configuration: inout VMConfiguration) {
    configuration.launcher = ["ip", "netns", "exec", namespace]
    configuration.extraArguments += ["-netdev", "tap,id=net0,ifname=soak0,script=no,downscript=no", "-device", "virtio-net-pci,netdev=net0"]
  }
  let words = ["net=10.97.0.2/24"]

  func start() throws {
    ping = try ChildProcess(["ip", "netns", "exec", namespace, "busybox", "ping", "-q", "-i", "0.005", "10.97.0.2"])
  }

  /// Ends the pings.
  /// - Returns: how many were sent and how many came back.
  func stop() throws -> (sent: Int, received: Int) {
    guard let ping else { return (0, 0) }
    self.ping = nil
    kill(ping.pid, SIGINT)
    let answer = try ping.wait(seconds: 10)
    let words = answer.stdout.split(separator: "\n").first { $0.contains("packets transmitted") }?.split(separator: " ") ?? []
    guard words.count > 3, let sent = Int(words[0]), let received = Int(words[3]) else { throw LabFailure("ping: \(answer)") }
    return (sent, received)
  }

  func end() {
    if let ping { kill(ping.pid, SIGKILL) }
    do { try run(["ip", "netns", "delete", namespace]) } catch { Main.complain("\(error)") }
  }

  private func run(_ command: [String]) throws {
    let outcome = try ChildProcess(command).wait()
    if outcome.code != 0 { throw LabFailure("\(command.joined(separator: " ")): \(outcome.stderr)") }
  }
}

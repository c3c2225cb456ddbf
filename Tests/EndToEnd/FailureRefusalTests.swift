import Foundation
import Lab
import Testing

extension FailureTests {
  /// What no step carries over is refused before anything starts.
  @Suite(.serialized)
  struct Refusals {
    /// One thing that a VM may have, and what the refusal must say of it.
    struct Feature: Sendable, CustomTestStringConvertible {
      var arguments: [String]
      var words: [String]
      /// Put before the command.
      var launcher: [String] = []
      var condition = true
      var testDescription: String { arguments.joined(separator: " ") }
    }

    static let features: [Feature] = [
      Feature(arguments: ["-netdev", "socket,id=n0,listen=127.0.0.1:45871", "-device", "e1000,netdev=n0"], words: ["socket"]),
      Feature(
        arguments: ["-serial", "udp:127.0.0.1:9@127.0.0.1:45875", "-serial", "udp:127.0.0.2:9@127.0.0.2:45875"], words: ["udp", "cannot be told"]),
      Feature(arguments: ["-serial", "pty"], words: ["pty"]),
      Feature(arguments: ["-serial", "stdio"], words: ["stdio"], launcher: ["bash", "-c", "exec \"$@\" </dev/ptmx", "bash"]),
      Feature(arguments: ["-virtfs", "local,path=/tmp,mount_tag=t,security_model=none"], words: ["virtfs"]),
      Feature(arguments: ["-snapshot"], words: ["-snapshot"]),
    ]

    @Test(arguments: features.filter(\.condition))
    func `it is refused, and nothing has started`(_ feature: Feature) throws {
      let scratch = try Scratch("fail-refused")
      let vm = try Firmware("fail-refused", in: scratch, launcher: feature.launcher, feature.arguments)
      defer { vm.end() }
      let mine = vm.processes
      for command in ["plan", "upgrade"] {
        let watch = Watch { [vm] in vm.processes }
        let outcome = try run(moult: [command, "fail-refused"] + QEMUVersion.v10_0.destination)
        #expect(watch.stop().subtracting(mine) == [])
        let text = "\(feature): \(command): exit \(outcome.code)\n\(outcome.stderr)"
        #expect(outcome.code == 3, "\(text)")
        for word in feature.words { #expect(outcome.stderr.contains(word), "no “\(word)” in \(text)") }
      }
      #expect(vm.isRunning)
      #expect(try QMPConnection(vm.monitor).execute("query-status")["status"].string == "running")
    }

    @Test func `an image that was replaced is refused until it is back`() throws {
      let patient = try Patient(VMConfiguration("fail-drift") { $0.disk = "qcow2" })
      func refused(_ what: String, _ words: [String]) throws {
        for command in ["plan", "upgrade"] {
          let watch = Watch { [vm = patient.vm] in vm.processes }
          let outcome = try patient.moult([command, patient.name] + QEMUVersion.v10_0.destination, exits: 3, saying: words)
          #expect(watch.stop() == [patient.pid], "\(what): \(outcome.stderr)")
        }
        try patient.expectUntouched()
      }

      // Another file under the image's name.
      let image = patient.configuration.diskImage
      rename(image, image + ".away")
      try succeed(["qemu-img", "create", "-q", "-f", "qcow2", image, "16M"])
      try refused("another image", [image, "replaced"])
      rename(image + ".away", image)
      rename(image, image + ".away")
      try refused("no image", [image, "not there"])
      rename(image + ".away", image)

      // All undone: it goes.
      try patient.moult(patient.upgrade(), exits: 0)
      try patient.expectMoved()
      patient.expectHealthy()
    }
  }
}

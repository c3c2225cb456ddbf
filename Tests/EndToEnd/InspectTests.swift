import Foundation
import Glibc
import Lab
import Testing

extension EndToEnd {
  /// A command line joined with what the kernel and QEMU know.
  @Suite struct Inspections {
    private static func inspect(_ name: String) throws -> Answer { try Answer(run(moult: ["inspect", name, "--format", "json"])) }

    private static func binding(_ answer: Answer, _ address: String) -> JSON {
      answer["bindings"].array.first { $0["address"].string?.hasSuffix(address) ?? false } ?? .null
    }

    @Test func `each binding has its descriptors and the processes at their other ends`() throws {
      try leavingNothing {
        let port = 20_000 + Int(getpid()) % 10_000
        let vm = try LabVM(
          VMConfiguration("e2e-inspect") {
            $0.memory = .memfd()
            $0.disk = "qcow2"
            $0.diskIsBacked = true
            $0.extraArguments = ["-chardev", "socket,id=tcp0,host=127.0.0.1,port=\(port),server=on,wait=off", "-device", "virtio-serial", "-device", "virtserialport,chardev=tcp0"]
          })
        defer { vm.end() }
        let client = try ChildProcess(["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/\(port); exec sleep 60"])
        defer {
          client.signal(SIGKILL)
          _ = try? client.wait()
        }
        try eventually("the client is connected") { try Self.binding(Self.inspect("e2e-inspect"), ":\(port)")["descriptors"].array.count >= 2 }

        let answer = try Self.inspect("e2e-inspect")
        #expect(answer.code == 0)
        for member in ["name", "pid", "binary", "version", "machine", "memory", "bindings", "unknown", "drift", "blockers", "descriptors", "process"] {
          #expect(answer.json.members[member] != nil, "\(member)")
        }
        #expect(try answer["pid"].int == Int(vm.pid()) && answer["version"].string?.hasPrefix("7.2.") ?? false)
        #expect(answer["machine"]["requested"].string == "pc-q35-5.2" && answer["machine"]["resolved"].string == "pc-q35-5.2")
        #expect(answer["memory"]["backend"].string == "memfd" && answer["memory"]["shared"].bool == true)
        #expect(answer["memory"]["bytes"].int ?? 0 >= vm.configuration.mebibytes << 20)

        let console = Self.binding(answer, (vm.configuration.serialSocket as NSString).lastPathComponent)
        #expect(console["descriptors"].array.map { $0["type"].string } == ["listening unix socket", "unix connection"])
        #expect(console["descriptors"][1]["peer"].string?.contains("(pid \(getpid()))") ?? false, "\(console)")
        let tcp = Self.binding(answer, ":\(port)")
        #expect(tcp["descriptors"][1]["peer"].string?.contains("(pid \(client.pid))") ?? false, "\(tcp)")
        #expect(Self.binding(answer, (vm.configuration.pidfile as NSString).lastPathComponent)["descriptors"].array.count == 1)
        #expect(Self.binding(answer, (vm.configuration.diskImage as NSString).lastPathComponent)["descriptors"].array.count == 1)
        let backing = Self.binding(answer, (vm.configuration.backingImage as NSString).lastPathComponent)
        #expect(backing["role"].string == "share")
        #expect(backing["kind"].string == "disk" && backing["option"].string == "" && backing["descriptors"].array.count == 1)
        #expect(answer["blockers"].array.isEmpty, "\(answer["blockers"])")
        #expect(answer["process"]["user"].int == 0)
        // Nothing that is there only because somebody looks, however often.
        for _ in 0..<10 {
          let again = try Self.inspect("e2e-inspect")
          #expect(again["descriptors"] == answer["descriptors"] && again["bindings"] == answer["bindings"], "\(again)")
        }

        // Nothing is held, nothing has changed.
        #expect(Directory.entries("/run/moult").filter { $0.hasPrefix("e2e-inspect") } == [])
        try vm.mustBeWell()
        vm.end()
      }
    }

    @Test func `RAM that was handed over is one binding under its own name, and QEMU's own sockets and memory are none`() throws {
      try leavingNothing {
        let vm = try LabVM(
          VMConfiguration("e2e-inspect-own") {
            $0.memory = .file()
            let spice = $0.home + "/spice.sock"
            $0.extraArguments = ["-spice", "unix=on,addr=\(spice),disable-ticketing=on", "-device", "qxl-vga"]
          })
        defer { vm.end() }
        func mustBeClean(_ where: String) throws {
          let answer = try Self.inspect("e2e-inspect-own")
          let memory = answer["bindings"].array.filter { $0["kind"].string == "memory" || $0["address"].string == vm.configuration.memoryFile }
          #expect(memory.map { $0["address"].string } == [vm.configuration.memoryFile], "\(`where`): \(memory)")
          #expect(memory.first?["descriptors"].array.isEmpty == false)
          #expect(answer["bindings"].array.allSatisfy { $0["option"].string != "" }, "\(`where`): \(answer["bindings"])")
          #expect(answer["blockers"].array.isEmpty, "\(`where`): \(answer["blockers"])")
          #expect(answer["descriptors"].array.contains { $0["type"].string == "socket pair of its own" })
        }
        try mustBeClean("7.2")
        try vm.mustUpgrade(to: .v7_2)
        try mustBeClean("after the upgrade")
        vm.end()
      }
    }

    @Test func `a monitor that is busy costs what only QMP can tell`() throws {
      try leavingNothing {
        let vm = try LabVM(VMConfiguration("e2e-inspect-busy") { $0.guest = .bootSector; $0.machine = "pc" })
        defer { vm.end() }
        let client = try QMPConnection(vm.configuration.qmpSocket)
        let answer = try Self.inspect("e2e-inspect-busy")
        #expect(answer.code == 0 && answer["version"].string?.hasPrefix("7.2.") ?? false)
        #expect(answer["notes"].array.contains { $0.string?.contains("held by") ?? false && $0.string?.contains("(pid \(getpid()))") ?? false }, "\(answer)")
        #expect(answer["machine"]["requested"].string == "pc" && answer["machine"]["resolved"] == .null)
        #expect(!Self.binding(answer, (vm.configuration.pidfile as NSString).lastPathComponent)["descriptors"].array.isEmpty)
        try client.execute("query-status")
        vm.end()
      }
    }

    @Test func `a command line needs no VM and no root`() throws {
      let file = NSTemporaryDirectory() + "/e2e-inspect.args"
      defer { unlink(file) }
      func inspect(_ text: String) throws -> Answer {
        try Data(text.utf8).write(to: URL(fileURLWithPath: file))
        return try Answer(run(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", Lab.paths.moult, "inspect", "--argv", file, "--format", "json"]))
      }
      chmod(file, 0o644)
      let shell = try inspect("# a comment\nLC_ALL=C /usr/bin/kvm \\\n -name 'a b' -M q35 -m 1G -qmp unix:/q,server=on,wait=off -unheard-of x\n")
      let kernel = try inspect("/usr/bin/kvm\0-name\0a b\0-M\0q35\0-m\u{0}1G\0-qmp\0unix:/q,server=on,wait=off\0-unheard-of\0x\0")
      #expect(shell.code == 0 && shell.json == kernel.json)
      #expect(shell["name"].string == "a b" && shell["binary"].string == "/usr/bin/kvm" && shell["pid"] == .null)
      #expect(shell["machine"]["requested"].string == "q35" && shell["memory"]["bytes"].int == 1 << 30)
      #expect(shell["unknown"].array.map(\.string) == ["-unheard-of x"])
      #expect(shell["blockers"].array.contains { $0["what"].string == "-unheard-of x" })
      #expect(shell["bindings"].array.contains { $0["address"].string == "/q" && $0["handover"].string == "swap" })
      let none = try inspect("ls -l\n")
      #expect(none.code == 1 && none["error"]["hint"].string != nil)
      #expect(try run(moult: ["inspect"]).code == 64)
      #expect(try run(moult: ["inspect", "x", "--argv", file]).code == 64)
    }
  }
}

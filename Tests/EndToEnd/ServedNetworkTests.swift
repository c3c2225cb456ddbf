import Foundation
import Glibc
import Lab
import Testing

extension EndToEnd {
  /// Networks whose rings Open vSwitch serves (vhost-user, by DPDK).
  @Suite struct ServedNetworks {
    /// A switch in a network namespace of its own, with a port that connects to QEMU and one to which QEMU connects.
    private final class Switch {
      let namespace = "moult-e2e-switch-\(getpid())"
      let directory = Lab.paths.run + "/switch"
      /// By whether QEMU listens.
      func socket(_ isServer: Bool) -> String { directory + (isServer ? "/vm.sock" : "/port") }
      private var processes: [ChildProcess] = []
      private let program = Lab.paths.vSwitch + "/usr"
      private var environment: [String: String] {
        ["LD_LIBRARY_PATH": libraries, "OVS_RUNDIR": directory, "OVS_LOGDIR": directory, "OVS_DBDIR": directory]
      }
      private var libraries: String { program + "/lib/x86_64-linux-gnu" }
      private var database: String { "unix:\(directory)/db.sock" }

      init() throws {
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        try succeed(["ip", "netns", "add", namespace])
        try tool("ovsdb-tool", "create", directory + "/db", program + "/share/openvswitch/vswitch.ovsschema")
        try start(program + "/sbin/ovsdb-server", directory + "/db", "--remote=p\(database)", "--unixctl=\(directory)/db.ctl")
        try eventually("the switch's database listens") { access(self.directory + "/db.sock", F_OK) == 0 }
        try set("--no-wait", "init")
        // Ports are looked at with rests in between: else a processor would do nothing else.
        try set(
          "--no-wait", "set", "o", ".", "other_config:dpdk-init=true", "other_config:pmd-maxsleep=200",
          "other_config:dpdk-extra=--no-huge --no-pci --legacy-mem --no-shconf --no-telemetry -m 256 -d \(libraries)/librte_mempool_ring.so.23")
        try start(
          "ip", "netns", "exec", namespace, program + "/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk", database,
          "--unixctl=\(directory)/switch.ctl", "--log-file=\(directory)/switch.log", "-vconsole:off")
        try set("add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev")
        try set("add-port", "br0", "vm", "--", "set", "interface", "vm", "type=dpdkvhostuserclient", "options:vhost-server-path=\(socket(true))")
        try set("add-port", "br0", "port", "--", "set", "interface", "port", "type=dpdkvhostuser")
        for words in ["address add 10.97.0.1/24 dev br0", "link set br0 up"] { try succeed(["ip", "-n", namespace] + words.split(separator: " ").map(String.init)) }
      }

      private func tool(_ words: String...) throws { try succeed(["env"] + environment.map { "\($0)=\($1)" } + [program + "/bin/" + words[0]] + words.dropFirst()) }
      private func set(_ words: String...) throws {
        try succeed(["env"] + environment.map { "\($0)=\($1)" } + [program + "/bin/ovs-vsctl", "--timeout=30", "--db=\(database)"] + words)
      }
      private func start(_ words: String...) throws { processes.append(try ChildProcess(words, log: directory + "/log", environment: environment)) }

      func inside(_ command: String) throws -> ChildProcess { try ChildProcess(["ip", "netns", "exec", namespace, "sh", "-c", command]) }
      /// How often a program has begun to serve a port, or has ended it.
      func connections(_ isServer: Bool) throws -> (begun: Int, ended: Int) {
        let lines = try String(contentsOfFile: directory + "/switch.log", encoding: .utf8).split(separator: "\n").filter { $0.contains("(\(socket(isServer)))") }
        return (lines.count { $0.contains("new device, handle is") }, lines.count { $0.contains("vhost peer closed") })
      }

      deinit {
        for process in processes.reversed() { process.signal(SIGKILL) }
        _ = try? run(["ip", "netns", "delete", namespace])
        _ = try? run(["rm", "-r", directory])
      }
    }

    /// The switch sees one connection, whatever QEMU is behind it; a transfer has no byte missing.
    @Test(.enabled(if: access("/dev/net/tun", R_OK | W_OK) == 0))
    func `a switch does not notice, whoever connects to whom`() throws {
      let vSwitch = try Switch()
      for isServer in [true, false] {
        try leavingNothing {
          let vm = try LabVM(
            VMConfiguration("e2e-served-net") {
              $0.memory = .file()
              $0.words = ["net=10.97.0.2/24"]
              $0.launcher = ["ip", "netns", "exec", vSwitch.namespace]
              // Debian's 7.2 faults with vhost-user and MSI-X when there is no KVM.
              $0.extraArguments = [
                "-chardev", "socket,id=c,path=\(vSwitch.socket(isServer))\(isServer ? ",server=on" : "")", "-netdev", "vhost-user,id=n,chardev=c",
                "-device", "virtio-net-pci,netdev=n,vectors=0",
              ]
            })
          defer { vm.end() }
          try eventually("the guest answers", within: 20) {
            try vSwitch.inside("busybox ping -c 1 -W 1 10.97.0.2").wait(seconds: 20).stdout.contains(" 1 packets received")
          }
          let before = try vSwitch.connections(isServer)
          let home = vm.configuration.home
          try succeed(["sh", "-c", "head -c 24M /dev/urandom >\(home)/sent"])
          let transfer = try vSwitch.inside("socat -t 60 - TCP:10.97.0.2:7 <\(home)/sent >\(home)/received")
          if isServer {
            // 11.1 cannot be asked what the switch has said: the way back knows it from before.
            try vm.mustUpgrade(to: .v11_1, ["--hold"], outcome: "held")
            try vm.mustRollBack(to: .v7_2)
          } else {
            try vm.mustUpgrade(to: .v10_0)
          }
          // By a command, when nobody else is left to finish it.
          let (old, upgrade) = (try vm.pid(), try TracedRun(moult: ["upgrade", "e2e-served-net"] + QEMUVersion.v10_0.destination, of: vm))
          try upgrade.go(to: "switch.done")
          if isServer { Glibc.kill(old, SIGKILL) }
          try upgrade.killAll()
          #expect(try run(moult: ["recover", "e2e-served-net"]).code == 0)
          try eventually("one QEMU goes on") { try vm.processes == [vm.pid()] && vm.status() == "running" && (vm.pid() != old) == isServer }
          #expect(try transfer.wait(seconds: 60).code == 0)
          try succeed(["cmp", home + "/sent", home + "/received"])
          #expect(try vSwitch.connections(isServer) == before)
          vm.end()
        }
      }
    }
  }
}

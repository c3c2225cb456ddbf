import Glibc
import Lab
import Testing

extension EndToEnd.Drifting {
  /// Devices, memory, CPUs, disks, networks and consoles that came or went while the VM ran.
  @Test(arguments: [
    (QEMUVersion.v7_2, QEMUVersion.v10_0, QEMUVersion.v11_1, VMConfiguration.Memory.file(), "shared"),
    (.v10_0, .v11_1, .v7_2, .anonymous, "copy"),
  ])
  func `what was plugged in and out is rebuilt`(
    _ from: QEMUVersion, _ to: QEMUVersion, _ further: QEMUVersion, _ memory: VMConfiguration.Memory, _ strategy: String
  ) throws {
    try leavingNothing {
      let ram = "/dev/shm/e2e-drift-dimm-\(getpid())"
      defer { unlink(ram) }
      let vm = try LabVM(
        VMConfiguration("e2e-drift-devices") {
          $0.version = from
          $0.disk = "qcow2"
          $0.memory = memory
          let home = $0.home
          $0.extraArguments = [
            "-smp", "1,maxcpus=2", "-m", "slots=2,maxmem=1G", "-device", "pcie-root-port,id=rp1,chassis=1", "-device", "virtio-rng-pci",
            "-device", "pcie-root-port,id=rp2,chassis=2", "-device", "virtio-scsi-pci,id=scsi0", "-device", "virtio-serial-pci,id=vs",
            "-device", "qemu-xhci,id=xhci", "-device", "usb-tablet,id=tablet", "-device", "usb-mouse,id=mouse",
            "-chardev", "socket,id=old,path=\(home)/vm/old.sock,server=on,wait=off", "-device", "virtserialport,chardev=old,id=oldport,bus=vs.0",
            "-object", "rng-builtin,id=oldrng", "-netdev", "user,id=oldnet,restrict=on", "-device", "virtio-net-pci,netdev=oldnet,id=oldnic,bus=rp1",
            "-device", "virtio-balloon-pci",
          ]
        })
      defer { vm.end() }
      let home = vm.configuration.home
      for name in ["one", "two", "three"] { try succeed(["truncate", "-s", "1M", "\(home)/\(name).raw"]) }
      func file(_ name: String) -> JSON { ["driver": "file", "filename": .text("\(home)/\(name).raw")] }
      #expect(try Self.drift(vm) == [:])

      // Out: the guest lets a PCI device go by itself, the others are gone at once.
      for id in ["oldnic", "oldport", "tablet"] { try vm.qmp("device_del", ["id": .text(id)]) }
      try eventually("unplugged") {
        try vm.qmp("qom-list", ["path": "/machine/peripheral"]).array.allSatisfy { !["oldnic", "oldport", "tablet"].contains($0["name"].string) }
      }
      try vm.qmp("netdev_del", ["id": "oldnet"])
      try vm.qmp("chardev-remove", ["id": "old"])
      try vm.qmp("object-del", ["id": "oldrng"])

      // In.
      try vm.qmp("blockdev-add", ["driver": "raw", "node-name": "one", "file": file("one")])
      try vm.qmp("device_add", ["driver": "virtio-blk-pci", "drive": "one", "bus": "rp1", "id": "hotblk", "serial": "S1"])
      try vm.qmp("blockdev-add", ["driver": "raw", "node-name": "two", "file": file("two")])
      try vm.qmp("device_add", ["driver": "scsi-hd", "drive": "two", "bus": "scsi0.0", "id": "hotscsi"])
      try vm.qmp("human-monitor-command", ["command-line": .text("drive_add 0 if=none,id=three,file=\(home)/three.raw,format=raw")])
      try vm.qmp("device_add", ["driver": "scsi-hd", "drive": "three", "bus": "scsi0.0"])
      try vm.qmp("netdev_add", ["type": "user", "id": "hotnet", "restrict": true])
      try vm.qmp("device_add", ["driver": "virtio-net-pci", "netdev": "hotnet", "bus": "rp2", "id": "hotnic"])
      try vm.qmp("object-add", ["qom-type": "iothread", "id": "io9"])
      try vm.qmp("object-add", ["qom-type": "throttle-group", "id": "group9", "limits": ["iops-total": 1000]])
      try vm.qmp(
        "object-add",
        strategy == "shared"
          ? ["qom-type": "memory-backend-file", "id": "dimm", "size": 67_108_864, "mem-path": .text(ram), "share": true]
          : ["qom-type": "memory-backend-ram", "id": "dimm", "size": 67_108_864])
      try vm.qmp("device_add", ["driver": "pc-dimm", "memdev": "dimm", "id": "dimm1"])
      try vm.qmp(
        "chardev-add",
        [
          "id": "hot",
          "backend": ["type": "socket", "data": ["addr": ["type": "unix", "data": ["path": .text(home + "/vm/hot.sock")]], "server": true, "wait": false]],
        ])
      try vm.qmp("device_add", ["driver": "virtserialport", "chardev": "hot", "name": "org.moult.hot", "bus": "vs.0", "id": "hotport"])
      try vm.qmp("device_add", ["driver": "usb-kbd", "id": "hotkbd", "bus": "xhci.0"])
      try vm.qmp("device_add", ["driver": "qemu64-x86_64-cpu", "id": "cpu1", "socket-id": 1, "core-id": 0, "thread-id": 0])

      func identity() throws -> [String] {
        var found: [String] = []
        for path in ["peripheral/hotnic", "peripheral/hotblk", "peripheral/scsi0", "peripheral/vs", "peripheral/xhci", "peripheral/rp2"] {
          for property in ["addr", "parent_bus"] {
            found.append("\(path) \(try vm.qmp("qom-get", ["path": .text("/machine/" + path), "property": .text(property)]))")
          }
        }
        found.append("\(try vm.qmp("qom-get", ["path": "/machine/peripheral/hotnic", "property": "mac"]))")
        found.append("\(try vm.qmp("query-memory-devices").array.map { "\($0["data"]["addr"]) \($0["data"]["slot"]) \($0["data"]["size"])" })")
        found.append("\(try vm.qmp("query-cpus-fast").array.map { "\($0["props"]["socket-id"])" }.sorted())")
        return found
      }
      let before = try identity()
      func mustBeTheSame(at location: SourceLocation = #_sourceLocation) throws {
        let now = try identity()
        #expect(now == before, sourceLocation: location)
      }
      let drift = try Self.drift(vm)
      #expect(
        Set(drift.keys).isSuperset(of: [
          "device oldnic", "network oldnet", "character device old", "object oldrng", "device tablet", "device hotblk", "device hotscsi",
          "drive three", "device scsi-hd", "network hotnet", "device hotnic", "object io9", "object dimm", "device dimm1", "character device hot",
          "device hotport", "device hotkbd", "device cpu1", "object group9",
        ]), "\(drift)")
      try vm.mustUpgrade(to: to, ["--hold"], strategy: strategy, outcome: "held")
      #expect(try Self.drift(vm) == [:], "the new QEMU's arguments say it")
      try mustBeTheSame()
      try vm.mustRollBack(to: from)
      try mustBeTheSame()
      try vm.mustUpgrade(to: further, strategy: strategy == "copy" ? "copy" : nil)
      try mustBeTheSame()
      try Self.mustWriteOn(vm)
      #expect(try vm.endAndVerifyDisk() == [])
    }
  }

  @Test func `a CD that was changed, ejected or put in stays so`() throws {
    try leavingNothing {
      let home = "/tmp/e2e-drift-cd-\(getpid())"
      try succeed(["mkdir", home])
      defer { do { try succeed(["rm", "-r", home]) } catch { Issue.record(error) } }
      for name in ["one", "two"] { try succeed(["truncate", "-s", "1M", "\(home)/\(name).iso"]) }
      let vm = try LabVM(
        VMConfiguration("e2e-drift-cd") {
          $0.memory = .file()
          $0.extraArguments = [
            "-drive", "if=none,id=cd,media=cdrom,file=\(home)/one.iso,format=raw", "-device", "ide-cd,drive=cd,id=cd0",
            "-device", "ide-cd,id=cd1,bus=ide.1", "-cdrom", "\(home)/one.iso",
          ]
        })
      defer { vm.end() }
      let two = JSON.text(home + "/two.iso")
      func media() throws -> [String] {
        try vm.qmp("query-block").array.map { "\($0["qdev"].string?.hasPrefix("/") ?? true ? "" : $0["qdev"].string ?? "") \($0["inserted"]["file"].string ?? "empty")" }.sorted()
      }
      try vm.qmp("eject", ["id": "cd0", "force": true])
      try vm.qmp("blockdev-change-medium", ["id": "cd1", "filename": two, "format": "raw", "force": true])
      try vm.qmp("blockdev-change-medium", ["device": "ide2-cd0", "filename": two, "format": "raw", "force": true])
      let before = try media()
      try vm.mustUpgrade(to: .v10_0)
      #expect(try media() == before)
      #expect(try Self.drift(vm) == [:])
      try vm.qmp("blockdev-change-medium", ["id": "cd0", "filename": two, "format": "raw", "force": true])
      try vm.qmp("eject", ["id": "cd1", "force": true])
      try vm.qmp("eject", ["device": "ide2-cd0", "force": true])
      let after = try media()
      try vm.mustUpgrade(to: .v11_1)
      #expect(try media() == after)
    }
  }

  /// What QEMU does not tell cannot be rebuilt, and is refused with a way out.
  @Test func `a secret, an outside network and limits of a node are refused`() throws {
    try leavingNothing {
      let vm = try LabVM(
        VMConfiguration("e2e-drift-refused") {
          $0.disk = "qcow2"
          $0.diskSyntax = .blockdev
          $0.extraArguments = ["-device", "pcie-root-port,id=rp1"]
        })
      defer { vm.end() }
      try vm.qmp("object-add", ["qom-type": "secret", "id": "s9", "data": "x"])
      try vm.qmp("netdev_add", ["type": "user", "id": "outside"])
      try vm.qmp("chardev-add", ["id": "f9", "backend": ["type": "file", "data": ["out": .text(vm.configuration.home + "/f9.log")]]])
      try vm.qmp(
        "block_set_io_throttle",
        ["id": "/machine/peripheral-anon/device[0]/virtio-backend", "bps": 1_000_000, "bps_rd": 0, "bps_wr": 0, "iops": 0, "iops_rd": 0, "iops_wr": 0])
      let outcome = try run(moult: ["upgrade", vm.configuration.name] + QEMUVersion.v10_0.destination)
      #expect(outcome.code == 3, "\(outcome.stderr)")
      for word in ["object s9", "no secret into arguments", "network outside", "character device f9", "limits"] {
        #expect(outcome.stderr.contains(word), "no “\(word)” in \(outcome.stderr)")
      }
      try vm.mustBeWell()
    }
  }

  /// What is there by the same names as before, and is something else.
  @Test func `what was set or made anew under its name is so in the new QEMU`() throws {
    try leavingNothing {
      let vm = try LabVM(
        VMConfiguration("e2e-drift-set") {
          $0.memory = .file()
          let home = $0.home
          $0.extraArguments = [
            "-object", "iothread,id=io", "-object", "throttle-group,id=group,x-iops-total=100", "-object", "rng-random,id=rnd",
            "-chardev", "socket,id=console,path=\(home)/vm/console.sock,server=on,wait=off", "-chardev", "null,id=off",
            "-netdev", "user,id=n1,restrict=on", "-device", "virtio-net-pci,netdev=n1,id=nic1,bootindex=1",
            "-device", "virtio-net-pci,id=nic2,bootindex=2",
            "-device", "virtio-balloon-pci,id=balloon", "-device", "i6300esb", "-device", "qemu-xhci,id=xhci",
            "-device", "usb-kbd,id=input,bus=xhci.0,port=4", "-netdev", "hubport,id=port,hubid=7",
          ]
        })
      defer { vm.end() }
      let home = vm.configuration.home
      #expect(try Self.drift(vm) == [:])
      func set(_ path: String, _ property: String, _ value: JSON) throws {
        try vm.qmp("qom-set", ["path": .text(path), "property": .text(property), "value": value])
      }
      try set("/objects/io", "poll-max-ns", 77)
      try set("/objects/group", "limits", ["iops-total": 500, "bps-read": 1_000_000])
      try set("/machine/peripheral/balloon", "guest-stats-polling-interval", 7)
      try set("/machine/peripheral/nic1", "bootindex", -1)
      try set("/machine/peripheral/nic2", "bootindex", 1)
      try set("/machine/peripheral/nic1", "bootindex", 2)
      try vm.qmp("object-del", ["id": "rnd"])
      try vm.qmp("object-add", ["qom-type": "rng-random", "id": "rnd", "filename": "/dev/random"])
      try vm.qmp("chardev-remove", ["id": "console"])
      try vm.qmp("chardev-add", ["id": "console", "backend": ["type": "null", "data": [:]]])
      let socket: JSON = ["addr": ["type": "unix", "data": ["path": .text(home + "/vm/on.sock")]], "server": true, "wait": false]
      try vm.qmp("chardev-change", ["id": "off", "backend": ["type": "socket", "data": socket]])
      try vm.qmp("device_del", ["id": "input"])
      try eventually("unplugged") { try vm.qmp("qom-list", ["path": "/machine/peripheral"]).array.allSatisfy { $0["name"].string != "input" } }
      try vm.qmp("device_add", ["driver": "usb-kbd", "id": "input", "bus": "xhci.0", "port": "3", "serial": "other"])
      try vm.qmp("netdev_del", ["id": "port"])
      try vm.qmp("netdev_add", ["type": "hubport", "id": "port9", "hubid": 9])

      let settings = [
        ("/objects/io", "poll-max-ns"), ("/objects/group", "limits"), ("/machine/peripheral/balloon", "guest-stats-polling-interval"),
        ("/machine/peripheral/nic1", "bootindex"), ("/machine/peripheral/nic2", "bootindex"), ("/objects/rnd", "filename"),
        ("/machine/peripheral/input", "port"), ("/machine/peripheral/input", "serial"),
      ]
      func now() throws -> [String] {
        var found: [String] = []
        for (path, property) in settings {
          let value = try vm.qmp("qom-get", ["path": .text(path), "property": .text(property)])
          // The members of an object come in no order.
          found.append("\(path) \(property) \(property == "limits" ? "\(value["iops-total"]) \(value["bps-read"])" : "\(value)")")
        }
        for chardev in try vm.qmp("query-chardev").array where ["console", "off"].contains(chardev["label"].string) {
          found.append("\(chardev["label"]) \(chardev["filename"])")
        }
        let networks = try vm.qmp("human-monitor-command", ["command-line": "info network"]).string ?? ""
        // A hub that is left without ports is not made anew.
        return (found + networks.split(whereSeparator: \.isNewline).filter { !$0.hasPrefix("hub ") }.map(String.init)).sorted()
      }
      let before = try now()
      let outcome = try run(moult: ["plan", vm.configuration.name, "--format", "json"] + QEMUVersion.v10_0.destination)
      #expect(outcome.code == 0, "\(outcome.stderr)")
      let found = Set(try outcome.json()["drift"].array.compactMap { $0["what"].string })
      for subject in [
        "object io", "object group", "object rnd", "character device console", "character device off", "device balloon", "device nic1", "device nic2",
        "device input", "network port", "network port9",
      ] { #expect(found.contains(subject), "\(subject) is not among \(found)") }
      #expect(outcome.stdout.contains("watchdog-set-action"), "what cannot be read back is said")
      try vm.mustUpgrade(to: .v10_0, ["--hold"], outcome: "held")
      #expect(try now() == before)
      try vm.mustRollBack(to: .v7_2)
      #expect(try now() == before)
      try vm.mustUpgrade(to: .v11_1)
      #expect(try now() == before)
    }
  }

  /// A running job is refused for itself, not for what it has put into the graph.
  @Test func `what is refused for one reason is refused once`() throws {
    try leavingNothing {
      let vm = try LabVM(
        VMConfiguration("e2e-drift-once") {
          $0.disk = "qcow2"
          $0.extraArguments = ["-object", "secret,id=password,data=old"]
        })
      defer { vm.end() }
      func blockers() throws -> [String] {
        let outcome = try run(moult: ["plan", vm.configuration.name, "--format", "json"] + QEMUVersion.v10_0.destination)
        #expect(!outcome.stdout.contains("new-secret"))
        return try outcome.json()["blockers"].array.map { "\($0["what"].string ?? ""): \($0["reason"].string ?? "")" }
      }
      let target = JSON.text(vm.configuration.home + "/copy.raw")
      try vm.qmp("drive-mirror", ["device": "virtio0", "job-id": "copying", "target": target, "format": "raw", "sync": "full"])
      let job = try blockers()
      #expect(job.count == 1 && job[0].hasPrefix("block job copying: "), "\(job)")
      try vm.qmp("block-job-cancel", ["device": "copying", "force": true])
      try eventually("the job has ended") { try vm.qmp("query-block-jobs").array.isEmpty }
      let socket: JSON = ["addr": ["type": "inet", "data": ["host": "127.0.0.1", "port": "0"]], "server": true, "wait": false, "telnet": true]
      try vm.qmp("chardev-add", ["id": "port", "backend": ["type": "socket", "data": socket]])
      let port = try blockers()
      #expect(port.count == 1 && port[0].hasPrefix("character device port: "), "\(port)")
      try vm.qmp("chardev-remove", ["id": "port"])
      try vm.qmp("object-del", ["id": "password"])
      try vm.qmp("object-add", ["qom-type": "secret", "id": "password", "data": "new-secret"])
      let secret = try blockers()
      #expect(secret.count == 1 && secret[0].contains("object password: another secret"), "\(secret)")
    }
  }
}

import Testing

@testable import QEMU

/// Disks that were changed since the VM was started, and the words that its new QEMU gets for them.
@Suite struct LiveDiskTests {
  /// A graph as text: `name driver path [ro] [direct] [below=PATH:FORMAT] [role=name…]`, and `LABEL@DEVICE>root [limit=N]`.
  static func live(_ lines: [String]) -> LiveMachine {
    var graph = BlockGraph()
    for line in lines {
      let words = line.split(separator: " ").map(String.init)
      if words[0].contains("@") {
        let parts = words[0].split(separator: ">", omittingEmptySubsequences: false)
        let names = parts[0].split(separator: "@", omittingEmptySubsequences: false).map(String.init)
        var backend = BlockGraph.Backend(label: names[0], device: names[1], root: parts[1].isEmpty ? nil : String(parts[1]))
        for word in words.dropFirst() {
          let pair = word.split(separator: "=").map(String.init)
          if let number = Int64(pair[1]) { backend.limits[pair[0]] = number } else { backend.group = pair[1] }
        }
        graph.backends.append(backend)
        continue
      }
      var node = BlockGraph.Node(name: words[0], driver: words[1], file: words[2])
      for word in words.dropFirst(3) {
        let pair = word.split(separator: "=").map(String.init)
        switch pair[0] {
        case "ro": node.isReadOnly = true
        case "zeroes": node.detectsZeroes = pair[1]
        case "direct": node.isDirect = true
        case "encrypted": node.isEncrypted = true
        case "below":
          let header = pair[1].split(separator: ":").map(String.init)
          (node.headerBacking, node.headerFormat) = (header[0], header.count > 1 ? header[1] : nil)
        default: node.children[pair[0]] = pair[1]
        }
      }
      graph.nodes[node.name] = node
    }
    var live = LiveMachine(answers: Array(repeating: .null, count: 20))
    live.machineType = "pc-q35-7.2"
    live.graph = graph
    return live
  }

  struct Case: Sendable, CustomTestStringConvertible {
    var what: String
    var argv: String
    var live: [String]
    /// The argv of the VM as it is; nil if nothing has changed.
    var now: String?
    /// Part of a refusal.
    var refused: String?
    var testDescription: String { what }
  }

  static let disk = ["#1 qcow2 /d/disk file=#2", "#2 file /d/disk"]
  static let overlay = ["#3 qcow2 /d/over below=/d/disk:qcow2 file=#4 backing=#1", "#4 file /d/over", "#1 qcow2 /d/disk ro file=#2", "#2 file /d/disk ro"]
  static let nodes = "-blockdev driver=file,filename=/d/disk,node-name=s1,discard=unmap -blockdev driver=qcow2,file=s1,node-name=f1 -device virtio-blk-pci,drive=f1,id=vd"

  static let cases: [Case] = [
    // -drive
    .init(what: "nothing changed", argv: "-drive file=/d/disk,if=virtio", live: disk + ["virtio0@/machine/x>#1"]),
    .init(what: "a relative path", argv: "-drive file=disk,if=virtio,format=qcow2", live: disk + ["virtio0@/machine/x>#1"]),
    .init(what: "a relative path that QEMU gives back", argv: "-drive file=disk,if=virtio", live: ["#1 qcow2 disk file=#2", "#2 file disk", "virtio0@/machine/x>#1"]),
    .init(what: "a protocol in front", argv: "-drive file=file:/d/disk,if=virtio", live: disk + ["virtio0@/machine/x>#1"]),
    .init(what: "a disk that is not here", argv: "-drive file=nbd://h/x,if=virtio", live: ["#1 raw nbd://h:10809/x file=#2", "#2 nbd nbd://h:10809/x", "virtio0@/machine/x>#1"]),
    .init(what: "a bare image", argv: "/d/disk", live: disk + ["ide0-hd0@/machine/x>#1"]),
    .init(
      what: "an image whose header names what is below", argv: "-drive file=/d/over,if=virtio", live: overlay + ["virtio0@/machine/x>#3"]),
    .init(what: "a snapshot", argv: "-drive file=/d/disk,if=virtio,cache=none", live: overlay + ["virtio0@/machine/x>#3"],
      now: "-drive file=/d/over,if=virtio,cache=none,format=qcow2"),
    .init(what: "a snapshot of a drive whose zeroes are detected: the overlay's are not", argv: "-drive file=/d/disk,if=virtio,detect-zeroes=on,throttling.iops-total=5",
      live: overlay + ["virtio0@/machine/x>#3 iops=5"], now: "-drive file=/d/over,if=virtio,throttling.iops-total=5,format=qcow2"),
    .init(what: "a base whose zeroes are detected still", argv: "-drive file=/d/disk,if=virtio,detect-zeroes=unmap,discard=unmap",
      live: ["#3 qcow2 /d/over below=/d/disk:qcow2 file=#4 backing=#1", "#4 file /d/over", "#1 qcow2 /d/disk ro zeroes=unmap file=#2", "#2 file /d/disk ro", "virtio0@/machine/x>#3"],
      now: "-drive file=/d/over,if=virtio,discard=unmap,format=qcow2,backing=moult-1 "
        + "-blockdev driver=qcow2,node-name=moult-1,read-only=on,detect-zeroes=unmap,discard=unmap,file.driver=file,file.filename=/d/disk"),
    .init(what: "zeroes that are detected as the arguments say", argv: "-drive file=/d/disk,if=virtio,detect-zeroes=on",
      live: ["#1 qcow2 /d/disk zeroes=on file=#2", "#2 file /d/disk", "virtio0@/machine/x>#1"]),
    .init(what: "writes that go to a temporary file", argv: "-drive file=/d/disk,if=virtio,snapshot=on",
      live: ["#3 qcow2 /var/tmp/vl.A below=/d/disk:qcow2 file=#4 backing=#1", "#4 file /var/tmp/vl.A", "#1 qcow2 /d/disk ro file=#2", "#2 file /d/disk ro", "virtio0@/machine/x>#3"]),
    .init(what: "a snapshot whose header names another image", argv: "-drive file=/d/disk,id=a,if=none",
      live: ["#3 qcow2 /d/over below=/d/wrong:qcow2 file=#4 backing=#1"] + overlay.dropFirst() + ["a@>#3"],
      now: "-drive file=/d/over,id=a,if=none,format=qcow2,backing=moult-1 "
        + "-blockdev driver=qcow2,node-name=moult-1,read-only=on,file.driver=file,file.filename=/d/disk"),
    .init(what: "a snapshot over a node with a name", argv: "-drive file=/d/disk,id=a,if=none,node-name=base",
      live: ["#3 qcow2 /d/over below=/d/disk:qcow2 file=#4 backing=base", "#4 file /d/over", "base qcow2 /d/disk ro file=#2", "#2 file /d/disk ro", "a@>#3"],
      now: "-drive file=/d/over,id=a,if=none,format=qcow2,backing=base "
        + "-blockdev driver=qcow2,node-name=base,read-only=on,file.driver=file,file.filename=/d/disk"),
    .init(what: "streamed, though the header still names an image", argv: "-drive file=/d/over,if=virtio",
      live: ["#1 qcow2 /d/over below=/d/disk file=#2", "#2 file /d/over", "virtio0@/machine/x>#1"], now: "-drive file=/d/over,if=virtio,backing="),
    .init(what: "committed into what was below", argv: "-drive file=/d/over,if=virtio,backing.file.filename=/d/disk", live: disk + ["virtio0@/machine/x>#1"],
      now: "-drive file=/d/disk,if=virtio,format=qcow2"),
    .init(what: "mirrored to another format", argv: "-drive file=/d/disk,if=virtio,format=qcow2,l2-cache-size=1M",
      live: ["#1 raw /dev/vg/x file=#2", "#2 host_device /dev/vg/x", "virtio0@/machine/x>#1"], now: "-drive file=/dev/vg/x,if=virtio,format=raw"),
    .init(what: "a comma in the name", argv: "-drive file=/d/disk,if=virtio,format=qcow2",
      live: ["#1 qcow2 /d/a,b file=#2", "#2 file /d/a,b", "virtio0@/machine/x>#1"], now: "-drive file=/d/a,,b,if=virtio,format=qcow2"),
    .init(what: "the second of two, by -hdb", argv: "-hda /d/disk -hdb /d/two",
      live: disk + ["#5 qcow2 /d/three file=#6", "#6 file /d/three", "ide0-hd0@/x>#1", "ide1-hd0@/x>#5"],
      now: "-hda /d/disk -drive file=/d/three,index=1,media=disk,format=qcow2"),
    .init(what: "an ejected CD", argv: "-drive file=/d/disk,if=none,id=cd,media=cdrom,format=qcow2,cache=none", live: ["cd@cd0>"], now: "-drive if=none,id=cd,media=cdrom,cache=none"),
    .init(what: "an ejected -cdrom", argv: "-cdrom /d/cd", live: ["ide2-cd0@/x>"], now: "-drive index=2,media=cdrom"),
    .init(what: "the machine's own CD drive, given a medium", argv: "", live: ["#1 raw /d/cd ro file=#2", "#2 file /d/cd ro", "ide2-cd0@/x>#1"],
      now: "-drive if=ide,index=2,media=cdrom,file=/d/cd,format=raw"),
    .init(what: "the machine's own drives", argv: "", live: ["ide2-cd0@/x>", "floppy0@/x>", "sd0@>"]),
    .init(what: "a drive that was unplugged", argv: "-drive file=/d/disk,if=none,id=a -drive file=/d/b,if=none,id=b",
      live: ["#1 raw /d/b file=#2", "#2 file /d/b", "b@>#1"], now: "-drive file=/d/b,if=none,id=b"),
    .init(what: "a drive that was added", argv: "", live: ["#1 raw /d/b ro file=#2", "#2 file /d/b ro", "b@>#1"],
      now: "-drive if=none,id=b,file=/d/b,format=raw,read-only=on"),
    .init(what: "limits that were set", argv: "-drive file=/d/disk,id=a,if=none", live: disk + ["a@>#1 bps=7 iops_rd_max=9 iops_rd_max_length=1 group=a"],
      now: "-drive file=/d/disk,id=a,if=none,throttling.bps-total=7,throttling.iops-read-max=9"),
    .init(what: "limits that were taken away, by their old names", argv: "-drive file=/d/disk,id=a,if=none,bps_rd=7", live: disk + ["a@>#1"],
      now: "-drive file=/d/disk,id=a,if=none"),
    .init(what: "limits as the arguments say", argv: "-drive file=/d/disk,id=a,if=none,bps=7,throttling.group=g", live: disk + ["a@>#1 bps=7 group=g"]),
    .init(what: "an encrypted overlay", argv: "-drive file=/d/disk,id=a,if=none", live: ["#1 qcow2 /d/x encrypted file=#2", "#2 file /d/x", "a@>#1"],
      refused: "does not tell all of"),
    .init(what: "a node that others use, too", argv: "-blockdev driver=raw,node-name=n,file.driver=file,file.filename=/d/x -drive if=none,id=a,media=cdrom",
      live: ["n raw /d/x file=#2", "#2 file /d/x", "a@>n"], refused: "that others use"),
    // -blockdev
    .init(what: "nodes, unchanged", argv: nodes, live: ["f1 qcow2 /d/disk file=s1", "s1 file /d/disk", "@/machine/peripheral/vd/virtio-backend>f1"]),
    .init(what: "a libvirt snapshot", argv: nodes,
      live: ["f2 qcow2 /d/over below=/d/disk:qcow2 file=s2 backing=f1", "s2 file /d/over", "f1 qcow2 /d/disk ro file=s1", "s1 file /d/disk",
        "@/machine/peripheral/vd/virtio-backend>f2"],
      now: "-blockdev driver=file,filename=/d/disk,node-name=s1,discard=unmap -blockdev driver=qcow2,file=s1,node-name=f1,read-only=on "
        + "-blockdev driver=file,node-name=s2,filename=/d/over,auto-read-only=on,discard=unmap "
        + "-blockdev driver=qcow2,node-name=f2,file=s2,backing=f1 -device virtio-blk-pci,drive=f2,id=vd"),
    .init(what: "streamed over a reference", argv: "-blockdev driver=raw,node-name=b,file.driver=file,file.filename=/d/b -blockdev driver=qcow2,node-name=t,file.driver=file,file.filename=/d/t,backing=b",
      live: ["b raw /d/b file=#1", "#1 file /d/b", "t qcow2 /d/t file=#2", "#2 file /d/t"],
      now: "-blockdev driver=raw,node-name=b,file.driver=file,file.filename=/d/b -blockdev driver=qcow2,node-name=t,file.driver=file,file.filename=/d/t"),
    .init(what: "a node that stands on a later one now", argv: "-blockdev driver=qcow2,node-name=t,file.driver=file,file.filename=/d/t -blockdev driver=raw,node-name=b,file.driver=file,file.filename=/d/b",
      live: ["b raw /d/b file=#1", "#1 file /d/b", "t qcow2 /d/t file=#2 backing=b", "#2 file /d/t"],
      now: "-blockdev driver=raw,node-name=b,file.driver=file,file.filename=/d/b -blockdev driver=qcow2,node-name=t,file.driver=file,file.filename=/d/t,backing=b"),
    .init(what: "a node that was removed", argv: nodes.replacing("-device virtio-blk-pci,drive=f1,id=vd", with: ""), live: ["s1 file /d/disk"],
      now: "-blockdev driver=file,filename=/d/disk,node-name=s1,discard=unmap"),
    .init(what: "another CD in a device's own drive", argv: "-device ide-cd,id=cd0", live: ["#1 raw /d/cd ro file=#2", "#2 file /d/cd ro", "@cd0>#1"],
      now: "-device ide-cd,id=cd0,drive=moult-1 -blockdev driver=raw,node-name=moult-1,read-only=on,file.driver=file,file.filename=/d/cd"),
    .init(what: "a CD taken out of it", argv: "-blockdev driver=raw,node-name=c,file.driver=file,file.filename=/d/cd,read-only=on -device ide-cd,id=cd0,drive=c",
      live: ["c raw /d/cd ro file=#2", "#2 file /d/cd ro", "@cd0>"],
      now: "-blockdev driver=raw,node-name=c,file.driver=file,file.filename=/d/cd,read-only=on -device ide-cd,id=cd0"),
    .init(what: "a device without id", argv: "-device virtio-rng-pci -device virtio-blk-pci,drive=a -blockdev driver=file,node-name=a,filename=/d/a",
      live: ["a file /d/a", "b file /d/b", "@/machine/peripheral-anon/device[1]/virtio-backend>b"],
      now: "-device virtio-rng-pci -device virtio-blk-pci,drive=b -blockdev driver=file,node-name=a,filename=/d/a "
        + "-blockdev driver=file,node-name=b,filename=/d/b,auto-read-only=on"),
    .init(what: "limits of a device's own drive", argv: nodes,
      live: ["f1 qcow2 /d/disk file=s1", "s1 file /d/disk", "@/machine/peripheral/vd/virtio-backend>f1 bps=5"], refused: "limits"),
    .init(what: "part of an image", argv: "", live: [#"r raw json:{"driver":"raw","offset":512,"size":1024,"file":{"driver":"file","filename":"/d/x"}} file=#1"#, "#1 file /d/x"],
      now: "-blockdev driver=raw,node-name=r,offset=512,size=1024,file.driver=file,file.filename=/d/x"),
    .init(what: "a driver that does not tell all", argv: "", live: ["t throttle /d/x file=#1", "#1 file /d/x"], refused: "driver throttle"),
    .init(what: "an image in parts", argv: "", live: ["t qcow2 /d/x file=#1 data-file=#2", "#1 file /d/x", "#2 file /d/y"], refused: "data-file"),
  ]

  @Test(arguments: cases) func isRebuilt(_ test: Case) {
    func line(_ text: String) -> CommandLine { CommandLine(argv: ["qemu"] + text.split(separator: " ").map(String.init)) }
    // The devices are all there: this is about what they hold.
    var live = Self.live(test.live)
    let said = line(test.argv)
    for option in said.options where option.name == "device" {
      if let id = option.parameters["id"] { live.devices[id] = option.parameters["driver"] }
    }
    live.anonymousNumbers = Array(0..<Rebuilding(said, live: live, base: "/d").anonymousOptions.count)
    let rebuilt = LiveCommandLine(said, live: live, base: "/d")
    if let refused = test.refused {
      #expect(rebuilt.drift.contains { $0.what.contains(refused) && $0.wayOut != nil && $0.rebuiltAs == nil }, "\(rebuilt.drift)")
      return
    }
    let now = test.now ?? test.argv
    #expect(rebuilt.commandLine.argv.dropFirst().joined(separator: " ") == now)
    #expect(rebuilt.drift.isEmpty == (test.now == nil), "\(rebuilt.drift)")
    #expect(rebuilt.drift.allSatisfy { $0.rebuiltAs != nil && $0.wayOut == nil })
    // The next upgrade starts from these words: nothing is left to rebuild, but for names that the new QEMU knows by then.
    if !now.contains("moult-") {
      let again = LiveCommandLine(rebuilt.commandLine, live: live, base: "/d")
      #expect(again.drift.isEmpty, "\(again.drift)")
      #expect(again.commandLine == rebuilt.commandLine)
    }
  }
}

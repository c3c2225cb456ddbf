import QEMU

/// Reasons not to upgrade, from what was observed. Each says what the user can do.
extension UpgradePlan {
  /// Run states that a migration carries over and that `cont` ends: no reason to bar the way back.
  static let resumable: Set<String> = ["paused", "guest-panicked", "io-error", "watchdog"]

  static func stateBlockers(_ live: LiveMachine, takesBack: Bool) -> [Blocker] {
    var blockers: [Blocker] = []
    func block(_ what: String, _ reason: String, _ wayOut: String) {
      blockers.append(Blocker(option: what, reason: reason, wayOut: wayOut))
    }
    switch live.status {
    case "running": break
    case _ where takesBack && resumable.contains(live.status): break
    case "paused", "suspended":
      block("run state", "the VM is \(live.status)", "resume it first (QMP: cont, system_wakeup), or leave it until it runs")
    case "postmigrate":
      block("run state", "the VM has been migrated away: this QEMU holds what is left", "upgrade it where it runs now; if it runs nowhere, QMP cont brings it back")
    case "shutdown":
      block("run state", "the guest has shut down", "start it with the new QEMU")
    case "guest-panicked", "internal-error", "io-error", "watchdog":
      block("run state", "the guest is not healthy: \(live.status)", "mend or restart it first")
    case "inmigrate":
      block("run state", "the VM is being migrated here", "wait for the migration to end")
    default:
      block("run state", "the VM is in state \(live.status)", "upgrade it when it runs")
    }
    if let status = live.migrationStatus, !["none", "completed", "failed", "cancelled"].contains(status) {
      block("migration", "a migration is under way (\(status))", "wait for it to end or cancel it (QMP: migrate_cancel)")
    }
    for reason in live.migrationBlockers {
      block("migration", "QEMU refuses to migrate: \(reason)", "remove the device or setting that it names")
    }
    for name in Set(live.volatileBitmaps).sorted() {
      block(
        "dirty bitmap \(name)", "it is in the running QEMU's memory only: the next incremental backup would miss what it tells",
        "remove it (QMP: block-dirty-bitmap-remove), or let the backup program make it persistent=on")
    }
    for job in live.blockJobs {
      if job.hasEnded {
        block("block job \(job.id)", "it (\(job.type)) has ended, and its result waits to be read: it would be lost", "read it (QMP: query-jobs), and then job-dismiss")
        continue
      }
      block(
        "block job \(job.id)", "it (\(job.type)) \(job.isReady ? "is ready and waits for its end" : "is running")",
        ["mirror", "commit"].contains(job.type)
          ? "end it (QMP: block-job-complete\(job.isReady ? "" : ", when it is ready"), or block-job-cancel)"
          : "wait for its end, or cancel it (QMP: block-job-cancel)")
    }
    return blockers
  }

  /// QEMU opens a writable image anew by its name, read-only, to hand it over (`raw_reconfigure_getfd` in its
  /// block/file-posix.c). As a daemon it is not any more in the directory where a relative name began.
  static func lostImageBlockers(_ observation: Observation) -> [Blocker] {
    if !observation.hasLeftBase { return [] }
    let files = observation.live.graph.nodes.values.filter { $0.driver == "file" && !$0.isReadOnly && !$0.file.hasPrefix("/") }.map(\.file)
    return Set(files).sorted().map { file in
      Blocker(
        option: "image \(file)",
        reason: "the running QEMU cannot hand it over: it knows it by a relative path, and has left \(observation.base) when it became a daemon (-daemonize)",
        wayOut: "start the VM with absolute paths of its images")
    }
  }

  /// Live state that could not be rebuilt, and a second look: what the rebuilt command line does not say, though it
  /// should. The new QEMU, started from it, would be another machine.
  static func driftBlockers(_ observation: Observation) -> [Blocker] {
    let (description, live) = (observation.description, observation.live)
    var blockers = observation.drift.compactMap { drift in
      drift.wayOut.map { Blocker(option: drift.subject, reason: drift.what, wayOut: $0) }
    }
    let refused = Set(blockers.map(\.option))
    func drift(_ what: String, _ reason: String, _ wayOut: String) {
      if !refused.contains(what) { blockers.append(Blocker(option: what, reason: reason, wayOut: wayOut)) }
    }
    let restart = "restart the VM with a command line that says so, or undo the change"

    // Images. The active image of each drive must be one that argv names; each one that argv names must be in use.
    // Where a job runs, or writes go to a temporary file, the VM is refused for just that.
    let isTold = live.blockJobs.isEmpty && !observation.writesToTemporary
    let named = Set(isTold ? description.images.map { observation.absolute($0.path) } : [])
    let used = Set(live.nodes.compactMap { observation.imagePath($0.file) })
    for drive in isTold ? live.drives : [] {
      // A descriptor by number is refused where an option says so.
      guard let file = drive.file, let path = observation.imagePath(file), !path.hasPrefix("/dev/fdset/"), !live.isRemote(drive) else { continue }
      let label = drive.device.isEmpty ? drive.qdev : drive.device
      if !named.contains(path) {
        drift("drive \(label)", "it uses \(path), which the command line does not name: a snapshot, changed medium or hot-plugged disk", restart)
      } else if let image = description.images.first(where: { $0.driveID == drive.device }), observation.absolute(image.path) != path {
        drift("drive \(label)", "it uses \(path), the command line says \(image.path)", restart)
      }
    }
    for path in named.subtracting(used).sorted() {
      drift("image \(path)", "the command line names it but the VM does not use it: ejected, unplugged or committed", restart)
    }

    // A node with a name was given it by argv, or over QMP since; nodes that QEMU names itself (`#block1`) belong to either.
    let words = observation.commandLine.argv
    for name in Set(isTold ? live.nodes.compactMap(\.name) : []).sorted() where !words.contains(where: { $0.contains(name) }) {
      drift("block node \(name)", "it was added after the start", restart)
    }

    // Devices, objects, chardevs by id; devices without one by number.
    for (what, said, is_) in [
      ("device", Set(description.deviceIDs), Set(live.devices.keys)),
      ("I/O thread", Set(description.objectIDs).intersection(live.iothreads.keys), Set(live.iothreads.keys)),
    ] {
      for id in is_.subtracting(said).sorted() { drift("\(what) \(id)", "it was plugged in after the start", restart) }
      for id in said.subtracting(is_).sorted() { drift("\(what) \(id)", "it was removed after the start", restart) }
    }
    for (id, type) in live.objects.sorted(by: { $0.key < $1.key }) where !description.objectIDs.contains(id) && live.iothreads[id] == nil {
      // The RAM that -m makes is an object of the machine's own: `pc.ram`.
      if type.hasPrefix("memory-backend"), id.hasSuffix(".ram") { continue }
      drift("object \(id)", "it was added after the start", restart)
    }
    for id in Set(description.objectIDs).subtracting(live.objects.keys).sorted() {
      drift("object \(id)", "it was removed after the start", restart)
    }
    for id in Set(description.chardevIDs).subtracting(live.chardevs).sorted() {
      drift("character device \(id)", "it was removed after the start", restart)
    }
    for label in live.chardevs(beyond: description.chardevIDs) { drift("character device \(label)", "it was added after the start", restart) }
    if live.anonymousDevices.count != description.anonymousDevices {
      drift("devices without id", "\(live.anonymousDevices.count) are plugged in, the command line makes \(description.anonymousDevices)", restart)
    }
    return blockers
  }

  static func fileBlockers(_ observation: Observation) -> [Blocker] {
    var blockers: [Blocker] = []
    for file in observation.files {
      if file.onHost == nil, file.isImage, observation.writesToTemporary { continue }
      if file.onHost == nil {
        blockers.append(Blocker(option: file.path, reason: "the file is not there any more, and the new QEMU would open it", wayOut: "put it back"))
      } else if file.onHost != file.forQEMU {
        blockers.append(
          Blocker(
            option: file.path, reason: "the running QEMU sees another file there: it lives in a mount namespace or root of its own",
            wayOut: "make the same file visible on the host at this path"))
      } else if file.isImage, !file.isOpen {
        blockers.append(
          Blocker(
            option: file.path, reason: "the file there is not the one that the running QEMU has open: it was replaced",
            wayOut: "put the VM's own image back: opening another one would corrupt its data"))
      }
    }
    return blockers
  }

  static func nameBlockers(_ observation: Observation) -> [Blocker] {
    var blockers: [Blocker] = []
    for name in observation.names {
      if let owned = name.owned, let present = name.present, owned != present {
        blockers.append(
          Blocker(
            option: name.path, reason: "what lies there is not the VM's: another program has taken the name",
            wayOut: "move the other one away"))
      }
      if ["/", "/proc", "/sys", "/dev"].contains(name.directory) || name.directory.hasPrefix("/proc/") {
        blockers.append(
          Blocker(
            option: name.path, reason: "a name directly in \(name.directory) cannot be staged",
            wayOut: "start the VM with the name in a directory such as /run/\(observation.description.name ?? "vm")"))
      }
    }
    return blockers
  }

  static func hostBlockers(_ observation: Observation) -> [Blocker] {
    // One that is refused with its name need not be by its number, too.
    let hasNamed = observation.drift.contains { drift in
      drift.wayOut != nil && ["tcp:", "telnet:", "websocket:"].contains { drift.what.contains($0) }
    }
    var blockers = observation.foreign.filter { !hasNamed || $0.what != "a network socket" }.map {
      Blocker(
        option: "descriptor \($0.number)", reason: "\($0.what): no step of this version carries it over",
        wayOut: "remove the device that uses it, or wait for a version of moult that carries it")
    }
    if observation.isInUnknownRoot {
      blockers.append(
        Blocker(
          option: "root directory", reason: "the VM's QEMU lives in a root directory of its own that moult cannot find on the host",
          wayOut: "start the VM on the host, or by moult run or an overlay of a directory"))
    }
    for kind in observation.foreignNamespaces {
      blockers.append(
        Blocker(
          option: "\(kind) namespace",
          reason: kind == "user"
            ? "the VM lives in another user namespace: the capabilities that it has there would be the host's own here"
            : "the VM lives in another \(kind) namespace, and the new QEMU would be outside of it",
          wayOut: "run moult in that namespace, or start the VM outside of it"))
    }
    if observation.description.usesStandardInput, !observation.standardInputIsNull {
      blockers.append(
        Blocker(
          option: "stdio", reason: "the console or monitor reads standard input, which two QEMUs cannot share",
          wayOut: "start the VM with a socket instead, or with standard input from /dev/null"))
    }
    if let failure = observation.profileFailure {
      blockers.append(
        Blocker(
          option: "sandbox profile", reason: "the VM was started by moult run, and its profile cannot be read: \(failure)",
          wayOut: "put the profile's file back"))
    }
    if case .mainProcess(let unit, let type) = observation.supervision {
      blockers.append(
        Blocker(
          option: "service manager",
          reason: "it is the main process of \(unit) (Type=\(type)), which takes no word from it (NotifyAccess=none): when it ends, systemd ends the unit and the new QEMU with it",
          wayOut: "let systemd be told of the new one, without a restart: put NotifyAccess=main in the [Service] section of /etc/systemd/system/\(unit).d/moult.conf, and systemctl daemon-reload"))
    }
    return blockers
  }

  static func versionBlockers(_ observation: Observation, _ target: TargetFacts?) -> [Blocker] {
    var blockers: [Blocker] = []
    if observation.version < oldestVersion {
      blockers.append(
        Blocker(
          option: "QEMU \(observation.version)", reason: "the VM's QEMU is older than \(oldestVersion), the oldest that upgrades are tested with",
          wayOut: "restart the VM with a newer one"))
    }
    if let target {
      if target.version < oldestVersion {
        blockers.append(
          Blocker(
            option: "QEMU \(target.version)", reason: "the new QEMU is older than \(oldestVersion), the oldest that upgrades are tested with",
            wayOut: "choose a newer one"))
      }
      let machine = observation.live.machineType
      if target.catalog.machines[machine] == nil {
        let isOlder = target.version < observation.version
        blockers.append(
          Blocker(
            option: "-machine \(machine)", reason: "QEMU \(target.version) does not know this machine type \(isOlder ? "yet" : "any more")",
            wayOut: "choose a QEMU that knows it, or restart the VM with a machine type that both know"))
      }
    }
    return blockers
  }
}

extension Observation {
  /// Where the guest agent is spoken to, absolute.
  var guestAgent: GuestAgent? {
    description.guestAgent.map { GuestAgent(chardev: $0.chardev, path: absolute($0.path)) }
  }

  /// A disk's writes go to a file that is deleted already: `snapshot=on`, `-snapshot`.
  var writesToTemporary: Bool {
    commandLine.options.contains { $0.name == "snapshot" || $0.name == "drive" && $0.parameters.isOn("snapshot") }
  }

  /// A path of the command line, made absolute.
  func absolute(_ path: String) -> String {
    path.hasPrefix("/") ? path : Stage.join(base, path)
  }

  /// The file below a node's file name: QEMU prints `json:{…}` where a plain name does not say it all.
  func imagePath(_ file: String) -> String? {
    guard file.hasPrefix("json:") else { return file.isEmpty ? nil : absolute(file) }
    do {
      var value = try JSONValue(parsing: Array(file.dropFirst("json:".count).utf8))
      while let inner = value["file"] { value = inner }
      return value["filename"]?.string.map(absolute)
    } catch {
      return file  // Not JSON after all: a name that argv will not have, so the VM is refused.
    }
  }
}

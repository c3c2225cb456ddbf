/// What QEMU's own option table says of one option, and what this project does with it.
public struct OptionInfo: Sendable, Equatable {
  /// How an option is treated when a running QEMU is described and rewritten for its twin.
  public enum Treatment: Sendable, Equatable {
    /// Touches nothing on the host: goes to the twin as it stands.
    case inert
    /// Its value is read for bindings, files or refusals; goes to the twin unless rewritten.
    case parsed
    /// Meant for the start of the original process only; the twin does not get it.
    case dropped
    /// Nothing here carries it over.
    case refused(reason: String, wayOut: String)
  }

  public var name: String
  /// True if the next word of the command line is its value.
  public var takesValue: Bool
  /// The key that a first word without `=` stands for (`-netdev user,…` is `type=user`).
  public var impliedKey: String?
  public var treatment: Treatment

  /// The entry for an option's name without dashes, or nil if no QEMU from 5.2 to 11.1 has it.
  public static func of(_ name: String) -> OptionInfo? { table[name] }

  /// Every option of QEMU 5.2 to 11.1 on any target, from `qemu-options.hx` of those releases, and
  /// Proxmox's `-id`.
  static let table: [String: OptionInfo] = {
    var table: [String: OptionInfo] = [:]
    func add(_ names: String, _ treatment: Treatment) {
      for word in names.split(separator: " ") {
        // `name`, `name=` (takes a value) or `name=key` (takes a value, and key is implied).
        let parts = word.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
        let name = String(parts[0])
        let key = parts.count > 1 && !parts[1].isEmpty ? String(parts[1]) : nil
        table[name] = OptionInfo(
          name: name, takesValue: parts.count > 1, impliedKey: key, treatment: treatment)
      }
    }
    add(
      """
      action= alt-grab append= compat= cpu= ctrl-grab dfilter= echr= \
      enable-fips enable-sync-profile full-screen g= global= id= k= msg=timestamp \
      no-acpi no-fd-bootchk no-hpet no-quit no-reboot no-shutdown no-user-config nodefaults \
      old-param only-migratable portrait prom-env= realtime= rotate= rtc=base seed= show-cursor \
      singlestep smp=cpus tb-size= usb uuid= vga= win2k-hack watchdog-action=
      """, .inert)
    add(
      """
      D= L= M=type machine=type accel=accel enable-kvm acpitable= audio=driver audiodev=driver bios= blockdev=driver \
      add-fd= boot=order cdrom= chardev=backend d= debugcon= device=driver display=type drive= dtb= fda= fdb= \
      fsdev=fsdriver fw_cfg=name gdb= hda= hdb= hdc= hdd= icount=shift initrd= iscsi= kernel= \
      m=size mem-path= mem-prealloc mon=chardev monitor= mtdblock= name=guest net=type netdev=type \
      nic=type nographic numa=type object=qom-type option-rom= overcommit= parallel= pflash= \
      pidfile= qmp= qmp-pretty= readconfig= run-with= runas= s sandbox=enable sd= serial= set= shim= smbios= \
      soundhw= spice= tpmdev=type trace=enable usbdevice= virtfs=fsdriver vnc=vnc watchdog=
      """, .parsed)
    add("S daemonize incoming= loadvm=", .dropped)
    func refuse(_ names: String, _ reason: String, _ wayOut: String) {
      add(names, .refused(reason: reason, wayOut: wayOut))
    }
    refuse(
      "h help version audio-help dump-vmstate=", "prints something and exits: this is not a running VM",
      "name a running QEMU")
    refuse(
      "writeconfig=", "writes a configuration file when QEMU starts", "start the VM without -writeconfig")
    refuse(
      "snapshot", "the guest's writes are in temporary files that only the old QEMU can see",
      "start the VM on an overlay image instead of -snapshot")
    refuse(
      "chroot=", "paths would mean something else after the change of root",
      "start the VM with `moult run` instead of -chroot")
    refuse(
      "plugin=", "a TCG plugin keeps state of its own that migration does not carry",
      "start the VM without -plugin")
    refuse(
      "preconfig", "what was configured over QMP before the machine was built is not known",
      "give the configuration on the command line instead of -preconfig")
    refuse(
      "qtest= qtest-log=", "a QEMU under test has no guest to migrate", "start the VM without -qtest")
    refuse(
      "semihosting semihosting-config=", "semihosting gives the guest the host's files and terminal",
      "start the VM without semihosting")
    refuse(
      "xen-attach xen-domid= xen-domid-restrict", "a Xen domain belongs to Xen's tool stack",
      "migrate the domain with Xen's own tools")
    refuse(
      "curses sdl", "the window or terminal of the display cannot be handed over",
      "start the VM with -display none and -vnc unix:PATH")
    refuse(
      "perfmap jitdump", "writes a file that is named after the process",
      "start the VM without -perfmap and -jitdump")
    refuse(
      "async-teardown", "starts a second process that holds the guest's memory",
      "start the VM without -async-teardown")
    return table
  }()
}

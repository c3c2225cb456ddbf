/// The names of capabilities (capabilities(7)), in the kernel's order: a name's index is its bit.
public enum Capability {
  public static let names = [
    "chown", "dac_override", "dac_read_search", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap",
    "linux_immutable", "net_bind_service", "net_broadcast", "net_admin", "net_raw", "ipc_lock", "ipc_owner",
    "sys_module", "sys_rawio", "sys_chroot", "sys_ptrace", "sys_pacct", "sys_admin", "sys_boot", "sys_nice",
    "sys_resource", "sys_time", "sys_tty_config", "mknod", "lease", "audit_write", "audit_control", "setfcap",
    "mac_override", "mac_admin", "syslog", "wake_alarm", "block_suspend", "audit_read", "perfmon", "bpf",
    "checkpoint_restore",
  ]

  /// The bit of a name, with or without `cap_`, in any case; nil if there is no such capability.
  public static func bit(_ name: String) -> UInt64? {
    let lower = name.lowercased()
    let bare = lower.hasPrefix("cap_") ? String(lower.dropFirst(4)) : lower
    return names.firstIndex(of: bare).map { 1 << UInt64($0) }
  }
}

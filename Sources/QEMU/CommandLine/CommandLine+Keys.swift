/// The keys of options whose keys depend on what the option makes, as 5.2, 7.2, 10.0 and 11.1 list them
/// (`query-qmp-schema`, `query-command-line-options`, `qom-list-properties`), with what their parsers take on top
/// (blockdev.c, net/net.c, system/vl.c) and the drivers that Debian does not build.
extension CommandLine {
  private static func words(_ text: String) -> Set<String> { Set(text.split(separator: " ").map(String.init)) }

  /// Outermost keys of `-drive` and `-blockdev`, of any driver: which driver it is only the image may tell.
  static let blockKeys = words(
    """
    id if bus unit index media cyls heads secs trans snapshot file format cache serial addr boot readonly read-only rerror werror \
    copy-on-read throttling bps bps_rd bps_wr bps_max bps_rd_max bps_wr_max iops iops_rd iops_wr iops_max iops_rd_max iops_wr_max \
    iops_size group stats-account-failed stats-account-invalid stats-intervals extents nodes \
    active aio aio-max-batch align auth-client-required auto-read-only auto-remove backing bitmap blkverify bottom cache-clean-interval \
    cache-size cbw-timeout children conf config cookie cookie-secret data-file debug detect-zeroes device dir discard \
    discard-no-unref driver drop-cache encrypt export fat-type filename floppy force-range force-share header \
    header-digest host host-key-check image initiator-name inject-error key-secret l2-cache-entry-size l2-cache-size label latency-ns \
    lazy-refcounts locking log log-append log-sector-size log-super-update-interval logfile lun max-discard max-transfer \
    max-write-zero mem-region-alignment metadata-file min-cluster-size mode namespace node-name offset on-cbw-error open-timeout \
    opt-discard opt-write-zero overlap-check page-cache-size pass-discard-other pass-discard-request pass-discard-snapshot \
    password-secret path pool port portal pr-manager prealloc-align prealloc-size proxy-password-secret proxy-username raw \
    read-pattern read-zeroes readahead readahead-size reconnect-delay refcount-cache-size rewrite-corrupted rw server set-state size \
    snap-id socket sslverify state tag take-child-perms target tcp-syn-count test throttle-group timeout tls-creds tls-hostname top \
    top-id transport unshare-child-perms url uri user username vdi vdisk-id vmstate volume vote-threshold x-check-cache-dropped \
    x-dirty-bitmap repository password keyfile fingerprint archive master-pubkey
    """)

  /// Keys of a network by its type; one that is missing here is not looked at.
  static let networkKeys: [String: Set<String>] = [
    "bridge": "br helper", "dgram": "local remote", "hubport": "hubid netdev", "netmap": "devname ifname", "nic": "", "none": "",
    "l2tpv3": "cookie64 counter dst dstport ipv6 offset pincounter rxcookie rxsession src srcport txcookie txsession udp",
    "socket": "connect fd listen localaddr mcast udp", "stream": "addr reconnect reconnect-ms server",
    "tap": "br downscript fd fds helper ifname poll-us queues script sndbuf vhost vhostfd vhostfds vhostforce vnet_hdr",
    "user": """
      bootfile dhcpstart dns dnssearch domainname guestfwd host hostfwd hostname ip ipv4 ipv6 ipv6-dns ipv6-host ipv6-net \
      ipv6-prefix ipv6-prefixlen net restrict smb smbserver tftp tftp-server-name
      """,
    "vde": "group mode port sock", "vhost-user": "chardev queues vhostforce", "vhost-vdpa": "queues vhostdev vhostfd x-svq",
  ].mapValues { words($0).union(["id", "type"]) }

  /// Of the x86 machines, the accelerator's old keys included; with `-` for `_`.
  static let machineKeys = words(
    """
    accel acpi append auto-kernel-cmdline auto-shutdown aux-ram-share boot bus-lock-ratelimit confidential-guest-support cxl cxl-fmw \
    default-bus-bypass-iommu device-memory-region-size dt-compatible dtb dump-guest-core dumpdtb enforce-config-section fd-bootchk \
    firmware graphics hmat hpet i8042 id igd-passthru initrd ioapic2 iommu isa-serial kernel kernel-irqchip kvm-shadow-mem kvm-type \
    max-fw-size max-ram-below-4g mem-merge memory memory-backend memory-encryption nvdimm nvdimm-persistence parent-id parent-role \
    pcie pcspk-audiodev pflash0 pflash1 phandle-start pic pit rtc sata sgx-epc shim smbios-entry-point-type smbus smm smp smp-cache \
    spcr suppress-vmdesc type usb vfio-user vmport vsock wdat x-change-vmfd-on-reset x-oem-id x-oem-table-id x-option-roms \
    x-south-bridge xen-platform-dev
    """)

  static let displayKeys = [
    "vnc": words(
      """
      id acl audiodev connections display head ipv4 ipv6 key-delay-ms lock-key-sync lossy non-adaptive password password-secret \
      power-control reverse sasl sasl-authz share tls tls-authz tls-creds to vnc websocket x509 x509verify
      """),
    "spice": words(
      """
      id addr agent-mouse disable-agent-file-xfer disable-copy-paste disable-ticketing display gl head image-compression ipv4 ipv6 \
      jpeg-wan-compression max-refresh-rate password password-secret plaintext-channel playback-compression port rendernode sasl \
      seamless-migration streaming-video tls-channel tls-ciphers tls-port unix video-codec x509-cacert-file x509-cert-file \
      x509-dh-key-file x509-dir x509-key-file x509-key-password zlib-glz-wan-compression
      """),
  ]
}

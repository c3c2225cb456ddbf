/// The device models that a QEMU has: what `-device help` of 5.2, 7.2, 10.0 and 11.1 lists, of every target
/// that Debian builds, and a few that Debian leaves out or that were there before 5.2.
enum DeviceTable {
  /// A disk whose rings another program serves.
  static func isServedDisk(_ driver: String) -> Bool { family(driver) == "vhost-user-blk" }
  /// A directory that another program serves.
  static func isServedDirectory(_ driver: String) -> Bool { family(driver) == "vhost-user-fs" }

  static func isKnown(_ driver: String) -> Bool {
    // CPUs, one model or more for each name that `-cpu` takes.
    names.contains(driver) || driver.hasSuffix("-cpu") || driver.hasSuffix("-core")
      || names.contains(String(withoutTransition(driver)))
  }

  /// The model behind the bus that it is made for: `virtio-blk` of `virtio-blk-pci-non-transitional`.
  static func family(_ driver: String) -> String {
    var name = withoutTransition(driver)
    for suffix in ["-pci", "-ccw", "-device"] where name.hasSuffix(suffix) { name = name.dropLast(suffix.count) }
    return String(name)
  }

  private static func withoutTransition(_ driver: String) -> Substring {
    for suffix in ["-non-transitional", "-transitional"] where driver.hasSuffix(suffix) {
      return driver.dropLast(suffix.count)
    }
    return driver[...]
  }

  private static let names: Set<String> = Set(
    """
    160s33b 25csm04 320s33b 640s33b AC97 AMDVI-PCI ES1370 VGA ac97 acpi-erst adb-keyboard adb-mouse adlib \
    adm1266 adm1272 ads7846 ahci am53c974 amd-iommu arm-smmuv3 aspeed-otp aspeed.i2c.slave \
    aspeed.pcie-root-port at24c-eeprom at25128a-nonjedec at25256a-nonjedec at25df041a at25df321a at25df641 \
    at25fs010 at25fs040 at26df081a at26df161a at26df321 at26f004 at45db081d ati-vga axp209_pmu axp221_pmu \
    bcm2835-cprman-clock-mux bcm2835-cprman-dsi0hsck-mux bcm2835-cprman-pll bcm2835-cprman-pll-channel \
    bochs-display canokey ccid-card-emulated ccid-card-passthru cfam cirrus-vga cmd646-ide corgi-ssp cs4231a \
    ctucan_pci cxl-downstream cxl-rp cxl-switch-mailbox-cci cxl-type3 cxl-upstream dc390 \
    dec-21154-p2p-bridge diag288 diva-gsp dm163 dpcd dps310 ds1338 e1000 e1000-82540em e1000-82544gc \
    e1000-82545em e1000e eTSEC ebus edu emc1413 emc1414 emmc en25f32 en25p32 en25p64 en25q32b en25q64 es1370 \
    floppy fsi.master fsi.scratchpad fsi.slave gd25q32 gd25q64 guest-loader gus hda-duplex hda-micro \
    hda-output hv-balloon hv-syndbg hyperv-testdev i2c-ddc i2c-echo i6300esb i8042 i82374 i82378 i82550 \
    i82551 i82557a i82557b i82557c i82558a i82558b i82559a i82559b i82559c i82559er i82562 i82801 \
    i82801b11-bridge ib700 ich9-ahci ich9-intel-hda ich9-usb-ehci1 ich9-usb-ehci2 ich9-usb-uhci1 \
    ich9-usb-uhci2 ich9-usb-uhci3 ich9-usb-uhci4 ich9-usb-uhci5 ich9-usb-uhci6 ide-cd ide-cf ide-drive \
    ide-hd igb igd-passthrough-isa-bridge intel-hda intel-iommu ioh3420 iommu-testdev ipmi-bmc-extern \
    ipmi-bmc-sim ipoctal232 is25lp016d is25lp032 is25lp064 is25lp080d is25lp128 is25lp256 is25lq040b \
    is25wp032 is25wp064 is25wp128 is25wp256 isa-applesmc isa-cirrus-vga isa-debug-exit isa-debugcon isa-fdc \
    isa-ide isa-ipmi-bt isa-ipmi-kcs isa-m48t59 isa-parallel isa-serial isa-vga isl69259 isl69260 ivshmem \
    ivshmem-doorbell ivshmem-plain kvaser_pci kvm-pci-assign led lm8323 loader lsi lsi53c810 lsi53c895a \
    lsm303dlhc_mag m25p05 m25p10 m25p128 m25p16 m25p20 m25p32 m25p40 m25p64 m25p80 m25pe16 m25pe20 m25pe80 \
    m25px32 m25px32-s0 m25px32-s1 m25px64 m41t80 m45pe10 m45pe16 m45pe80 macio-newworld macio-oldworld \
    max1110 max1111 max31785 max34451 max7310 mc146818rtc megasas megasas-gen2 mioe3680_pci mock-i3c-target \
    mptsas1068 mt25ql01g mt25ql02g mt25ql512ab mt25qu01g mt25qu02g mt35xu01g mt35xu02gbba mx25l12805d \
    mx25l12855e mx25l1606e mx25l2005a mx25l25635e mx25l25635f mx25l25655e mx25l3205d mx25l4005a mx25l6405d \
    mx25l8005 mx66l1g45g mx66l51235f mx66u1g45g mx66u51235f n25q00 n25q00a n25q032 n25q032a11 n25q032a13 \
    n25q064 n25q064a11 n25q064a13 n25q128 n25q128a11 n25q128a13 n25q256a n25q256a11 n25q256a13 n25q512a \
    n25q512a11 n25q512a13 n25q512ax3 nand ne2k_isa ne2k_pci nec-usb-xhci nitro-heartbeat nitro-serial-vsock \
    npcm7xx-clock-divider npcm7xx-clock-pll npcm7xx-clock-sel nubus-macfb nubus-virtio-mmio nvdimm nvme \
    nvme-ns nvme-subsys pbm-bridge pc-dimm pc-testdev pca9535 pca9546 pca9548 pca9552 pca9554 pci-assign \
    pci-bridge pci-bridge-seat pci-ipmi-bt pci-ipmi-kcs pci-ohci pci-serial pci-serial-2x pci-serial-4x \
    pci-testdev pcie-pci-bridge pcie-root-port pcm3680_pci pcnet piix3-ide piix3-ide-xen piix3-usb-uhci \
    piix4-ide piix4-usb-uhci pnv-N1-chiplet pnv-nest-chiplet-pervasive pnv-nmmu pnv-phb pnv-phb-root-port \
    prep-systemio pvpanic pvpanic-pci pvrdma pvscsi pxa2xx-i2c-slave pxb pxb-cxl pxb-pcie qemu-xhci qxl \
    qxl-vga r5f562n7-mcu r5f562n8-mcu raa228000 raa229004 ramfb riscv-iommu-pci riscv.k230.soc rocker \
    rs5c372 rs6000-mc rtl8139 s25fl016k s25fl064k s25fl129p0 s25fl129p1 s25fl256s0 s25fl256s1 s25fl512s \
    s25fs512s s25sl004a s25sl008a s25sl016a s25sl032a s25sl032p s25sl064a s25sl064p s25sl12800 s25sl12801 \
    s70fl01gs s70fs01gs sb16 sbsa-gwdt sclpconsole sclplmconsole scsi-block scsi-cd scsi-disk scsi-generic \
    scsi-hd sd-card sd-card-spi sdhci-pci secondary-vga sga sii3112 sii9022 sm501 smbus-ipmi sp-mem \
    spapr-nvdimm spapr-pci-host-bridge spapr-pci-vfio-host-bridge spapr-rng spapr-tpm-proxy spapr-vlan \
    spapr-vscsi spapr-vty spitz-lcdtg ssd0303 ssd0323 sst25vf016b sst25vf032b sst25vf040b sst25vf080b \
    sst25wf010 sst25wf020 sst25wf040 sst25wf080 sst25wf512 sungem sunhme swim-drive tmp105 tmp421 tmp422 \
    tmp423 tosa-ssp tosa_dac tpci200 tpm-crb tpm-spapr tpm-tis tpm-tis-device tpm-tis-i2c tulip twl92230 \
    u2f-emulated u2f-passthru uefi-vars-sysbus uefi-vars-x64 ufs ufs-lu usb-audio usb-bot usb-braille \
    usb-bt-dongle usb-ccid usb-ehci usb-host usb-hub usb-kbd usb-mouse usb-mtp usb-net usb-redir usb-serial \
    usb-storage usb-tablet usb-uas usb-wacom-tablet vfio-amd-xgbe vfio-ap vfio-calxeda-xgmac vfio-ccw \
    vfio-pci vfio-pci-igd-lpc-bridge vfio-pci-nohotplug vfio-platform vfio-user-pci vhost-scsi \
    vhost-scsi-ccw vhost-scsi-pci vhost-scsi-pci-non-transitional vhost-scsi-pci-transitional vhost-user-blk \
    vhost-user-blk-pci vhost-user-blk-pci-non-transitional vhost-user-blk-pci-transitional vhost-user-fs-ccw \
    vhost-user-fs-device vhost-user-fs-pci vhost-user-gpio-device vhost-user-gpio-pci vhost-user-gpu \
    vhost-user-gpu-pci vhost-user-i2c-device vhost-user-i2c-pci vhost-user-input vhost-user-input-pci \
    vhost-user-rng vhost-user-rng-pci vhost-user-rtc vhost-user-rtc-pci vhost-user-scmi vhost-user-scmi-pci \
    vhost-user-scsi vhost-user-scsi-pci vhost-user-scsi-pci-non-transitional \
    vhost-user-scsi-pci-transitional vhost-user-snd vhost-user-snd-pci vhost-user-spi-device \
    vhost-user-spi-pci vhost-user-test-device vhost-user-test-device-pci vhost-user-vga \
    vhost-user-vsock-device vhost-user-vsock-pci vhost-user-vsock-pci-non-transitional vhost-vdpa-device \
    vhost-vdpa-device-pci vhost-vdpa-device-pci-non-transitional vhost-vdpa-device-pci-transitional \
    vhost-vsock-ccw vhost-vsock-device vhost-vsock-pci vhost-vsock-pci-non-transitional virtconsole \
    virtio-9p virtio-9p-ccw virtio-9p-device virtio-9p-pci virtio-9p-pci-non-transitional \
    virtio-9p-pci-transitional virtio-balloon virtio-balloon-ccw virtio-balloon-device virtio-balloon-pci \
    virtio-balloon-pci-non-transitional virtio-balloon-pci-transitional virtio-blk virtio-blk-ccw \
    virtio-blk-device virtio-blk-pci virtio-blk-pci-non-transitional virtio-blk-pci-transitional \
    virtio-crypto-ccw virtio-crypto-device virtio-crypto-pci virtio-gpu virtio-gpu-ccw virtio-gpu-device \
    virtio-gpu-gl virtio-gpu-gl-device virtio-gpu-gl-pci virtio-gpu-pci virtio-gpu-rutabaga \
    virtio-gpu-rutabaga-device virtio-gpu-rutabaga-pci virtio-input-host virtio-input-host-device \
    virtio-input-host-pci virtio-iommu virtio-iommu-device virtio-iommu-pci \
    virtio-iommu-pci-non-transitional virtio-keyboard virtio-keyboard-ccw virtio-keyboard-device \
    virtio-keyboard-pci virtio-mem virtio-mem-ccw virtio-mem-pci virtio-mouse virtio-mouse-ccw \
    virtio-mouse-device virtio-mouse-pci virtio-multitouch-device virtio-multitouch-pci virtio-net \
    virtio-net-ccw virtio-net-device virtio-net-pci virtio-net-pci-non-transitional \
    virtio-net-pci-transitional virtio-pmem virtio-pmem-pci virtio-rng virtio-rng-ccw virtio-rng-device \
    virtio-rng-pci virtio-rng-pci-non-transitional virtio-rng-pci-transitional virtio-rtc-device \
    virtio-rtc-pci virtio-scsi virtio-scsi-ccw virtio-scsi-device virtio-scsi-pci \
    virtio-scsi-pci-non-transitional virtio-scsi-pci-transitional virtio-serial virtio-serial-ccw \
    virtio-serial-device virtio-serial-pci virtio-serial-pci-non-transitional virtio-serial-pci-transitional \
    virtio-sound virtio-sound-device virtio-sound-pci virtio-tablet virtio-tablet-ccw virtio-tablet-device \
    virtio-tablet-pci virtio-vga virtio-vga-gl virtio-vga-rutabaga virtserialport vmbus-bridge vmclock \
    vmcoreinfo vmgenid vmmouse vmware-svga vmxnet3 vt82c686b-usb-uhci w25q01jvq w25q02jvm w25q256 w25q32 \
    w25q32dw w25q512jv w25q64 w25q80 w25q80bl w25x10 w25x16 w25x20 w25x32 w25x40 w25x64 w25x80 wm8750 \
    x-pci-proxy-dev x-terminal3270 x3130-upstream xen-backend xen-cdrom xen-console xen-disk xen-net-device \
    xen-pci-passthrough xen-platform xen-pvdevice xio3130-downstream xlnx-zynqmp-pmu-soc zpci
    """.split(separator: " ").map(String.init))
}

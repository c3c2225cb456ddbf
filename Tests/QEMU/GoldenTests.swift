import Testing

@testable import QEMU

/// What command lines of other projects own, counted by a person who read them, by the rules of
/// docs/bindings.md. The command lines themselves are in the corpus (see CorpusTests).
@Suite struct GoldenTests {
  /// The bindings of each kind, by file.
  static let counts = """
    proxmox/aarch64_simple-arm-host.conf.cmd: unix-socket 3, pidfile 1, file 3, tcp-socket 1, disk 1, tap 1, vhost-net 1
    proxmox/efi-raw.conf.cmd: unix-socket 3, pidfile 1, file 3
    proxmox/efi-secboot-and-tpm-q35.conf.cmd: unix-socket 3, pidfile 1, file 4, tpm 1
    proxmox/i440fx-win10-hostpci.conf.cmd: unix-socket 3, pidfile 1, file 3, vfio 1, tap 1, vhost-net 1
    proxmox/netdev-7.0-multiqueues.conf.cmd: unix-socket 3, pidfile 1, tap 1, vhost-net 1, file 1
    proxmox/os-other.conf.cmd: unix-socket 3, pidfile 1, file 1
    proxmox/pinned-version-pxe-pve.conf.cmd: unix-socket 3, pidfile 1, file 4, disk 1, tap 1, vhost-net 1
    proxmox/q35-usb2.conf.cmd: unix-socket 3, pidfile 1, tcp-socket 1, tap 1, vhost-net 1, file 2
    proxmox/scsiblk.conf.cmd: unix-socket 3, pidfile 1, disk 1, file 1
    proxmox/sev-es.conf.cmd: unix-socket 3, pidfile 1, file 3
    proxmox/simple-backingchain.conf.cmd: unix-socket 3, pidfile 1, disk 6, file 1
    proxmox/simple-btrfs.conf.cmd: unix-socket 3, pidfile 1, disk 4, tap 1, vhost-net 1, file 1
    proxmox/simple-cifs.conf.cmd: unix-socket 3, pidfile 1, disk 4, file 1
    proxmox/simple-zfs-over-iscsi.conf.cmd: unix-socket 3, pidfile 1, block-remote 4, tap 1, vhost-net 1, file 1
    proxmox/spice-enhancments.conf.cmd: unix-socket 3, pidfile 1, tcp-socket 1, file 1
    proxmox/vnc-clipboard-spice.conf.cmd: unix-socket 3, pidfile 1, tcp-socket 1, file 1

    other/OSX-KVM_OpenCore-Boot-sh.args: file 2, disk 3, netdev-user 1, tcp-socket 1
    other/OSX-KVM_boot-linux-for-debugging-sh.args: file 2, disk 3, netdev-user 1
    other/OSX-KVM_boot-passthrough-sh.args: vfio 2, file 2, disk 3, netdev-user 1, tcp-socket 1
    other/avocado-vt_GlusterFs-rst_79.args: block-remote 1, tap 1
    other/avocado-vt_RunQemuUnittests-rst_187.args: unix-socket 3, file 2, tcp-socket 1
    other/avocado-vt_RunQemuUnittests-rst_285.args: unix-socket 3, file 2, tcp-socket 1
    other/avocado-vt_Win2008-64-steps_5.args: disk 2, unix-socket 1, tcp-socket 1, netdev-user 1
    other/dpdk_openwrt-rst_122.args: memory 1, disk 1, netdev-user 1
    other/kubevirt_libvirt_helper_test-go_89.args: file 3, disk 2, fd 3, tap 1, vhost-net 1, unix-socket 1
    other/ovs_afxdp-rst_386.args: disk 1, vhost-user 1, memory 1
    other/qemu_COLO-FT-txt_192.args: bridge-helper 1, tcp-socket 2, disk 3
    other/qemu_CPR-rst_example2.args: memory 1, unix-socket 1, netdev-user 1
    other/qemu_authz-rst_254.args: file 1, directory 1, tcp-socket 1, netdev-user 1
    other/qemu_bootindex-rst_35.args: disk 2, netdev-user 2
    other/qemu_bypass-iommu-txt_53.args: netdev-user 1
    other/qemu_can-rst_68.args: file 2, directory 1, netdev-socket 1, netdev-user 1
    other/qemu_ccid-rst_103.args: tcp-socket 1, netdev-user 1
    other/qemu_gdb-rst_23.args: tcp-socket 1, file 1, disk 1, netdev-user 1
    other/qemu_guest-loader-rst_22.args: file 3, netdev-user 1
    other/qemu_live-block-operations-rst_136.args: disk 1, unix-socket 1
    other/qemu_live-block-operations-rst_704.args: disk 1, unix-socket 1
    other/qemu_microvm-rst_96.args: file 1, disk 1, tap 1
    other/qemu_qemu-block-drivers-rst-inc_664.args: block-remote 2, netdev-user 1
    other/qemu_qemu-options-hx_3222.args: disk 1, tap 2
    other/qemu_replay-rst_37.args: file 1, disk 1, netdev-user 1
    other/qemu_tpm-rst_322.args: display 1, file 1, tpm 1, disk 1, netdev-user 1
    other/qemu_tpm-rst_434.args: display 1, file 1, tpm 1, disk 1, netdev-user 1
    other/spdk_vhost-md_267.args: memory 1, disk 1, vhost-user 2, netdev-user 1
    other/syzkaller_README-md_183.args: netdev-user 1, tcp-socket 1, disk 1
    other/syzkaller_syzbot_assets-md_48.args: disk 1, netdev-user 1, tcp-socket 1
    other/tp-qemu_valgrind_memalign-py_14.args: tcp-socket 1, netdev-user 1
    other/vhost-device_README-md_277.args: disk 1, memory 1, vhost-user 1, netdev-user 1
    other/vhost-device_start-test-sh_29.args: netdev-user 1, tcp-socket 2, file 1, disk 1, memory 1, vhost-user 1

    other/readconfig_incus_001.cfg: none
    other/readconfig_incus_002.cfg: none
    other/readconfig_incus_003.cfg: none
    other/readconfig_incus_005.cfg: none
    other/readconfig_incus_007.cfg: none
    other/readconfig_incus_008.cfg: none
    other/readconfig_incus_009.cfg: none
    other/readconfig_incus_012.cfg: none
    other/readconfig_incus_014.cfg: none
    other/readconfig_incus_016.cfg: file 1
    other/readconfig_incus_022.cfg: none
    other/readconfig_incus_023.cfg: none
    other/readconfig_incus_024.cfg: none
    other/readconfig_incus_026.cfg: none
    other/readconfig_incus_027.cfg: none
    other/readconfig_incus_032.cfg: memory 3
    other/readconfig_incus_034.cfg: memory 1
    other/readconfig_incus_035.cfg: unix-socket 1
    other/readconfig_incus_040.cfg: vhost-user 1
    other/readconfig_incus_041.cfg: vhost-user 1
    other/readconfig_incus_044.cfg: vhost-user 1
    other/readconfig_incus_047.cfg: vfio 1
    other/readconfig_incus_053.cfg: none
    other/readconfig_incus_057.cfg: none
    other/readconfig_incus_062.cfg: none
    other/readconfig_incus_064.cfg: none
    other/readconfig_incus_065.cfg: none
    other/readconfig_incus_066.cfg: none
    other/readconfig_incus_068.cfg: none
    other/readconfig_incus_070.cfg: none
    other/readconfig_incus_071.cfg: none
    other/readconfig_incus_077.cfg: none
    other/readconfig_qemu_ich9-ehci-uhci.cfg: none
    other/readconfig_qemu_q35-virtio-graphical.cfg: disk 2, netdev-user 1
    other/fragments_qemu_vfio-user.txt: unix-socket 1

    libvirt/audio-file-full.x86_64-latest.args: file 2, fd 1, disk 1
    libvirt/audio-many-backends.x86_64-latest.args: file 1, fd 1, disk 1, display 3, tcp-socket 1
    libvirt/channel-unix-guestfwd.x86_64-latest.args: file 1, fd 2, unix-socket 1, netdev-user 2
    libvirt/console-virtio-many.x86_64-latest.args: file 1, fd 1, disk 1, pty 4
    libvirt/disk-network-gluster.x86_64-latest.args: file 1, fd 1, block-remote 3
    libvirt/disk-network-iscsi.x86_64-latest.args: file 1, fd 1, block-remote 7
    libvirt/disk-network-rbd.x86_64-latest.args: file 1, fd 1, block-remote 6
    libvirt/disk-network-source-curl-nbdkit-backing.x86_64-latest.args: file 1, fd 1, block-remote 2
    libvirt/disk-network-ssh-key.x86_64-latest.args: file 1, fd 1, block-remote 2
    libvirt/disk-network-tlsx509-nbd.x86_64-latest.args: file 1, fd 1, block-remote 1, directory 1
    libvirt/disk-slices.x86_64-latest.args: file 1, fd 1, disk 4, vfio 2
    libvirt/disk-source-fd.x86_64-latest.args: file 1, fd 6, disk 4
    libvirt/disk-transient.x86_64-latest.args: file 1, fd 1, disk 1
    libvirt/disk-vhostuser.x86_64-latest.args: file 1, fd 1, memory 1, vhost-user 2
    libvirt/firmware-auto-efi-format-nvram-qcow2-network-nbd.x86_64-latest.args: file 2, fd 1, block-remote 1
    libvirt/graphics-dbus-usbredir.x86_64-latest.args: file 1, fd 1, display 1
    libvirt/graphics-spice-sasl.x86_64-latest.args: file 1, fd 1, tcp-socket 2, directory 1
    libvirt/graphics-vnc-websocket.x86_64-latest.args: file 1, fd 1, tcp-socket 2
    libvirt/hostdev-mdev-display-spice-egl-headless.x86_64-latest.args: file 1, fd 1, display 1, vfio 1
    libvirt/hostdev-scsi-vhost-scsi-pcie.x86_64-latest.args: file 1, fd 1, disk 1
    libvirt/hostdev-vfio.x86_64-latest.args: file 1, fd 1, disk 1, vfio 4
    libvirt/hugepages-nvdimm.x86_64-latest.args: file 1, fd 1, memory 2
    libvirt/launch-security-sev-snp.x86_64-latest.args: file 1, fd 1, disk 1
    libvirt/net-client.x86_64-latest.args: file 1, fd 1, disk 1, netdev-socket 1
    libvirt/net-many-models.x86_64-latest.args: file 1, fd 1, netdev-user 6
    libvirt/net-udp.x86_64-latest.args: file 1, fd 1, disk 1, netdev-socket 1
    libvirt/net-user-passt.x86_64-latest.args: file 1, fd 1, disk 1, netdev-socket 1
    libvirt/net-vdpa-multiqueue.x86_64-latest.args: file 1, fd 2, vhost-vdpa 1
    libvirt/net-virtio-teaming-hostdev.x86_64-latest.args: file 1, fd 1, disk 1, netdev-user 2, vfio 2
    libvirt/restore-v2-fd.x86_64-latest.args: file 1, fd 1, disk 1
    libvirt/serial-debugcon.x86_64-latest.args: file 1, fd 1, pty 1
    libvirt/serial-many-chardev.x86_64-latest.args: file 2, fd 2, disk 1, pty 1
    libvirt/serial-tcp-telnet-chardev.x86_64-latest.args: file 1, fd 1, disk 1, tcp-socket 1
    libvirt/serial-udp-chardev.x86_64-latest.args: file 1, fd 1, disk 1, udp-socket 2
    libvirt/smartcard-passthrough-tcp.x86_64-latest.args: file 1, fd 1, tcp-socket 1
    libvirt/tap-vhost.x86_64-latest.args: file 1, fd 1, disk 2, tap 1, vhost-net 1, pty 1
    libvirt/tpm-emulator-tpm2-enc.x86_64-latest.args: file 1, fd 1, tpm 1
    libvirt/tpm-passthrough.x86_64-latest.args: file 1, fd 3, tpm 1
    libvirt/usb-redir.x86_64-latest.args: file 1, fd 1, tcp-socket 1
    libvirt/user-aliases.x86_64-latest.args: file 1, fd 2, memory 4, disk 4, tap 1, vhost-net 1, netdev-socket 2, directory 1, pty 2, tcp-socket 1
    libvirt/vhost-user-fs-fd-memory.x86_64-latest.args: file 1, fd 1, memory 1, vhost-user 1
    libvirt/vhost-user-gpu-secondary.x86_64-latest.args: file 1, fd 1, memory 1, disk 1, vhost-user 2
    libvirt/vhost-vsock.x86_64-latest.args: file 1, fd 1, vhost-vsock 1
    libvirt/video-virtio-gpu-spice-gl.x86_64-latest.args: file 1, fd 1, disk 1, display 1
    libvirt/virtio-9p-multidevs.x86_64-latest.args: file 1, fd 1, directory 3, pty 1
    libvirt/virtio-options.x86_64-latest.args: file 2, fd 1, disk 1, directory 2, netdev-user 1, input-host 1, vhost-user 1
    libvirt/virtio-rng-egd-unix.x86_64-5.2.0.args: file 1, fd 2

    libvirt-legacy/channel-unix-guestfwd.x86_64-2.5.0.args: unix-socket 3, netdev-user 2
    libvirt-legacy/chardev-reconnect.args: unix-socket 3, tcp-socket 3
    libvirt-legacy/disk-backing-chains-index.x86_64-2.12.0.args: file 1, fd 1, block-remote 4, disk 2
    libvirt-legacy/disk-cdrom-network.x86_64-2.12.0.args: file 1, fd 1, block-remote 4
    libvirt-legacy/disk-iscsi.args: unix-socket 1, disk 1
    libvirt-legacy/disk-network-gluster.x86_64-2.12.0.args: file 1, fd 1, block-remote 3
    libvirt-legacy/disk-network-nbd.args: unix-socket 1, block-remote 5
    libvirt-legacy/disk-network-rbd.x86_64-2.5.0.args: unix-socket 1, block-remote 6
    libvirt-legacy/disk-network-sheepdog.args: unix-socket 1, disk 1, block-remote 1
    libvirt-legacy/disk-network-tlsx509.x86_64-2.12.0.args: file 1, fd 1, directory 3, block-remote 4
    libvirt-legacy/disk-source-pool.args: unix-socket 1, disk 2, directory 2
    libvirt-legacy/disk-virtio-scsi-reservations.x86_64-2.12.0.args: file 1, fd 1, unix-socket 2, disk 2
    libvirt-legacy/floppy-drive-fat.x86_64-2.12.0.args: file 1, fd 1, directory 1
    libvirt-legacy/graphics-egl-headless-rendernode.x86_64-latest.args: file 1, fd 1, disk 1, display 1
    libvirt-legacy/graphics-spice-socket.args: unix-socket 2
    libvirt-legacy/graphics-vnc-sasl.args: unix-socket 1, tcp-socket 1, disk 1
    libvirt-legacy/graphics-vnc-tls-secret.x86_64-latest.args: file 1, fd 1, directory 1, tcp-socket 1
    libvirt-legacy/graphics-vnc-tls.args: unix-socket 1, tcp-socket 1, directory 1
    libvirt-legacy/hostdev-mdev-precreated.args: unix-socket 1, vfio 1
    libvirt-legacy/hostdev-pci-address-device.args: unix-socket 1, disk 1, vfio 1
    libvirt-legacy/hostdev-scsi-lsi.args: unix-socket 1, disk 2
    libvirt-legacy/hostdev-scsi-virtio-iscsi.args: unix-socket 1, disk 1, block-remote 2
    libvirt-legacy/hostdev-usb-address.args: unix-socket 1, disk 1, usb-host 1
    libvirt-legacy/hostdev-vfio-multidomain.args: unix-socket 1, disk 1, vfio 1
    libvirt-legacy/hugepages-shared.args: unix-socket 1, disk 1, memory 4
    libvirt-legacy/net-eth-hostip.args: unix-socket 1, disk 1, tap 1
    libvirt-legacy/net-hostdev-multidomain.args: unix-socket 1, disk 1, vfio 1
    libvirt-legacy/net-vhostuser.x86_64-2.5.0.args: unix-socket 1, vhost-user 2, netdev-socket 1
    libvirt-legacy/parallel-tcp-chardev.args: unix-socket 1, disk 1, tcp-socket 1
    libvirt-legacy/restore-v2.args: unix-socket 1, disk 1
    libvirt-legacy/serial-dev-chardev-iobase.args: unix-socket 1, disk 1, file 1
    libvirt-legacy/serial-many-chardev.args: unix-socket 1, disk 1, pty 1, file 1
    libvirt-legacy/shmem-plain-doorbell.args: unix-socket 6, memory 3
    libvirt-legacy/smartcard-host-certificates.args: unix-socket 1, directory 1
    libvirt-legacy/smartcard-passthrough-unix.x86_64-2.5.0.args: unix-socket 2
    libvirt-legacy/smbios.args: unix-socket 1, disk 1
    libvirt-legacy/tpm-passthrough.args: unix-socket 1, tpm 1, fd 2
    libvirt-legacy/usb-redir-unix.x86_64-2.5.0.args: unix-socket 3
    libvirt-legacy/virtio-input-passthrough.args: unix-socket 1, input-host 1
    libvirt-legacy/virtio-lun.args: unix-socket 1, disk 2, netdev-user 1
    libvirt-legacy/virtio-rng-egd.args: unix-socket 1, tcp-socket 1
    libvirt-legacy/virtio-transitional.x86_64-3.1.0.args: file 2, fd 1, disk 2, directory 1, netdev-user 1, input-host 1, vhost-vsock 1
    """

  /// Every binding of some of them: kind, role, address, handover.
  static let inventories = """
    proxmox/aarch64_simple-arm-host.conf.cmd
      file share /usr/share/qemu-server/bootsplash.jpg reopen
      unix-socket listen /var/run/qemu-server/8006.qmp swap
      unix-socket connect /var/run/qmeventd.sock reopen
      unix-socket listen /var/run/qemu-server/8006.vnc swap
      pidfile own /var/run/qemu-server/8006.pid swap
      file share /usr/share/pve-edk2-firmware//AAVMF_CODE.fd reopen
      file own /var/lib/vz/images/8006/vm-8006-disk-1.qcow2 reopen
      disk own /var/lib/vz/images/8006/vm-8006-disk-0.qcow2 reopen
      tcp-socket listen 127.0.0.1:61000 duplicate
      tap own tap8006i0 duplicate
      vhost-net own /dev/vhost-net reopen
    proxmox/simple-backingchain.conf.cmd
      file share /usr/share/qemu-server/bootsplash.jpg reopen
      unix-socket listen /var/run/qemu-server/8006.qmp swap
      unix-socket connect /var/run/qmeventd.sock reopen
      unix-socket listen /var/run/qemu-server/8006.vnc swap
      pidfile own /var/run/qemu-server/8006.pid swap
      disk share /var/lib/vzsnapext/images/8006/snap1-vm-8006-disk-0.qcow2 reopen
      disk share /var/lib/vzsnapext/images/8006/snap2-vm-8006-disk-0.qcow2 reopen
      disk own /var/lib/vzsnapext/images/8006/vm-8006-disk-0.qcow2 reopen
      disk share /dev/veegee/snap1-vm-8006-disk-0.qcow2 reopen
      disk share /dev/veegee/snap2-vm-8006-disk-0.qcow2 reopen
      disk own /dev/veegee/vm-8006-disk-0.qcow2 reopen
    other/OSX-KVM_boot-passthrough-sh.args
      vfio own 0000:01:00.0 refuse
      vfio own 0000:01:00.1 refuse
      file share ././OVMF_CODE.fd reopen
      file own ././OVMF_VARS-1024x768.fd reopen
      disk share ./OpenCore/OpenCore.qcow2 reopen
      disk own ./BaseSystem.img reopen
      disk own ./mac_hdd_ng.img reopen
      netdev-user own net0 relaunch
      tcp-socket listen 0.0.0.0:5901 duplicate
    other/kubevirt_libvirt_helper_test-go_89.args
      file share /var/lib/libvirt/qemu/domain-1-default_vmi-alpine-e/master-key.aes reopen
      file share /usr/share/edk2/ovmf/OVMF_CODE.fd reopen
      file own /tmp/default_vmi-alpine-efi reopen
      fd listen 20 refuse
      fd listen 24 refuse
      fd listen 25 refuse
      disk share /var/run/kubevirt/container-disks/disk_0.img reopen
      disk own /var/run/kubevirt-ephemeral-disks/disk-data/containerdisk/disk.qcow2 reopen
      tap own fd=22 duplicate
      vhost-net own fd=23 reopen
      unix-socket listen /var/run/kubevirt-private/6d220540-cae6-4aa3-a850-af62ff66e407/virt-vnc swap
    other/qemu_COLO-FT-txt_192.args
      bridge-helper own br0 duplicate
      tcp-socket connect 127.0.0.1:9003 duplicate
      tcp-socket connect 127.0.0.1:9004 duplicate
      disk share /vms/primary.qcow2 reopen
      disk own /vms/secondary-active.qcow2 reopen
      disk share /vms/secondary-hidden.qcow2 reopen
    other/qemu_can-rst_68.args
      file share /boot/vmlinuz-4.9.0-4-amd64 reopen
      file share ramdisk.cpio reopen
      directory share shareddir refuse
      netdev-socket share can0 refuse
      netdev-user own user relaunch
    other/qemu_gdb-rst_23.args
      tcp-socket listen :1234 duplicate
      file share bzImage reopen
      disk own rootdisk.img reopen
      netdev-user own user relaunch
    other/qemu_microvm-rst_96.args
      file share vmlinux reopen
      disk own test.img reopen
      tap own tap%d duplicate
    other/ovs_afxdp-rst_386.args
      disk own ubuntu1810.qcow reopen
      vhost-user listen /tmp/vhost-user-1 swap
      memory share /dev/hugepages share
    other/vhost-device_start-test-sh_29.args
      netdev-user own net0 relaunch
      tcp-socket listen :2222 duplicate
      tcp-socket listen :2323 duplicate
      file share /dev/urandom reopen
      disk own test-data/fedora-overlay.qcow2 reopen
      memory share memfd:mem share
      vhost-user connect /tmp/vhost-user-scsi.sock refuse
    libvirt/disk-network-gluster.x86_64-latest.args
      file share /var/lib/libvirt/qemu/domain--1-QEMUGuest1/master-key.aes reopen
      fd listen 1729 refuse
      block-remote connect gluster://example.org:6000/Volume1/Image refuse
      block-remote connect gluster+unix:///Volume2/Image?socket=/path/to/sock refuse
      block-remote connect gluster://example.org:6000/Volume3/Image.qcow2 refuse
    libvirt/disk-network-rbd.x86_64-latest.args
      file share /var/lib/libvirt/qemu/domain--1-QEMUGuest1/master-key.aes reopen
      fd listen 1729 refuse
      block-remote connect rbd:pool/image refuse
      block-remote connect rbd:pool/image@asdf refuse
      block-remote connect rbd:pool/image@foo refuse
      block-remote connect rbd:pool/image@foo refuse
      block-remote connect rbd:pool/image refuse
      block-remote connect rbd:pool/image refuse
    libvirt/disk-source-fd.x86_64-latest.args
      file share /var/lib/libvirt/qemu/domain--1-QEMUGuest1/master-key.aes reopen
      fd listen 1729 refuse
      fd own 200 refuse
      fd own 205 refuse
      fd own 247 refuse
      fd own 248 refuse
      fd own 204 refuse
      disk own /dev/fdset/2 refuse
      disk share /var/lib/libvirt/images/rhel7.1484071876 reopen
      disk share /dev/fdset/1 refuse
      disk own /dev/fdset/0 refuse
    libvirt/graphics-vnc-websocket.x86_64-latest.args
      file share /var/lib/libvirt/qemu/domain--1-QEMUGuest1/master-key.aes reopen
      fd listen 1729 refuse
      tcp-socket listen 127.0.0.1:5900 duplicate
      tcp-socket listen 127.0.0.1:5700 duplicate
    libvirt/hostdev-mdev-display-spice-egl-headless.x86_64-latest.args
      file share /var/lib/libvirt/qemu/domain--1-QEMUGuest2/master-key.aes reopen
      fd listen 1729 refuse
      display share /dev/dri/foo reopen
      vfio own /sys/bus/mdev/devices/53764d0e-85a0-42b4-af5c-2046b460b1dc refuse
    libvirt/hugepages-nvdimm.x86_64-latest.args
      file share /var/lib/libvirt/qemu/domain--1-QEMUGuest1/master-key.aes reopen
      fd listen 1729 refuse
      memory share /dev/hugepages2M/libvirt/qemu/-1-QEMUGuest1 share
      memory share /tmp/nvdimm refuse
    libvirt/net-udp.x86_64-latest.args
      file share /var/lib/libvirt/qemu/domain--1-QEMUGuest1/master-key.aes reopen
      fd listen 1729 refuse
      disk own /dev/HostVG/QEMUGuest1 reopen
      netdev-socket connect 192.168.10.1:5555@192.168.10.1:5556 duplicate
    libvirt/serial-many-chardev.x86_64-latest.args
      file share /var/lib/libvirt/qemu/domain--1-QEMUGuest1/master-key.aes reopen
      fd listen 1729 refuse
      disk own /dev/HostVG/QEMUGuest1 reopen
      pty own pty refuse
      fd own 1750 refuse
      file own /dev/fdset/0 refuse
    libvirt/serial-udp-chardev.x86_64-latest.args
      file share /var/lib/libvirt/qemu/domain--1-QEMUGuest1/master-key.aes reopen
      fd listen 1729 refuse
      disk own /dev/HostVG/QEMUGuest1 reopen
      udp-socket connect 127.0.0.1:9998@127.0.0.1:9999 duplicate
      udp-socket connect :9999@:0 duplicate
    libvirt/tap-vhost.x86_64-latest.args
      file share /var/lib/libvirt/qemu/domain--1-test/master-key.aes reopen
      fd listen 1729 refuse
      disk own /var/lib/libvirt/images/f14.img reopen
      disk share /var/lib/libvirt/Fedora-14-x86_64-Live-KDE.iso reopen
      tap own fds=102:103:104:105:106 duplicate
      vhost-net own fds=44:45:46:47:48 reopen
      pty own pty refuse
    libvirt/tpm-emulator-tpm2-enc.x86_64-latest.args
      file share /var/lib/libvirt/qemu/domain--1-TPM-VM/master-key.aes reopen
      fd listen 1729 refuse
      tpm connect /dev/test duplicate
    libvirt-legacy/chardev-reconnect.args
      unix-socket listen /tmp/lib/domain--1-QEMUGuest1/monitor.sock swap
      unix-socket connect /tmp/channel/asdf refuse
      tcp-socket connect localhost:1234 duplicate
      unix-socket connect /tmp/channel/fdsa duplicate
      tcp-socket connect localhost:3456 refuse
      tcp-socket connect localhost:2345 refuse
    libvirt-legacy/disk-network-sheepdog.args
      unix-socket listen /tmp/lib/domain--1-QEMUGuest1/monitor.sock swap
      disk own /dev/HostVG/QEMU,Guest,,1 reopen
      block-remote connect sheepdog:example.org:6000:image,with,commas refuse
    libvirt-legacy/disk-network-tlsx509.x86_64-2.12.0.args
      file share /tmp/lib/domain--1-QEMUGuest1/master-key.aes reopen
      fd listen 1729 refuse
      directory share /etc/pki/libvirt-vxhs/dummy,path reopen
      directory share /etc/pki/libvirt-vxhs/dummy,path reopen
      directory share /etc/pki/libvirt-nbd/dummy,path reopen
      block-remote connect vxhs://192.168.0.1:9999/eb90327c-8302-4725-9e1b-4e85ed4dc251 refuse
      block-remote connect vxhs://192.168.0.2:9999/eb90327c-8302-4725-9e1b-4e85ed4dc252 refuse
      block-remote connect vxhs://192.168.0.3:9999/eb90327c-8302-4725-9e1b-4e85ed4dc253 refuse
      block-remote connect nbd://example.com:1234 refuse
    libvirt-legacy/disk-source-pool.args
      unix-socket listen /tmp/lib/domain--1-QEMUGuest1/monitor.sock swap
      disk share /some/block/device/cdrom reopen
      disk own /tmp/idedisk.img reopen
      directory share /some/dir/device/vol1 refuse
      directory share /some/dir/device/vol2 refuse
    libvirt-legacy/hostdev-scsi-lsi.args
      unix-socket listen /tmp/lib/domain--1-QEMUGuest2/monitor.sock swap
      disk own /dev/HostVG/QEMUGuest2 reopen
      disk own /dev/sg0 refuse
    libvirt-legacy/hostdev-pci-address-device.args
      unix-socket listen /tmp/lib/domain--1-QEMUGuest2/monitor.sock swap
      disk own /dev/HostVG/QEMUGuest2 reopen
      vfio own 0000:06:12.5 refuse
    libvirt-legacy/hostdev-usb-address.args
      unix-socket listen /tmp/lib/domain--1-QEMUGuest1/monitor.sock swap
      disk own /dev/HostVG/QEMUGuest1 reopen
      usb-host own 14.6 refuse
    libvirt-legacy/virtio-transitional.x86_64-3.1.0.args
      file share /tmp/lib/domain--1-QEMUGuest1/master-key.aes reopen
      fd listen 1729 refuse
      disk own /dev/HostVG/QEMUGuest1 reopen
      directory share /export/fs1 refuse
      netdev-user own hostnet0 relaunch
      input-host own /dev/input/event1234 refuse
      disk own naa.5123456789abcde0 refuse
      file share /dev/urandom reopen
      vhost-vsock own 4 reopen
    """

  /// What no QEMU knows, verbatim: all that there is in the corpus.
  static let unknown = """
    libvirt-legacy/net-many-models.args: -device idontexist,netdev=hostnet0,id=net0,mac=00:11:22:33:44:55,bus=pci.0,addr=0x3
    libvirt-legacy/net-many-models.args: -device netfront,netdev=hostnet2,id=net2,mac=00:11:22:33:44:57,bus=pci.0,addr=0x5
    libvirt-legacy/qemu-ns.x86_64-4.0.0.args: -unknown parameter
    libvirt/net-many-models.x86_64-latest.args: -device {"driver":"idontexist","netdev":"hostnet0","id":"net0","mac":"00:11:22:33:44:55","bus":"pci.0","addr":"0x2"}
    libvirt/net-many-models.x86_64-latest.args: -device {"driver":"netfront","netdev":"hostnet2","id":"net2","mac":"00:11:22:33:44:57","bus":"pci.0","addr":"0x4"}
    libvirt/qemu-ns-alt.x86_64-latest.args: -unknown parameter
    libvirt/qemu-ns.x86_64-latest.args: -unknown parameter
    other/avocado-vt_RunQemuUnittests-rst_187.args: -device testdev,chardev=testlog
    other/avocado-vt_RunQemuUnittests-rst_285.args: -device testdev,chardev=testlog
    other/readconfig_incus_066.cfg: -[object1] key1=value1,key2=value2
    other/readconfig_incus_066.cfg: -object id=2,key3=value3
    other/readconfig_incus_066.cfg: -object id=3,key4=value4
    other/readconfig_incus_066.cfg: -object id=2,key5=value5
    other/readconfig_incus_066.cfg: -[object1] key6=value6
    other/readconfig_incus_068.cfg: -object id=2,key3=value3
    other/readconfig_incus_068.cfg: -object id=3,key4=value4
    other/readconfig_incus_068.cfg: -object id=2,key5=value5
    other/readconfig_incus_077.cfg: -object id=3,key4= value4 ,key5=value5
    other/readconfig_incus_077.cfg: -object id=2,key3=value3
    """

  static func describe(_ file: some StringProtocol) throws -> MachineDescription? {
    guard let text = CorpusTests.contents(CorpusTests.corpus + "/" + file) else { return nil }
    let line = try CommandLine(reading: text, subject: String(file))
    return MachineDescription(line, isPart: line.program.isEmpty)
  }

  static var isCorpusThere: Bool { !CorpusTests.commandLineFiles(below: CorpusTests.corpus).isEmpty }

  @Test(.enabled(if: isCorpusThere, "no corpus: set MOULT_CORPUS")) func everyKindIsCounted() throws {
    for line in Self.counts.split(separator: "\n") {
      let parts = line.split(separator: ": ")
      let file = String(parts[0])
      var expected: [String: Int] = [:]
      for entry in parts[1].split(separator: ", ") where entry != "none" {
        let words = entry.split(separator: " ")
        expected[String(words[0])] = Int(words[1])
      }
      let description = try #require(try Self.describe(file), "\(file) is not in the corpus")
      var found: [String: Int] = [:]
      for binding in description.bindings { found[binding.kind.rawValue, default: 0] += 1 }
      #expect(found == expected, "\(file)")
    }
  }

  @Test(.enabled(if: isCorpusThere, "no corpus: set MOULT_CORPUS")) func everyBindingIsListed() throws {
    var expected: [(file: String, bindings: [String])] = []
    for line in Self.inventories.split(separator: "\n") {
      if line.hasPrefix(" ") {
        expected[expected.count - 1].bindings.append(String(line.drop { $0 == " " }))
      } else {
        expected.append((String(line), []))
      }
    }
    for (file, bindings) in expected {
      let description = try #require(try Self.describe(file), "\(file) is not in the corpus")
      let found = description.bindings.map { "\($0.kind.rawValue) \($0.role) \($0.address) \($0.handover)" }
      #expect(found.sorted() == bindings.sorted(), "\(file)")
    }
  }

  @Test(.enabled(if: isCorpusThere, "no corpus: set MOULT_CORPUS")) func onlyWhatNoQEMUHasIsUnknown() throws {
    var found: [String] = []
    for path in CorpusTests.commandLineFiles(below: CorpusTests.corpus) {
      let file = path.dropFirst(CorpusTests.corpus.count + 1)
      let description = try #require(try Self.describe(file))
      for option in description.unknown {
        #expect(description.blockers.contains { $0.option == option }, "\(file)")
        found.append("\(file): \(option)")
      }
      // Whatever is refused says so, with a way out.
      for binding in description.bindings where binding.handover == .refuse {
        #expect(description.blockers.contains { $0.reason == binding.why && !$0.wayOut.isEmpty }, "\(file): \(binding)")
      }
    }
    #expect(found == Self.unknown.split(separator: "\n").map(String.init))
  }
}

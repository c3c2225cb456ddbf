import Glibc
import Kernel

/// Updates of the host itself that only a reboot brings into use.
enum HostUpdates {
  /// Kernel and microcode: they concern every VM.
  static func pending() throws(Failure) -> [PendingUpdate] {
    [try kernel(), try microcode()].compactMap { $0 }
  }

  // MARK: Kernel

  private static func kernel() throws(Failure) -> PendingUpdate? {
    let release = try line("/proc/sys/kernel/osrelease") ?? ""
    let image = "linux-image-"
    let packages = try PackageDatabase.installed { $0.hasPrefix(image) && !$0.contains(":") }
    var releases = try Files.namesIfPresent("/boot").compactMap { $0.hasPrefix("vmlinuz-") ? String($0.dropFirst("vmlinuz-".count)) : nil }
    // Where /boot has another layout, the kernel lies beside its modules.
    for name in try Files.namesIfPresent("/lib/modules") where try Files.statusIfPresent("/lib/modules/\(name)/vmlinuz") != nil {
      releases.append(name)
    }
    return kernel(
      release: release, banner: try Files.readText("/proc/version"), releases: releases,
      packages: Dictionary(packages.map { (String($0.key.dropFirst(image.count)), $0.value) }) { first, _ in first })
  }

  /// - Parameters:
  ///   - release: of the running kernel, as uname(2) has it.
  ///   - banner: /proc/version, in which Debian puts the package's version.
  ///   - releases: of the kernels that can be booted.
  ///   - packages: release → version of the package that has it. Meta packages (`amd64`) are passed over.
  static func kernel(release: String, banner: String, releases: [String], packages: [String: String]) -> PendingUpdate? {
    // Rescue images, `vmlinuz-linux` and meta packages have no release in their name.
    let bootable = Set(releases + packages.keys).filter { $0.first?.isNumber ?? false && $0.contains(".") }
    func update(_ installed: String, _ package: String?, _ running: String) -> PendingUpdate {
      PendingUpdate(what: "kernel", package: package, running: running, installed: installed, resolution: .reboot)
    }
    if let newest = bootable.max(by: { PackageVersion.isLess(numbers($0), numbers($1)) }),
      PackageVersion.isLess(numbers(release), numbers(newest))
    {
      return update(newest, packages[newest].map { _ in "linux-image-\(newest)" }, release)
    }
    // The same release built anew: only the package's version has changed.
    guard let installed = packages[release] else { return nil }
    let words = banner.split(whereSeparator: { " ()\n".contains($0) })
    guard let version = words.lazy.filter({ $0.contains("-") && $0.contains(".") && $0.first?.isNumber ?? false }).last(where: { $0 != release }),
      sameUpstream(String(version), installed), PackageVersion.isLess(String(version), installed)
    else { return nil }
    return update("\(release) (\(installed))", "linux-image-\(release)", "\(release) (\(version))")
  }

  /// `6.1.0-18-cloud-amd64` is `6.1.0-18`: flavours are no order.
  private static func numbers(_ release: String) -> String {
    String(release.prefix { $0.isNumber || ".-_".contains($0) })
  }

  /// Whether a word of the banner can be a version of that package at all: the first number is the same.
  private static func sameUpstream(_ a: String, _ b: String) -> Bool {
    a.prefix { $0.isNumber } == b.prefix { $0.isNumber }
  }

  // MARK: KVM

  /// KVM's modules, which concern the VMs that use KVM.
  static func virtualization() throws(Failure) -> PendingUpdate? {
    let release = try line("/proc/sys/kernel/osrelease") ?? ""
    let base = "/lib/modules/\(release)"
    guard let index = try Files.statusIfPresent(base + "/modules.dep").map({ _ in base + "/modules.dep" }) else { return nil }
    let files = try Files.readText(index).split(separator: "\n").compactMap { $0.split(separator: ":").first.map(String.init) }
    for module in ["kvm", "kvm_intel", "kvm_amd"] {
      // Built into the kernel, or another processor's: no source version of its own.
      guard let running = try line("/sys/module/\(module)/srcversion") else { continue }
      let name = module == "kvm" ? "kvm" : String(module.map { $0 == "_" ? "-" : $0 })
      guard let file = files.first(where: { Paths.base($0).hasPrefix(name + ".ko") }) else { continue }
      let path = file.hasPrefix("/") ? file : base + "/" + file
      guard let installed = try sourceVersion(path), installed != running else { continue }
      return PendingUpdate(
        what: "KVM module \(module)", package: try PackageDatabase.owners(of: [path])[path]?.name,
        running: running, installed: installed, resolution: .reboot)
    }
    return nil
  }

  /// Of a module on disk; a compressed one is read by modinfo(8), nil if there is none.
  private static func sourceVersion(_ path: String) throws(Failure) -> String? {
    if path.hasSuffix(".ko") { return ELF.moduleInfo("srcversion", in: try Files.read(path)) }
    guard try Files.statusIfPresent("/sbin/modinfo") != nil else { return nil }
    return try Subprocess.output(of: "/sbin/modinfo", ["-F", "srcversion", path]).trimmingWhitespace
  }

  // MARK: Microcode

  private static func microcode() throws(Failure) -> PendingUpdate? {
    guard let processor = Processor(cpuinfo: try Files.readText("/proc/cpuinfo")), let running = processor.microcode,
      !processor.isVirtual
    else { return nil }
    var newest: Microcode?
    let flags = try line("/sys/devices/system/cpu/cpu0/microcode/processor_flags")
      .flatMap { UInt32($0.hasPrefix("0x") ? String($0.dropFirst(2)) : $0, radix: 16) }
    for path in processor.microcodeFiles {
      guard try Files.statusIfPresent(path) != nil else { continue }
      let bytes = try Files.read(path)
      let found = processor.isIntel
        ? Microcode.intel(in: bytes, signature: processor.signature, flags: flags)
        : Microcode.amd(in: bytes, signature: processor.signature)
      if let found, found.revision > newest?.revision ?? 0 { newest = found }
    }
    guard let newest, newest.revision > running else { return nil }
    return PendingUpdate(
      what: "microcode", package: processor.isIntel ? "intel-microcode" : "amd64-microcode",
      running: "0x" + String(running, radix: 16),
      installed: "0x" + String(newest.revision, radix: 16) + (newest.date.map { " (\($0))" } ?? ""), resolution: .reboot)
  }

  private static func line(_ path: String) throws(Failure) -> String? {
    try Files.statusIfPresent(path) == nil ? nil : try Files.readText(path).trimmingWhitespace
  }
}

extension Files {
  /// The names in a directory; none if it is not there.
  static func namesIfPresent(_ path: String) throws(Failure) -> [String] {
    try statusIfPresent(path) == nil ? [] : try names(in: path)
  }
}

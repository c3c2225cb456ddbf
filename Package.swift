// swift-tools-version: 6.2
import PackageDescription

let package = Package(
  name: "moult",
  products: [
    .executable(name: "moult", targets: ["moult"])
  ],
  dependencies: [
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
    .package(url: "https://github.com/apple/swift-system", from: "1.8.1"),
    .package(url: "https://github.com/LebJe/TOMLKit", from: "0.6.0"),
  ],
  targets: [
    // System calls Swift's Glibc lacks, and the child's stage between clone and exec. Nothing else.
    .target(name: "CKernel"),
    .systemLibrary(name: "CLibmount", pkgConfig: "mount", providers: [.apt(["libmount-dev"])]),
    // Typed Swift over the kernel's interfaces. Knows nothing of QEMU.
    .target(
      name: "Kernel",
      dependencies: ["CKernel", "CLibmount", .product(name: "SystemPackage", package: "swift-system")]),
    // A profile and a command become a plan (pure), the plan becomes a process.
    .target(name: "Sandbox", dependencies: ["Kernel", "TOMLKit"]),
    // Command lines, bindings, QMP. Knows nothing of namespaces.
    .target(name: "QEMU", dependencies: ["Kernel"]),
    // The upgrade: observation, plan, steps, executor. The only target that knows both worlds.
    .target(name: "Upgrade", dependencies: ["Kernel", "Sandbox", "QEMU"]),
    .executableTarget(
      name: "moult",
      dependencies: [
        "Kernel", "Sandbox", "QEMU", "Upgrade",
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
      ]),
    // Boots real guests on real QEMUs; used by the end-to-end tests and by the benchmark.
    .target(name: "Lab", dependencies: ["Kernel", "CLab"], path: "Tests/Lab", exclude: ["guest"]),
    // ptrace(2) for the crash suite.
    .target(name: "CLab", path: "Tests/CLab"),
    // The crash matrix and the soak: too long for a test run.
    .executableTarget(name: "moult-crash", dependencies: ["Lab"], path: "Tests/Crash"),
    .executableTarget(name: "moult-bench", dependencies: ["Lab", "Kernel", "QEMU"], path: "Benchmarks/moult-bench"),
    // What must hold for every input of a parser: replayed by the unit tests, searched by `make fuzz`.
    .target(name: "FuzzTargets", dependencies: ["QEMU"], path: "Tests/Fuzz/Targets"),
    // A process that the tests of descriptor exchange stop in the middle of what it does.
    .executableTarget(name: "tracee", path: "Tests/Tracee"),
    .testTarget(name: "KernelTests", dependencies: ["Kernel", "tracee"], path: "Tests/Kernel"),
    .testTarget(name: "SandboxTests", dependencies: ["Sandbox"], path: "Tests/Sandbox"),
    .testTarget(name: "QEMUTests", dependencies: ["QEMU", "FuzzTargets"], path: "Tests/QEMU"),
    .testTarget(name: "UpgradeTests", dependencies: ["Kernel", "Sandbox", "QEMU", "Upgrade"], path: "Tests/Upgrade"),
    .testTarget(name: "EndToEndTests", dependencies: ["Lab"], path: "Tests/EndToEnd"),
  ]
)

// `make fuzz`: it links with `--sanitize fuzzer` only, and libFuzzer has the main function.
if Context.environment["MOULT_FUZZ"] != nil {
  package.targets.append(
    .executableTarget(
      name: "fuzz", dependencies: ["FuzzTargets"], path: "Tests/Fuzz/Driver",
      swiftSettings: [.unsafeFlags(["-parse-as-library"])]))
}

// swift-tools-version: 6.2
// The modules and who may import whom: docs/ARCHITECTURE.md. Tests/PackageTests keeps this file to that table.
import PackageDescription

/// Swift 6 mode, warnings as errors: for every target of ours.
let strict: [SwiftSetting] = [.swiftLanguageMode(.v6), .treatAllWarnings(as: .error)]
/// For the data path: the static exclusivity checks stay, the run-time ones cost 4 to 8 ns per access.
let hot: [SwiftSetting] = strict + [.unsafeFlags(["-enforce-exclusivity=unchecked"])]

let package = Package(
  name: "gatewayd",
  products: [
    .executable(name: "gatewayd", targets: ["gatewayd"])
  ],
  dependencies: [
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2")
  ],
  targets: [
    // C shims: only what Swift cannot import.
    .target(name: "CChecksum"),
    .target(name: "CSystem"),
    .systemLibrary(name: "CURing", pkgConfig: "liburing", providers: [.apt(["liburing-dev"])]),
    .systemLibrary(name: "CUdev", pkgConfig: "libudev", providers: [.apt(["libudev-dev"])]),
    .systemLibrary(name: "CNettle", pkgConfig: "nettle", providers: [.apt(["nettle-dev"])]),
    .systemLibrary(name: "CHogweed", pkgConfig: "hogweed", providers: [.apt(["nettle-dev"])]),
    .systemLibrary(name: "CBlkid", pkgConfig: "blkid", providers: [.apt(["libblkid-dev"])]),
    .systemLibrary(name: "CVerbs", pkgConfig: "librdmacm", providers: [.apt(["libibverbs-dev", "librdmacm-dev"])]),

    // Pure cores.
    .target(name: "Wire", dependencies: ["CChecksum"], swiftSettings: hot),
    .target(name: "SCSI", dependencies: ["Wire"], swiftSettings: hot),
    .target(
      name: "ISCSI", dependencies: ["Wire", "CNettle"], swiftSettings: hot),
    .target(name: "HA", dependencies: ["Wire", "CNettle"], swiftSettings: strict),

    // Parts that touch the machine.
    .target(name: "Reactor", dependencies: ["CURing", "CSystem"], swiftSettings: hot),
    .target(name: "Privileged", dependencies: ["Reactor", "CSystem"], swiftSettings: strict),
    .target(
      name: "Storage", dependencies: ["Wire", "SCSI", "Reactor", "Privileged", "CSystem"], swiftSettings: hot),
    .target(
      name: "Datamover", dependencies: ["Wire", "ISCSI", "Reactor", "CSystem", "CVerbs"], swiftSettings: hot),
    .target(name: "Discovery", dependencies: ["CUdev", "CBlkid", "CSystem"], swiftSettings: strict),

    // Composition.
    .target(
      name: "Gateway",
      dependencies: [
        "Wire", "SCSI", "ISCSI", "HA", "Reactor", "Privileged", "Storage", "Datamover", "Discovery", "CSystem",
      ],
      swiftSettings: hot),
    .target(name: "Appliance", dependencies: ["Gateway", "Discovery", "CHogweed"], swiftSettings: strict),
    .executableTarget(
      name: "gatewayd",
      dependencies: [
        "Gateway", "Appliance", "Discovery", "CSystem",
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
      ],
      swiftSettings: strict),

    // What several test targets need; no module of Sources may depend on it.
    .target(name: "TestSupport", path: "Tests/TestSupport", swiftSettings: strict),
    // The pair in a world without real time, machines or disks (./dev sim).
    .target(
      name: "PairWorld", dependencies: ["HA", "Storage", "SCSI", "Wire", "TestSupport"], path: "Tests/simulation/World",
      swiftSettings: strict),
    .executableTarget(
      name: "PairSimulation", dependencies: ["PairWorld"], path: "Tests/simulation/Run", swiftSettings: strict),
    .testTarget(name: "WireTests", dependencies: ["Wire", "CChecksum", "TestSupport"], swiftSettings: strict),
    .testTarget(name: "SCSITests", dependencies: ["SCSI", "Wire", "TestSupport"], swiftSettings: strict),
    .testTarget(name: "ISCSITests", dependencies: ["ISCSI", "Wire", "TestSupport"], swiftSettings: strict),
    .testTarget(
      name: "HATests", dependencies: ["HA", "PairWorld", "Wire", "TestSupport"], exclude: ["transcripts"],
      swiftSettings: strict),
    .testTarget(
      name: "StorageTests",
      dependencies: ["Storage", "SCSI", "Reactor", "Privileged", "Wire", "CSystem", "TestSupport"],
      swiftSettings: strict),
    .testTarget(
      name: "ReactorTests", dependencies: ["Reactor", "CURing", "CSystem", "TestSupport"], swiftSettings: strict),
    .testTarget(name: "PrivilegedTests", dependencies: ["Privileged", "CSystem"], swiftSettings: strict),
    .testTarget(
      name: "DatamoverTests", dependencies: ["Datamover", "Reactor", "ISCSI", "Wire", "CSystem", "TestSupport"],
      swiftSettings: strict),
    .testTarget(name: "DiscoveryTests", dependencies: ["Discovery", "TestSupport"], swiftSettings: strict),
    .testTarget(name: "ApplianceTests", dependencies: ["Appliance", "Gateway", "CHogweed"], swiftSettings: strict),
    .testTarget(
      name: "GatewayTests",
      dependencies: [
        "Gateway", "ISCSI", "SCSI", "HA", "Storage", "Reactor", "Privileged", "Datamover", "Discovery", "Wire",
        "CSystem", "TestSupport",
      ],
      swiftSettings: strict),
  ]
)

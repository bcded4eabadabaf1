// swift-tools-version: 6.2
// The parsers of the gateway under libFuzzer. A package of its own: the coverage instrumentation must not reach the
// product, and the product's manifest should not know of it. The sources are links to the gateway's own.
import PackageDescription

/// `-sanitize-coverage` is what libFuzzer steers by; in release, so that what runs is what ships: its traps stay on.
let instrumented: [SwiftSetting] = [
  .swiftLanguageMode(.v6), .unsafeFlags(["-sanitize=fuzzer", "-parse-as-library"]),
]
/// Of these, what is read is no business of other modules.
let testable = instrumented + [.unsafeFlags(["-enable-testing"])]
let runtime = Context.environment["GATEWAYD_FUZZER_RUNTIME"] ?? "libclang_rt.fuzzer_no_main-x86_64.a"

let package = Package(
  name: "fuzz",
  targets: [
    .target(name: "CFuzzer"),
    .target(name: "CChecksum"),
    .target(name: "CSystem"),
    .systemLibrary(name: "CURing", pkgConfig: "liburing"),
    .systemLibrary(name: "CNettle", pkgConfig: "nettle"),
    .target(name: "Wire", dependencies: ["CChecksum"], swiftSettings: instrumented),
    .target(name: "SCSI", dependencies: ["Wire"], swiftSettings: instrumented),
    .target(name: "ISCSI", dependencies: ["Wire", "CNettle"], swiftSettings: instrumented),
    .target(name: "HA", dependencies: ["Wire", "CNettle"], swiftSettings: instrumented),
    // The part of Gateway that reads settings, requests and messages, without all that Gateway stands on.
    .target(
      name: "Gateway", dependencies: ["Discovery", "Wire", "SCSI", "HA", "CSystem"], swiftSettings: testable),
    // What it needs of Discovery: addresses.
    .target(name: "Discovery", swiftSettings: instrumented),
    // The parts of Storage that read labels and what disks say of their reservations, likewise.
    .target(name: "StorageLabel", dependencies: ["Wire", "SCSI"], swiftSettings: testable),
    .target(name: "Reactor", dependencies: ["CURing", "CSystem"], swiftSettings: instrumented),
    // Datamover without the verbs and what a socket needs.
    .target(name: "Datamover", dependencies: ["Wire", "ISCSI", "Reactor"], swiftSettings: instrumented),
    .executableTarget(
      name: "Fuzz",
      dependencies: [
        "CFuzzer", "Wire", "SCSI", "ISCSI", "HA", "Reactor", "Gateway", "StorageLabel", "Datamover",
      ],
      swiftSettings: instrumented,
      linkerSettings: [.unsafeFlags([runtime]), .linkedLibrary("stdc++"), .linkedLibrary("m")]),
  ]
)

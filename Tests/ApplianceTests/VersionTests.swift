import Testing

@testable import Appliance

@Suite struct VersionTests {
  @Test(
    "Versions are in the boot loader's order (UAPI.10)",
    arguments: [
      ("1", "2"), ("9", "10"), ("1.9", "1.10"), ("1.0", "1.0.1"), ("1.0~rc1", "1.0"), ("1.0~rc1", "1.0~rc2"),
      ("1.0", "1.0-1"), ("1.0-1", "1.0.1"), ("0.1.0-202601010000", "0.1.0-202601020000"),
      ("0.1.0-202612312359", "0.2.0"),
      ("1a", "1b"), ("1A", "1a"), ("007", "8"),
    ])
  func order(older: String, newer: String) {
    #expect(ImageVersion.isOlder(older, than: newer))
    #expect(!ImageVersion.isOlder(newer, than: older))
  }

  @Test("A version is not older than itself", arguments: ["1", "0.1.0-2026", "1.0~rc1", "1.00"])
  func same(version: String) { #expect(!ImageVersion.isOlder(version, than: version)) }

  @Test(
    "A version is part of a file's name and of a count of tries, so it has few characters",
    arguments: [
      "", "v1", "1+2", "1/2", "1 2", "1_2", "..", "-1", "1é", String(repeating: "1", count: 65),
    ])
  func invalid(version: String) { #expect(!ImageVersion.isValid(version)) }

  @Test("Usual versions are valid", arguments: ["1", "0.1.0-202611262240", "1.0~rc1"])
  func valid(version: String) { #expect(ImageVersion.isValid(version)) }
}

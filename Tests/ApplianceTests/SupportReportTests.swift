import Testing

@testable import Appliance

@Suite struct SupportReportTests {
  @Test("The report reads no settings and no keys")
  func noSecrets() {
    let words = SupportReport.sections(program: "gatewayd").flatMap { $0 }
    for word in ["gatewayd.toml", "/etc/gatewayd", "settings", "authorized_keys", "credentials", "host-key"] {
      #expect(!words.contains { $0.contains(word) })
    }
  }
}

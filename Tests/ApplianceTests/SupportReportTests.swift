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

  @Test("Credentials on the kernel's command line are left out, with all that follows them")
  func credentials() {
    let left = "systemd.set_credential (left out, and what follows it)"
    for line in [
      "quiet \"systemd.set_credential=gatewayd.toml:secret = 's'\" panic=10",
      "quiet systemd.set_credential_binary=gatewayd.toml:c2VjcmV0 panic=10",
    ] {
      #expect(SupportReport.redacted("a  b\n\(line)\nc\n") == "a  b\nquiet \(left)\nc\n")
    }
    #expect(SupportReport.redacted("no such thing\n\n") == "no such thing\n\n")
  }
}

import Testing

@testable import ISCSI

@Suite("Names (RFC 7143 §4.2.7)")
struct ISCSINameTests {
  @Test(
    "iqn., eui. and naa. names are taken (§4.2.7.4 to §4.2.7.6)",
    arguments: [
      "iqn.1993-08.org.debian:01:abcdef", "iqn.2007-10.com.github:sahlberg:libiscsi:iscsi-test-2",
      "iqn.1991-05.com.microsoft:my_host", "iqn.2008-11.org.linux-kvm", "eui.02004567a425678d",
      "naa.52004567ba64678d", "naa.62004567ba64678d0123456789abcdef", "iqn.2024-01.org.example:büro",
    ])
  func valid(_ text: String) { #expect(ISCSIName(text)?.text == text) }

  @Test(
    "Anything else is not",
    arguments: [
      "", "iqn.", "iqn.2024-13.org.example", "iqn.2024-00.org.example", "iqn.24-01.org.example", "iqn.2024-01.",
      "iqn.2024-01org", "iqn.2024-01.org example", "iqn.2024-01.org.example,1", "iqn.2024-01.org\u{1}",
      "eui.02004567a425678", "eui.02004567a425678dd", "eui.02004567a425678g", "naa.5200", "wwn.2024-01.org",
    ])
  func invalid(_ text: String) { #expect(ISCSIName(text) == nil) }

  @Test("A name has at most 223 bytes (§4.2.7.1)")
  func length() {
    let stem = "iqn.2024-01.org.example:"
    #expect(ISCSIName(stem + String(repeating: "a", count: 223 - stem.utf8.count)) != nil)
    #expect(ISCSIName(stem + String(repeating: "a", count: 224 - stem.utf8.count)) == nil)
  }

  @Test("Names that differ in case are one name (RFC 3722)")
  func normalised() {
    #expect(ISCSIName("IQN.2024-01.Org.Example:Disk") == ISCSIName("iqn.2024-01.org.example:disk"))
    #expect(ISCSIName("EUI.02004567A425678D")?.text == "eui.02004567a425678d")
  }
}

@Suite("Access rules")
struct AccessRulesTests {
  private let name = ISCSIName("iqn.2024-01.org.example:host1")!

  @Test("A star is any run of characters, a question mark one, case does not count")
  func patterns() {
    for pattern in ["*", "iqn.*", "*host1", "*host?", "IQN.2024-01.ORG.EXAMPLE:HOST1", "iqn.*:h*t1*", "**1", "*e*e*1"] {
      #expect(InitiatorPattern(pattern).matches(name), "\(pattern)")
    }
    for pattern in ["", "?", "iqn.*:host", "*host1?", "iqn.2024-01.org.example:host2", "*z*", "host1"] {
      #expect(!InitiatorPattern(pattern).matches(name), "\(pattern)")
    }
  }

  @Test("A pattern of many stars costs no more than name times pattern")
  func patternCost() {
    let long = ISCSIName("iqn.2024-01." + String(repeating: "a", count: 211))!
    let pattern = InitiatorPattern(String(repeating: "*a", count: 100) + "b")
    var isMatch = true
    let time = ContinuousClock().measure { isMatch = pattern.matches(long) }
    #expect(!isMatch)
    #expect(time < .seconds(1))
  }

  @Test("The first rule that matches decides, and the rest is denied")
  func firstMatch() {
    let rules = AccessRules(rules: [
      .init(initiator: "*:host1", decision: .allowed(chap: nil, luns: [1, 2])),
      .init(initiator: "iqn.*:host2", decision: .denied),
      .init(initiator: "iqn.*host*", decision: .allowed(chap: nil, luns: nil)),
    ])
    #expect(rules.decide(initiatorName: name) == .allowed(chap: nil, luns: [1, 2]))
    #expect(rules.decide(initiatorName: ISCSIName("iqn.2024-01.org.example:host2")!) == .denied)
    #expect(rules.decide(initiatorName: ISCSIName("iqn.2024-01.org.example:host3")!) == .allowed(chap: nil, luns: nil))
    #expect(rules.decide(initiatorName: ISCSIName("iqn.2024-01.org.example:other")!) == .denied)
    #expect(AccessRules.open.decide(initiatorName: name) == .allowed(chap: nil, luns: nil))
  }

  @Test("A secret shows in no description")
  func redacted() {
    let credential = CHAPCredential(name: "alice", secret: "open sesame 12")
    let rules = AccessRules(
      rules: [.init(initiator: "*", decision: .allowed(chap: CHAPRequirement(initiators: [credential]), luns: nil))],
      discovery: CHAPRequirement(initiators: [], target: credential))
    var dumped = ""
    dump(rules, to: &dumped)
    let machine = LoginMachine(
      configuration: TargetConfiguration(targetName: name, access: rules), transport: .tcp, localPortal: "")
    dump(machine, to: &dumped)
    for text in ["\(credential)", String(reflecting: credential), "\(rules)", String(reflecting: rules), dumped] {
      #expect(!text.contains("sesame"))
      #expect(!text.contains("111, 112, 101, 110"))  // "open" as bytes
      #expect(!text.contains("- 111\n"))
      #expect(text.contains("alice"))
    }
    #expect(credential.hasLongSecret)
    #expect(!CHAPCredential(name: "a", secret: "eleven byte").hasLongSecret)
  }
}

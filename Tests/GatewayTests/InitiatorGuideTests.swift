import FoundationEssentials
import Testing

@testable import Gateway

@Suite("What initiators are told to set")
struct InitiatorGuideTests {
  static let pair = InitiatorGuide.Target(
    name: "iqn.2026-01.example:gateway", portals: ["10.0.0.1:3260", InitiatorGuide.otherNode],
    servicePortals: ["10.0.0.5:3260"], isPair: true)

  @Test("Every block can be pasted as a whole: what is no command is a comment", arguments: InitiatorKind.allCases)
  func pasted(kind: InitiatorKind) {
    let guide = InitiatorGuide(kind, Self.pair)
    let lines = guide.text.dropLast().split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
    #expect(lines.filter { !$0.hasPrefix("#") } == guide.commands)
    #expect(lines.count > guide.commands.count + 2 && !lines.contains(""))
    #expect(lines.allSatisfy { $0.count <= 200 })
    #expect(guide.commands.contains { $0.contains(Self.pair.name) } || kind == .vmware)
  }

  @Test("Each stall says whether it was measured, added up or is not known")
  func stalls() {
    let stalls = InitiatorGuide(.linux, Self.pair).stalls.map(\.text)
    #expect(stalls.contains("kill -9 of the active: 5.3 to 7.1 s (measured)"))
    #expect(stalls.contains("power-off, SIGSTOP, or its network cut: 15.5 to 16.5 s (measured)"))
    #expect(InitiatorGuide.linuxStalls(.hasty).allSatisfy { $0.basis == .timers })
    #expect(InitiatorGuide.linuxStalls(.hasty).map(\.stall).prefix(3) == ["3 s", "3 s", "up to 7 s"])
    let service = InitiatorGuide(.linuxServiceAddress, Self.pair)
    #expect(service.commands.first == "record='-m node -T iqn.2026-01.example:gateway -p 10.0.0.5:3260 -I default'")
    #expect(service.stalls.map(\.basis).allSatisfy { $0 == .timers })
  }

  @Test("A gateway alone has one portal, and stalls of its own")
  func alone() {
    let target = InitiatorGuide.Target(name: "iqn.2026-01.example:a", portals: ["[fd00::1]:3260"], isPair: false)
    let linux = InitiatorGuide(.linux, target)
    #expect(!linux.text.contains("OTHER-NODE") && linux.stalls.contains { $0.fault == "restart of gatewayd" })
    let windows = InitiatorGuide(.windows, target).commands
    #expect(windows.contains("New-IscsiTargetPortal -TargetPortalAddress 'fd00::1' -TargetPortalPortNumber 3260"))
    let libiscsi = InitiatorGuide(.libiscsi, target)
    #expect(libiscsi.commands.contains("iscsi-inq 'iscsi://[fd00::1]:3260/iqn.2026-01.example:a/0'"))
    #expect(InitiatorGuide(.linuxServiceAddress, target).notes.count == 1)
  }

  @Test("docs/INITIATORS.md has the same blocks and the same stalls")
  func documentation() throws {
    let root = #filePath.split(separator: "/").dropLast(3).joined(separator: "/")
    let bytes = try Data(contentsOf: URL(filePath: "/\(root)/docs/INITIATORS.md"))
    let document = String(decoding: bytes, as: UTF8.self)
    for kind in InitiatorKind.allCases {
      let guide = InitiatorGuide(kind, Self.pair)
      let block = guide.commands.map { "    \($0)\n" }.joined()
      #expect(document.contains(block), "\(kind.rawValue):\n\(block)")
      for stall in guide.stalls {
        let row = "| \(kind.rawValue) | \(stall.fault) | \(stall.stall) | \(stall.basis.rawValue) |\n"
        #expect(document.contains(row), "\(row)")
      }
    }
    for stall in InitiatorGuide.linuxStalls(.hasty) {
      #expect(document.contains("| linux, 2 s | \(stall.fault) | \(stall.stall) | \(stall.basis.rawValue) |\n"))
    }
  }
}

@Suite("Doctor on the pair")
struct PairChecksTests {
  private func checks(_ change: (inout PairReport) -> Void = { _ in }) -> [DoctorCheck] {
    var report = madePairReport()
    change(&report)
    return PairChecks.all(report)
  }

  @Test("A pair at rest with two networks and three deciding disks has nothing to be told")
  func rest() {
    #expect(checks().allSatisfy { $0.outcome == .fine }, "\(checks())")
    #expect(checks().contains { $0.finding == "up on 2 networks: eth0/4, eth1/4" })
    #expect(checks().contains { $0.finding == "the active was silent: 2; the last one 60 s ago took 1.2 s" })
  }

  @Test("One network, also by both families, is worth a note; none at all is a problem")
  func links() throws {
    let one = checks { $0.links?.links[1].name = "eth0/6" }.first { $0.name == "pair links" }
    #expect(one?.outcome == .note && one?.advice?.contains("second network") == true)
    let none = checks { report in
      report.links?.links[0].condition = "one way"
      report.links?.links[1].condition = "never heard"
    }.first { $0.name == "pair links" }
    #expect(none?.outcome == .problem && none?.finding.contains("eth0/4 one way, eth1/4 never heard") == true)
    // A node that is alone cannot have any.
    let alone = checks { report in
      report.peer = nil
      report.links?.links = []
    }
    #expect(!alone.contains { $0.name == "pair links" })
    #expect(alone.contains { $0.name == "pair" && $0.outcome == .note })
  }

  @Test("One disk that decides, disks of others and disks that cannot be fenced are told with what to do")
  func disks() {
    let one = checks { report in
      report.disks[1].isArbiter = false
      report.disks[2].isArbiter = false
    }.first { $0.name == "pair disks" }
    #expect(one?.outcome == .note && one?.finding.hasPrefix("one disk decides (/dev/sda)") == true)
    let foreign = checks { $0.disks[2].state = "foreign" }
    #expect(foreign.contains { $0.outcome == .problem && $0.finding.hasPrefix("LUN 2 (/dev/sdc) is not served") })
    let unfenced = checks { $0.unfencedDisks = [.init(lun: 5, path: "/dev/vdb")] }.first { $0.name == "fence" }
    #expect(unfenced?.outcome == .note && unfenced?.finding.hasSuffix("LUN 5 (/dev/vdb)") == true)
    let unguarded = checks { $0.disks[1].isUnguarded = true }.first { $0.name == "fence" }
    #expect(unguarded?.outcome == .problem && unguarded?.finding.hasSuffix("LUN 1 (/dev/sdb)") == true)
    // Also where there is no pair for want of one that can.
    var off = PairReport.off("no disk")
    off.unfencedDisks = [.init(lun: 5, path: "/dev/vdb")]
    #expect(PairChecks.all(off).map(\.name) == ["pair", "fence"])
  }

  @Test("A service address that is where it should not be, or is not where it should, is a problem")
  func addresses() {
    #expect(checks { $0.serviceAddresses[0].interface = nil }.contains { $0.outcome == .problem })
    let passive = checks { report in
      report.role = "passive"
      report.peer?.role = "active"
    }
    #expect(passive.first { $0.name == "service address" }?.outcome == .problem)
    #expect(checks { $0.serviceAddresses[0].problem = "no interface" }.contains { $0.finding == "no interface" })
  }

  @Test("Hold, late beats, a node that is gone, refused ones and copied machines are told")
  func others() {
    func check(_ name: String, _ change: (inout PairReport) -> Void) -> DoctorCheck? {
      checks(change).first { $0.name == name && $0.outcome != .fine }
    }
    #expect(check("takeovers") { $0.hold = "by an operator" }?.advice == "gatewayd pair resume")
    #expect(check("timers") { $0.peer?.silenceLimitMilliseconds = 1200 }?.outcome == .note)
    #expect(check("timers") { $0.waitsForSign = true }?.outcome == .problem)
    #expect(check("pair") { $0.peer?.heardMillisecondsAgo = 5000 }?.outcome == .problem)
    #expect(check("pair") { $0.isRefused = true }?.outcome == .problem)
    #expect(check("pair") { $0.stranger = .init(node: "u", name: "c") }?.outcome == .note)
    #expect(check("pair") { $0.role = "recovering" }?.finding.hasSuffix("a change is under way") == true)
    #expect(check("pair messages") { $0.links?.drops.sameNode = 1 }?.outcome == .problem)
  }
}

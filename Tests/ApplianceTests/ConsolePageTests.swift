import Testing

@testable import Appliance
@testable import Gateway

@Suite struct ConsolePageTests {
  private var page: ConsolePage {
    var page = ConsolePage(version: "2", hostName: "gatewayd-1a2b3c")
    page.slots = Slots(files: ["gatewayd-1.efi", "gatewayd-2+2-1.efi"], runningVersion: "2")
    page.bootDisk = "/dev/sda"
    page.addresses = ["eth0 10.0.0.1/24"]
    page.status = StatusReport(
      version: "2", processID: 1, uptimeSeconds: 5, targetName: "iqn.2026-01.example:x",
      portals: [PortalReport(address: "[::]:3260", transport: "tcp", state: "listening")], threads: 1, sessions: 0,
      memory: MemoryReport(arenaBytes: 0, arenaUsedBytes: 0, residentBytes: 0),
      logicalUnits: [
        LogicalUnitReport(
          number: 0, naa: "6", sizeBytes: 1 << 30, blockBytes: 512, path: "/dev/sdb", serial: "1", state: "online")
      ])
    page.disks = [
      DiskReport(
        path: "/dev/sda", model: "", serial: "", sizeBytes: 1 << 30, verdict: .refused,
        reason: "The running system is on it (/efi)."),
      DiskReport(path: "/dev/sdb", model: "", serial: "", sizeBytes: 1 << 30, verdict: .exported, lun: 0),
    ]
    return page
  }

  @Test("The page says version and tries, addresses, target, exports and why each other disk is not exported")
  func everything() {
    #expect(
      page.text == """
        gatewayd 2 on gatewayd-1a2b3c

        Version      2 (on trial, 2 tries left)
        Other        1 (proven)
        Started from /dev/sda
        Addresses    eth0 10.0.0.1/24
        Target       iqn.2026-01.example:x
        Portals      [::]:3260 tcp, listening
        Sessions     0
        Exported     LUN 0 1 GiB /dev/sdb, online
        Not exported /dev/sda refused: The running system is on it (/efi).

        """)
  }

  @Test("What changes all the time does not change the page")
  func stable() {
    var later = page
    later.status?.uptimeSeconds += 60
    later.status?.memory.residentBytes += 1
    later.status?.logicalUnits[0].counters.readBytes += 1
    #expect(later.text == page.text)
  }

  @Test("A node that is not heard any more is not called active")
  func peer() {
    var pair = PairReport.off("")
    pair.isRunning = true
    pair.role = "active"
    pair.peer = PairReport.Peer(
      node: "7c2d", name: "right", role: "passive", epoch: 7, heardMillisecondsAgo: 40, linksBothWays: 2,
      silenceLimitMilliseconds: 600)
    var page = page
    page.pair = pair
    #expect(page.text.contains("this node is active; right is passive, 2 links"))
    page.pair?.peer?.role = "active"
    page.pair?.peer?.heardMillisecondsAgo = 9000
    #expect(page.text.contains("this node is active; right is silent, was active"))
    let silent = page.text
    page.pair?.peer?.heardMillisecondsAgo = 10_000
    #expect(page.text == silent)
  }

  @Test("A daemon that does not answer is told as that")
  func silent() {
    var silent = page
    silent.status = nil
    silent.silence = "nobody there"
    #expect(silent.text.contains("gatewayd does not answer: nobody there"))
  }

  @Test("What a disk or a peer named itself cannot steer the terminal")
  func hostile() {
    var hostile = page
    hostile.disks[0].reason = "\u{1B}[2J"
    #expect(!hostile.text.contains("\u{1B}"))
  }
}

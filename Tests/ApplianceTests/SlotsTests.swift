import Testing

@testable import Appliance

@Suite struct SlotsTests {
  @Test("A file's name tells its version and its tries (systemd-boot(7))")
  func names() {
    #expect(Slots.Slot(file: "gatewayd-1.0.efi")?.triesLeft == nil)
    #expect(Slots.Slot(file: "gatewayd-1.0+3.efi")?.triesLeft == 3)
    #expect(Slots.Slot(file: "gatewayd-1.0-5+2-1.efi")?.version == "1.0-5")
    #expect(Slots.Slot(file: "gatewayd-1.0-5+2-1.efi")?.triesLeft == 2)
    #expect(Slots.Slot(file: "gatewayd-1.0+0-3.efi")?.state == "failed")
    #expect(Slots.Slot(file: "gatewayd-1.0+0.efi")?.state == "put aside")
  }

  @Test(
    "Other files are none of ours",
    arguments: [
      "update.new", "debian.efi", "gatewayd-.efi", "gatewayd-1+x.efi", "gatewayd-1+1+1.efi", "gatewayd-1.efi.bak",
      "gatewayd-1+1-.efi", "gatewayd-1+-1.efi", "gatewayd-1+1-2-3.efi", "gatewayd-1+0--1.efi",
    ])
  func strangers(file: String) { #expect(Slots.Slot(file: file) == nil) }

  @Test("An update removes all but the version that runs, and comes with tries")
  func update() throws {
    let slots = Slots(
      files: ["gatewayd-1.efi", "gatewayd-2.efi", "gatewayd-3+0-3.efi", "other.efi"], runningVersion: "2")
    let change = try slots.installing("4")
    #expect(change.removed == ["gatewayd-1.efi", "gatewayd-3+0-3.efi"])
    #expect(change.added == "gatewayd-4+3.efi")
    #expect(change.renamed == [])
  }

  @Test("An older version is preferred only if the newer is put aside, and left for it if it does not serve")
  func downgrade() throws {
    let change = try Slots(files: ["gatewayd-2.efi"], runningVersion: "2").installing("1")
    #expect(change.renamed == [.init(from: "gatewayd-2.efi", to: "gatewayd-2+0.efi")])
    let tried = Slots(files: ["gatewayd-1+2-1.efi", "gatewayd-2+0.efi"], runningVersion: "1")
    #expect(tried.mayFallBack)
    #expect(try tried.goingBack().renamed == [.init(from: "gatewayd-2+0.efi", to: "gatewayd-2+3.efi")])
    #expect(!Slots(files: ["gatewayd-1+0-3.efi", "gatewayd-2+0-1.efi"], runningVersion: "2").mayFallBack)
  }

  @Test("An update after a way back that was not gone leaves a version that is started when the new one fails")
  func updateAfterRollback() throws {
    let change = try Slots(files: ["gatewayd-1+0-3.efi", "gatewayd-2+0.efi"], runningVersion: "2").installing("3")
    #expect(change.removed == ["gatewayd-1+0-3.efi"] && change.added == "gatewayd-3+3.efi")
    #expect(change.renamed == [.init(from: "gatewayd-2+0.efi", to: "gatewayd-2+3.efi")])
    let older = try Slots(files: ["gatewayd-2+0.efi"], runningVersion: "2").installing("1")
    #expect(older.renamed == [.init(from: "gatewayd-2+0.efi", to: "gatewayd-2+0.efi")])
  }

  @Test("A proven version does not go for an update while the one that runs is on trial")
  func updateOnTrial() throws {
    // Also on its last try, and where it was to be left for the other.
    for name in ["gatewayd-2+2-1.efi", "gatewayd-2+0-3.efi", "gatewayd-2+0.efi"] {
      #expect(throws: Slots.Refusal.self) {
        try Slots(files: ["gatewayd-1.efi", name], runningVersion: "2").installing("3")
      }
    }
    for other in ["gatewayd-1+0-3.efi", "other.efi"] {
      _ = try Slots(files: [other, "gatewayd-2+2-1.efi"], runningVersion: "2").installing("3")
    }
  }

  @Test("The version that runs is not installed over itself, and nothing without a version that runs")
  func refusals() {
    #expect(throws: Slots.Refusal.self) { try Slots(files: ["gatewayd-2.efi"], runningVersion: "2").installing("2") }
    #expect(throws: Slots.Refusal.self) { try Slots(files: ["gatewayd-2.efi"], runningVersion: "1").installing("3") }
  }

  @Test("Going back puts the newer one aside")
  func back() throws {
    let change = try Slots(files: ["gatewayd-1.efi", "gatewayd-2.efi"], runningVersion: "2").goingBack()
    #expect(change.renamed == [.init(from: "gatewayd-2.efi", to: "gatewayd-2+0.efi")])
  }

  @Test("There is no way back to a version that has failed, or that is not there")
  func noWayBack() {
    for files in [["gatewayd-2.efi"], ["gatewayd-2.efi", "gatewayd-3+0-3.efi"]] {
      #expect(throws: Slots.Refusal.self) { try Slots(files: files, runningVersion: "2").goingBack() }
    }
  }

  @Test("A system that does not serve starts another only on trial, and only if there is one that has not failed")
  func fallBack() {
    func may(_ files: [String]) -> Bool { Slots(files: files, runningVersion: "2").mayFallBack }
    #expect(may(["gatewayd-1.efi", "gatewayd-2+2-1.efi"]))
    #expect(may(["gatewayd-1.efi", "gatewayd-2+0-3.efi"]))
    #expect(!may(["gatewayd-1.efi", "gatewayd-2.efi"]))
    #expect(!may(["gatewayd-2+2-1.efi"]))
    #expect(!may(["gatewayd-1+0-3.efi", "gatewayd-2+0-3.efi"]))
  }
}

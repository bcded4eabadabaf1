import TestSupport
import Testing

@testable import SCSI

@Suite("Unit attention conditions")
struct UnitAttentionTests {
  private let testUnitReady: [UInt8] = [0, 0, 0, 0, 0, 0]

  @Test("A pending condition ends the next command with CHECK CONDITION and is cleared by it (SAM-5 §5.14.5)")
  func reportedOnce() throws {
    let bench = try Bench()
    bench.a.raise(.powerOn, lun: nil)
    #expect(bench.send(testUnitReady).answer == .sense(.unitAttention, 0x2900))
    #expect(bench.send(testUnitReady).answer == .good)
    #expect(bench.send(testUnitReady, from: bench.b).answer == .good)
  }

  @Test("Equal conditions coalesce, and the resets are reported first (SAM-5 §5.14.1)")
  func priorities() throws {
    let nexus = try Bench().a
    for attention: UnitAttention in [
      .capacityDataHasChanged, .modeParametersChanged, .capacityDataHasChanged, .powerOn,
    ] {
      nexus.raise(attention, lun: 0)
    }
    #expect(nexus.take(lun: 0) == .powerOn)
    #expect(nexus.take(lun: 0) == .modeParametersChanged)
    #expect(nexus.take(lun: 0) == .capacityDataHasChanged)
    #expect(nexus.take(lun: 0) == nil)
    #expect(!nexus.hasAttention)
  }

  @Test("INQUIRY, REPORT LUNS and REQUEST SENSE are processed with a condition pending (SAM-5 §5.14.1)")
  func exempt() throws {
    let bench = try Bench()
    bench.a.raise(.powerOn, lun: 0)
    #expect(bench.send([0x12, 0, 0, 0, 96, 0]).data.count == 96)
    #expect(bench.send([0xA0, 0, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0]).data.count == 16)
    let sense = bench.send([0x03, 0, 0, 0, 18, 0]).data
    #expect(sense[2] == 0x06 && sense[12] == 0x29)
    #expect(bench.send([0x03, 0, 0, 0, 18, 0]).data[2] == 0x00)
  }

  @Test("REPORT LUNS clears REPORTED LUNS DATA HAS CHANGED for every logical unit (SPC-5 §6.33)")
  func reportedLuns() throws {
    let bench = try Bench()
    bench.a.raise(.reportedLunsDataHasChanged, lun: nil)
    bench.a.raise(.reportedLunsDataHasChanged, lun: 5)
    _ = bench.send([0xA0, 0, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0])
    #expect(!bench.a.hasAttention)
    bench.a.raise(.reportedLunsDataHasChanged, lun: nil)
    #expect(bench.a.take(lun: 3) == .reportedLunsDataHasChanged)
    #expect(bench.a.take(lun: 0) == nil)
  }

  @Test("Each logical unit reports a condition of all, and one raised again is reported again")
  func everyUnit() throws {
    let nexus = try Bench().a
    nexus.raise(.nexusLoss, lun: nil)
    #expect(nexus.take(lun: 0) == .nexusLoss)
    #expect(!nexus.hasAttention(lun: 0))
    #expect(nexus.hasAttention(lun: 1))
    #expect(nexus.take(lun: 100) == .nexusLoss)
    #expect(nexus.take(lun: 101) == .nexusLoss)
    #expect(nexus.take(lun: 100) == nil)
    nexus.raise(.nexusLoss, lun: nil)
    #expect(nexus.take(lun: 0) == .nexusLoss)
    #expect(nexus.take(lun: 100) == .nexusLoss)
  }

  @Test("What a nexus reports equals a plain list of what was raised, in random order")
  func againstAList() throws {
    var random = SplitMix(seed: 42)
    let nexus = try Bench().a
    let luns: [UInt16] = [0, 1, 62, 63, 64, 900]
    var expected: [UInt16: Set<UnitAttention>] = [:]
    for lun in luns { expected[lun] = [] }
    for _ in 0..<5000 {
      let lun = luns.randomElement(using: &random) ?? 0
      let attention = UnitAttention.allCases.randomElement(using: &random) ?? .powerOn
      switch Int.random(in: 0..<5, using: &random) {
      case 0:
        nexus.raise(attention, lun: nil)
        for lun in luns { expected[lun]?.insert(attention) }
      case 1:
        nexus.raise(attention, lun: lun)
        expected[lun]?.insert(attention)
      default:
        let first = expected[lun]?.min { $0.rawValue < $1.rawValue }
        #expect(nexus.hasAttention(lun: lun) || first == nil)
        #expect(nexus.take(lun: lun) == first)
        guard let first else { continue }
        for other in luns where other == lun || first == .reportedLunsDataHasChanged { expected[other]?.remove(first) }
      }
    }
  }

  @Test("A logical unit reset is told to every nexus; a capacity change too; a mode change to the others")
  func sources() throws {
    let bench = try Bench()
    bench.unit.reset()
    for nexus in [bench.a, bench.b] { #expect(nexus.take(lun: 0) == .logicalUnitReset) }
    bench.unit.resize(toBlocks: 5)
    for nexus in [bench.a, bench.b] { #expect(nexus.take(lun: 0) == .capacityDataHasChanged) }
    bench.unit.setModeParameters(ModeParameters(descriptorSense: true), by: bench.a)
    #expect(bench.a.take(lun: 0) == nil)
    #expect(bench.b.take(lun: 0) == .modeParametersChanged)
  }
}

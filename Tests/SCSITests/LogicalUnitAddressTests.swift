import Testing
import Wire

@testable import SCSI

@Suite("Logical unit addressing")
struct LogicalUnitAddressTests {
  private let inquiry: [UInt8] = [0x12, 0, 0, 0, 96, 0]
  private let testUnitReady: [UInt8] = [0, 0, 0, 0, 0, 0]

  private func unit(_ number: UInt16) throws -> LogicalUnit {
    try LogicalUnit(
      number: number, identity: Bench.identity(), traits: Bench.traits(), blocks: 1000, registry: NexusRegistry())
  }

  @Test("Peripheral device and flat space addressing reach a logical unit, no other form does (SAM-5 §4.7)")
  func forms() {
    #expect(LogicalUnitMap.number(of: 0x0005_0000_0000_0000) == 5)
    #expect(LogicalUnitMap.number(of: 0x4005_0000_0000_0000) == 5)
    #expect(LogicalUnitMap.number(of: 0x7FFF_0000_0000_0000) == 0x3FFF)
    for lun: UInt64 in [
      0x0105_0000_0000_0000, 0x8005_0000_0000_0000, 0xC101_0000_0000_0000, 0x0005_0001_0000_0000, 1,
    ] {
      #expect(LogicalUnitMap.number(of: lun) == nil)
    }
    for number: UInt16 in [0, 255, 256, 1023, 1024, 16383] {
      #expect(LogicalUnitMap.number(of: LogicalUnitMap.field(of: number)) == number)
    }
  }

  @Test("A map finds low and high numbers, and nothing else")
  func map() throws {
    let units = try [0, 3, 1023, 1024, 9000].map { try unit($0) }
    let map = LogicalUnitMap(units)
    #expect(map.numbers == [0, 3, 1023, 1024, 9000])
    for unit in units { #expect(map[unit.number] === unit) }
    for number: UInt16 in [1, 4, 1022, 1025, 16383] { #expect(map[number] == nil) }
    #expect(LogicalUnitMap([])[0] == nil)
  }

  @Test("REPORT LUNS tells the inventory in the shortest form, whichever LUN it is sent to (SPC-5 §6.33)")
  func reportLuns() throws {
    let bench = try Bench()
    let map = LogicalUnitMap(try [0, 7, 300].map { try unit($0) })
    func report(_ select: UInt8, length: UInt32 = 256) -> [UInt8] {
      var cdb: [UInt8] = [0xA0, 0, select, 0, 0, 0]
      cdb.append(be: length)
      let request = Request(cdb: CDB(cdb + [0, 0]), lun: 0x0055_0000_0000_0000)
      return bench.server.execute(request, nexus: bench.a, map: map).data
    }
    let all: [UInt8] =
      [0, 0, 0, 24, 0, 0, 0, 0] + [UInt8](repeating: 0, count: 8) + [0, 7, 0, 0, 0, 0, 0, 0] + [
        0x41, 0x2C, 0, 0, 0, 0, 0, 0,
      ]
    #expect(report(0x00) == all)
    #expect(report(0x02) == all)
    #expect(report(0x01) == [0, 0, 0, 0, 0, 0, 0, 0])
    #expect(report(0x00, length: 10) == Array(all.prefix(10)))
  }

  @Test(
    "A LUN without a logical unit answers INQUIRY with 7Fh, REQUEST SENSE with 25/00, all else with CHECK CONDITION")
  func nobody() throws {
    let bench = try Bench()
    let lun: UInt64 = 9 << 48
    #expect(bench.send(inquiry, lun: lun).data.first == 0x7F)
    let sense = bench.send([0x03, 0, 0, 0, 18, 0], lun: lun).data
    #expect(sense[2] == 0x05 && sense[12] == 0x25)
    let descriptor = bench.send([0x03, 1, 0, 0, 18, 0], lun: lun).data
    #expect(Array(descriptor.prefix(4)) == [0x72, 0x05, 0x25, 0x00])
    #expect(bench.send(testUnitReady, lun: lun).answer == .sense(.illegalRequest, 0x2500))
    #expect(bench.send([0xFF], lun: lun).answer == .sense(.illegalRequest, 0x2500))
  }

  @Test("LUN 0 without a disk answers INQUIRY with peripheral qualifier 001b (SPC-5 table 141)")
  func lunZero() throws {
    let bench = try Bench()
    let request = Request(cdb: CDB(inquiry), lun: 0)
    #expect(bench.server.execute(request, nexus: bench.a, map: LogicalUnitMap([])).data.first == 0x3F)
  }

  @Test(
    "While it is not known who has the disk, only what needs no logical unit is answered, and no attention is taken")
  func suspended() throws {
    let bench = try Bench()
    let inquiry: [UInt8] = [0x12, 0, 0, 0, 96, 0]
    bench.unit.setSuspended(true)
    bench.a.raise(.asymmetricAccessStateChanged, lun: nil)
    for cdb: [UInt8] in [
      [0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0], [0, 0, 0, 0, 0, 0], [0xA3, 0x0A, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0],
      [0x5E, 0, 0, 0, 0, 0, 0, 0, 8, 0],
    ] {
      #expect(bench.send(cdb).answer == .wait)
    }
    #expect(bench.send(inquiry).data.count == 96)
    bench.unit.setSuspended(false)
    #expect(bench.send([0, 0, 0, 0, 0, 0]).answer == .sense(.unitAttention, 0x2A06))
    #expect(bench.send([0, 0, 0, 0, 0, 0]).answer == .good)
  }

  @Test("SET TARGET PORT GROUPS switches over only where a group in standby is wanted (SPC-5 §6.45)")
  func setGroups() throws {
    let cdb: [UInt8] = [0xA4, 0x0A, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0]
    let single = try Bench()
    #expect(single.send(cdb).answer == .sense(.illegalRequest, 0x2000))
    let server = DeviceServer(
      deviceName: "iqn.2026-01.example:gateway", registry: NexusRegistry(),
      portGroups: TargetPortGroups(
        [
          .init(id: 1, relativeTargetPorts: [1]), .init(id: 2, state: .activeNonOptimized, relativeTargetPorts: [2]),
          .init(id: 3, state: .standby, relativeTargetPorts: [3]),
        ], own: [1, 2], isExplicit: true))
    func set(_ list: [UInt8]) -> Answer {
      Answer(
        server.resume(
          Request(cdb: CDB(cdb), lun: 0), nexus: single.a, map: LogicalUnitMap([single.unit]), parameters: list))
    }
    #expect(set([0, 0, 0, 0, 0x00, 0, 0, 2]) == .good, "active already")
    #expect(set([0, 0, 0, 0, 0x01, 0, 0, 3]) == .switchover)
    #expect(set([0, 0, 0, 0, 0x02, 0, 0, 3]) == .good, "is in standby")
    #expect(set([0, 0, 0, 0, 0x02, 0, 0, 1]) == .invalidParameter, "is not put out of service")
    #expect(set([0, 0, 0, 0, 0x00, 0, 0, 9]) == .invalidParameter, "no such group")
    #expect(set([0, 0, 0, 0, 0x00, 0]) == .sense(.illegalRequest, 0x1A00))
    #expect(set([]) == .good)
  }

  @Test("The peer's groups in standby stop nothing here")
  func peerInStandby() throws {
    let groups = TargetPortGroups(
      [.init(id: 1, relativeTargetPorts: [1]), .init(id: 3, state: .standby, relativeTargetPorts: [3])], own: [1])
    #expect(groups.isAllActive)
    #expect(!TargetPortGroups(groups.groups, own: [3]).isAllActive)
  }

  @Test("In standby only what tells of the ports is processed (SPC-5 §5.18.2.6)")
  func accessStates() throws {
    let standby = try Bench(state: .standby)
    #expect(standby.send([0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0]).answer == .sense(.notReady, 0x040B))
    #expect(standby.send(inquiry).data.count == 96)
    #expect(standby.send([0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0]).data.count == 8)
    #expect(standby.send([0x9E, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0]).data.count == 32)
    let unavailable = try Bench(state: .unavailable)
    #expect(unavailable.send([0x5E, 0, 0, 0, 0, 0, 0, 0, 8, 0]).answer == .sense(.notReady, 0x040C))
    #expect(unavailable.send(testUnitReady).answer == .sense(.notReady, 0x040C))
    let groups = unavailable.send([0xA3, 0x0A, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0]).data
    #expect(groups == [0, 0, 0, 16, 0x03, 0x8F, 0, 1, 0, 2, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2])
    let extended = unavailable.send([0xA3, 0x2A, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0]).data
    #expect(Array(extended.prefix(8)) == [0, 0, 0, 20, 0x10, 60, 0, 0])
    let transition = try Bench(state: .transitioning)
    #expect(transition.send(testUnitReady).answer == .sense(.notReady, 0x040A))
    let slow = try Bench(state: .activeNonOptimized)
    #expect(slow.send(testUnitReady).answer == .good)
  }
}

import TestSupport
import Testing
import Wire

@testable import SCSI

@Suite("The persisted reservation record")
struct ReservationRecordTests {
  private func sample() -> PersistentReservations {
    var registrar = Registrar()
    var action = ReservationAction(.register, serviceKey: 0x1122_3344_5566_7788)
    action.activatesThroughPowerLoss = true
    registrar.apply(action, from: NexusIdentity(initiatorName: "iqn.a", isid: 0xFFFF_0000_0001, relativeTargetPort: 2))
    registrar.apply(action, from: Registrar.nexus("iqn.b"))
    registrar.reserve(Registrar.nexus("iqn.b"), 0x1122_3344_5566_7788, .exclusiveAccess)
    return registrar.state
  }

  /// A record with its checksum made right again.
  private func sealed(_ body: [UInt8]) -> [UInt8] {
    var record = body
    record.append(be: CRC32C.of(body))
    return record
  }

  @Test("A record gives back what it was made of, also with zeroes behind it")
  func roundTrip() throws {
    let state = sample()
    let record = state.encodeRecord()
    #expect(try PersistentReservations(record: record) == state)
    #expect(try PersistentReservations(record: record + [UInt8](repeating: 0, count: 4096)) == state)
    #expect(try PersistentReservations(record: PersistentReservations().encodeRecord()) == PersistentReservations())
  }

  @Test("Every cut-off and every flipped bit is refused")
  func damage() {
    let record = sample().encodeRecord()
    for count in 0..<record.count {
      #expect(throws: ReservationRecordError.self) { try PersistentReservations(record: Array(record.prefix(count))) }
    }
    for bit in 0..<record.count * 8 {
      var damaged = record
      damaged[bit / 8] ^= 1 << UInt8(bit % 8)
      #expect(throws: ReservationRecordError.self) { try PersistentReservations(record: damaged) }
    }
  }

  @Test("A well-sealed record that breaks an invariant is refused")
  func invariants() {
    let body = Array(sample().encodeRecord().dropLast(4))
    func error(_ offset: Int, _ value: UInt8) -> ReservationRecordError? {
      var changed = body
      changed[offset] = value
      do {
        _ = try PersistentReservations(record: sealed(changed))
        return nil
      } catch { return error }
    }
    #expect(error(0, 2) == .unknownVersion(2))
    #expect(error(2, 2) == .badType(2))
    #expect(error(2, 7) == .holderNotRegistered)
    #expect(error(2, 0) == .holderNotRegistered)
    #expect(error(5, 2) == .holderNotRegistered)
    #expect(error(6, 1) == .tooManyRegistrants(258))
    #expect(error(32, 0) == .badName)
    #expect(error(33, 0xFF) == .badName)
  }

  @Test("Random bytes never trap, with or without a right checksum")
  func garbage() {
    var random = SplitMix(seed: 7)
    let record = sample().encodeRecord()
    var taken = 0
    for _ in 0..<20000 {
      var bytes = Array(record.dropLast(4))
      for _ in 0..<Int.random(in: 1...4, using: &random) {
        bytes[Int.random(in: 0..<bytes.count, using: &random)] = UInt8.random(in: 0...255, using: &random)
      }
      if Bool.random(using: &random) { bytes = Array(bytes.prefix(Int.random(in: 0...bytes.count, using: &random))) }
      if let state = try? PersistentReservations(record: sealed(bytes)) {
        taken += 1
        #expect(Set(state.registrants.map(\.nexus)).count == state.registrants.count)
        #expect(state.registrants.allSatisfy { $0.key != 0 })
        if let holder = state.reservation?.holder { #expect(state.isRegistered(holder)) }
      }
    }
    #expect(taken > 0)
  }

  @Test("After power loss a record is in force only with APTPL; after a takeover always (SPC-5 §5.14.5)")
  func powerLoss() throws {
    var registrar = Registrar()
    registrar.register(Registrar.nexus("iqn.a"), 1)
    let volatileRecord = registrar.state.encodeRecord()
    #expect(try Bench(record: volatileRecord).unit.reservations == PersistentReservations())
    #expect(try Bench(record: volatileRecord, afterTakeover: true).unit.reservations == registrar.state)
    #expect(try Bench(record: sample().encodeRecord(), afterTakeover: true).unit.reservations == sample())
    let kept = try Bench(record: sample().encodeRecord()).unit.reservations
    #expect(kept.registrants == sample().registrants && kept.reservation == sample().reservation)
    #expect(kept.activatesThroughPowerLoss)
  }

  @Test("PRGENERATION is 0 after power loss whatever APTPL says, and goes on after a takeover (SPC-5 §6.16.2)")
  func generation() throws {
    let record = sample().encodeRecord()
    let bench = try Bench(record: record)
    #expect(bench.unit.reservations.generation == 0)
    try bench.unit.adopt(reservations: record, afterTakeover: true, blocks: 8)
    #expect(bench.unit.reservations.generation == 2)
    try bench.unit.adopt(reservations: record, afterTakeover: false, blocks: 8)
    #expect(bench.unit.reservations.generation == 0)
  }

  @Test("Who is there when registrations are dropped is told of a power on, of that logical unit; else nobody is")
  func told() throws {
    var registrar = Registrar()
    registrar.register(Registrar.nexus("iqn.a"), 1)
    let (lost, kept) = (registrar.state.encodeRecord(), sample().encodeRecord())
    let bench = try Bench()
    for (record, afterTakeover) in [(lost, true), (kept, false), (kept, true), (nil, false)] as [([UInt8]?, Bool)] {
      try bench.unit.adopt(reservations: record, afterTakeover: afterTakeover, blocks: 8)
      #expect(bench.a.take(lun: 0) == nil)
    }
    try bench.unit.adopt(reservations: lost, afterTakeover: false, blocks: 8)
    #expect(bench.a.take(lun: 0) == .powerOn && bench.b.take(lun: 0) == .powerOn && bench.a.take(lun: 1) == nil)
    // An SPC-2 reservation is nobody's any more, whatever the record says.
    try bench.unit.adopt(reservations: nil, afterTakeover: true, blocks: 8)
    #expect(Answer(bench.send([0x16, 0, 0, 0, 0, 0])) == .good)
    try bench.unit.adopt(reservations: nil, afterTakeover: true, blocks: 8)
    #expect(bench.b.take(lun: 0) == .powerOn && bench.a.take(lun: 0) == .powerOn)
  }
}

import Synchronization
import Testing
import Wire

@testable import SCSI

@Suite("Persistent reservations at a port in standby (SPC-5 §5.18.2.6)")
struct StandbyReservationTests {
  private static let register: [UInt8] = [0x5F, 0x06, 0, 0, 0, 0, 0, 0, 24, 0]
  private static let readKeys: [UInt8] = [0x5E, 0, 0, 0, 0, 0, 0, 1, 0, 0]

  private static func list(serviceKey: UInt64) -> [UInt8] {
    var list = [UInt8](repeating: 0, count: 24)
    list.store(be: serviceKey, at: 8)
    return list
  }

  @Test("They are handed over with their parameter list, once they are well formed")
  func handedOver() throws {
    let bench = try Bench(state: .standby)
    #expect(Answer(bench.send(Self.readKeys)) == .forward([]))
    let list = Self.list(serviceKey: 5)
    #expect(Answer(bench.send(Self.register, list)) == .forward(list))
    #expect(Answer(bench.send([0x5F, 0x01, 0x1F, 0, 0, 0, 0, 0, 24, 0])) == .invalidField)
    #expect(Answer(bench.send([0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0])) == .sense(.notReady, 0x040B))
    bench.unit.setSuspended(true)
    #expect(Answer(bench.send(Self.readKeys)) == .wait)
  }

  @Test("The active node carries them out for the nexus that they came from, and for no other command")
  func carriedOut() throws {
    let bench = try Bench()
    let remote = Bench.nexus(.max, name: "iqn.2026-01.org.example:a", port: 2)
    func reserve(_ cdb: [UInt8], _ list: [UInt8] = []) -> Disposition {
      bench.server.reserve(Request(cdb: CDB(cdb), lun: 0), nexus: remote, map: bench.map, parameters: list)
    }
    guard case .reservationChange(let change, let unit) = reserve(Self.register, Self.list(serviceKey: 5)) else {
      Issue.record("nothing changed")
      return
    }
    #expect(unit.commit(change).status == .good)
    #expect(bench.unit.reservations.key(of: remote.identity) == 5)
    #expect(Answer(reserve(Self.readKeys)) == .data([0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 5]))
    #expect(Answer(reserve(Self.register, [1, 2])) == .sense(.illegalRequest, 0x1A00))
    #expect(Answer(reserve([0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0])) == .sense(.illegalRequest, 0x2000))
    bench.unit.setSuspended(true)
    #expect(Answer(reserve(Self.readKeys)) == .wait)
  }

  @Test("Who had the table and has it no more judges by none, and says GOOD to a change that is on the disk")
  func forgotten() throws {
    let bench = try Bench()
    bench.reserveOut(.registerAndIgnoreExistingKey, serviceKey: 8, from: bench.b)
    bench.reserveOut(.reserve, key: 8, type: 3, from: bench.b)
    #expect(Answer(bench.send([0xA3, 0x0C, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0])) == .conflict)
    guard case .reservationChange(let change, let unit) = bench.send(Self.register, Self.list(serviceKey: 5)) else {
      Issue.record("nothing changed")
      return
    }
    bench.unit.forgetReservations()
    #expect(unit.commit(change).status == .good)
    #expect(bench.unit.reservations == PersistentReservations())
    #expect(Answer(bench.send([0xA3, 0x0C, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0])) != .conflict)
    try bench.unit.adopt(reservations: change.effects.next.encodeRecord(), afterTakeover: true, blocks: 8)
    #expect(bench.unit.reservations == change.effects.next)
    bench.reserveOut(.registerAndIgnoreExistingKey, serviceKey: 9, from: bench.a)
    #expect(bench.unit.reservations.key(of: bench.a.identity) == 9)
  }

  @Test("An SPC-2 reservation that is forgotten is told of")
  func forgottenLegacy() throws {
    let bench = try Bench()
    #expect(Answer(bench.send([0x16, 0, 0, 0, 0, 0])) == .good)
    bench.unit.forgetReservations()
    #expect(bench.a.take(lun: 0) == .powerOn && bench.b.take(lun: 0) == .powerOn)
    bench.unit.forgetReservations()
    #expect(bench.a.take(lun: 0) == nil)
  }

  @Test("Whose registration is taken away on the other node is told of there")
  func elsewhere() throws {
    let bench = try Bench()
    let told = Mutex<[ReservationEffects.Notice]>([])
    bench.registry.elsewhere.withLock { $0 = { notices, _ in told.withLock { $0 += notices } } }
    let remote = Bench.nexus(.max, name: "iqn.2026-01.org.example:z", port: 2)
    bench.reserveOut(.registerAndIgnoreExistingKey, serviceKey: 7, from: remote)
    bench.reserveOut(.registerAndIgnoreExistingKey, serviceKey: 8, from: bench.b)
    bench.reserveOut(.registerAndIgnoreExistingKey, serviceKey: 1, from: bench.a)
    bench.reserveOut(.preempt, key: 1, serviceKey: 7, type: 5, from: bench.a)
    #expect(told.withLock { $0 } == [.init(nexus: remote.identity, attention: .registrationsPreempted)])
    #expect(bench.b.take(lun: 0) == nil)
    bench.reserveOut(.preempt, key: 1, serviceKey: 8, type: 5, from: bench.a)
    #expect(told.withLock { $0.count } == 1)
    #expect(bench.b.take(lun: 0) == .registrationsPreempted)
  }
}

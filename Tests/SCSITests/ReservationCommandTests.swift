import Testing
import Wire

@testable import SCSI

@Suite("Reservation commands")
struct ReservationCommandTests {
  private let read: [UInt8] = [0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0]
  private let write: [UInt8] = [0x2A, 0, 0, 0, 0, 0, 0, 0, 1, 0]
  private let testUnitReady: [UInt8] = [0, 0, 0, 0, 0, 0]

  private func reserveIn(_ bench: Bench, _ action: UInt8, length: UInt8 = 255) -> [UInt8] {
    bench.send([0x5E, action, 0, 0, 0, 0, 0, 0, length, 0]).data
  }

  @Test("READ KEYS and READ RESERVATION tell generation, keys, holder and type (SPC-5 §6.16)")
  func reserveIn() throws {
    let bench = try Bench()
    #expect(reserveIn(bench, 0) == [0, 0, 0, 0, 0, 0, 0, 0])
    bench.reserveOut(.register, serviceKey: 0x11, from: bench.a)
    bench.reserveOut(.register, serviceKey: 0x22, from: bench.b)
    #expect(
      reserveIn(bench, 0) == [0, 0, 0, 2, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0x11, 0, 0, 0, 0, 0, 0, 0, 0x22])
    // Cut by the allocation length, the ADDITIONAL LENGTH is still whole.
    #expect(reserveIn(bench, 0, length: 8) == [0, 0, 0, 2, 0, 0, 0, 16])
    #expect(reserveIn(bench, 1) == [0, 0, 0, 2, 0, 0, 0, 0])
    bench.reserveOut(.reserve, key: 0x11, type: 5, from: bench.a)
    #expect(
      reserveIn(bench, 1) == [0, 0, 0, 2, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0x11, 0, 0, 0, 0, 0, 5, 0, 0])
    #expect(reserveIn(bench, 2) == [0, 8, 0x0D, 0x80, 0xEA, 0x01, 0, 0])
  }

  @Test("READ FULL STATUS names each registrant's initiator port and target port (SPC-5 §6.16.5)")
  func fullStatus() throws {
    let bench = try Bench()
    bench.reserveOut(.register, serviceKey: 0x11, from: bench.a)
    bench.reserveOut(.reserve, key: 0x11, type: 3, from: bench.a)
    let data = reserveIn(bench, 3)
    #expect(Int(data[7]) == data.count - 8)
    #expect(Array(data[8..<28]) == [0, 0, 0, 0, 0, 0, 0, 0x11, 0, 0, 0, 0, 1, 3, 0, 0, 0, 0, 0, 1])
    let transportID = Array(data[32...])
    #expect(Int(data[31]) == transportID.count && transportID.count % 4 == 0)
    #expect(transportID == TransportID.encode(bench.a.identity))
    let decoded = TransportID.decode(transportID, at: 0, end: transportID.count)
    #expect(decoded?.id == .port(name: "iqn.2026-01.org.example:a", isid: 0x8000_0000_0001))
    #expect(decoded?.byteCount == transportID.count)
  }

  @Test("A change is in force only when it is committed; a second one meanwhile gets BUSY")
  func oneAtATime() throws {
    let bench = try Bench()
    var list = [UInt8](repeating: 0, count: 24)
    list[15] = 1
    let cdb: [UInt8] = [0x5F, 0, 0, 0, 0, 0, 0, 0, 24, 0]
    guard case .reservationChange(let change, let unit) = bench.send(cdb, list) else {
      Issue.record("no change")
      return
    }
    #expect(bench.unit.reservations == PersistentReservations())
    #expect(bench.send(cdb, list, from: bench.b).answer == .status(.busy))
    #expect(bench.send([0x16, 0, 0, 0, 0, 0], from: bench.b).answer == .status(.busy))
    unit.abandon(change)
    #expect(unit.commit(change).status == .busy)
    #expect(bench.unit.reservations == PersistentReservations())
    guard case .reservationChange(let second, _) = bench.send(cdb, list) else {
      Issue.record("no change")
      return
    }
    let record = try #require(second.record)
    #expect(unit.commit(second) == CommitOutcome(status: .good, aborts: []))
    #expect(try PersistentReservations(record: record) == bench.unit.reservations)
  }

  @Test("Each type keeps out whom the tables keep out", arguments: PersistentReservations.Kind.allCases)
  func access(_ kind: PersistentReservations.Kind) throws {
    let bench = try Bench()
    bench.reserveOut(.register, serviceKey: 1, from: bench.a)
    bench.reserveOut(.register, serviceKey: 2, from: bench.b)
    #expect(bench.reserveOut(.reserve, key: 1, type: kind.rawValue, from: bench.a) == .good)
    let registrantMay = kind.admitsRegistrants
    #expect(bench.send(write).answer != .conflict)
    #expect((bench.send(write, from: bench.b).answer != .conflict) == registrantMay)
    #expect((bench.send(read, from: bench.b).answer != .conflict) == (registrantMay || kind.isWriteExclusive))
    #expect(bench.send(write, from: bench.c).answer == .conflict)
    #expect((bench.send(read, from: bench.c).answer != .conflict) == kind.isWriteExclusive)
    #expect(bench.send(testUnitReady, from: bench.c).answer == .good)
    #expect(bench.send([0x12, 0, 0, 0, 96, 0], from: bench.c).answer != .conflict)
    // START is allowed, stopping is not (SBC-4 table 14); PREVENT likewise.
    #expect(bench.send([0x1B, 0, 0, 0, 1, 0], from: bench.c).answer == .good)
    #expect(bench.send([0x1B, 0, 0, 0, 0, 0], from: bench.c).answer == .conflict)
    #expect(bench.send([0x1E, 0, 0, 0, 1, 0], from: bench.c).answer == .conflict)
    #expect(bench.send([0x1E, 0, 0, 0, 0, 0], from: bench.c).answer == .good)
    // It outlives the session and a reset (SPC-5 §5.14.1).
    bench.unit.nexusLost(bench.a)
    bench.unit.reset()
    _ = bench.c.take(lun: 0)
    #expect(bench.send(write, from: bench.c).answer == .conflict)
  }

  @Test("What an initiator registered through another node's port lets it go on here, until it is preempted")
  func accessByOtherNode() throws {
    let bench = try Bench()
    let server = DeviceServer(
      deviceName: "iqn.2026-01.org.example:gw", registry: bench.registry,
      portGroups: TargetPortGroups(
        [
          .init(id: 1, relativeTargetPorts: [1]), .init(id: 2, relativeTargetPorts: [2]),
          .init(id: 3, state: .standby, relativeTargetPorts: [3]),
        ], own: [1, 2]))
    // Sessions of their own: other ISIDs.
    let elsewhere = Bench.nexus(11, name: "iqn.2026-01.org.example:a", isid: 0x8000_0000_0002, port: 3)
    let holdsElsewhere = Bench.nexus(12, name: "iqn.2026-01.org.example:b", isid: 0x8000_0000_0003, port: 3)
    let here = Bench.nexus(13, name: "iqn.2026-01.org.example:d", port: 2)
    let otherPort = Bench.nexus(14, name: "iqn.2026-01.org.example:d", port: 1)
    for nexus in [elsewhere, holdsElsewhere, here, otherPort] { bench.registry.attach(nexus) }
    func mayWrite(_ nexus: Nexus) -> Bool {
      while nexus.take(lun: 0) != nil {}
      return Answer(server.execute(Request(cdb: CDB(write), lun: 0), nexus: nexus, map: bench.map)) != .conflict
    }
    bench.reserveOut(.register, serviceKey: 1, from: elsewhere)
    bench.reserveOut(.register, serviceKey: 2, from: holdsElsewhere)
    bench.reserveOut(.register, serviceKey: 4, from: here)
    #expect(bench.reserveOut(.reserve, key: 2, type: 1, from: holdsElsewhere) == .good)
    #expect(!mayWrite(bench.a), "its initiator does not hold")
    #expect(mayWrite(bench.b), "its initiator holds")
    #expect(bench.reserveOut(.preempt, key: 2, serviceKey: 2, type: 5, from: holdsElsewhere) == .good)
    #expect(mayWrite(bench.a))
    #expect(mayWrite(bench.b))
    #expect(!mayWrite(bench.c))
    #expect(!mayWrite(otherPort), "registered through another port of this node")
    #expect(bench.reserveOut(.preempt, key: 2, serviceKey: 1, type: 5, from: holdsElsewhere) == .good)
    #expect(!mayWrite(bench.a))
    #expect(bench.reserveOut(.reserve, key: 2, type: 5, from: bench.b) == .conflict, "it is not registered itself")
  }

  @Test("A node that is alone knows no other node's ports")
  func accessAlone() throws {
    #expect(!TargetPortGroups([.init(id: 1, relativeTargetPorts: [1])]).isElsewhere(3))
  }

  @Test("Unit attentions reach the nexuses of those who lost something (SPC-5 §5.14.11)")
  func attentions() throws {
    let bench = try Bench()
    bench.reserveOut(.register, serviceKey: 1, from: bench.a)
    bench.reserveOut(.register, serviceKey: 2, from: bench.b)
    bench.reserveOut(.reserve, key: 1, type: 1, from: bench.a)
    #expect(bench.reserveOut(.preempt, key: 2, serviceKey: 1, type: 1, from: bench.b) == .good)
    #expect(bench.send(testUnitReady).answer == .sense(.unitAttention, 0x2A05))
    #expect(bench.send(testUnitReady, from: bench.b).answer == .good)
    #expect(bench.send(write).answer == .conflict)
  }

  @Test("The parameter list is 24 bytes, scope LU_SCOPE, type one of six (SPC-5 §6.17)")
  func syntax() throws {
    let bench = try Bench()
    let lengthError = Answer.sense(.illegalRequest, 0x1A00)
    #expect(bench.send([0x5F, 0, 0, 0, 0, 0, 0, 0, 23, 0]).answer == lengthError)
    #expect(bench.send([0x5F, 1, 1, 0, 0, 0, 0, 0, 28, 0]).answer == lengthError)
    #expect(bench.send([0x5F, 1, 0x11, 0, 0, 0, 0, 0, 24, 0]).answer == .invalidField)
    for type: UInt8 in [0, 2, 4, 9, 15] {
      #expect(bench.send([0x5F, 1, type, 0, 0, 0, 0, 0, 24, 0]).answer == .invalidField)
    }
    #expect(bench.send([0x5F, 0, 0, 0, 0, 0, 0, 0, 24, 0], [UInt8](repeating: 0, count: 20)).answer == lengthError)
    #expect(bench.send([0x5F, 0, 0, 0, 0, 1, 0, 0, 0, 0]).answer == .invalidField)
    let noLabel = try Bench { $0.persistsReservations = false }
    #expect(noLabel.reserveOut(.register, serviceKey: 1, flags: 0x01, from: noLabel.a) == .invalidParameter)
    #expect(bench.reserveOut(.register, serviceKey: 1, flags: 0x01, from: bench.a) == .good)
    #expect(reserveIn(bench, 2)[3] & 0x01 != 0)
  }

  @Test("SPEC_I_PT is refused but in REGISTER (SPC-5 §6.17.3)")
  func specifiedElsewhere() throws {
    let bench = try Bench()
    bench.reserveOut(.register, serviceKey: 1, from: bench.a)
    for service: ReservationAction.Service in [.reserve, .release, .clear, .preempt, .preemptAndAbort] {
      let answer = bench.reserveOut(service, key: 1, serviceKey: 1, type: 1, flags: 0x08, from: bench.a)
      #expect(answer == .invalidParameter, "\(service)")
    }
    #expect(bench.unit.reservations.key(of: bench.a.identity) == 1)
  }

  @Test("PREEMPT of registrations alone ignores SCOPE and TYPE, one of a reservation does not (SPC-5 §5.14.11.4)")
  func preemptScope() throws {
    let bench = try Bench()
    bench.reserveOut(.register, serviceKey: 1, from: bench.a)
    bench.reserveOut(.register, serviceKey: 2, from: bench.b)
    bench.reserveOut(.register, serviceKey: 3, from: bench.c)
    #expect(bench.reserveOut(.preempt, key: 1, serviceKey: 2, type: 0x00, from: bench.a) == .good)
    bench.reserveOut(.reserve, key: 3, type: 1, from: bench.c)
    for type: UInt8 in [0x00, 0x02, 0x11] {
      #expect(bench.reserveOut(.preempt, key: 1, serviceKey: 3, type: type, from: bench.a) == .invalidField)
    }
    #expect(bench.reserveOut(.preempt, key: 1, serviceKey: 3, type: 1, from: bench.a) == .good)
  }

  @Test("REPORT SUPPORTED OPERATION CODES and TASK MANAGEMENT FUNCTIONS read (SPC-5 table 60)")
  func reports() throws {
    let bench = try Bench()
    bench.reserveOut(.register, serviceKey: 1, from: bench.a)
    for (type, isConflict): (UInt8, Bool) in [(1, false), (3, true), (5, false), (6, true), (7, false), (8, true)] {
      bench.reserveOut(.reserve, key: 1, type: type, from: bench.a)
      for action: UInt8 in [0x0C, 0x0D] {
        let answer = bench.send([0xA3, action, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0], from: bench.b).answer
        #expect((answer == .conflict) == isConflict, "\(action) with type \(type)")
      }
      bench.reserveOut(.release, key: 1, type: type, from: bench.a)
    }
  }

  @Test("SPEC_I_PT registers the named ports, ALL_TG_PT every target port (SPC-5 §6.17.3)")
  func specified() throws {
    let bench = try Bench()
    let transportID = TransportID.encode(bench.b.identity)
    var list = [UInt8](repeating: 0, count: 24)
    list[15] = 7
    list[20] = 0x08 | 0x04
    list.append(be: UInt32(transportID.count))
    list += transportID
    let cdb: [UInt8] = [0x5F, 0, 0, 0, 0, 0, 0, 0, UInt8(list.count), 0]
    guard case .reservationChange(let change, let unit) = bench.send(cdb, list) else {
      Issue.record("no change")
      return
    }
    #expect(unit.commit(change).status == .good)
    #expect(bench.unit.reservations.registrants.count == 4)
    #expect(bench.unit.reservations.key(of: bench.b.identity) == 7)
    for damage in [24, 28, 30, 31, 32, 60] {
      var damaged = list
      damaged[damage] ^= 0x81
      let answer = bench.send(cdb, damaged, from: bench.c).answer
      #expect(answer != .reservationChange, "\(damage)")
    }
  }

  @Test("RESERVE keeps every other nexus out but for what SPC-2 §5.5 allows, until release, loss or reset")
  func legacy() throws {
    let reserve: [UInt8] = [0x16, 0, 0, 0, 0, 0]
    let release: [UInt8] = [0x17, 0, 0, 0, 0, 0]
    let bench = try Bench()
    #expect(bench.send(reserve).answer == .good)
    #expect(bench.send(reserve).answer == .good)
    #expect(bench.send(reserve, from: bench.b).answer == .conflict)
    for cdb in [read, write, testUnitReady, [0x1A, 0, 0x3F, 0, 255, 0], [0x5E, 0, 0, 0, 0, 0, 0, 0, 8, 0]] {
      #expect(bench.send(cdb, from: bench.b).answer == .conflict)
    }
    for cdb: [UInt8] in [[0x12, 0, 0, 0, 96, 0], [0x03, 0, 0, 0, 18, 0], [0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0]] {
      #expect(bench.send(cdb, from: bench.b).answer != .conflict)
    }
    // Even the holder's PERSISTENT RESERVE conflicts.
    #expect(bench.send([0x5E, 0, 0, 0, 0, 0, 0, 0, 8, 0]).answer == .conflict)
    #expect(bench.send(release, from: bench.b).answer == .good)
    #expect(bench.send(read, from: bench.b).answer == .conflict)
    #expect(bench.send(release).answer == .good)
    #expect(bench.send(read, from: bench.b).answer != .conflict)
    _ = bench.send(reserve)
    bench.unit.nexusLost(bench.a)
    #expect(bench.send(read, from: bench.b).answer != .conflict)
    _ = bench.send(reserve)
    bench.unit.reset()
    #expect(bench.b.take(lun: 0) == .logicalUnitReset)
    #expect(bench.send(read, from: bench.b).answer != .conflict)
  }

  @Test("RESERVE and RELEASE conflict while anyone is registered (SPC-2 §5.5.1; CRH is 0)")
  func compatible() throws {
    let bench = try Bench()
    bench.reserveOut(.register, serviceKey: 1, from: bench.a)
    #expect(bench.send([0x16, 0, 0, 0, 0, 0]).answer == .conflict)
    #expect(bench.send([0x17, 0, 0, 0, 0, 0]).answer == .conflict)
  }

  @Test("Prevention of removal is per nexus and stops ejecting; an ejected medium is NOT READY (SBC-4 §5.15)")
  func removal() throws {
    let bench = try Bench { $0.isRemovable = true }
    let eject: [UInt8] = [0x1B, 0, 0, 0, 2, 0]
    let load: [UInt8] = [0x1B, 0, 0, 0, 3, 0]
    #expect(bench.send([0x1E, 0, 0, 0, 1, 0]).answer == .good)
    #expect(bench.send(eject, from: bench.b).answer == .sense(.illegalRequest, 0x5302))
    #expect(bench.send([0x1E, 0, 0, 0, 0, 0], from: bench.b).answer == .good)
    #expect(bench.send(eject, from: bench.b).answer == .sense(.illegalRequest, 0x5302))
    bench.unit.nexusLost(bench.a)
    #expect(bench.send(eject, from: bench.b).answer == .good)
    #expect(bench.send(testUnitReady, from: bench.b).answer == .sense(.notReady, 0x3A00))
    #expect(bench.send(load, from: bench.b).answer == .good)
    #expect(bench.send(testUnitReady, from: bench.b).answer == .good)
    #expect(bench.send(testUnitReady).answer == .sense(.unitAttention, 0x2800))
    #expect(try Bench().send(eject).answer == .invalidField)
  }
}

import Testing

@testable import SCSI

/// Service actions of PERSISTENT RESERVE OUT on the pure state.
struct Registrar {
  var state = PersistentReservations()
  var attentions: [ReservationEffects.Notice] = []
  var aborts: [NexusIdentity] = []

  static func nexus(_ name: String, port: UInt16 = 1) -> NexusIdentity {
    NexusIdentity(initiatorName: name, isid: 1, relativeTargetPort: port)
  }

  enum Result: Equatable { case good, conflict, refused(UInt16) }

  @discardableResult
  mutating func apply(_ action: ReservationAction, from nexus: NexusIdentity) -> Result {
    attentions = []
    aborts = []
    switch state.applying(action, from: nexus) {
    case .conflict: return .conflict
    case .refused(let sense): return .refused(sense.code)
    case .unchanged: return .good
    case .changed(let effects):
      state = effects.next
      attentions = effects.attentions
      aborts = effects.aborts
      return .good
    }
  }

  @discardableResult
  mutating func register(_ nexus: NexusIdentity, key: UInt64 = 0, _ serviceKey: UInt64) -> Result {
    apply(ReservationAction(.register, key: key, serviceKey: serviceKey), from: nexus)
  }

  @discardableResult
  mutating func reserve(_ nexus: NexusIdentity, _ key: UInt64, _ kind: PersistentReservations.Kind) -> Result {
    apply(ReservationAction(.reserve, key: key, kind: kind), from: nexus)
  }

  /// Who was told what.
  func told(_ attention: UnitAttention) -> [NexusIdentity] {
    attentions.filter { $0.attention == attention }.map(\.nexus)
  }
}

extension ReservationAction {
  /// With ALL_TG_PT, where there are two ports.
  fileprivate static func all(_ service: Service, key: UInt64 = 0, serviceKey: UInt64) -> ReservationAction {
    var action = ReservationAction(service, key: key, serviceKey: serviceKey)
    action.allTargetPorts = [1, 2]
    return action
  }
}

@Suite("Persistent reservations")
struct ReservationRulesTests {
  private let a = Registrar.nexus("a")
  private let b = Registrar.nexus("b")
  private let c = Registrar.nexus("c")

  /// a, b and c registered with keys 1, 2 and 3.
  private func three() -> Registrar {
    var registrar = Registrar()
    registrar.register(a, 1)
    registrar.register(b, 2)
    registrar.register(c, 3)
    return registrar
  }

  @Test("REGISTER on an unregistered nexus needs RESERVATION KEY 0 (SPC-5 table 55)")
  func registerNeedsZero() {
    var registrar = Registrar()
    #expect(registrar.register(a, key: 9, 1) == .conflict)
    #expect(registrar.register(a, 1) == .good)
    #expect(registrar.state.key(of: a) == 1)
    #expect(registrar.state.generation == 1)
  }

  @Test("REGISTER on a registered nexus needs its key, and changes or removes it (SPC-5 table 55)")
  func registerAgain() {
    var registrar = three()
    #expect(registrar.register(a, key: 2, 7) == .conflict)
    #expect(registrar.register(a, key: 1, 7) == .good)
    #expect(registrar.state.key(of: a) == 7)
    #expect(registrar.register(a, key: 7, 0) == .good)
    #expect(!registrar.state.isRegistered(a))
    #expect(registrar.state.generation == 5)
  }

  @Test("REGISTER with service action key 0 on an unregistered nexus does nothing (SPC-5 table 55)")
  func registerNothing() {
    var registrar = Registrar()
    #expect(registrar.register(a, 0) == .good)
    #expect(registrar.state == PersistentReservations())
  }

  @Test("REGISTER AND IGNORE EXISTING KEY looks at no key (SPC-5 table 56)")
  func registerAndIgnore() {
    var registrar = three()
    let action = ReservationAction(.registerAndIgnoreExistingKey, key: 99, serviceKey: 8)
    #expect(registrar.apply(action, from: a) == .good)
    #expect(registrar.state.key(of: a) == 8)
    #expect(registrar.apply(action, from: Registrar.nexus("d")) == .good)
  }

  @Test("Everything but registering from an unregistered nexus, or with a wrong key, conflicts (SPC-5 table 61)")
  func unregistered() {
    var registrar = three()
    for service: ReservationAction.Service in [
      .reserve, .release, .clear, .preempt, .preemptAndAbort, .registerAndMove,
    ] {
      let action = ReservationAction(service, key: 1, serviceKey: 2, kind: .writeExclusive)
      #expect(registrar.apply(action, from: Registrar.nexus("d")) == .conflict)
      #expect(registrar.apply(action, from: b) == .conflict)
    }
  }

  @Test("RESERVE by the holder with the same type is GOOD, all else conflicts (SPC-5 §5.14.9)")
  func reserve() {
    var registrar = three()
    #expect(registrar.reserve(a, 1, .writeExclusive) == .good)
    #expect(registrar.reserve(a, 1, .writeExclusive) == .good)
    #expect(registrar.reserve(a, 1, .exclusiveAccess) == .conflict)
    #expect(registrar.reserve(b, 2, .writeExclusive) == .conflict)
    #expect(registrar.state.isHolder(a) && !registrar.state.isHolder(b))
    #expect(registrar.state.generation == 3)
  }

  @Test("With an all-registrants type every registrant holds, and the key told is 0 (SPC-5 §5.14.10)")
  func allRegistrants() {
    var registrar = three()
    #expect(registrar.reserve(a, 1, .writeExclusiveAllRegistrants) == .good)
    #expect(registrar.reserve(b, 2, .writeExclusiveAllRegistrants) == .good)
    #expect(registrar.state.isHolder(c))
    #expect(registrar.state.holderKey == 0)
    registrar.register(a, key: 1, 0)
    #expect(registrar.state.reservation != nil)
    registrar.register(b, key: 2, 0)
    registrar.register(c, key: 3, 0)
    #expect(registrar.state.reservation == nil)
  }

  @Test("RELEASE by a registrant that does not hold is GOOD and releases nothing (SPC-5 §5.14.11.2)")
  func releaseByOther() {
    var registrar = three()
    registrar.reserve(a, 1, .writeExclusive)
    #expect(registrar.apply(ReservationAction(.release, key: 2, kind: .writeExclusive), from: b) == .good)
    #expect(registrar.state.isHolder(a))
  }

  @Test("RELEASE with another type is INVALID RELEASE OF PERSISTENT RESERVATION (SPC-5 §5.14.11.2)")
  func releaseOtherType() {
    var registrar = three()
    registrar.reserve(a, 1, .writeExclusive)
    #expect(registrar.apply(ReservationAction(.release, key: 1, kind: .exclusiveAccess), from: a) == .refused(0x2604))
    #expect(registrar.state.isHolder(a))
  }

  @Test(
    "RELEASE tells the other registrants if the type let them in (SPC-5 §5.14.11.2)",
    arguments: PersistentReservations.Kind.allCases)
  func releaseTells(_ kind: PersistentReservations.Kind) {
    var registrar = three()
    registrar.reserve(a, 1, kind)
    #expect(registrar.apply(ReservationAction(.release, key: 1, kind: kind), from: a) == .good)
    #expect(registrar.state.reservation == nil)
    #expect(registrar.told(.reservationsReleased) == (kind.admitsRegistrants ? [b, c] : []))
  }

  @Test("Unregistering the holder releases, and tells the others with a registrants-only type (SPC-5 §5.14.11.3)")
  func unregisterHolder() {
    var registrar = three()
    registrar.reserve(a, 1, .exclusiveAccessRegistrantsOnly)
    registrar.register(a, key: 1, 0)
    #expect(registrar.state.reservation == nil)
    #expect(registrar.told(.reservationsReleased) == [b, c])
    registrar.reserve(b, 2, .exclusiveAccess)
    registrar.register(b, key: 2, 0)
    #expect(registrar.state.reservation == nil)
    #expect(registrar.attentions.isEmpty)
  }

  @Test("CLEAR removes everything and tells the other registrants RESERVATIONS PREEMPTED (SPC-5 §5.14.11.6)")
  func clear() {
    var registrar = three()
    registrar.reserve(a, 1, .writeExclusive)
    #expect(registrar.apply(ReservationAction(.clear, key: 2), from: b) == .good)
    #expect(registrar.state.registrants.isEmpty && registrar.state.reservation == nil)
    #expect(registrar.told(.reservationsPreempted) == [a, c])
    #expect(registrar.state.generation == 4)
  }

  @Test("PREEMPT with the holder's key takes the reservation over (SPC-5 §5.14.11.4.3)")
  func preemptReservation() {
    var registrar = three()
    registrar.reserve(a, 1, .writeExclusive)
    let action = ReservationAction(.preempt, key: 2, serviceKey: 1, kind: .exclusiveAccess)
    #expect(registrar.apply(action, from: b) == .good)
    #expect(registrar.state.reservation == .init(kind: .exclusiveAccess, holder: b))
    #expect(!registrar.state.isRegistered(a))
    #expect(registrar.told(.registrationsPreempted) == [a])
    #expect(registrar.told(.reservationsReleased) == [c])
    #expect(registrar.aborts.isEmpty)
  }

  @Test("PREEMPT AND ABORT names those whose commands end (SPC-5 §5.14.11.5)")
  func preemptAndAbort() {
    var registrar = three()
    registrar.reserve(a, 1, .writeExclusive)
    let action = ReservationAction(.preemptAndAbort, key: 2, serviceKey: 1, kind: .writeExclusive)
    #expect(registrar.apply(action, from: b) == .good)
    #expect(registrar.aborts == [a])
    #expect(registrar.told(.reservationsReleased).isEmpty)  // the same type
  }

  @Test("PREEMPT with another key removes registrations and leaves the reservation (SPC-5 §5.14.11.4.4)")
  func preemptRegistration() {
    var registrar = three()
    registrar.reserve(a, 1, .writeExclusive)
    let action = ReservationAction(.preempt, key: 2, serviceKey: 3, kind: .exclusiveAccess)
    #expect(registrar.apply(action, from: b) == .good)
    #expect(registrar.state.reservation == .init(kind: .writeExclusive, holder: a))
    #expect(!registrar.state.isRegistered(c))
    #expect(registrar.told(.registrationsPreempted) == [c])
  }

  @Test("PREEMPT with a key that nobody has conflicts (SPC-5 §5.14.11.4.4)")
  func preemptNobody() {
    var registrar = three()
    let action = ReservationAction(.preempt, key: 2, serviceKey: 77, kind: .exclusiveAccess)
    #expect(registrar.apply(action, from: b) == .conflict)
  }

  @Test("PREEMPT with key 0 takes over from all registrants, and is INVALID FIELD with any other type")
  func preemptZero() {
    var registrar = three()
    let action = ReservationAction(.preempt, key: 2, serviceKey: 0, kind: .exclusiveAccess)
    #expect(registrar.apply(action, from: b) == .refused(0x2600))
    registrar.reserve(a, 1, .writeExclusiveAllRegistrants)
    #expect(registrar.apply(action, from: b) == .good)
    #expect(registrar.state.registrants.map(\.nexus) == [b])
    #expect(registrar.state.reservation == .init(kind: .exclusiveAccess, holder: b))
    #expect(registrar.told(.registrationsPreempted) == [a, c])
  }

  @Test("The holder may preempt itself to change the type, and stays registered (SPC-5 §5.14.11.4.3)")
  func preemptSelf() {
    var registrar = three()
    registrar.reserve(a, 1, .writeExclusive)
    let action = ReservationAction(.preempt, key: 1, serviceKey: 1, kind: .exclusiveAccessRegistrantsOnly)
    #expect(registrar.apply(action, from: a) == .good)
    #expect(registrar.state.isHolder(a) && registrar.state.isRegistered(a))
    #expect(registrar.told(.reservationsReleased) == [b, c])
  }

  @Test("REGISTER AND MOVE moves a reservation of one holder, and only that (SPC-5 §5.14.8)")
  func move() {
    var registrar = three()
    var action = ReservationAction(.registerAndMove, key: 1, serviceKey: 9, kind: .writeExclusive)
    let d = Registrar.nexus("d", port: 2)
    action.destination = d
    #expect(registrar.apply(action, from: a) == .refused(0x2400))
    registrar.reserve(a, 1, .writeExclusive)
    var own = action
    own.destination = a
    #expect(registrar.apply(own, from: a) == .refused(0x2600))
    var zero = action
    zero.serviceKey = 0
    #expect(registrar.apply(zero, from: a) == .refused(0x2600))
    var other = action
    other.key = 2
    #expect(registrar.apply(other, from: b) == .conflict)
    action.unregisters = true
    #expect(registrar.apply(action, from: a) == .good)
    #expect(registrar.state.reservation?.holder == d)
    #expect(registrar.state.key(of: d) == 9)
    #expect(!registrar.state.isRegistered(a))
    registrar = three()
    registrar.reserve(a, 1, .writeExclusiveAllRegistrants)
    #expect(registrar.apply(action, from: a) == .conflict)
  }

  @Test("ALL_TG_PT registers through every target port, SPEC_I_PT the named initiator ports (SPC-5 §6.17.3)")
  func manyPorts() {
    var registrar = Registrar()
    var action = ReservationAction(.register, serviceKey: 5)
    action.allTargetPorts = [1, 2]
    #expect(registrar.apply(action, from: a) == .good)
    #expect(registrar.state.registrants.map(\.nexus) == [a, Registrar.nexus("a", port: 2)])
    var specified = ReservationAction(.register, serviceKey: 6)
    specified.specifiesInitiatorPorts = true
    specified.initiatorPorts = [c]
    #expect(registrar.apply(specified, from: b) == .good)
    #expect(registrar.state.key(of: c) == 6)
    specified.key = 5
    #expect(registrar.apply(specified, from: a) == .refused(0x2600))
  }

  @Test("ALL_TG_PT leaves a registration through another port alone whose key it does not give (SPC-5 §6.17.3)")
  func otherPortKeepsItsKey() {
    let a2 = Registrar.nexus("a", port: 2)
    var registrar = three()
    registrar.register(a2, 8)
    let before = registrar.state
    for serviceKey: UInt64 in [0, 5] {
      #expect(registrar.apply(.all(.register, key: 1, serviceKey: serviceKey), from: a) == .conflict)
      let unregistered = Registrar.nexus("a", port: 3)
      #expect(registrar.apply(.all(.register, serviceKey: serviceKey), from: unregistered) == .conflict)
    }
    #expect(registrar.state == before)
    // REGISTER AND IGNORE EXISTING KEY looks at none.
    #expect(registrar.apply(.all(.registerAndIgnoreExistingKey, serviceKey: 5), from: a) == .good)
    #expect(registrar.state.key(of: a2) == 5)
    #expect(registrar.apply(.all(.register, key: 5, serviceKey: 0), from: a) == .good)
    #expect(!registrar.state.isRegistered(a) && !registrar.state.isRegistered(a2))
  }

  @Test("ALL_TG_PT reaches a registration through a target port that is gone since, of this initiator port alone")
  func goneTargetPort() {
    let gone = Registrar.nexus("a", port: 4)
    var registrar = Registrar()
    registrar.register(b, 1)
    registrar.register(gone, 1)
    #expect(registrar.apply(.all(.register, serviceKey: 5), from: a) == .good, "another key there is in nobody's way")
    #expect(registrar.state.key(of: gone) == 1)
    #expect(registrar.apply(.all(.registerAndIgnoreExistingKey, serviceKey: 5), from: a) == .good)
    #expect(registrar.state.key(of: gone) == 5 && registrar.state.key(of: b) == 1)
    registrar.reserve(a, 5, .exclusiveAccessAllRegistrants)
    #expect(registrar.apply(.all(.register, key: 5, serviceKey: 0), from: a) == .good)
    #expect(registrar.state.registrants.map(\.nexus) == [b])
  }

  @Test("SPEC_I_PT with SERVICE ACTION RESERVATION KEY 0 unregisters nobody (SPC-5 table 55)")
  func specifiedUnregistersNobody() {
    var registrar = three()
    let before = registrar.state
    var action = ReservationAction(.register, serviceKey: 0)
    action.specifiesInitiatorPorts = true
    action.initiatorPorts = [a, b]
    #expect(registrar.apply(action, from: Registrar.nexus("d")) == .good)
    #expect(registrar.state == before)
  }

  @Test("A TransportID of one that is registered fails, and nobody is registered (SPC-5 §6.17.3)")
  func specifiedRegistered() {
    var registrar = three()
    let before = registrar.state
    var action = ReservationAction(.register, serviceKey: 6)
    action.specifiesInitiatorPorts = true
    action.initiatorPorts = [Registrar.nexus("e"), b]
    #expect(registrar.apply(action, from: Registrar.nexus("d")) == .refused(0x2600))
    #expect(registrar.state == before)
  }

  @Test("PREEMPT looks at SCOPE and TYPE only where it makes a reservation (SPC-5 §5.14.11.4.4)")
  func preemptWithoutType() {
    var registrar = three()
    #expect(registrar.apply(ReservationAction(.preempt, key: 1, serviceKey: 2), from: a) == .good)
    #expect(!registrar.state.isRegistered(b))
    registrar.reserve(c, 3, .exclusiveAccess)
    #expect(registrar.apply(ReservationAction(.preempt, key: 1, serviceKey: 3), from: a) == .refused(0x2400))
    #expect(registrar.state.isHolder(c))
  }

  @Test("REGISTER AND MOVE keeps the type whatever the CDB says (SPC-5 §5.14.8)")
  func moveWithoutType() {
    var registrar = three()
    registrar.reserve(a, 1, .exclusiveAccess)
    var action = ReservationAction(.registerAndMove, key: 1, serviceKey: 9)
    action.destination = b
    #expect(registrar.apply(action, from: a) == .good)
    #expect(registrar.state.reservation == .init(kind: .exclusiveAccess, holder: b))
  }

  @Test("REGISTER AND MOVE does not move to the same initiator port by another target port (SPC-5 §5.14.8)")
  func moveToItself() {
    var registrar = three()
    registrar.reserve(a, 1, .writeExclusive)
    var action = ReservationAction(.registerAndMove, key: 1, serviceKey: 9, kind: .writeExclusive)
    action.destination = Registrar.nexus("a", port: 2)
    #expect(registrar.apply(action, from: a) == .refused(0x2600))
    #expect(registrar.state.isHolder(a))
  }

  @Test("One registration more than there is room for is INSUFFICIENT REGISTRATION RESOURCES")
  func full() {
    var registrar = Registrar()
    for i in 0..<PersistentReservations.registrantsMax {
      #expect(registrar.register(Registrar.nexus("n\(i)"), 1) == .good)
    }
    #expect(registrar.register(a, 1) == .refused(0x5504))
    #expect(registrar.state.registrants.count == PersistentReservations.registrantsMax)
    #expect(registrar.state.encodeRecord().count < 32 << 10)
  }

  @Test("What others may do while a reservation is held is as in SPC-5 tables 60 and 61 and SBC-4 table 14")
  func access() {
    typealias Kind = PersistentReservations.Kind
    // (type, reads by another, writes by another, reads by a registrant, writes by a registrant)
    let rows: [(Kind, Bool, Bool, Bool, Bool)] = [
      (.writeExclusive, true, false, true, false),
      (.exclusiveAccess, false, false, false, false),
      (.writeExclusiveRegistrantsOnly, true, false, true, true),
      (.exclusiveAccessRegistrantsOnly, false, false, true, true),
      (.writeExclusiveAllRegistrants, true, false, true, true),
      (.exclusiveAccessAllRegistrants, false, false, true, true),
    ]
    for (kind, reads, writes, registrantReads, registrantWrites) in rows {
      func may(_ access: PersistentAccess, registered: Bool) -> Bool {
        access.isAllowed(with: kind, holder: false, registered: registered)
      }
      #expect(may(.reading, registered: false) == reads)
      #expect(may(.writing, registered: false) == writes)
      #expect(may(.reading, registered: true) == registrantReads)
      #expect(may(.writing, registered: true) == registrantWrites)
      #expect(may(.always, registered: false))
      for access in PersistentAccess.allCases {
        #expect(access.isAllowed(with: kind, holder: true, registered: true))
      }
    }
  }
}

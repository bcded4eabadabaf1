import TestSupport
import Testing

@testable import SCSI

/// Persistent reservations written a second time and differently: every registrant carries whether it holds, and the
/// rules are applied by going over all nexuses. It shares no code with what it checks.
private struct Model {
  var keys: [NexusIdentity: UInt64] = [:]
  var holders: Set<NexusIdentity> = []
  var kind: UInt8 = 0
  var generation: UInt32 = 0
  var told: Set<String> = []
  var aborted: Set<NexusIdentity> = []

  enum Result: Equatable { case good, conflict, refused }

  private var isShared: Bool { kind == 7 || kind == 8 }
  private func lets(_ kind: UInt8) -> Bool { kind >= 5 }

  private mutating func tell(_ attention: UnitAttention, _ nexus: NexusIdentity, _ sender: NexusIdentity) {
    if nexus != sender { told.insert("\(attention) \(nexus.initiatorPort)") }
  }

  /// Takes registrations away; a reservation nobody holds any more is released.
  private mutating func remove(_ leaving: Set<NexusIdentity>, _ sender: NexusIdentity) {
    for nexus in leaving {
      keys[nexus] = nil
      holders.remove(nexus)
    }
    if kind != 0, holders.isEmpty {
      if lets(kind) { for nexus in keys.keys { tell(.reservationsReleased, nexus, sender) } }
      kind = 0
    }
  }

  mutating func apply(_ action: ReservationAction, _ sender: NexusIdentity) -> Result {
    told = []
    aborted = []
    let mine = keys[sender]
    let service = action.service.rawValue
    if service == 0x00 || service == 0x06 {
      if service == 0x00, (mine ?? 0) != action.key { return .conflict }
      if action.serviceKey != 0 {
        if mine == nil, isShared, kind != 0 { holders.insert(sender) }
        keys[sender] = action.serviceKey
        generation &+= 1
      } else if mine != nil {
        remove([sender], sender)
        generation &+= 1
      }
      return .good
    }
    if mine == nil || mine != action.key { return .conflict }
    let wanted = action.kind?.rawValue ?? 0
    switch service {
    case 0x01:
      if kind == 0 {
        kind = wanted
        holders = isShared ? Set(keys.keys) : [sender]
        return .good
      }
      return holders.contains(sender) && kind == wanted ? .good : .conflict
    case 0x02:
      if kind == 0 || !holders.contains(sender) { return .good }
      if kind != wanted { return .refused }
      if lets(kind) { for nexus in keys.keys { tell(.reservationsReleased, nexus, sender) } }
      kind = 0
      holders = []
      return .good
    case 0x03:
      for nexus in keys.keys { tell(.reservationsPreempted, nexus, sender) }
      keys = [:]
      holders = []
      kind = 0
      generation &+= 1
      return .good
    case 0x04, 0x05: return preempt(action, wanted, sender)
    default: return move(action, wanted, sender)
    }
  }

  private mutating func preempt(_ action: ReservationAction, _ wanted: UInt8, _ sender: NexusIdentity) -> Result {
    if action.serviceKey == 0, !(kind != 0 && isShared) { return .refused }
    let matching = Set(keys.filter { action.serviceKey == 0 || $0.value == action.serviceKey }.keys)
    let hitsHolder = kind != 0 && !isShared && holders.contains { keys[$0] == action.serviceKey }
    if matching.isEmpty { return .conflict }
    generation &+= 1
    if action.service == .preemptAndAbort { aborted = matching.subtracting([sender]) }
    for nexus in matching { tell(.registrationsPreempted, nexus, sender) }
    guard hitsHolder || action.serviceKey == 0 else {
      remove(matching, sender)
      return .good
    }
    let before = kind
    for nexus in matching where nexus != sender { keys[nexus] = nil }
    kind = wanted
    holders = isShared ? Set(keys.keys) : [sender]
    if before != wanted { for nexus in keys.keys { tell(.reservationsReleased, nexus, sender) } }
    return .good
  }

  private mutating func move(_ action: ReservationAction, _ wanted: UInt8, _ sender: NexusIdentity) -> Result {
    if kind == 0 { return .refused }
    if isShared || !holders.contains(sender) { return .conflict }
    guard let destination = action.destination, destination != sender, action.serviceKey != 0, kind == wanted else {
      return .refused
    }
    keys[destination] = action.serviceKey
    holders = [destination]
    if action.unregisters { keys[sender] = nil }
    generation &+= 1
    return .good
  }
}

@Suite("Persistent reservations against a model")
struct ReservationModelTests {
  private static let nexuses = (0..<5).map { i in
    NexusIdentity(initiatorName: "iqn.n\(i % 3)", isid: UInt64(i), relativeTargetPort: 1)
  }

  private static func randomAction(_ random: inout SplitMix, _ model: Model, _ sender: NexusIdentity)
    -> ReservationAction
  {
    let services = ReservationAction.Service.allCases
    // Mostly what can succeed: CLEAR is rare, keys are mostly right.
    var service = services.randomElement(using: &random) ?? .register
    if service == .clear, Int.random(in: 0..<4, using: &random) != 0 { service = .register }
    var action = ReservationAction(service)
    action.key = Int.random(in: 0..<8, using: &random) == 0 ? 4 : model.keys[sender] ?? 0
    action.serviceKey = UInt64.random(in: 0...3, using: &random)
    action.kind = PersistentReservations.Kind.allCases.randomElement(using: &random)
    if model.kind != 0, Bool.random(using: &random) { action.kind = PersistentReservations.Kind(rawValue: model.kind) }
    action.destination = nexuses.randomElement(using: &random)
    action.unregisters = Bool.random(using: &random)
    return action
  }

  @Test("20000 random service actions give what the model gives", arguments: [1, 2, 3, 4, 5] as [UInt64])
  func random(_ seed: UInt64) throws {
    var random = SplitMix(seed: seed)
    var model = Model()
    var registrar = Registrar()
    var seen: Set<String> = []
    for step in 0..<20000 {
      let sender = try #require(Self.nexuses.randomElement(using: &random))
      let action = Self.randomAction(&random, model, sender)
      let expected = model.apply(action, sender)
      let result = registrar.apply(action, from: sender)
      seen.insert("\(action.service) \(expected)")
      let same: Bool
      switch (expected, result) {
      case (.good, .good), (.conflict, .conflict), (.refused, .refused): same = true
      default: same = false
      }
      try #require(same, "step \(step): \(action) is \(result), not \(expected)")
      try compare(registrar, model, step, action)
      // What is persisted is what is in force.
      try #require(PersistentReservations(record: registrar.state.encodeRecord()) == registrar.state)
    }
    // The walk has met every outcome of every service action that has it.
    #expect(seen.count >= 18, "\(seen.sorted())")
  }

  private func compare(_ registrar: Registrar, _ model: Model, _ step: Int, _ action: ReservationAction) throws {
    let state = registrar.state
    let keys = Dictionary(uniqueKeysWithValues: state.registrants.map { ($0.nexus, $0.key) })
    let holders = Set(Self.nexuses.filter(state.isHolder))
    let told = Set(registrar.attentions.map { "\($0.attention) \($0.nexus.initiatorPort)" })
    let place: Comment = "step \(step): \(action)"
    try #require(keys == model.keys, place)
    try #require(holders == model.holders, place)
    try #require(state.reservation?.kind.rawValue ?? 0 == model.kind, place)
    try #require(state.generation == model.generation, place)
    try #require(told == model.told, place)
    try #require(Set(registrar.aborts) == model.aborted, place)
  }
}

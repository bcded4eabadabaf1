import Wire

@testable import HA

/// An engine whose orders a test's world answers at once.
protocol EngineRig {
  var engine: Engine { get set }
  var now: Instant { get set }
  var actions: [Action] { get set }
  /// What follows from an action; nil: nothing.
  mutating func reply(to action: Action) -> Event?
}

extension EngineRig {
  mutating func step(_ event: Event) {
    var pending = engine.step(event, at: now)
    while !pending.isEmpty {
      let action = pending.removeFirst()
      actions.append(action)
      if let reply = reply(to: action) { pending += engine.step(reply, at: now) }
    }
  }

  /// Steps whenever the engine asks for it.
  mutating func run(until end: Instant) {
    while let due = engine.deadline, due <= end {
      now = max(now, due)
      step(.tick)
    }
    now = end
    step(.tick)
  }
}

/// An engine with several disks that can fence, which obey or are dead, and another node that a test plays.
struct PairRig: EngineRig {
  static let cluster = UUID(bytes: Array(1...16))
  static let own = UUID(bytes: [UInt8](repeating: 0xA0, count: 16))
  static let other = UUID(bytes: [UInt8](repeating: 0xA1, count: 16))
  static let disks = (0..<3).map { UUID(bytes: [UInt8](repeating: UInt8(0xD0 + $0), count: 16)) }
  static let second: UInt64 = 1_000_000_000
  static let ms: UInt64 = 1_000_000

  var engine: Engine
  var now: Instant
  var found: [DiskID: Survey] = [:]
  /// These answer nothing.
  var dead: Set<DiskID> = []
  var actions: [Action] = []
  private var beats: UInt64 = 0

  /// Nothing is in sight yet.
  /// - Parameter deciding: of the other node's owner record in epoch 4, which is on every disk; none: there was nobody yet.
  init(_ count: Int, deciding: [DiskID] = [], at now: Instant = second) {
    engine = Engine(identity: NodeIdentity(node: Self.own, bootID: 7, name: "own"), seed: 1)
    self.now = now
    let key = ReservationKey(cluster: Self.cluster, slot: .second, node: Self.other, epoch: Epoch(4))
    let record = OwnerRecord(epoch: Epoch(4), node: Self.other, bootID: 9, arbiters: deciding)
    for id in Self.disks.prefix(count) {
      found[id] = Survey(
        keys: deciding.isEmpty ? [] : [key.rawValue], holder: deciding.isEmpty ? nil : key.rawValue,
        isOurType: !deciding.isEmpty, owner: deciding.isEmpty ? nil : record, beat: nil, nodes: [Self.own, Self.other])
    }
  }

  mutating func see(_ ids: [DiskID]) {
    step(
      .disks(
        ids.map { SharedDisk(id: $0, wwid: "\($0)", cluster: Self.cluster, nodes: [Self.own, Self.other]) }))
  }

  /// The program is started again.
  mutating func restart(_ ids: [DiskID]) {
    engine = Engine(identity: NodeIdentity(node: Self.own, bootID: 8, name: "own"), seed: 2)
    now += Self.second
    see(ids)
  }

  mutating func reply(to action: Action) -> Event? {
    switch action {
    case .disk(let disk, let number, let order): .answer(disk, order: number, answer(order, disk))
    case .target(.recover(let epoch, _)): .recovered(epoch)
    case .target, .addresses, .note, .send, .watchdog, .keepGuarded: nil
    }
  }

  mutating func run(_ time: UInt64) { run(until: now + time) }

  /// A beat of the other node, which names this one's beat of that number.
  mutating func hear(naming sequence: UInt64, flags: Heartbeat.Flags = [.reachable]) {
    beats += 1
    step(
      .received(
        Heartbeat(
          cluster: Self.cluster, node: Self.other, bootID: 9, sequence: beats, role: .passive, epoch: .none,
          name: "other", heardBoot: 7, heardSequence: sequence, flags: flags, disks: Self.disks), link: LinkID("eth0")))
  }

  private mutating func answer(_ order: DiskOrder, _ disk: DiskID) -> DiskAnswer {
    guard !dead.contains(disk), var survey = found[disk] else { return .timedOut }
    switch order {
    case .survey: return .surveyed(survey)
    case .register(let key): survey.keys.append(key.rawValue)
    case .reserve(let key): (survey.holder, survey.isOurType) = (key.rawValue, true)
    case .preempt(let own, let victim):
      survey.keys.removeAll { $0 == victim }
      if survey.holder == victim { (survey.holder, survey.isOurType) = (own.rawValue, true) }
    case .unregister(let key): survey.keys.removeAll { $0 == key.rawValue }
    case .writeOwner(let record): survey.owner = record
    case .writeBeat(let beat): survey.beat = beat
    case .enroll(let node, _): survey.nodes.append(node)
    case .expel(let node): survey.nodes.removeAll { $0 == node }
    case .settle, .writeLease, .resetUnit: return .failed(95)
    }
    found[disk] = survey
    return .done
  }

  var targets: [TargetOrder] { actions.compactMap { if case .target(let order) = $0 { order } else { nil } } }
  var reasons: [String] { actions.compactMap { if case .note(let change) = $0 { change.reason } else { nil } } }
  var isServing: Bool { engine.role == .active && !engine.isUnsure && engine.targetState == .serving }
  var served: [DiskID] { engine.disks.filter(\.isServed).map(\.id) }
}

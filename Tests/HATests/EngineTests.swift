import Testing
import Wire

@testable import HA

/// The engine by itself, with a disk and a peer that a test plays.
struct EngineTests {
  private let cluster = UUID(bytes: Array(1...16))
  private let own = UUID(bytes: [UInt8](repeating: 0xA0, count: 16))
  private let other = UUID(bytes: [UInt8](repeating: 0xA1, count: 16))
  private let disk = UUID(bytes: [UInt8](repeating: 0xD0, count: 16))
  private let link = LinkID("eth0")
  private let second: UInt64 = 1_000_000_000

  private func engine() -> Engine {
    Engine(identity: NodeIdentity(node: own, bootID: 7, name: "own"), seed: 1)
  }

  private func shared(_ nodes: [UUID]) -> SharedDisk {
    SharedDisk(id: disk, wwid: "naa.1", cluster: cluster, nodes: nodes)
  }

  private func beat(
    _ sequence: UInt64, _ role: Role, boot: UInt64 = 9, epoch: UInt32 = 0, heard: UInt64 = 7, node: UUID? = nil,
    flags: Heartbeat.Flags = [.reachable]
  ) -> Heartbeat {
    Heartbeat(
      cluster: cluster, node: node ?? other, bootID: boot, sequence: sequence, role: role, epoch: Epoch(epoch),
      name: "other", heardBoot: heard, heardSequence: 0, flags: flags, disks: [disk])
  }

  private func order(_ actions: [Action]) -> (number: UInt64, what: DiskOrder)? {
    for case .disk(_, let number, let what) in actions { return (number, what) }
    return nil
  }

  private func target(_ actions: [Action]) -> [TargetOrder] {
    actions.compactMap { if case .target(let order) = $0 { order } else { nil } }
  }

  private func addresses(_ actions: [Action]) -> [AddressOrder] {
    actions.compactMap { if case .addresses(let order) = $0 { order } else { nil } }
  }

  /// A drive that obeys, until the engine wants nothing more of it. Returns what it was ordered to do and all actions.
  private func play(_ engine: inout Engine, _ actions: [Action], _ found: inout Survey, _ now: Instant) -> (
    [DiskOrder], [Action]
  ) {
    var orders: [DiskOrder] = []
    var all = actions
    var last = actions
    while let (number, what) = order(last), orders.count < 20 {
      orders.append(what)
      var answer = DiskAnswer.done
      switch what {
      case .survey: answer = .surveyed(found)
      case .register(let key): found.keys.append(key.rawValue)
      case .reserve(let key): (found.holder, found.isOurType) = (key.rawValue, true)
      case .preempt(let own, let victim):
        found.keys.removeAll { $0 == victim }
        if found.holder == victim { (found.holder, found.isOurType) = (own.rawValue, true) }
      case .writeOwner(let record): found.owner = record
      case .enroll(let node, _): found.nodes.append(node)
      case .unregister, .writeBeat, .expel, .settle, .writeLease, .resetUnit: break
      }
      last = engine.step(.answer(disk, order: number, answer), at: now)
      all += last
    }
    return (orders, all)
  }

  private func blank(_ nodes: [UUID]) -> Survey {
    Survey(keys: [], holder: nil, isOurType: false, owner: nil, beat: nil, nodes: nodes)
  }

  /// An engine that is alone and active in epoch 1 at 1 s.
  private func active(_ found: inout Survey) -> Engine {
    var engine = engine()
    found = blank([])
    _ = play(&engine, engine.step(.disks([shared([])]), at: second), &found, second)
    _ = engine.step(.recovered(Epoch(1)), at: second)
    return engine
  }

  @Test("A node without shared disks serves at once, and takes addresses when none has come for a while")
  func solo() {
    var engine = engine()
    let actions = engine.step(.disks([]), at: second)
    #expect(target(actions) == [.serve(.none, disks: [])])
    #expect(addresses(actions) == [.drop])
    #expect(addresses(engine.step(.tick, at: second + PairTimers.observe)) == [.take])
    #expect(engine.role == .active)
  }

  @Test(
    "Alone with a disk that names nobody: key, reservation, owner record, own name, and only then service and addresses"
  )
  func alone() {
    var engine = engine()
    var found = blank([])
    let first = engine.step(.disks([shared([])]), at: second)
    let (played, actions) = play(&engine, first, &found, second)
    let orders = played.filter { if case .writeBeat = $0 { false } else { true } }
    let key = ReservationKey(cluster: cluster, slot: .first, node: own, epoch: Epoch(1))
    let record = OwnerRecord(epoch: Epoch(1), node: own, bootID: 7, arbiters: [disk])
    #expect(
      orders == [
        .survey, .register(key), .survey, .reserve(key), .survey, .writeOwner(record), .enroll(node: own, name: "own"),
      ])
    #expect(target(actions) == [.hold, .recover(Epoch(1), disks: [disk])])
    #expect(addresses(actions) == [.drop])
    let served = engine.step(.recovered(Epoch(1)), at: second)
    #expect(target(served) == [.serve(Epoch(1), disks: [disk])])
    #expect(addresses(served) == [.take])
    let causes = (actions + served).compactMap { if case .note(let change) = $0 { change } else { nil } }
    #expect(causes.map(\.to) == [.observing, .fencing, .recovering, .active])
    #expect(causes.map(\.cause) == [nil, .alone, .alone, .alone])
  }

  // MARK: Whether anybody has served

  @Test("Who serves its own disks alone has seen no service, who serves a shared one has, and says so in its beats")
  func ownService() {
    var engine = engine()
    _ = engine.step(.disks([]), at: second)
    #expect(engine.role == .active && !engine.hasSeenService)
    var found = blank([])
    engine = active(&found)
    #expect(engine.hasSeenService)
    let actions = engine.step(.tick, at: second + PairTimers.beat)
    let beats = actions.compactMap { if case .send(let beat) = $0 { beat } else { nil } }
    #expect(beats.count == 1 && beats.allSatisfy { $0.flags.contains(.hasSeenService) })
  }

  @Test("Of another node it counts that it serves or has seen service, said after this start; not that it takes a disk")
  func otherService() {
    func hasSeen(_ beat: Heartbeat) -> Bool {
      var engine = engine()
      _ = engine.step(.disks([shared([own, other])]), at: second)
      _ = engine.step(.received(beat, link: link), at: second + 1)
      return engine.hasSeenService
    }
    #expect(hasSeen(beat(1, .active, epoch: 2)) && hasSeen(beat(1, .draining, epoch: 2)))
    #expect(!hasSeen(beat(1, .active)), "with disks of its own")
    #expect(!hasSeen(beat(1, .fencing, epoch: 2)) && !hasSeen(beat(1, .recovering, epoch: 2)))
    #expect(!hasSeen(beat(1, .passive)) && hasSeen(beat(1, .passive, flags: [.hasSeenService])))
    #expect(!hasSeen(beat(1, .active, epoch: 2, heard: 0)), "it may have been recorded")
  }

  @Test("A disk's beat counts as service if it moves while the node that writes it is not heard")
  func serviceByDisk() {
    /// - Parameter beat: the disk's, so many milliseconds after the start, which is also when the other node is heard.
    func hasSeen(heard role: Role? = nil, naming boot: UInt64 = 7, beat sequence: (UInt64) -> UInt64) -> Bool {
      var engine = engine()
      var found = blank([own, other])
      var now = second
      var actions = engine.step(.disks([shared([own, other])]), at: now)
      if let role { actions += engine.step(.received(beat(1, role, epoch: 2, heard: boot), link: link), at: now) }
      // No longer than before an attempt to take over.
      while now < second + PairTimers.silence {
        while let (number, what) = order(actions) {
          #expect(what == .survey)
          found.beat = DiskBeat(
            epoch: Epoch(2), node: other, bootID: 9, sequence: sequence((now - second) / 1_000_000),
            offersHandover: false)
          actions = engine.step(.answer(disk, order: number, .surveyed(found)), at: now)
        }
        now = max(now + 1, engine.deadline ?? now)
        actions = engine.step(.tick, at: now)
      }
      return engine.hasSeenService
    }
    #expect(!hasSeen { _ in 1 }, "it may be from before")
    #expect(hasSeen { 1 + $0 / 200 })
    #expect(hasSeen(heard: .recovering) { 1 + $0 / 50 })
    // Written before it fell silent: by a node that had the disks, and did not come to serve.
    #expect(!hasSeen(heard: .recovering) { 1 + min($0, 250) / 50 })
    // It does not hear this node.
    #expect(hasSeen(heard: .active, naming: 0) { 1 + min($0, 250) / 50 })
  }

  @Test("A disk with somebody else's reservation is neither preempted nor served")
  func foreignDisk() {
    var engine = engine()
    var found = blank([])
    found.keys = [0x1234]
    found.holder = 0x1234
    let first = engine.step(.disks([shared([])]), at: second)
    let (orders, actions) = play(&engine, first, &found, second)
    #expect(orders.allSatisfy { $0 == .survey })
    #expect(!target(actions).contains { if case .recover = $0 { true } else { false } })
  }

  @Test("Of an active that another epoch has overtaken, connections end without an answer before anything else")
  func fenced() {
    var found = blank([])
    var engine = active(&found)
    #expect(engine.role == .active)
    let actions = engine.step(.received(beat(1, .active, epoch: 2), link: link), at: second + 1)
    #expect(actions.first == .target(.closeWithoutAnswer))
    #expect(addresses(actions) == [.drop])
    #expect(engine.role == .fenced)
    _ = engine.step(.tick, at: second + PairTimers.backoff + 2)
    #expect(engine.role == .observing)
    _ = engine.step(.received(beat(2, .active, epoch: 2), link: link), at: second + PairTimers.backoff + 3)
    #expect(engine.role == .passive)
  }

  @Test("A conflict of the data path is the end, too")
  func conflict() {
    var found = blank([])
    var engine = active(&found)
    let actions = engine.step(.conflict(disk), at: second + 1)
    #expect(actions.first == .target(.closeWithoutAnswer))
  }

  @Test("The lease: without a sign for as long, an active answers nothing, and goes on with the next")
  func lease() {
    var found = blank([])
    var engine = active(&found)
    let late = engine.step(.tick, at: second + PairTimers.leaseAlone + 1)
    #expect(target(late) == [.hold])
    let (_, actions) = play(&engine, late, &found, second + PairTimers.leaseAlone + 1)
    #expect(target(actions).last == .serve(Epoch(1), disks: [disk]))
  }

  @Test("A unit attention suspends the disk, and it is taken again in the same epoch")
  func disturbed() {
    var found = blank([])
    var engine = active(&found)
    (found.keys, found.holder, found.isOurType) = ([], nil, false)
    // The beat that is under way is answered first.
    let first = engine.step(.disturbed(disk), at: second + 1)
    #expect(target(first) == [.suspend(disk)])
    let next = engine.step(.tick, at: second + 2)
    var pending = order(first) ?? order(next)
    if pending == nil { pending = (engine.disks[0].busy!.order, .survey) }
    let answered = engine.step(.answer(disk, order: engine.disks[0].busy!.order, .done), at: second + 3)
    let (orders, actions) = play(&engine, answered, &found, second + 3)
    #expect(orders.contains { if case .reserve = $0 { true } else { false } })
    #expect(target(actions).contains(.admit(Epoch(1), disk: disk)))
  }

  @Test("An active whose disks take no beats says how long that has been, though it has no command under way")
  func lostPath() {
    var found = blank([])
    var engine = active(&found)
    _ = engine.step(.health(oldestIO: 0, reachable: true), at: second + 1)
    let late = second + PairTimers.hungIO + PairTimers.diskBeat
    let beats = engine.step(.tick, at: late).compactMap { if case .send(let beat) = $0 { beat } else { nil } }
    #expect(beats.count == 1 && beats[0].oldestIO > PairTimers.hungIO)
  }

  @Test("A third node is dropped and counted")
  func third() {
    var engine = engine()
    _ = engine.step(.disks([shared([own, other])]), at: second)
    _ = engine.step(
      .received(beat(1, .active, node: UUID(bytes: [UInt8](repeating: 1, count: 16))), link: link), at: second)
    #expect(engine.status(at: second).droppedMessages == 1)
    #expect(engine.status(at: second).peer == nil)
    let stranger = PairStatus.Stranger(node: UUID(bytes: [UInt8](repeating: 1, count: 16)), name: "other")
    #expect(engine.status(at: second).stranger == stranger)
    // Once a label names it, it is none.
    _ = engine.step(.disks([shared([own, stranger.node])]), at: second + 1)
    #expect(engine.status(at: second + 1).stranger == nil)
  }

  @Test("Replays change nothing: old sequences, boots that were replaced, and boots that do not name this one")
  func replays() {
    var engine = engine()
    _ = engine.step(.disks([shared([own, other])]), at: second)
    var now = second
    let hear = { (beat: Heartbeat) in
      now += 1000
      _ = engine.step(.received(beat, link: link), at: now)
    }
    hear(beat(5, .active, boot: 9))
    hear(beat(5, .passive, boot: 9))
    hear(beat(4, .passive, boot: 9))
    #expect(engine.status(at: now).peer?.role == .active)
    hear(beat(900, .passive, boot: 3, heard: 1))
    #expect(engine.status(at: now).peer?.role == .active)
    hear(beat(1, .observing, boot: 10))
    #expect(engine.status(at: now).peer?.role == .observing)
    hear(beat(6, .active, boot: 9))
    #expect(engine.status(at: now).peer?.role == .observing)
    #expect(engine.status(at: now).droppedMessages == 4)
  }

  @Test("A beat that names one of this node's that was never sent is a sign of nothing")
  func unsent() {
    var found = blank([])
    var engine = active(&found)
    var beat = beat(1, .passive)
    for named: UInt64 in [.max, .max - 31, engine.sequence + 1] {
      beat.sequence += 1
      beat.heardSequence = named
      _ = engine.step(.received(beat, link: link), at: second + 1)
      #expect(engine.peer?.datedAt == 0)
    }
    beat.sequence += 1
    beat.heardSequence = engine.sequence
    _ = engine.step(.received(beat, link: link), at: second + 1)
    #expect(engine.peer?.datedAt == second)
  }

  @Test("A switchover is called off when commands do not end in time")
  func calledOff() {
    var found = blank([])
    var engine = active(&found)
    _ = engine.step(.received(beat(1, .passive), link: link), at: second + 1)
    let drain = engine.step(.operate(.switchover), at: second + 2)
    #expect(target(drain) == [.drain(until: second + 2 + PairTimers.drain)])
    #expect(engine.role == .draining)
    let actions = engine.step(.drained(false), at: second + 3)
    #expect(target(actions) == [.serve(Epoch(1), disks: [disk])])
    #expect(engine.role == .active)
  }

  @Test("A node that hands over keeps its keys, and says that it has released the disks")
  func handsOver() {
    var found = blank([])
    var engine = active(&found)
    _ = engine.step(.received(beat(1, .passive), link: link), at: second + 1)
    _ = engine.step(.operate(.switchover), at: second + 2)
    let actions = engine.step(.drained(true), at: second + 3)
    #expect(target(actions) == [.standby, .hold], "sessions stay: nothing of them is under way")
    #expect(!actions.contains { if case .disk(_, _, .unregister) = $0 { true } else { false } })
    #expect(actions.contains { if case .send(let beat) = $0 { beat.flags.contains(.released) } else { false } })
  }

  @Test("At the end of a node that nobody takes over from nothing is said to be elsewhere: commands wait")
  func endsAlone() {
    for isHeard in [false, true] {
      var rig = PairRig(1)
      rig.see([PairRig.disks[0]])
      rig.run(6 * PairRig.second)
      #expect(rig.isServing)
      if isHeard { rig.hear(naming: 0) }
      rig.actions = []
      rig.step(.shutdown)
      rig.step(.drained(true))
      #expect(rig.engine.role == .passive)
      #expect(rig.targets.contains(.standby) == isHeard)
      #expect(rig.targets.contains { if case .drain = $0 { true } else { false } })
      rig.run(3 * PairRig.second)
      #expect(rig.targets.contains(.standby) == isHeard)
    }
  }
}

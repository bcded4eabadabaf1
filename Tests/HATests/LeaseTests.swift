import Testing
import Wire

@testable import HA

/// The engine at a disk that obeys, most often one that cannot fence, and another node that a test plays.
struct LeaseTests {
  private let cluster = UUID(bytes: Array(1...16))
  private let own = UUID(bytes: [UInt8](repeating: 0xA0, count: 16))
  private let other = UUID(bytes: [UInt8](repeating: 0xA1, count: 16))
  private let disk = UUID(bytes: [UInt8](repeating: 0xD0, count: 16))
  private let second: UInt64 = 1_000_000_000
  private let ms: UInt64 = 1_000_000

  /// An engine with a disk that obeys, and all that was ordered.
  private struct Rig: EngineRig {
    var engine: Engine
    var disk: DiskID
    var found: Survey
    var now: Instant
    /// Records of these phases are not acknowledged.
    var refuses: Set<LeaseRecord.Phase> = []
    /// Written to the first place together with this node's first record.
    var intruder: LeaseRecord?
    var isBusy = false
    /// Somebody has made another disk of it.
    var isRelabelled = false
    var orders: [DiskOrder] = []
    var actions: [Action] = []

    mutating func reply(to action: Action) -> Event? {
      switch action {
      case .disk(let disk, let number, let order):
        orders.append(order)
        return .answer(disk, order: number, answer(order))
      case .target(.recover(let epoch, _)): return .recovered(epoch)
      case .target(.drain): return .drained(true)
      case .watchdog(.arm): return .watchdog(isArmed: true)
      case .target, .addresses, .note, .send, .watchdog, .keepGuarded: return nil
      }
    }

    private mutating func answer(_ order: DiskOrder) -> DiskAnswer {
      switch order {
      case .survey: return isRelabelled ? .relabelled : .surveyed(found)
      case .settle: return isBusy ? .failed(16) : .done
      case .writeLease(let record, let place, _):
        if refuses.contains(record.phase) { return .failed(5) }
        found.leases[place] = record
        if let intruder { found.leases[0] = intruder }
      case .writeOwner(let record): found.owner = record
      case .enroll(let node, _): found.nodes.append(node)
      case .expel(let node): found.nodes.removeAll { $0 == node }
      case .writeBeat(let beat): found.beat = beat
      case .resetUnit: return .failed(25)
      case .register(let key): found.keys.append(key.rawValue)
      case .reserve(let key): (found.holder, found.isOurType) = (key.rawValue, true)
      case .preempt, .unregister: return .failed(95)
      }
      return .done
    }

    var phases: [LeaseRecord.Phase] {
      orders.compactMap { if case .writeLease(let record, _, _) = $0 { record.phase } else { nil } }
    }
    var isServing: Bool { engine.role == .active && engine.disks[0].isServed }
    mutating func forget() { (orders, actions) = ([], []) }
  }

  private func rig(
    _ nodes: [UUID], _ leases: [LeaseRecord?] = [nil, nil], fence: SharedDisk.Fence = .lease,
    guarded: Set<DiskID> = [], isBusy: Bool = false
  ) -> Rig {
    let engine = Engine(identity: NodeIdentity(node: own, bootID: 7, name: "own"), seed: 1, guarded: guarded)
    let found = Survey(
      keys: [], holder: nil, isOurType: false, owner: nil, beat: nil, nodes: nodes, leases: leases)
    var rig = Rig(engine: engine, disk: disk, found: found, now: second, isBusy: isBusy)
    rig.step(.disks([SharedDisk(id: disk, wwid: "1", cluster: cluster, nodes: nodes, fence: fence)]))
    return rig
  }

  private func others(_ phase: LeaseRecord.Phase, isGuarded: Bool) -> LeaseRecord {
    LeaseRecord(epoch: Epoch(4), node: other, bootID: 9, sequence: 1, phase: phase, isGuarded: isGuarded)
  }

  @Test("A disk that another gateway has made its own is suspended and not written to, until it is the same again")
  func relabelled() {
    for nodes in [[own], [own, other]] {
      var rig = rig(nodes)
      rig.run(until: 10 * second)
      #expect(rig.isServing)
      rig.forget()
      rig.isRelabelled = true
      rig.run(until: 20 * second)
      #expect(!rig.isServing && rig.engine.disks[0].state == .foreign)
      #expect(rig.actions.contains(.target(.suspend(disk))))
      guard let last = rig.orders.lastIndex(where: { $0 != .survey }) else { continue }
      #expect(!rig.phases.contains(.released), "a record of it would be in what is another's")
      #expect(rig.orders[last...].count { $0 == .survey } > 3, "nothing but looks")
    }
    var rig = rig([own])
    rig.isRelabelled = true
    rig.run(until: 20 * second)
    rig.isRelabelled = false
    rig.run(until: 40 * second)
    #expect(rig.isServing)
  }

  @Test("A disk that names nobody else is claimed at once, and costs nothing from then on")
  func alone() {
    var rig = rig([own])
    #expect(rig.isServing)
    #expect(rig.phases == [.wanted, .held])
    #expect(rig.orders.contains(.settle))
    #expect(!rig.actions.contains { if case .watchdog = $0 { true } else { false } })
    rig.forget()
    rig.run(until: 60 * second)
    #expect(rig.isServing)
    #expect(rig.orders.allSatisfy { $0 == .survey })
    #expect(rig.orders.count < 15)
  }

  @Test(
    "A node that is alone goes on with one disk when the other, which decided, is pulled out",
    arguments: [SharedDisk.Fence.lease, .reservations])
  func pulled(fence: SharedDisk.Fence) {
    var rig = rig([own], fence: fence)
    let second = UUID(bytes: [UInt8](repeating: 0xD1, count: 16))
    let both = [disk, second].enumerated().map { place, id in
      SharedDisk(id: id, wwid: "\(place + 1)", cluster: cluster, nodes: [own], fence: fence)
    }
    rig.step(.disks(both))
    rig.run(until: 10 * self.second)
    #expect(rig.engine.status(at: rig.now).arbiters == [disk])
    rig.forget()
    rig.step(.disks([both[1]]))
    rig.run(until: 40 * self.second)
    #expect(!rig.actions.contains(.target(.hold)))
    #expect(rig.isServing)
    #expect(rig.engine.status(at: rig.now).arbiters == [second])
  }

  @Test("Looks of the time before a standstill say nothing of the silence after it")
  func standstill() {
    var rig = rig([own, other], fence: .reservations)
    rig.run(until: 3_500 * ms)
    rig.now = 8 * second
    rig.step(.tick)
    rig.run(until: 8 * second + PairTimers.silence - PairTimers.diskBeat - 1)
    #expect(rig.engine.role == .observing)
    rig.run(until: 10 * second)
    #expect(rig.engine.role == .active)
  }

  @Test("Nothing is claimed while something of an earlier life is under way")
  func busy() {
    var rig = rig([own])
    rig = self.rig([own, other])
    rig.isBusy = true
    rig.run(until: 20 * second)
    #expect(!rig.isServing)
    #expect(rig.phases.isEmpty)
    rig.isBusy = false
    rig.run(until: 40 * second)
    #expect(rig.isServing)
  }

  @Test("A lease that another could take over is renewed, and its records say so once the watchdog is armed")
  func guarded() {
    var rig = rig([own, other])
    rig.run(until: 6 * second)
    #expect(rig.isServing)
    #expect(rig.found.leases[0]?.isGuarded == true)
    rig.forget()
    rig.run(until: 16 * second)
    #expect(rig.phases.count >= 19 && rig.phases.count <= 21)
    let signs = rig.actions.filter { if case .watchdog(.keepAlive) = $0 { true } else { false } }
    #expect(signs.count >= 19 && signs.count <= 21)
  }

  @Test(
    "A lease counts from the order of its last record: three seconds later the disk is suspended, and no sign goes out")
  func expires() {
    var rig = rig([own, other])
    rig.run(until: 6 * second)
    guard let renewed = rig.engine.disks[0].lease?.provenAt else { return #expect(Bool(false)) }
    rig.refuses = [.held]
    // Something hangs, too.
    rig.isBusy = true
    rig.forget()
    rig.run(until: renewed + PairTimers.leaseLimit - 1)
    #expect(rig.isServing)
    rig.run(until: renewed + PairTimers.leaseLimit)
    #expect(!rig.engine.disks[0].isServed)
    #expect(rig.actions.contains(.target(.suspend(disk))))
    for case .watchdog(.keepAlive(let until)) in rig.actions { #expect(until == renewed + PairTimers.leaseLimit) }
    rig.forget()
    rig.run(until: renewed + 2 * PairTimers.leaseLimit)
    #expect(!rig.actions.contains { if case .watchdog(.keepAlive) = $0 { true } else { false } })
    #expect(rig.phases.isEmpty)
  }

  @Test("Another's lease is over when its record stood still for ten seconds; the unit is reset first")
  func waits() {
    var rig = rig([own, other], [nil, others(.held, isGuarded: true)])
    rig.run(until: second + PairTimers.leaseExpiry - ms)
    #expect(rig.phases.isEmpty)
    rig.run(until: second + PairTimers.leaseExpiry + 2 * second)
    #expect(rig.isServing)
    let reset = rig.orders.firstIndex(of: .resetUnit)
    let wanted = rig.orders.firstIndex { if case .writeLease = $0 { true } else { false } }
    #expect(reset != nil && wanted != nil && reset! < wanted!)
    #expect(rig.engine.status(at: rig.now).epoch == Epoch(5))
  }

  @Test("One that is renewed is never over")
  func alive() {
    var rig = rig([own, other], [nil, others(.held, isGuarded: true)])
    for _ in 0..<60 {
      rig.found.leases[1]?.sequence += 1
      rig.run(until: rig.now + second / 2)
    }
    #expect(rig.phases.isEmpty)
  }

  @Test("Of a node without a watchdog nothing is taken over, unless an operator forces it")
  func unguarded() {
    var rig = rig([own, other], [nil, others(.held, isGuarded: false)])
    rig.run(until: 60 * second)
    #expect(rig.phases.isEmpty)
    #expect(rig.engine.status(at: rig.now).disks[0].lease?.obstacle == .unguarded)
    rig.step(.operate(.force))
    rig.run(until: 63 * second)
    #expect(rig.isServing)

    // Asked for before the lease has stood still for long enough: done when it has.
    var early = self.rig([own, other], [nil, others(.held, isGuarded: false)])
    early.run(until: 4 * second)
    early.step(.operate(.force))
    early.run(until: PairTimers.leaseExpiry)
    #expect(!early.isServing)
    early.run(until: second + PairTimers.leaseExpiry + 5 * second)
    #expect(early.isServing)
  }

  @Test("A released lease is free, and one that was only wanted needs no watchdog")
  func free() {
    var released = rig([own, other], [nil, others(.released, isGuarded: false)])
    released.run(until: second + PairTimers.observe + second)
    #expect(released.isServing)
    #expect(!released.orders.contains(.resetUnit))
    var wanted = rig([own, other], [nil, others(.wanted, isGuarded: false)])
    wanted.run(until: second + PairTimers.observe + second)
    #expect(!wanted.isServing)
    wanted.run(until: second + PairTimers.leaseExpiry + second)
    #expect(wanted.isServing)
  }

  @Test("Who wants a disk at the same time as the first of its label gives way")
  func both() {
    // The other's record comes between this node's and its look.
    var rig = rig([other, own])
    rig.intruder = others(.wanted, isGuarded: false)
    rig.run(until: 6 * second)
    #expect(rig.phases.contains(.wanted))
    #expect(rig.phases.contains(.released))
    #expect(!rig.phases.contains(.held))
    #expect(!rig.isServing)
  }

  @Test("Who hands over says released, and lets the watchdog go")
  func handsOver() {
    var rig = rig([own, other])
    rig.run(until: 6 * second)
    rig.forget()
    rig.step(.shutdown)
    #expect(rig.found.leases[0]?.phase == .released)
    #expect(rig.actions.contains(.watchdog(.disarm)))
    #expect(!rig.engine.status(at: rig.now).hasLeases)
  }

  @Test("What an earlier life of this node held is released when nothing of it is under way")
  func earlierLife() {
    var record = others(.held, isGuarded: true)
    record.node = own
    var rig = rig([own, other], [record, nil])
    #expect(rig.found.leases[0]?.phase == .released)
    rig.run(until: 6 * second)
    #expect(rig.isServing)
  }

  @Test("What the watchdog stands for is kept before a record says so, and until it is released")
  func keepsGuarded() {
    var rig = rig([own, other])
    rig.run(until: 6 * second)
    guard let kept = rig.actions.firstIndex(of: .keepGuarded([disk])),
      let record = rig.actions.firstIndex(where: {
        if case .disk(_, _, .writeLease(let record, _, _)) = $0 { record.isGuarded } else { false }
      })
    else { return #expect(Bool(false)) }
    #expect(kept < record)
    #expect(rig.actions.count { if case .keepGuarded = $0 { true } else { false } } == 1)
    rig.forget()
    rig.step(.shutdown)
    #expect(rig.actions.contains(.keepGuarded([])))
  }

  @Test("The watchdog of an earlier life is left alone until what that one had was looked at, or it would have fired")
  func earlierLifeElsewhere() {
    let unseen = UUID(bytes: [UInt8](repeating: 0xD1, count: 16))
    let touches = { (rig: Rig) in rig.actions.contains { if case .watchdog = $0 { true } else { false } } }
    var held = others(.held, isGuarded: true)
    held.node = own
    var rig = rig([own, other], [held, nil], guarded: [disk, unseen])
    rig.run(until: second + PairTimers.leaseExpiry - ms)
    #expect(rig.found.leases[0]?.phase == .held && rig.isServing, "what it sees it has taken anew")
    #expect(rig.found.leases[0]?.isGuarded == false)
    #expect(!touches(rig))
    #expect(rig.engine.keptGuarded == [unseen], "another life would have to wait, too")
    rig.run(until: second + PairTimers.leaseExpiry + second)
    #expect(rig.actions.contains(.watchdog(.arm)))
    #expect(rig.found.leases[0]?.isGuarded == true)

    // What is under way at a disk that is seen counts as well.
    var busy = self.rig([own, other], [held, nil], guarded: [disk], isBusy: true)
    busy.run(until: 30 * second)
    #expect(!busy.isServing && !touches(busy))
  }

  @Test("A record reads as it was written, and nothing else does")
  func codec() {
    for phase in [LeaseRecord.Phase.released, .wanted, .held] {
      let record = others(phase, isGuarded: phase == .held)
      #expect(LeaseRecord(decoding: record.encode()) == record)
    }
    var bytes = others(.held, isGuarded: true).encode()
    #expect(LeaseRecord(decoding: Array(bytes.dropLast())) == nil)
    bytes[4] = 3
    #expect(LeaseRecord(decoding: bytes) == nil)
  }
}

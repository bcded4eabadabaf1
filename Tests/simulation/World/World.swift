import HA
import SCSI
import Storage
import TestSupport
import Wire

/// Everything there is: nodes, disks, links, initiators, and time. Deterministic: plan and seed decide all of it.
public final class World {
  let plan: Plan
  let mutation: Mutation
  let cluster = UUID(bytes: Array(1...16))
  let pairKey = [UInt8](repeating: 0x5A, count: 32)
  var random: SplitMix
  private var queue = EventQueue()
  private(set) var now: UInt64 = 0
  var disks: [SimDisk] = []
  var nodes: [SimNode] = []
  var initiators: [Initiator] = []
  var links: [SimLink]
  var commandCount = 0
  /// Percent of commands whose status is lost.
  var lostStatus = 0
  /// Percent of commands that are done late.
  var latePercent = 0
  /// Percent of commands that wait in the node's kernel.
  var stuckPercent = 0
  /// Of one disk; nil: of all.
  var stuckDisk: Int?
  var pending: [(node: Int, action: Int, duration: UInt64, crashes: Bool)] = []
  var recorded: [(bytes: [UInt8], to: Int)] = []
  var servedBy: [UInt32: Set<Int>] = [:]
  var takeoversBegunAt: [UInt64] = []
  /// When a disk was served in a new epoch.
  var servedFirst: [(disk: Int, at: UInt64)] = []
  var reservedBy: [Int: (initiator: Int, at: UInt64)] = [:]
  var settledAt: UInt64?
  var lostRaces: [(node: Int, at: UInt64)] = []
  var diskFaultAt: UInt64 = 0
  public var isTracing = false
  /// Without the engines' dumps at the end.
  var isQuiet = false
  public private(set) var trace: [String] = []
  public private(set) var violation: String?
  public internal(set) var statistics = Statistics()

  public struct Statistics: Sendable {
    public var takeovers = 0
    public var reads = 0
    public var writes = 0
    public var reservations = 0
    public var events = 0
  }

  struct SimLink {
    /// By sender.
    var isCut = [false, false, false]
    var loss = 0
    var delay: UInt64 = 0
  }

  public init(seed: UInt64, plan: Plan, mutation: Mutation = .none) {
    self.plan = plan
    self.mutation = mutation
    random = SplitMix(seed: seed ^ 0xD15C_0000_0000_0000)
    links = Array(repeating: SimLink(), count: plan.linkCount)
    for index in 0..<plan.diskCount { disks.append(makeDisk(index)) }
    for index in 0..<3 {
      nodes.append(
        SimNode(
          index: index, world: self, clockOffset: random.time(1000...100_000), clockRate: plan.drift[index]))
    }
    for index in 0..<3 { initiators.append(Initiator(index: index, world: self)) }
  }

  private func makeDisk(_ index: Int) -> SimDisk {
    let id = UUID(bytes: [UInt8](repeating: UInt8(0xD0 + index), count: 16))
    let names = ["A", "B"].prefix(plan.labelled).enumerated().map { index, name in
      Label.Node(id: UUID(bytes: [UInt8](repeating: UInt8(0xA0 + index), count: 16)), name: name)
    }
    let label = Label(
      cluster: cluster, disk: id, lun: UInt16(index), nextLUN: UInt16(plan.diskCount), diskBytes: 1 << 30,
      blockBytes: 512, pairKey: pairKey, nodes: Array(names))
    let shared = SharedDisk(
      id: id, wwid: "naa.5000\(index)", cluster: cluster, nodes: names.map(\.id),
      fence: plan.leaseDisks.contains(index) ? .lease : .reservations)
    let fencing = (0..<plan.diskCount).filter { !plan.leaseDisks.contains($0) }
    let candidates = fencing.isEmpty ? Array(0..<plan.diskCount) : fencing
    let arbiters = candidates.prefix(candidates.count >= 3 ? 3 : 1).map {
      UUID(bytes: [UInt8](repeating: UInt8(0xD0 + $0), count: 16))
    }
    let disk = SimDisk(index: index, shared: shared, survivesPowerLoss: plan.survivesPowerLoss, label: label)
    if let first = names.first {
      // Whoever entered it there has served, and left a record of which disks decide.
      let record = OwnerRecord(epoch: Epoch(1), node: first.id, bootID: 1, arbiters: arbiters)
      disk.slots[SimDisk.Area.owner.rawValue][0] = disk.encode(record.encode(), .owner, sequence: 1)
    }
    disk.onDrop = { [unowned self] command in expire(command) }
    return disk
  }

  // MARK: Time

  func at(_ time: UInt64, _ body: @escaping () -> Void) { queue.add(at: max(time, now), body) }
  func after(_ time: UInt64, _ body: @escaping () -> Void) { queue.add(at: now + time, body) }

  /// Runs all of it; nil: nothing was wrong.
  public func run() -> String? {
    for start in plan.starts { at(start.at) { self.nodes[start.node].boot() } }
    for fault in plan.faults { schedule(fault) }
    for initiator in initiators { after(random.time(0...500)) { initiator.next() } }
    let end = plan.end
    at(end) { self.heal() }
    let last = end + settleTime
    watchLiveness(since: end)
    while violation == nil, settledAt == nil, let time = queue.nextTime, time <= last, let event = queue.takeFirst() {
      now = time
      statistics.events += 1
      if statistics.events > 500_000 { fail("11: no end of events") }
      event.body()
    }
    if violation == nil, settledAt == nil {
      now = max(now, last)
      checkLiveness(since: end)
    }
    queue = EventQueue()
    return violation
  }

  /// Within which one node serves again when faults have stopped.
  var settleTime: UInt64 { plan.leaseDisks.isEmpty ? 15_000_000_000 : 40_000_000_000 }

  func log(_ text: () -> String) {
    guard isTracing else { return }
    let ms = String(now / 1000)
    let padded = String(repeating: " ", count: max(0, 4 - ms.count)) + ms
    trace.append("\(padded.dropLast(3)).\(padded.suffix(3)) ms  \(text())")
  }

  func fail(_ text: String) {
    guard violation == nil else { return }
    violation = text
    log { "VIOLATION: \(text)" }
  }

  func disk(_ id: DiskID) -> Int? { disks.firstIndex { $0.shared.id == id } }

  // MARK: Commands to disks

  func carry(_ command: DiskCommand, to disk: SimDisk, from node: SimNode) {
    // Where statuses get lost, commands are also held up on their way.
    let isHeldUp = lostStatus > 0 && random.chance(lostStatus / 2)
    let mayStick = stuckPercent > 0 && command.writes && stuckDisk ?? disk.index == disk.index
    let isStuck = mayStick && random.chance(stuckPercent)
    let longest = isStuck && !random.chance(stuckDisk == nil ? 50 : 10) ? 16_000 : 4000
    let wait = isStuck ? random.time(500...longest) : isHeldUp ? random.time(1...1100) : 20_000
    after(random.time(0...1) / 10 + wait) {
      guard !command.isOver else { return }
      // What its kernel had goes with the machine.
      guard !isStuck || command.machine == node.machine && node.hasPower else { return }
      guard disk.hasPower, disk.path[command.node], node.hasPower else { return self.lose(command) }
      self.arrive(command, at: disk)
    }
  }

  private func arrive(_ command: DiskCommand, at disk: SimDisk) {
    if disk.attention[command.node] {
      disk.attention[command.node] = false
      return finish(command, .attention, disk)
    }
    if command.writes {
      guard disk.takesWrites(of: command.node) else { return finish(command, .conflict, disk) }
      checkWriter(command, disk)
    }
    command.isAccepted = true
    disk.queue.append(command)
    let service = (random.time(0...1) / 5 + 30_000) * disk.slowness
    // A command whose status gets lost may take effect late.
    let isLost = lostStatus > 0 && random.chance(lostStatus)
    let isLate = latePercent > 0 && random.chance(latePercent) || isLost && random.chance(40)
    let isVeryLate = isLate && disk.shared.fence == .lease && random.chance(40)
    after(isLate ? service + (isVeryLate ? random.time(1500...10_000) : random.time(1...1500)) : service) {
      guard !command.isOver else { return }
      disk.queue.removeAll { $0 === command }
      let result = self.execute(command, disk)
      if isLost { self.lose(command) } else { self.finish(command, result, disk) }
    }
  }

  private func finish(_ command: DiskCommand, _ result: DiskCommand.Result, _ disk: SimDisk) {
    command.isOver = true
    after(10_000) {
      let isThere = disk.path[command.node] && disk.hasPower
      if isThere { command.reply(result) } else { self.expire(command) }
    }
  }

  /// Its status will not come: the driver finds out, and makes sure that it is over.
  private func lose(_ command: DiskCommand) {
    command.isOver = true
    expire(command)
  }

  private func expire(_ command: DiskCommand) {
    after(1_200_000_000) { command.reply(.lost) }
  }

  private func execute(_ command: DiskCommand, _ disk: SimDisk) -> DiskCommand.Result {
    let nodeName = nodes[command.node].name
    switch command.what {
    case .readKeys:
      let keys = disk.table.registrants.map(\.key)
      return .keys(keys, holder: disk.holder, isOurType: disk.table.reservation?.kind == .writeExclusiveRegistrantsOnly)
    case .register(let key):
      log { "d\(disk.index): \(nodeName) registers \(shown(key))" }
      var action = ReservationAction(.registerAndIgnoreExistingKey, serviceKey: key)
      action.activatesThroughPowerLoss = true
      return disk.change(action, node: command.node, aborts: false, at: now)
    case .reserve(let key):
      let action = ReservationAction(.reserve, key: key, kind: .writeExclusiveRegistrantsOnly)
      let result = disk.change(action, node: command.node, aborts: false, at: now)
      log { "d\(disk.index): \(nodeName) reserves: \(result)" }
      return result
    case .preempt(let own, let victim):
      let aborts = mutation != .preemptWithoutAbort
      let action = ReservationAction(
        aborts ? .preemptAndAbort : .preempt, key: own, serviceKey: victim, kind: .writeExclusiveRegistrantsOnly)
      let result = disk.change(action, node: command.node, aborts: aborts, at: now)
      log { "d\(disk.index): \(nodeName) preempts \(shown(victim)): \(result)" }
      return result
    case .unregister(let key):
      checkUnregister(key, node: command.node)
      log { "d\(disk.index): \(nodeName) unregisters \(shown(key))" }
      var action = ReservationAction(.register, key: key)
      action.activatesThroughPowerLoss = true
      return disk.change(action, node: command.node, aborts: false, at: now)
    case .resetUnit:
      log { "d\(disk.index): \(nodeName) resets the unit" }
      disk.reset()
      return .done
    case .readRecords: return .records(disk.slots)
    case .writeRecord(let area, let slot, let bytes):
      disk.slots[area.rawValue][slot] = bytes
      return .done
    case .read(let block): return .value(disk.blocks[block])
    case .write(let block, let value):
      checkWrite(command, disk, block, value)
      disk.blocks[block] = value
      return .done
    }
  }

  func shown(_ key: UInt64) -> String {
    guard let key = ReservationKey(rawValue: key) else { return "a foreign key" }
    let owner = nodes.first { key.belongs(toNode: $0.id) }?.name ?? "?"
    return "\(owner)\(key.epoch)"
  }

  // MARK: Beats

  func transmit(_ beat: Heartbeat, from node: SimNode) {
    // The codec has tests of its own; here it reads one beat in eight, to be fast.
    let isCoded = beat.sequence % 8 == 0 || node.isStranger
    let key = node.isStranger ? [UInt8](repeating: 1, count: 32) : pairKey
    let bytes = isCoded ? HeartbeatCodec.encode(beat, key: key) : []
    for (number, link) in links.enumerated() where !link.isCut[node.index] {
      for other in nodes where other !== node && other.isRunning {
        if recorded.count < 200, isCoded { recorded.append((bytes, other.index)) }
        let copies = link.loss > 0 ? (random.chance(link.loss) ? 0 : random.chance(5) ? 2 : 1) : 1
        for _ in 0..<copies {
          let delay =
            random.time(0...1) / 5 + 50_000 + (link.delay > 0 ? random.time(0...Int(link.delay / 1_000_000)) : 0)
          let instance = other.instance
          after(delay) {
            other.run(instance) { self.deliver(isCoded ? bytes : nil, beat, to: other, link: number) }
          }
        }
      }
    }
  }

  func deliver(_ bytes: [UInt8]?, _ beat: Heartbeat?, to node: SimNode, link: Int) {
    var beat = beat
    if let bytes { beat = try? HeartbeatCodec.decode(bytes, key: pairKey) }
    guard let beat else { return }
    node.step(.received(beat, link: LinkID("link\(link)")))
  }
}

extension SimDisk {
  /// As discovery finds it: with the label as it is now.
  func shared(for node: SimNode) -> SharedDisk {
    var found = shared
    if let newest = try? Record.newest(slots[Area.label.rawValue], kind: .label),
      let label = Label(decoding: newest.record.payload)
    {
      found.nodes = label.nodes.map(\.id)
    }
    return found
  }
}

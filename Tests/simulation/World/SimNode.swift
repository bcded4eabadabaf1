import HA
import SCSI
import Storage
import Wire

/// A gateway: the production engine, a driver that does what it orders, and a target that serves initiators.
final class SimNode {
  let index: Int
  let id: UUID
  let name: String
  unowned let world: World
  var engine: Engine
  /// The machine is on; the program runs; it gets the processor.
  var hasPower = false
  var isRunning = false
  var isPaused = false
  private var backlog: [() -> Void] = []
  /// Actions of a step in the midst of which the node stood still.
  private var interrupted: [Action] = []
  /// The engine has run of late: without that, shards answer nothing.
  var hasPulse = true
  /// One more with each start of the program.
  var instance = 0
  var bootID: UInt64 = 0
  /// Its clock: any origin, and a rate of its own.
  let clockOffset: UInt64
  let clockRate: Double
  private var tickAt: UInt64 = .max
  var isReachable = true
  /// It knows another key, or another cluster.
  var isStranger = false

  // What the kernel has of it, which outlives the program.
  /// By disk: writes that have not come back.
  var outstanding: [Int]
  private var waiting: [[() -> Void]]
  /// An order is under way; those after it wait.
  private var isOrdering: [Bool]
  private var ordersWaiting: [[() -> Void]]

  // The target.
  enum Mode { case off, hold, standby, serving }
  var mode = Mode.off
  var session = 0
  var servedEpoch = Epoch.none
  /// When it last went on after a pause.
  var wentOnAt: UInt64 = 0
  var served: [Bool]
  /// Not suspended since.
  var admitted: [Bool]
  /// Admitted while all waits: its unit goes on by itself.
  var letGo: [Bool]
  /// How often all was stopped: what was admitted before stays so.
  var stops = 0
  var hasAddresses = false
  var isDraining = false
  var operations: [Operation] = []
  /// By disk: the reservations, and the record that they came from.
  var tables: [PersistentReservations]
  var tableRecords: [(sequence: UInt64, slot: Int)]
  var isChanging: [Bool]
  /// What the program had kept for its next life on this machine.
  var guarded: Set<DiskID> = []
  /// By disk: an earlier life has it open, for its commands are under way.
  var isInherited: [Bool]
  /// By disk and block: writes under way. Another to the same place waits.
  var writing: [[Int]]
  /// What this node last saw of each area's records, to know where to write next.
  var lastRecords: [[(sequence: UInt64, slot: Int)]]

  init(index: Int, world: World, clockOffset: UInt64, clockRate: Double) {
    self.index = index
    self.world = world
    name = ["A", "B", "C"][index]
    id = UUID(bytes: [UInt8](repeating: UInt8(0xA0 + index), count: 16))
    self.clockOffset = clockOffset
    self.clockRate = clockRate
    engine = Engine(identity: NodeIdentity(node: id, bootID: 0, name: name), seed: 0)
    let count = world.disks.count
    outstanding = [Int](repeating: 0, count: count)
    waiting = [[() -> Void]](repeating: [], count: count)
    isOrdering = [Bool](repeating: false, count: count)
    ordersWaiting = waiting
    served = [Bool](repeating: false, count: count)
    admitted = served
    letGo = served
    tables = [PersistentReservations](repeating: PersistentReservations(), count: count)
    tableRecords = Array(repeating: (0, 0), count: count)
    isChanging = [Bool](repeating: false, count: count)
    isInherited = isChanging
    writing = Array(repeating: [Int](repeating: 0, count: SimDisk.blockCount), count: count)
    lastRecords = Array(repeating: Array(repeating: (0, 0), count: SimDisk.Area.allCases.count), count: count)
  }

  // MARK: Life

  func local(_ time: UInt64) -> Instant { clockOffset + UInt64(Double(time) * clockRate) }

  func start() {
    guard !isRunning else { return }
    hasPower = true
    isRunning = true
    isPaused = false
    instance += 1
    bootID = world.random.next()
    world.log { "\(self.name): starts" }
    let seed = world.plan.seedsAreEqual ? 7 : world.random.next()
    engine = Engine(
      identity: NodeIdentity(node: id, bootID: bootID, name: name), seed: seed, guarded: guarded,
      policy: world.mutation.policy)
    mode = .hold
    session += 1
    servedEpoch = .none
    served = served.map { _ in false }
    letGo = served
    isChanging = isChanging.map { _ in false }
    writing = writing.map { $0.map { _ in 0 } }
    operations = []
    hasAddresses = false
    isDraining = false
    tickAt = .max
    let current = instance
    isInherited = outstanding.map { $0 > 0 && world.random.chance(70) }
    // Discovery finds the disks one after another, or all at once.
    let found = world.plan.seedsAreEqual ? world.random.time(1...2) : world.random.time(1...30)
    world.after(found) { self.run(current) { self.tellDisks() } }
    world.after(1_000_000) { self.run(current) { self.tellHealth() } }
  }

  /// The program is gone, at once. What the kernel has under way goes on.
  func kill() {
    guard isRunning else { return }
    world.log { "\(self.name): killed" }
    isRunning = false
    isPaused = false
    // The kernel pings a watchdog whose program closes it without a word.
    if hasWatchdogOpen { keepAlive() }
    hasWatchdogOpen = false
    backlog = []
    interrupted = []
    instance += 1
    mode = .off
    hasAddresses = false
    closeSessions(after: 1_000_000)
  }

  /// The machine is gone, with all it had.
  func crash() {
    guard hasPower else { return }
    world.log { "\(self.name): crashes" }
    kill()
    hasPower = false
    watchdogAt = nil
    guarded = []
  }

  // MARK: The watchdog

  /// When it resets the machine.
  private(set) var watchdogAt: UInt64?
  private var hasWatchdogOpen = false

  private func obey(_ order: WatchdogOrder) {
    switch order {
    case .arm:
      hasWatchdogOpen = world.plan.hasWatchdog
      if hasWatchdogOpen { keepAlive() }
      let current = instance
      world.after(1_000_000) { self.run(current) { self.step(.watchdog(isArmed: self.world.plan.hasWatchdog)) } }
    case .keepAlive(let until): if local(world.now) < until, watchdogAt != nil { keepAlive() }
    case .disarm: (watchdogAt, hasWatchdogOpen) = (nil, false)
    }
  }

  /// It runs on while the program does not, or is gone.
  private func keepAlive() {
    let due = world.now + PairTimers.watchdog
    watchdogAt = due
    world.at(due) { [self] in
      guard watchdogAt == due, hasPower else { return }
      world.log { "\(self.name): its watchdog resets it" }
      crash()
      world.after(world.random.time(1000...9000)) { self.boot() }
    }
  }

  func boot() {
    guard !hasPower else { return start() }
    // The nexus is lost with the machine: disks drop what they still have of it.
    for disk in world.disks { disk.abort(node: index) }
    outstanding = outstanding.map { _ in 0 }
    waiting = waiting.map { _ in [] }
    isOrdering = isOrdering.map { _ in false }
    ordersWaiting = waiting
    machine += 1
    start()
  }
  private(set) var machine = 0

  func pause(_ time: UInt64) {
    guard isRunning, !isPaused else { return }
    world.log { "\(self.name): stands still for \(time / 1_000_000) ms" }
    isPaused = true
    let current = instance
    world.after(time) {
      guard self.instance == current, self.isPaused else { return }
      self.isPaused = false
      self.wentOnAt = self.world.now
      self.world.log { "\(self.name): goes on" }
      // What was decided before is done late. The shards wait for the engine's pulse, whatever else has piled up.
      self.hasPulse = false
      let rest = self.interrupted
      self.interrupted = []
      for action in rest where self.instance == current { self.perform(action) }
      self.hasPulse = true
      self.step(.tick)
      self.pump()
      let bodies = self.backlog
      self.backlog = []
      for body in bodies { self.run(current, body) }
    }
  }

  /// Runs something in the program, if that is still the one meant.
  func run(_ current: Int, _ body: @escaping () -> Void) {
    guard instance == current, isRunning else { return }
    if isPaused { backlog.append(body) } else { body() }
  }

  // MARK: The engine

  func step(_ event: Event) {
    guard isRunning else { return }
    let current = instance
    let actions = engine.step(event, at: local(world.now))
    var position = 0
    while position < actions.count {
      let action = actions[position]
      position += 1
      world.triggers(self)
      guard instance == current else { return }
      if isPaused {
        let rest = Array(actions[(position - 1)...])
        interrupted += rest
        break
      }
      perform(action)
    }
    scheduleTick()
  }

  private func scheduleTick() {
    guard let deadline = engine.deadline else { return }
    // The inverse of `local`, rounded up.
    let time = max(world.now + 1, UInt64(Double(deadline - min(deadline, clockOffset)) / clockRate) + 2)
    guard time < tickAt || tickAt <= world.now else { return }
    tickAt = time
    let current = instance
    world.at(time) {
      guard self.tickAt == time else { return }
      self.tickAt = .max
      self.run(current) { self.step(.tick) }
    }
  }

  func tellDisks() {
    step(.links(world.links.indices.map { LinkID("link\($0)") }))
    let seen = world.disks.filter { $0.isSeen[index] && !isInherited[$0.index] }
    step(.disks(seen.map { $0.shared(for: self) }))
  }

  private func tellHealth() {
    let now = world.now
    let oldest = operations.filter { $0.state == .underWay }.map(\.since).min()
    step(.health(oldestIO: oldest.map { now - $0 } ?? 0, reachable: isReachable))
    let current = instance
    world.after(50_000_000) { self.run(current) { self.tellHealth() } }
  }

  private func perform(_ action: Action) {
    switch action {
    case .send(let beat): world.transmit(beat, from: self)
    case .disk(let id, let order, let what): driver(id, order, what)
    case .target(let order): obey(order)
    case .addresses(let order): setAddresses(order == .take)
    case .watchdog(let order): obey(order)
    case .keepGuarded(let disks): guarded = disks
    case .note(let transition):
      world.log { "\(self.name): \(transition.from) -> \(transition.to): \(transition.reason)" }
      world.noticeNote(transition, of: self)
    }
  }

  private func setAddresses(_ taken: Bool) {
    world.log { "\(self.name): \(taken ? "takes" : "drops") the service addresses" }
    if taken { world.check(addressesOf: self) }
    hasAddresses = taken
  }

  // MARK: Disks: commands of the kernel

  /// Sends a command to a disk. The reply comes to the kernel: `reply` must ask itself whether the program is still there.
  func send(_ what: DiskCommand.What, to disk: Int, reply: @escaping (DiskCommand.Result) -> Void) {
    let onMachine = machine
    let command = DiskCommand(
      number: world.commandCount, node: index, machine: machine, what: what, epoch: servedEpoch
    ) { [self] result in
      guard machine == onMachine, hasPower else { return }
      reply(result)
    }
    world.commandCount += 1
    if command.writes {
      outstanding[disk] += 1
      let inner = command.reply
      command.reply = { [self] result in
        if machine == onMachine {
          outstanding[disk] -= 1
          if outstanding[disk] == 0 {
            findInherited(disk)
            let bodies = waiting[disk]
            waiting[disk] = []
            for body in bodies { body() }
          }
        }
        inner(result)
      }
    }
    world.carry(command, to: world.disks[disk], from: self)
  }

  /// A disk that the kernel left to nobody while commands of an earlier life were under way is found by the next try.
  private func findInherited(_ disk: Int) {
    guard isInherited[disk] else { return }
    isInherited[disk] = false
    let current = instance
    world.after(world.random.time(1...1000)) { self.run(current) { self.tellDisks() } }
  }

  /// When nothing that was written before is still under way.
  private func whenQuiet(_ disk: Int, _ body: @escaping () -> Void) {
    if outstanding[disk] == 0 || world.mutation == .registerWithStaleWrites {
      body()
    } else {
      waiting[disk].append(body)
    }
  }

  // MARK: Disks: the engine's orders

  private func driver(_ id: DiskID, _ order: UInt64, _ what: DiskOrder) {
    guard let disk = world.disks.firstIndex(where: { $0.shared.id == id }) else { return }
    let current = instance
    var isAnswered = false
    let tell = { [self] (answer: DiskAnswer) in
      guard !isAnswered else { return }
      isAnswered = true
      run(current) { self.step(.answer(id, order: order, answer)) }
    }
    // The driver's own limit: then the engine knows that it does not know.
    world.after(PairTimers.diskLimit) { tell(.timedOut) }
    let onMachine = machine
    let answer = { [self] (answer: DiskAnswer) in
      tell(answer)
      guard machine == onMachine else { return }
      isOrdering[disk] = false
      if !ordersWaiting[disk].isEmpty { ordersWaiting[disk].removeFirst()() }
    }
    let begin = { [self] in
      guard instance == current, isRunning, !isAnswered else { return answer(.failed(5)) }
      isOrdering[disk] = true
      carryOut(what, disk, answer)
    }
    if isOrdering[disk] { ordersWaiting[disk].append(begin) } else { begin() }
  }

  private func carryOut(_ what: DiskOrder, _ disk: Int, _ answer: @escaping (DiskAnswer) -> Void) {
    let simple = { (result: DiskCommand.Result) in
      switch result {
      case .done: answer(.done)
      case .conflict: answer(.conflict)
      case .attention: answer(.disturbed)
      case .keys, .records, .value: answer(.failed(5))
      case .lost: answer(.timedOut)
      }
    }
    switch what {
    case .survey: survey(disk, answer)
    case .register(let key):
      whenQuiet(disk) { [self] in
        send(.register(key.rawValue), to: disk, reply: simple)
      }
    case .reserve(let key): send(.reserve(key.rawValue), to: disk, reply: simple)
    case .preempt(let own, let victim): send(.preempt(own: own.rawValue, victim: victim), to: disk, reply: simple)
    case .unregister(let key): send(.unregister(key.rawValue), to: disk, reply: simple)
    case .writeOwner(let record): writeRecord(.owner, record.encode(), disk, simple)
    case .writeBeat(let beat): writeRecord(.beat, beat.encode(), disk, simple)
    case .enroll(let node, let name):
      rewriteLabel(disk, simple) { label in
        guard label.nodes.count < Label.nodeSlots, !label.nodes.contains(where: { $0.id == node }) else { return }
        label.nodes.append(Label.Node(id: node, name: name))
      }
    case .expel(let node): rewriteLabel(disk, simple) { $0.nodes.removeAll { $0.id == node } }
    case .settle: answer(outstanding[disk] == 0 ? .done : .failed(16))
    case .writeLease(let record, let place, _): writeRecord(SimDisk.Area.leases[place], record.encode(), disk, simple)
    case .resetUnit: send(.resetUnit, to: disk, reply: simple)
    }
  }

  private func survey(_ disk: Int, _ answer: @escaping (DiskAnswer) -> Void) {
    if world.disks[disk].shared.fence == .lease { return readRecords(disk, [], nil, false, answer) }
    send(.readKeys, to: disk) { [self] result in
      guard case .keys(let keys, let holder, let isOurType) = result else {
        return answer(result.isAttention ? .disturbed : .timedOut)
      }
      readRecords(disk, keys, holder, isOurType, answer)
    }
  }

  private func readRecords(
    _ disk: Int, _ keys: [UInt64], _ holder: UInt64?, _ isOurType: Bool, _ answer: @escaping (DiskAnswer) -> Void
  ) {
    send(.readRecords, to: disk) { [self] result in
      guard case .records(let areas) = result else { return answer(result.isAttention ? .disturbed : .timedOut) }
      var payloads: [[UInt8]?] = []
      for area in SimDisk.Area.allCases {
        let newest = try? Record.newest(areas[area.rawValue], kind: area.kind, disk: world.disks[disk].shared.id)
        payloads.append(newest?.record.payload)
        lastRecords[disk][area.rawValue] = (newest?.record.sequence ?? 0, newest?.nextSlot ?? 0)
      }
      guard let label = payloads[SimDisk.Area.label.rawValue].flatMap(Label.init(decoding:)) else {
        return answer(.failed(5))
      }
      answer(
        .surveyed(
          Survey(
            keys: keys, holder: holder, isOurType: isOurType,
            owner: payloads[SimDisk.Area.owner.rawValue].flatMap(OwnerRecord.init(decoding:)),
            beat: payloads[SimDisk.Area.beat.rawValue].flatMap(DiskBeat.init(decoding:)),
            nodes: label.nodes.map(\.id),
            leases: SimDisk.Area.leases.map { payloads[$0.rawValue].flatMap(LeaseRecord.init(decoding:)) })))
    }
  }

  private func writeRecord(
    _ area: SimDisk.Area, _ payload: [UInt8], _ disk: Int, _ reply: @escaping (DiskCommand.Result) -> Void
  ) {
    let (sequence, slot) = lastRecords[disk][area.rawValue]
    let bytes = world.disks[disk].encode(payload, area, sequence: sequence + 1)
    lastRecords[disk][area.rawValue] = (sequence + 1, 1 - slot)
    send(.writeRecord(area, slot: slot, bytes), to: disk, reply: reply)
  }

  private func rewriteLabel(
    _ disk: Int, _ reply: @escaping (DiskCommand.Result) -> Void, _ change: @escaping (inout Label) -> Void
  ) {
    send(.readRecords, to: disk) { [self] result in
      guard case .records(let areas) = result,
        let newest = try? Record.newest(areas[SimDisk.Area.label.rawValue], kind: .label),
        var label = Label(decoding: newest.record.payload)
      else { return reply(result.isAttention ? .attention : .lost) }
      lastRecords[disk][SimDisk.Area.label.rawValue] = (newest.record.sequence, newest.nextSlot)
      change(&label)
      writeRecord(.label, label.encode(), disk, reply)
    }
  }
}

extension DiskCommand.Result {
  var isAttention: Bool { if case .attention = self { true } else { false } }
}

import CSystem
import Datamover
import Glibc
import ISCSI
import Reactor
import SCSI
import Storage

/// A thread with its ring, its buffers and its connections. A connection, its commands and their data never leave it; what
/// several shards must agree on (sessions, reservations, holds, unit attentions) lives in objects with locks of their own,
/// and what must be done everywhere before somebody may be told travels as a message to every shard.
///
/// A turn of the loop: take a batch of completions, let each append what follows from it, then send once per connection.
final class Shard {
  static let ringEntries: UInt32 = 1024
  static let receiveBuffers = (count: 64, bytes: 64 << 10)
  /// For a connection that had more waiting than fits into one of the others: many small writes at once take fewer
  /// receives and answers.
  static let largeReceiveBuffers = (count: 16, bytes: 256 << 10)
  /// Receives into large ones after one that was full.
  static let largeReceives = 4
  static let commandsMax = 65536
  static let localRoundsMax = 8
  /// What a data segment must still lack for a receive of its own.
  static let directReceiveBytes = 32 << 10

  let handle: ShardHandle
  let context: ShardContext
  let ring: Ring
  let pool: BufferPool
  let receives: ReceiveBuffers
  let largeReceives: ReceiveBuffers
  let batches = SendBatches()
  let local = LocalCompletions()
  var configuration: ShardConfiguration { didSet { server = Unmanaged.passUnretained(configuration.deviceServer) } }
  /// That of the configuration, for the warm path: uncounted.
  private(set) var server: Unmanaged<DeviceServer>
  var map: ExportMap
  var now: UInt64 = system_monotonic_ns()

  var connections: [Connection?] = []
  var freeConnections: [Int] = []
  var connectionGeneration: UInt32 = 0
  var commands = Slab<Command>(capacity: commandsMax, initial: Command())
  var pieces = Slab<Piece>(capacity: commandsMax, initial: Piece())
  /// By index; a port's place stays its own while commands use it.
  var ports: [UnitPort?] = []
  /// By LUN: index into `ports`, or -1.
  var portOfLUN: [Int32] = []
  var freeFileSlots: [UInt32]

  /// Immediate data of the command at hand that has no buffer of its own yet.
  var received: UnsafeRawPointer?
  /// Connections with something to send.
  var dirty: [Connection] = []
  /// Connections whose receive found no buffer.
  var starved: [Connection] = []
  /// Pieces that wait for the arena, in order.
  var bufferWaiters: [(piece: Int, generation: UInt32)] = []
  /// A unit has given back something of its share.
  var mayRetryShares = false
  /// Pieces wait for their unit's share.
  var hasShareWaiters = false
  /// Disk requests that wait for a range to be free.
  var parked: [ParkedRequest] = []
  /// RDMA devices, and connections over them.
  let verbs = VerbsTable()
  /// COMPARE AND WRITE commands that wait for their range.
  var parkedCommands: [(command: Int, generation: UInt32)] = []
  var mayUnpark = false
  /// When the pool is asked for what it does not need; 0: it has nothing to give.
  var trimAt: UInt64 = 0
  static let trimNs: UInt64 = 1_000_000_000
  /// A port that is removed has lent what is not sent yet, or has buffers on their way.
  var hasLentRemoved = false
  var quietWaiters: [QuietWaiter] = []
  /// What was refused, or is unusual.
  var events = EventCounts()
  var endedTraces = EndedTraces()
  /// Counters of commands that came and were answered in one turn, since the clock was last read for those.
  var pendingLatencies: LatencyCounter?
  private var turnsWithLatencies: UInt32 = 0
  /// At one of so many of these turns the clock is read once more, for all of them.
  private static let latencyTurns: UInt32 = 16
  /// Commands that wait until it is known who has their disk, in the order in which they came.
  var held: [HeldCommand] = []
  /// SET TARGET PORT GROUPS that wait for the pair: for a handover that waits for every other command.
  var switching: [(index: Int, generation: UInt32)] = []
  /// Connections that wait until it is known which ports are this node's.
  var waitingConnections: [(message: ShardMessage, since: UInt64)] = []
  var drains: [Drain] = []
  /// What a command that is not a plain read or write has to remember.
  var cold: [Int: ColdState] = [:]
  /// Work is looked for without sleeping until then.
  var pollsUntil: UInt64 = 0
  /// When timers are looked at next; nil: there are none.
  var nextTick: UInt64?
  var isStopping = false

  /// Made on the thread that runs it.
  init(handle: ShardHandle, context: ShardContext, configuration: ShardConfiguration, map: ExportMap) throws(RingError)
  {
    self.handle = handle
    self.context = context
    self.configuration = configuration
    server = Unmanaged.passUnretained(configuration.deviceServer)
    self.map = map
    ring = try Ring(entries: Self.ringEntries, completions: Self.ringEntries * 8)
    ring.makeTables(files: 512, buffers: UInt32(min(max(context.arenaBytes / BufferPool.chunkBytes, 4), 16384)))
    pool = BufferPool(ring: ring, bytes: context.arenaBytes)
    receives = try ReceiveBuffers(
      ring: ring, group: 0, count: Self.receiveBuffers.count, byteCount: Self.receiveBuffers.bytes)
    largeReceives = try ReceiveBuffers(
      ring: ring, group: 1, count: Self.largeReceiveBuffers.count, byteCount: Self.largeReceiveBuffers.bytes)
    freeFileSlots = (0..<512).reversed()
    adopt(map)
  }

  /// The loop; returns when the shard was stopped and nothing is left.
  func run() {
    let batch = UnsafeMutablePointer<Completion>.allocate(capacity: 512)
    defer { batch.deallocate() }
    ring.pollReadable(handle.inbox.descriptor, token: Token(OperationCode.inbox, index: 0, generation: 0))
    while !(isStopping && connections.allSatisfy { $0 == nil } && verbs.isEmpty) {
      if !local.isEmpty {
        ring.poll()
      } else if verbs.pollsUntil == 0, pollsUntil <= now {
        ring.submitAndWait(until: nextWake())
      } else if ring.hasWork {
        ring.poll()
      } else {
        system_pause()
      }
      if context.pulse.load(ordering: .acquiring) != 0 { awaitPulse() }
      now = system_monotonic_ns()
      if verbs.pollsUntil != 0 { pollVerbs() }
      var taken = ring.takeCompletions(into: batch, limit: 512)
      if taken > 0, configuration.pollNs > 0 { pollsUntil = now + configuration.pollNs }
      for i in 0..<taken { dispatch(batch[i]) }
      // What follows from these at once is not waited for: a long command of a disk in memory must leave others their turn.
      var rounds = 0
      repeat {
        taken = local.take(into: batch, limit: 512, now: now)
        for i in 0..<taken { dispatch(batch[i]) }
        rounds += 1
      } while taken > 0 && rounds < Self.localRoundsMax
      afterBatch()
    }
  }

  private func nextWake() -> UInt64? {
    var deadline = nextTick
    if let local = local.nextDeadline { deadline = min(deadline ?? .max, local) }
    return deadline
  }

  @inline(__always)
  private func dispatch(_ completion: Completion) {
    let token = completion.token
    switch token.operation {
    case OperationCode.receive: received(completion, in: receives)
    case OperationCode.receiveLarge: received(completion, in: largeReceives)
    case OperationCode.disk: diskCompleted(token, completion.result)
    case OperationCode.send: sent(token, completion.result)
    case OperationCode.receiveDirect: receivedDirectly(completion)
    case OperationCode.inbox: readInbox()
    case OperationCode.verbs: verbsReadable(token, completion.result)
    case OperationCode.verbsEvent: verbsEventReadable(token, completion.result)
    default: break
    }
  }

  private func readInbox() {
    ring.pollReadable(handle.inbox.descriptor, token: Token(OperationCode.inbox, index: 0, generation: 0))
    for message in handle.inbox.take() {
      switch message {
      case .connection, .verbsConnection: admit(message)
      case .adopt(let map): adopt(map)
      case .configure(let configuration):
        self.configuration = configuration
        admitWaiting()
      case .perform(let body): body(self)
      }
    }
  }

  /// What follows from a batch: retries, timers, and one message per connection. A flush may end a connection, whose
  /// buffers and ranges others wait for: so they are asked again until nothing was flushed.
  private func afterBatch() {
    if let tick = nextTick, tick <= now { runTimers() }
    batches.isShared = connections.count - freeConnections.count > 1
    var hasFlushed: Bool
    repeat {
      if pool.isShort { retryBufferWaiters() }
      if pool.hasReturned {
        pool.hasReturned = false
        if hasShareWaiters { mayRetryShares = true }
      }
      if mayRetryShares { retryShares() }
      if mayUnpark { unpark() }
      if !quietWaiters.isEmpty { checkQuiet() }
      hasFlushed = !dirty.isEmpty
      while let connection = dirty.popLast() {
        connection.isDirty = false
        flush(connection)
      }
    } while hasFlushed
    if pendingLatencies != nil {
      turnsWithLatencies &+= 1
      if turnsWithLatencies % Self.latencyTurns == 0 { settleLatencies() }
    }
    if !starved.isEmpty { retryStarved() }
    if trimAt == 0, pool.emptyChunks > 0 {
      trimAt = now + Self.trimNs
      scheduleTick(at: trimAt)
    }
    if hasLentRemoved {
      hasLentRemoved = false
      for index in ports.indices { disposeIfUnused(index) }
    }
    if !verbs.retired.isEmpty { destroyRetired() }
  }

  /// Has the connection's queue sent at the end of this turn.
  @inline(__always)
  func touch(_ connection: Connection) {
    guard !connection.isDirty else { return }
    connection.isDirty = true
    dirty.append(connection)
  }

  func flush(_ connection: Connection) {
    guard connection.phase != .closing else { return }
    if !connection.mover.isInFlight {
      connection.sendingSince = now
      connection.messageSince = now
    }
    connection.mover.flush(
      ring: ring, batches: batches, expCmdSN: connection.window.expCmdSN.value,
      maxCmdSN: connection.window.maxCmdSN.value)
    if connection.mover.failure != 0 {
      return closeBroken(connection, -connection.mover.failure)
    }
    if connection.closesAfterSend, connection.mover.isIdle {
      close(connection, connection.endCause, connection.closeReason)
    }
  }

  /// The live connection that a token names.
  @inline(__always)
  func connection(_ token: Token) -> Connection? {
    let index = Int(token.index)
    guard index < connections.count, let connection = connections[index],
      connection.generation & 0xFF_FFFF == token.generation
    else { return nil }
    return connection
  }

  // MARK: Exports

  /// Takes a new snapshot: ports for what came, the end for what went.
  func adopt(_ map: ExportMap) {
    // Two threads may publish at a time: what comes late is old.
    guard map.generation >= self.map.generation else { return }
    self.map = map
    for index in ports.indices {
      guard let port = ports[index], !port.isRemoved else { continue }
      if !map.exports.contains(where: { $0 === port.export }) {
        port.isRemoved = true
        if Int(port.export.unit.number) < portOfLUN.count, portOfLUN[Int(port.export.unit.number)] == Int32(index) {
          portOfLUN[Int(port.export.unit.number)] = -1
        }
        disposeIfUnused(index)
      }
    }
    for export in map.exports where !ports.contains(where: { $0?.export === export }) { addPort(export) }
    for case let connection? in connections where connection.phase == .fullFeature {
      let units = visibleUnits(connection.result?.luns)
      if !units.hasSame(as: connection.units) { connection.hasOtherUnits = true }
      connection.units = units
    }
  }

  private func addPort(_ export: Export) {
    let slot = freeFileSlots.popLast()
    let queue = DiskQueue(disk: export.disk, ring: ring, local: local, slot: slot) {
      [handle] byteCount, offset, token in
      export.questions.ask {
        let result = export.disk.discard(byteCount, at: offset)
        handle.post(.perform { $0.diskCompleted(token, result) })
      }
    }
    let port = UnitPort(export: export, queue: queue, slot: slot)
    let index = ports.firstIndex { $0 == nil } ?? ports.count
    if index == ports.count { ports.append(port) } else { ports[index] = port }
    let number = Int(export.unit.number)
    while portOfLUN.count <= number { portOfLUN.append(-1) }
    portOfLUN[number] = Int32(index)
  }

  func disposeIfUnused(_ index: Int) {
    guard let port = ports[index], port.isRemoved, port.commands == 0 else { return }
    guard port.lent == 0, port.heldBytes == 0 else { return hasLentRemoved = true }
    settleLatencies()
    ports[index] = nil
    if let slot = port.slot { freeFileSlots.append(slot) }
  }

  /// The units that an initiator with this mask sees (nil: all).
  func visibleUnits(_ luns: Set<UInt16>?) -> LogicalUnitMap {
    guard let luns else { return map.units }
    return LogicalUnitMap(map.exports.map(\.unit).filter { luns.contains($0.number) })
  }

  /// Tells the sessions of this shard of a change: a unit attention for each nexus (after the shard has the new snapshot, so
  /// that who asks finds it), and at once a message for those that listen (RFC 7143 §11.9.1, event 0).
  /// - Parameter lun: of which unit it is; nil: of the target's inventory, which LUN 0 tells.
  func announceUnitAttention(_ attention: UnitAttention, lun: UInt16?) {
    let sense = attention.sense.encode(descriptorFormat: false)
    let data = [UInt8(sense.count >> 8), UInt8(sense.count & 0xFF)] + sense
    for case let connection? in connections {
      guard connection.phase == .fullFeature, let nexus = connection.nexus else { continue }
      if attention == .reportedLunsDataHasChanged {
        // Who is not shown what has changed hears nothing of it.
        guard connection.hasOtherUnits else { continue }
        connection.hasOtherUnits = false
        nexus.raise(attention, lun: nil)
      }
      guard connection.hasHeard, lun.map({ connection.units[$0] != nil }) ?? true else { continue }
      trace(connection, .asyncMessage(.scsi))
      respond(connection, .asyncMessage(.scsi, lun: LogicalUnitMap.field(of: lun ?? 0)), data: data)
    }
  }
}

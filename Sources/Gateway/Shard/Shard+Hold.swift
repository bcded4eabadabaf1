import CSystem
import Glibc
import Reactor
import SCSI
import Storage

/// A command that waits for its unit's disk to be this node's, or the peer's.
struct HeldCommand {
  var index: Int
  var generation: UInt32
  var since: UInt64
  /// Its immediate data, the entry's to give back.
  var immediate: Buffer?
  /// Its parameter list, if that is complete.
  var parameters: [UInt8]?
}

/// While it is not known which node of the pair has the disks, nothing is refused: commands and new connections wait. What
/// waits can be aborted and be lost with its connection like anything else.
extension Shard {
  /// The longest wait.
  static let holdNs: UInt64 = 10_000_000_000
  private static let holdTickNs: UInt64 = 1_000_000_000

  // MARK: Commands

  /// Takes a command that the device server could not decide about. Its immediate data is kept.
  func hold(_ index: Int, _ immediate: Buffer?, parameters: [UInt8]?) {
    var immediate = immediate
    if let received {
      let count = Int(commands[index].pointee.immediateBytes)
      // As `immediateBufferBytes`: the rest of the piece joins what is here.
      let room = min(max(Int(commands[index].pointee.expected), count), BufferPool.pieceBytes)
      guard let buffer = pool.take(room) else { return refuseForMemory(index) }
      buffer.base.copyMemory(from: received, byteCount: count)
      immediate = buffer
      self.received = nil
    }
    commands[index].pointee.progressedAt = now
    held.append(
      HeldCommand(
        index: index, generation: commands[index].pointee.generation, since: now, immediate: immediate,
        parameters: parameters))
    scheduleTick(at: now + Self.holdTickNs)
  }

  /// Asks again for every command that waits; those whose unit is still suspended go on waiting, in the same order.
  func retryHeld() {
    guard !held.isEmpty else { return }
    let waiting = held
    held = []
    for var entry in waiting {
      guard isLive(entry), let connection = connections[Int(commands[entry.index].pointee.connection)],
        connection.phase == .fullFeature, let nexus = connection.nexus
      else {
        // Aborted, or its connection is on its way out, which takes the command with it.
        if let buffer = entry.immediate.take() { pool.give(buffer) }
        continue
      }
      let since = entry.since
      let count = held.count
      if let parameters = entry.parameters {
        let disposition = configuration.deviceServer.resume(
          request(entry.index), nexus: nexus, map: connection.units, parameters: parameters)
        if case .wait = disposition {
          hold(entry.index, nil, parameters: parameters)
        } else {
          act(on: disposition, entry.index, nil)
        }
      } else {
        execute(entry.index, connection, entry.immediate.take())
      }
      if held.count > count { held[count].since = since }
    }
  }

  private func isLive(_ entry: HeldCommand) -> Bool { isLive(entry.index, entry.generation) }

  private func isLive(_ index: Int, _ generation: UInt32) -> Bool {
    let command = commands[index]
    return command.pointee.generation == generation && command.pointee.connection >= 0 && !command.pointee.isAborted
  }

  /// Commands under way that wait neither here nor for the handover itself, and data lent out: what a handover waits for.
  var commandsUnderWay: Int {
    commands.count - held.count(where: isLive) - switching.count { isLive($0.index, $0.generation) }
  }

  /// Commands with a request in the disk's hands, those that nobody waits for any more included.
  func requestsUnderWay(of export: Export) -> Int {
    var count = 0
    for index in 0..<commands.used where commands[index].pointee.diskCount > 0 {
      if ports[Int(commands[index].pointee.port)]?.export === export { count += 1 }
    }
    return count
  }

  /// Whether a command was let on to a unit and is not over: it may have another request for the disk, when its data, a buffer
  /// or its range is there.
  private func hasBegun(_ index: Int, at unit: LogicalUnit) -> Bool {
    commands[index].pointee.unitPort != nil && ports[Int(commands[index].pointee.port)]?.export.unit === unit
  }

  /// Commands that may still have something written, but for aborted ones of which the disk has nothing in hand.
  func commandsBegun(at unit: LogicalUnit) -> Int {
    var count = 0
    for index in 0..<commands.used where hasBegun(index, at: unit) {
      if commands[index].pointee.diskCount > 0 || !commands[index].pointee.isAborted { count += 1 }
    }
    return count
  }

  /// Nothing but this node keeps what was begun from the disk of a unit whose lease is over. It is aborted, and not answered:
  /// its initiators ask again when their connections have ended, here or at the other node. What waits goes on waiting.
  func endBegun(at unit: LogicalUnit) {
    var ended: [Connection] = []
    abort(done: {}) { shard, index, connection in
      guard shard.hasBegun(index, at: unit) else { return false }
      if ended.last !== connection { ended.append(connection) }
      return true
    }
    for connection in ended { close(connection, .moved, "the lease of LUN \(unit.number)'s disk is over") }
  }

  /// For how long the oldest request to a shared disk has been under way, in nanoseconds; 0: none is. One that waits for its range
  /// has not reached the disk.
  var oldestSharedRequest: UInt64 {
    guard ports.contains(where: { $0?.export.isShared == true }) else { return 0 }
    var oldest = now
    for number in 0..<pieces.used where pieces[number].pointee.state == .disk && !pieces[number].pointee.isParked {
      let index = Int(pieces[number].pointee.command)
      guard ports[Int(commands[index].pointee.port)]?.export.isShared == true else { continue }
      oldest = min(oldest, commands[index].pointee.progressedAt)
    }
    return now - oldest
  }

  /// Who has waited too long is told that the states of the ports are changing; initiators try that again by themselves.
  func runHoldTimers() {
    let entries = held
    held = []
    for entry in entries {
      if isLive(entry), entry.since + Self.holdNs > now {
        held.append(entry)
        continue
      }
      if let buffer = entry.immediate { pool.give(buffer) }
      if isLive(entry) { fail(entry.index, .notReadyTargetPortInTransition) }
    }
    let waiting = waitingConnections
    waitingConnections = []
    for entry in waiting {
      if entry.since + Self.holdNs <= now { turnAway(entry.message) } else { waitingConnections.append(entry) }
    }
    if !held.isEmpty || !waitingConnections.isEmpty { scheduleTick(at: now + Self.holdTickNs) }
  }

  /// Has the pair switch over, because an initiator wants another port group, and answers when that is done.
  func switchOver(_ index: Int) {
    let answer = later(index) { (shard, isDone: Bool) in
      if isDone { return shard.finish(index, .good) }
      shard.fail(index, .setTargetPortGroupsCommandFailed)
    }
    guard let ask = context.switchover.withLock({ $0 }) else { return answer(false) }
    switching.removeAll { !isLive($0.index, $0.generation) }
    switching.append((index, commands[index].pointee.generation))
    ask(answer)
  }

  /// Has the other node carry out a command, and answers with what it says.
  func forward(_ index: Int, _ unit: LogicalUnit, _ parameters: [UInt8]) {
    guard let nexus = connections[Int(commands[index].pointee.connection)]?.nexus,
      let ask = context.forward.withLock({ $0 })
    else { return fail(index, .notReadyTargetPortInStandbyState) }
    let answer = later(index) { (shard, outcome: PeerOutcome?) in
      // Whether it was carried out is not known: the initiator looks, as after any lost answer.
      guard let outcome else { return shard.fail(index, .notReadyTargetPortInTransition) }
      if let sense = outcome.sense { return shard.fail(index, sense) }
      if outcome.status == .good, !outcome.data.isEmpty { return shard.answer(index, outcome.data) }
      shard.finish(index, outcome.status)
    }
    ask(unit, nexus.identity, commands[index].pointee.cdb, parameters, answer)
  }

  /// What another thread calls with the outcome of a command, once: `body` runs on this shard's, unless the command is gone or
  /// aborted by then.
  func later<Outcome: Sendable>(
    _ index: Int, _ body: @escaping @Sendable (Shard, Outcome) -> Void
  ) -> @Sendable (Outcome) -> Void {
    let generation = commands[index].pointee.generation
    let home = handle
    return { outcome in
      home.post(
        .perform { shard in
          let command = shard.commands[index]
          guard command.pointee.generation == generation, !command.pointee.isAborted else { return }
          body(shard, outcome)
        })
    }
  }

  // MARK: Connections

  /// Serves a new connection, once it is known which ports are this node's.
  func admit(_ message: ShardMessage) {
    guard configuration.takesLogins || isStopping else {
      waitingConnections.append((message, now))
      return scheduleTick(at: now + Self.holdTickNs)
    }
    switch message {
    case .connection(let fd, let peer, let local, let ticket):
      serve(fd: fd, peer: peer, local: local, ticket: ticket)
    case .verbsConnection(let request, let peer, let local, let ticket):
      serve(request, peer: peer, local: local, ticket: ticket)
    case .adopt, .configure, .perform: break
    }
  }

  func admitWaiting() {
    guard configuration.takesLogins, !waitingConnections.isEmpty else { return }
    let waiting = waitingConnections
    waitingConnections = []
    for entry in waiting { admit(entry.message) }
  }

  /// Turns away those that wait and have to give way.
  func turnAwayWaiting(_ number: UInt64) {
    let isMeant = { (message: ShardMessage) in
      switch message {
      case .connection(_, _, _, let ticket), .verbsConnection(_, _, _, let ticket): ticket.number == number
      case .adopt, .configure, .perform: false
      }
    }
    for entry in waitingConnections where isMeant(entry.message) { turnAway(entry.message) }
    waitingConnections.removeAll { isMeant($0.message) }
  }

  private func turnAway(_ message: ShardMessage) {
    switch message {
    case .connection(let fd, let peer, _, _):
      events.add(.connectionRefused(.undecided))
      Log.ofPeers(.notice, "connection of \(peer) ended: it is not known yet which node of the pair this is")
      Glibc.close(fd)
      handle.load.subtract(1, ordering: .relaxed)
    case .verbsConnection(let request, let peer, _, _):
      refuse(request, peer, .undecided, "it is not known yet which node of the pair this is")
    case .adopt, .configure, .perform: break
    }
  }

  // MARK: The engine's pulse

  /// How long the pair's engine may be silent.
  private static let pulseNs: UInt64 = 250_000_000

  /// Nothing is answered while the engine has not had its say: after a time in which this process stood still it is the first
  /// to know that another node may have the disks, and has the units suspended.
  func awaitPulse() {
    while true {
      let pulse = context.pulse.load(ordering: .acquiring)
      guard pulse != 0, BootClock.now > pulse + Self.pulseNs else { return }
      usleep(500)
    }
  }

  // MARK: Conflicts

  /// A disk has refused a request because another node has it. Nobody is told: what became of this command is for the next
  /// owner to say, so its connection ends without an answer, and the pair is told. False: the disk is not shared, and the
  /// conflict is a failure like any other.
  func meetsConflict(_ number: Int, _ index: Int) -> Bool {
    guard let export = ports[Int(commands[index].pointee.port)]?.export, export.isShared,
      let report = context.conflict.withLock({ $0 })
    else { return false }
    report(export)
    // Nobody's: it ends itself.
    guard commands[index].pointee.connection >= 0 else { return false }
    pieces[number].pointee.state = .ready
    if let connection = connections[Int(commands[index].pointee.connection)] {
      close(connection, .moved, "another node has taken the disk of LUN \(export.unit.number)")
    }
    return true
  }
}

import Glibc
import ISCSI
import Reactor
import SCSI

/// Somebody waits until nobody has a part of a set of aborted commands any more; not longer than `deadline`.
final class Drain {
  /// Commands still in a disk's hands, or fetching data from the initiator, by index and generation.
  var commands: [(index: Int, generation: UInt32)]
  let deadline: UInt64
  let done: () -> Void

  init(commands: [(index: Int, generation: UInt32)], deadline: UInt64, done: @escaping () -> Void) {
    self.commands = commands
    self.deadline = deadline
    self.done = done
  }
}

/// Task management (RFC 7143 §11.5, SAM-5 §7). An aborted command is answered to nobody. What its disk still has in hand
/// cannot be called back: the answer waits for it up to a bound, and an aborted write keeps its range held until it has
/// landed, so that nothing that comes later is overwritten by it. Nor can data be called back that is being fetched: with
/// the answer the initiator takes its buffers away, so it waits for that too.
extension Shard {
  /// How long an answer waits for the disks, and for data that is coming.
  static let drainNs: UInt64 = 1_500_000_000

  func taskManagement(_ connection: Connection, _ header: BasicHeaderSegment) {
    let tag = header.initiatorTaskTag
    guard connection.nexus != nil else { return reject(connection, header, .protocolError) }
    let requested = TaskManagementFunction(rawValue: header.flags & 0x7F)
    trace(connection, .taskManagement(requested, lun: header.lun, tag: tag))
    guard let function = requested else { return answer(connection, nil, tag, .functionRejected) }
    let unit = LogicalUnitMap.number(of: header.lun).flatMap { connection.units[$0] }
    switch function {
    case .abortTask:
      abortTask(connection, header)
    case .abortTaskSet, .clearTaskSet, .logicalUnitReset:
      guard let unit else {
        return answer(connection, function, tag, .lunDoesNotExist)
      }
      abortSet(function, unit, connection, tag)
    case .targetColdReset where connection.result?.luns != nil:
      answer(connection, function, tag, .authorizationFailed)
    case .targetWarmReset, .targetColdReset:
      resetTarget(connection, tag, isCold: function == .targetColdReset)
    case .clearACA:
      answer(connection, function, tag, .functionNotSupported)
    case .taskReassign:
      answer(connection, function, tag, .reassignmentNotSupported)
    }
  }

  private func answer(
    _ connection: Connection, _ function: TaskManagementFunction?, _ tag: UInt32, _ response: TaskManagementResponse
  ) {
    events.add(.taskManagement(function, response))
    trace(connection, .taskManagementAnswered(response, tag: tag))
    respond(connection, .taskManagementResponse(initiatorTaskTag: tag, response))
  }

  private func abortTask(_ connection: Connection, _ header: BasicHeaderSegment) {
    let tag = header.initiatorTaskTag
    guard let index = command(of: connection, tag: header.referencedTaskTag) else {
      // Answered already, or never seen (RFC 7143 §11.6.1).
      return answer(connection, .abortTask, tag, .taskDoesNotExist)
    }
    let generation = commands[index].pointee.generation
    let name = (connection.index, connection.generation)
    abort(done: { [unowned self] in
      completeTaskManagement(name, .abortTask, tag)
    }) { shard, candidate, _ in candidate == index && shard.commands[candidate].pointee.generation == generation }
  }

  private func completeTaskManagement(
    _ name: (index: Int, generation: UInt32), _ function: TaskManagementFunction, _ tag: UInt32
  ) {
    guard let connection = connection(index: name.index, generation: name.generation),
      connection.phase == .fullFeature
    else { return }
    answer(connection, function, tag, .functionComplete)
  }

  private func abortSet(
    _ function: TaskManagementFunction, _ unit: LogicalUnit, _ connection: Connection, _ tag: UInt32
  ) {
    let nexus = connection.nexus!
    let isOwnOnly = function == .abortTaskSet
    let name = (index: connection.index, generation: connection.generation)
    context.onEveryShard(origin: handle.index) { shard, done in
      shard.abort(done: done) { shard, command, other in
        guard shard.unit(of: command) === unit, let owner = other.nexus, !isOwnOnly || owner === nexus else {
          return false
        }
        // Without TAS the others learn of it by a unit attention (SAM-5 §5.7).
        if owner !== nexus, function == .clearTaskSet {
          owner.raise(.commandsClearedByAnotherInitiator, lun: unit.number)
        }
        return true
      }
    } then: { shard in
      if function == .logicalUnitReset { unit.reset() }
      shard.completeTaskManagement(name, function, tag)
    }
  }

  private func resetTarget(_ connection: Connection, _ tag: UInt32, isCold: Bool) {
    let name = (index: connection.index, generation: connection.generation)
    // What it is not shown is none of its business (RFC 7143 §11.5.1): others' commands at other units go on.
    let nexus = connection.nexus!
    let visible = connection.units
    context.onEveryShard(origin: handle.index) { shard, done in
      shard.abort(done: done) { shard, command, other in
        other.nexus === nexus || shard.unit(of: command).map { visible[$0.number] === $0 } ?? false
      }
    } then: { shard in
      for number in visible.numbers { visible[number]?.reset() }
      shard.completeTaskManagement(name, isCold ? .targetColdReset : .targetWarmReset, tag)
      guard isCold else { return }
      shard.context.sessions.forgetNexuses()
      // A cold reset also ends every session (RFC 7143 §11.5.1).
      shard.context.onEveryShard(origin: shard.handle.index) { shard, done in
        for case let connection? in shard.connections where connection.nexus != nil {
          shard.closeAfterSend(connection, .targetReset, "target cold reset")
        }
        done()
      } then: { _ in
      }
    }
  }

  // MARK: Aborting

  /// Aborts the commands of this shard that `matches` picks, then calls `done`: at once, when no disk has any of them in
  /// hand and no data is coming for them, else when that is over or `drainNs` has passed.
  func abort(done: @escaping () -> Void, matches: (Shard, Int, Connection) -> Bool) {
    var waiting: [(index: Int, generation: UInt32)] = []
    for case let connection? in connections {
      var current = connection.firstCommand
      while current >= 0 {
        let index = Int(current)
        current = commands[index].pointee.next
        guard matches(self, index, connection) else { continue }
        abort(index)
        // One that is gone has neither.
        if commands[index].pointee.isAborted, commands[index].pointee.diskCount > 0 || isReceiving(index) {
          waiting.append((index, commands[index].pointee.generation))
        }
      }
    }
    guard !waiting.isEmpty else { return done() }
    drains.append(Drain(commands: waiting, deadline: now + Self.drainNs, done: done))
    scheduleTick(at: now + Self.drainNs)
  }

  /// Takes a command from its connection. It is gone at once unless a disk or the datamover has a part of it.
  private func abort(_ index: Int) {
    let command = commands[index]
    guard !command.pointee.isAborted else { return }
    command.pointee.isAborted = true
    events.add(.commandAborted)
    if let connection = connections[Int(command.pointee.connection)] {
      if command.pointee.holdsWindow { connection.window.release() }
      command.pointee.holdsWindow = false
      unlink(index, connection)
    }
    command.pointee.connection = -1
    command.pointee.owner = nil
    if command.pointee.diskCount > 0, let port = ports[Int(command.pointee.port)] {
      command.pointee.isQuarantined = true
      port.quarantined += 1
    }
    if command.pointee.diskCount > 0, command.pointee.operation.isWriting, command.pointee.hold == 0,
      let port = ports[Int(command.pointee.port)]
    {
      command.pointee.hold = port.export.holds.add(diskRange(index))
    }
    finishAborted(index)
  }

  /// The end of an aborted command, if nobody has a part of it any more.
  func finishAborted(_ index: Int) {
    let command = commands[index]
    guard command.pointee.isAborted, command.pointee.diskCount == 0 else { return }
    // No disk will have anything of it any more: its blocks are others', however long the rest of a PDU takes to come.
    if command.pointee.hold != 0 { releaseHold(index) }
    // What the receiver fills stays until the segment is complete; the end of the PDU finds the command aborted.
    guard !isMoving(index) else { return }
    let generation = command.pointee.generation
    free(index)
    guard !drains.isEmpty else { return }
    for drain in drains { drain.commands.removeAll { $0.index == index && $0.generation == generation } }
    endDrains()
  }

  private func endDrains() {
    let ended = drains.filter(\.commands.isEmpty)
    drains.removeAll(where: \.commands.isEmpty)
    for drain in ended { drain.done() }
  }

  func runDrainTimers() {
    let late = drains.filter { $0.deadline <= now }
    drains.removeAll { $0.deadline <= now }
    for drain in late {
      Log.warning(
        "\(drain.commands.count) aborted command(s) are still in the hands of a disk or a connection; ranges stay held")
      drain.done()
    }
    if let next = drains.map(\.deadline).min() { scheduleTick(at: next) }
  }

  /// The connection is gone: so are its commands.
  func abortAll(of connection: Connection) {
    while connection.firstCommand >= 0 { abort(Int(connection.firstCommand)) }
  }

  /// A command that its disk, or those who hold its range, keep waiting beyond the deadline is answered with an error;
  /// what the disk still has in hand stays quarantined until it comes back. So is one whose initiator was asked for data
  /// and sends none: its buffers are others' too.
  func runCommandDeadlines() {
    guard configuration.ioDeadlineNs > 0, commands.count > 0 else { return }
    var next = UInt64.max
    for case let connection? in connections {
      var current = connection.firstCommand
      while current >= 0 {
        let index = Int(current)
        current = commands[index].pointee.next
        let command = commands[index]
        // One that keeps others from its range is not kept alive by data that trickles in, and ends before they have to.
        let isInTheWay = command.pointee.isExclusive && command.pointee.operation.kind == .orWrite
        let deadline =
          isInTheWay
          ? command.pointee.exclusiveSince + configuration.ioDeadlineNs / 2
          : command.pointee.progressedAt + configuration.ioDeadlineNs
        if deadline > now {
          next = min(next, deadline)
        } else if isReceiving(index), deadline + Self.drainNs > now {
          // With the answer the initiator takes its buffer away, so no more is asked for and what is coming is waited for.
          if command.pointee.diskCount > 0 { note(index, configuration.deviceServer.sense(for: .hardware)) }
          next = min(next, now + 20_000_000)
        } else if isInTheWay, isReceiving(index) {
          // With one PDU that trickles in it could go on for ever. What is left of the list goes with the connection.
          close(connection, .stalled, "others wait for the blocks of an ORWRITE whose data does not come")
          break
        } else if command.pointee.diskCount > 0 || command.pointee.awaitsRange || command.pointee.awaitsFile {
          giveUp(index, connection)
        } else if waitsForMemory(index) {
          finish(index, .busy)
        } else if command.pointee.outstandingR2T > 0 || command.pointee.expectsUnsolicited {
          events.add(.dataDeadline)
          note(index, Sense(.abortedCommand, 0x4B00))  // DATA PHASE ERROR
          failIfQuiet(index)
          next = min(next, now + configuration.ioDeadlineNs)
        } else {
          next = min(next, now + configuration.ioDeadlineNs)
        }
      }
    }
    if next != .max { scheduleTick(at: next) }
  }

  /// Whether a command only waits for memory, which a disk that hangs or an initiator that takes little may keep.
  private func waitsForMemory(_ index: Int) -> Bool { !isMoving(index) && hasPiece(index) { $0.state == .waiting } }

  /// A disk that hangs has many of them at once: one line in a while.
  private func warnOfDeadline(_ index: Int) {
    guard let port = commands[index].pointee.unitPort?.takeUnretainedValue() else { return }
    port.missedDeadlines += 1
    guard port.warnedAt == 0 || port.warnedAt + Self.warnNs <= now else { return }
    let count = port.missedDeadlines == 1 ? "a disk request has" : "\(port.missedDeadlines) disk requests have"
    Log.warning("LUN \(port.export.unit.number): \(count) taken longer than the I/O deadline")
    (port.warnedAt, port.missedDeadlines) = (now, 0)
  }

  private static let warnNs: UInt64 = 10_000_000_000

  private func giveUp(_ index: Int, _ connection: Connection) {
    let command = commands[index]
    warnOfDeadline(index)
    let sense = configuration.deviceServer.sense(for: .hardware)
    events.add(.diskDeadline)
    events.add(.checkCondition(sense.key, sense.code))
    let bytes = sense.encode(
      descriptorFormat: configuration.deviceServer.usesDescriptorSense(lun: command.pointee.lun, map: connection.units))
    let response = BasicHeaderSegment.scsiResponse(
      initiatorTaskTag: command.pointee.initiatorTaskTag, status: Status.checkCondition.rawValue,
      residual: Residual(expected: UInt64(command.pointee.expected), actual: 0),
      expDataSN: command.pointee.dataSN &+ command.pointee.r2tSN)
    command.pointee.unitPort?._withUnsafeGuaranteedRef { port in
      port.failedCommands &+= 1
      recordLatency(port, connection, command.pointee.latencyDirection, since: command.pointee.startedAt)
    }
    abort(index)
    respond(connection, response, data: [UInt8(bytes.count >> 8), UInt8(bytes.count & 0xFF)] + bytes)
  }
}

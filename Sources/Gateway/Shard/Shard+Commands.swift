import Datamover
import ISCSI
import Reactor
import SCSI
import Wire

/// What commands remember that are not plain reads and writes.
enum ColdState {
  /// A parameter list for the device server.
  case parameters
  /// Extents to deallocate, and how many are done.
  case unmap([Extent], done: Int)
  case reservation(ReservationChange)
  case copy(CopyRun)
  case sanitize(SanitizeRun)
}

/// SCSI commands: from their PDU to the device server, and from its answer to a response.
extension Shard {
  func scsiCommand(_ connection: Connection, _ header: BasicHeaderSegment) {
    defer { received = nil }
    var immediate: Buffer?
    var isDropped = false
    switch connection.placement {
    case .immediate(let buffer): immediate = buffer
    case .received(let data): received = data
    case .dropped: isDropped = true
    // Without data; a command whose data is nowhere must not be given memory that others have written to.
    case .none, .piece, .control: isDropped = header.dataSegmentLength > 0
    }
    connection.placement = .none
    switch connection.window.admit(cmdSN: header.cmdSN, isImmediate: header.isImmediate) {
    case .deliver: break
    case .ignore:
      if let immediate { pool.give(immediate) }
      return events.add(.outsideWindow)
    case .gap:
      if let immediate { pool.give(immediate) }
      return protocolError(connection, header, .cmdSNGap, "CmdSN \(header.cmdSN) leaves a gap")
    }
    guard let nexus = connection.nexusReference else {
      if let immediate { pool.give(immediate) }
      if !header.isImmediate { connection.window.release() }
      return reject(connection, header, .protocolError)  // discovery sessions carry no SCSI (RFC 7143 §4.3)
    }
    // R alone, and nothing with it.
    if header.flags & 0x60 == 0x40, header.dataSegmentLength == 0, header.additionalHeaderBytes == 0,
      connection.mover.borrowing != .never, nexus._withUnsafeGuaranteedRef({ lend(connection, header, $0) })
    {
      return
    }
    // Immediate commands take no place of the window: they are bounded here.
    guard !isDropped, connection.commandCount < 2 * Int(connection.window.depth), let index = commands.take() else {
      if let immediate { pool.give(immediate) }
      if !header.isImmediate { connection.window.release() }
      if isDropped { events.add(.noBuffer(.refused)) }
      return refuse(connection, header, .taskSetFull)
    }
    let command = commands[index]
    let generation = command.pointee.generation &+ 1
    command.pointee = Command()
    command.pointee.generation = generation
    command.pointee.connection = Int32(connection.index)
    command.pointee.owner = Unmanaged.passUnretained(connection)
    command.pointee.initiatorTaskTag = header.initiatorTaskTag
    command.pointee.lun = header.lun
    command.pointee.cdb = Self.cdb(header)
    command.pointee.isImmediate = header.isImmediate
    command.pointee.holdsWindow = !header.isImmediate
    command.pointee.isRead = header.flags & 0x40 != 0
    command.pointee.isWrite = header.flags & 0x20 != 0
    command.pointee.expected = header.expectedDataTransferLength
    command.pointee.advertised = connection.advertised
    command.pointee.expectsUnsolicited =
      command.pointee.isWrite && !header.isFinal && !connection.parameters.initialR2T
    command.pointee.unsolicited = UInt32(header.dataSegmentLength)
    command.pointee.immediateBytes = UInt32(header.dataSegmentLength)
    command.pointee.startedAt = now
    command.pointee.progressedAt = now
    link(index, connection)
    if header.dataSegmentLength > Int(header.expectedDataTransferLength) || header.additionalHeaderBytes > 0
      || header.dataSegmentLength > 0 && !connection.parameters.immediateData
      || header.dataSegmentLength > connection.parameters.firstBurstLength && header.dataSegmentLength > 0
    {
      if let immediate { pool.give(immediate) }
      note(connection, .unexpectedData)
      // UNEXPECTED UNSOLICITED DATA (RFC 7143 §11.4.7.2); additional headers carry CDBs that no row here has.
      let sense =
        header.additionalHeaderBytes > 0
        ? Sense(.illegalRequest, 0x2000) : Sense(.abortedCommand, 0x0C0C)
      return fail(index, sense)
    }
    execute(index, connection, immediate)
  }

  @inline(__always)
  private static func cdb(_ header: BasicHeaderSegment) -> CDB {
    CDB(
      high: UInt64(header.word8) << 32 | UInt64(header.word9), low: UInt64(header.word10) << 32 | UInt64(header.word11))
  }

  /// A read of a disk in memory that nothing stands in the way of is sent from where its data lies, or from a copy
  /// where a digest must stay true, and is done: it needs no entry in the table. Its range is nobody's, and nobody gets
  /// it for himself before the data is sent. False: it goes the usual way.
  @inline(__always)
  private func lend(_ connection: Connection, _ header: BasicHeaderSegment, _ nexus: Nexus) -> Bool {
    let warm = server._withUnsafeGuaranteedRef { server in
      connection.unitsReference._withUnsafeGuaranteedRef { units in
        server.warmTransfer(Self.cdb(header), lun: header.lun, nexus: nexus, map: units)
      }
    }
    guard let (operation, unit) = warm, operation.kind == .read, let port = port(of: unit),
      let memory = port.queue.memory, port.export.holds.isEmpty
    else { return false }
    let bytes = operation.blocks << port.blockShift
    let count = min(bytes, UInt64(header.expectedDataTransferLength))
    guard count > 0 else { return false }
    let data = UnsafeRawPointer(memory + Int(operation.lba << port.blockShift))
    var copy: Buffer?
    if connection.mover.borrowing == .byCopy {
      // A long one goes in pieces, and one that finds no buffer waits for it in its turn.
      guard count <= UInt64(BufferPool.pieceBytes), let buffer = takeInTurn(Int(count), at: port) else { return false }
      copy = buffer
    }
    var answer = BasicHeaderSegment.dataIn(initiatorTaskTag: header.initiatorTaskTag)
    addStatus(
      &answer, connection, Residual(expected: UInt64(header.expectedDataTransferLength), actual: bytes))
    if let copy {
      connection.mover.copyData(answer, payload: data, count: Int(count), into: copy)
    } else {
      connection.mover.lendData(answer, payload: data, count: Int(count), lender: port)
    }
    touch(connection)
    if !header.isImmediate { connection.window.release() }
    connection.readCommands &+= 1
    connection.readBytes &+= count
    port.readCommands &+= 1
    port.readBytes &+= count
    recordLatency(port, connection, .read, since: now)
    return true
  }

  /// The port of a unit; nil if the unit is no longer exported.
  @inline(__always)
  func port(of unit: LogicalUnit) -> UnitPort? {
    let number = Int(unit.number)
    guard number < portOfLUN.count, portOfLUN[number] >= 0, let port = ports[Int(portOfLUN[number])],
      port.export.unit === unit
    else { return nil }
    return port
  }

  /// Answers a command that no table entry could be had for.
  private func refuse(_ connection: Connection, _ header: BasicHeaderSegment, _ status: Status) {
    events.add(.status(status))
    respond(
      connection,
      .scsiResponse(
        initiatorTaskTag: header.initiatorTaskTag, status: status.rawValue,
        residual: Residual(expected: UInt64(header.expectedDataTransferLength), actual: 0), expDataSN: 0))
  }

  @inline(__always)
  func execute(_ index: Int, _ connection: Connection, _ immediate: Buffer?) {
    guard let nexus = connection.nexusReference else { return }
    let disposition = server._withUnsafeGuaranteedRef { server in
      nexus._withUnsafeGuaranteedRef { nexus in
        connection.unitsReference._withUnsafeGuaranteedRef { units in
          server.execute(request(index), nexus: nexus, map: units)
        }
      }
    }
    act(on: disposition, index, immediate)
  }

  @inline(__always)
  func request(_ index: Int) -> Request {
    let command = commands[index]
    return Request(
      cdb: command.pointee.cdb, lun: command.pointee.lun,
      dataOutBytes: command.pointee.isWrite ? command.pointee.expected : 0)
  }

  /// Carries out what the device server said. `immediate` is the command's immediate data, this function's to give on.
  func act(on disposition: Disposition, _ index: Int, _ immediate: Buffer?) {
    switch disposition {
    case .medium(let operation, let unit):
      guard let port = attach(index, unit) else {
        if let immediate { pool.give(immediate) }
        return fail(index, Sense(.illegalRequest, 0x2500))
      }
      // A disk that gives nothing back must not take the memory of all by way of commands that are tried again and again.
      if port.quarantined >= UnitPort.quarantinedMax {
        if let immediate { pool.give(immediate) }
        return finish(index, .busy)
      }
      return start(operation, index, port, immediate)
    case .dataOut(let byteCount):
      cold[index] = .parameters
      return collect(index, byteCount: byteCount, immediate)
    case .wait: return hold(index, immediate, parameters: nil)
    case .switchover: return switchOver(index)
    default: break
    }
    if let immediate { pool.give(immediate) }
    switch disposition {
    case .status(let status): finish(index, status)
    case .checkCondition(let sense): fail(index, sense)
    case .dataIn(let bytes): answer(index, bytes)
    case .copy(let order, let unit): startCopy(index, order, unit)
    case .sanitize(let order, let unit): startSanitize(index, order, unit)
    case .log(let query, let unit):
      guard let port = attach(index, unit) else { return fail(index, Sense(.illegalRequest, 0x2500)) }
      gatherLog(index, query, port)
    case .unmap(let extents, let unit):
      guard attach(index, unit) != nil else { return fail(index, Sense(.illegalRequest, 0x2500)) }
      cold[index] = .unmap(extents, done: 0)
      startSimple(index, MediumOperation(.writeZeroes, lba: 0, blocks: 0, mayUnmap: true))
    case .reservationChange(let change, let unit):
      changeReservation(index, change, unit)
    case .forward(let unit, let parameters): forward(index, unit, parameters)
    case .medium, .dataOut, .wait, .switchover: break
    }
  }

  /// Ties a command to its unit's port; nil if the unit is no longer exported.
  func attach(_ index: Int, _ unit: LogicalUnit) -> UnitPort? {
    guard let port = port(of: unit) else { return nil }
    if commands[index].pointee.port < 0 { tie(index, port, unit) }
    return port
  }

  private func tie(_ index: Int, _ port: UnitPort, _ unit: LogicalUnit) {
    commands[index].pointee.port = portOfLUN[Int(unit.number)]
    commands[index].pointee.unitPort = Unmanaged.passUnretained(port)
    commands[index].pointee.blockShift = UInt8(port.blockShift)
    port.commands += 1
  }

  /// Ties a command whose disk has nothing of it in hand to another unit's port, and its buffer to that unit's account; nil if
  /// that unit is no longer exported.
  func attach(_ index: Int, movingTo unit: LogicalUnit) -> UnitPort? {
    guard let port = port(of: unit) else { return nil }
    let old = commands[index].pointee.port
    guard old != portOfLUN[Int(unit.number)] else { return port }
    precondition(commands[index].pointee.diskCount == 0, "a command moved under a disk request")
    tie(index, port, unit)
    let piece = Int(commands[index].pointee.firstPiece)
    if piece >= 0, pieces[piece].pointee.buffer != nil { pool.move(&pieces[piece].pointee.buffer!, to: port) }
    guard old >= 0, let former = ports[Int(old)] else { return port }
    former.commands -= 1
    if former.isRemoved { disposeIfUnused(Int(old)) }
    return port
  }

  private func changeReservation(_ index: Int, _ change: ReservationChange, _ unit: LogicalUnit) {
    guard let port = attach(index, unit) else {
      unit.abandon(change)
      return fail(index, Sense(.illegalRequest, 0x2500))
    }
    switch change.record.map(port.export.beginReservationRecord) ?? .none {
    case .moving:
      unit.abandon(change)
      finish(index, .busy)
    case .none:
      cold[index] = .reservation(change)
      commitReservation(index)
    case .write(let bytes, let offset):
      cold[index] = .reservation(change)
      writeRecord(index, bytes, offset: offset)
    }
  }

  /// The record is on stable storage, or there is none to write: the change takes force on every shard with the unit's own
  /// lock; those whose commands it ends are told before GOOD is sent.
  func commitReservation(_ index: Int) {
    guard case .reservation(let change)? = cold.removeValue(forKey: index),
      let port = ports[Int(commands[index].pointee.port)]
    else { return }
    let outcome = port.export.unit.commit(change)
    guard !outcome.aborts.isEmpty else { return finish(index, outcome.status) }
    let generation = commands[index].pointee.generation
    let status = outcome.status
    context.abortCommands(of: outcome.aborts, to: port.export.unit, origin: handle.index) { shard in
      guard shard.commands[index].pointee.generation == generation else { return }
      shard.finish(index, status)
    }
  }

  // MARK: Responses

  /// Sends the data that the device server made, with GOOD.
  func answer(_ index: Int, _ bytes: [UInt8]) {
    let command = commands[index]
    let count = command.pointee.isRead ? min(bytes.count, Int(command.pointee.expected)) : 0
    guard count > 0 else { return finish(index, .good, actual: UInt64(bytes.count)) }
    guard let connection = connections[Int(command.pointee.connection)] else { return }
    let residual = Residual(expected: UInt64(command.pointee.expected), actual: UInt64(bytes.count))
    var done = 0
    while done < count {
      let length = min(count - done, BufferPool.pieceBytes)
      guard let buffer = take(length, for: index) else {
        // What is queued is correct so far; the command ends with BUSY and the initiator tries again.
        events.add(.noBuffer(.refused))
        return finish(index, .busy, actual: UInt64(bytes.count))
      }
      bytes.withUnsafeBytes { buffer.base.copyMemory(from: $0.baseAddress! + done, byteCount: length) }
      var header = BasicHeaderSegment.dataIn(initiatorTaskTag: command.pointee.initiatorTaskTag)
      let isLast = done + length == count
      if isLast { addStatus(&header, connection, residual) }
      command.pointee.dataSN = connection.mover.putData(
        header, payload: UnsafeRawPointer(buffer.base), count: length, offset: UInt32(done),
        dataSN: command.pointee.dataSN, isLast: isLast, buffer: buffer, notice: 0,
        advertised: command.pointee.advertised)
      done += length
    }
    touch(connection)
    self.count(index, connection, isGood: true)
    free(index)
  }

  @inline(__always)
  func addStatus(_ header: inout BasicHeaderSegment, _ connection: Connection, _ residual: Residual) {
    header.addStatus(Status.good.rawValue, residual: residual)
    header.statSN = connection.statSN
    connection.statSN &+= 1
  }

  /// Ends a command with a SCSI Response, with the parameters that it took, if any, as what it wanted.
  func finish(_ index: Int, _ status: Status) { finish(index, status, actual: commands[index].pointee.completed) }

  /// Ends a command with a SCSI Response.
  /// - Parameter actual: bytes that would have moved, had the initiator expected them.
  func finish(_ index: Int, _ status: Status, actual: UInt64) {
    commands[index].pointee.owner?._withUnsafeGuaranteedRef { finish(index, $0, status, actual: actual) }
  }

  private func finish(_ index: Int, _ connection: Connection, _ status: Status, actual: UInt64) {
    let command = commands[index]
    var header = BasicHeaderSegment.scsiResponse(
      initiatorTaskTag: command.pointee.initiatorTaskTag, status: status.rawValue,
      residual: Residual(expected: UInt64(command.pointee.expected), actual: actual),
      expDataSN: command.pointee.dataSN &+ command.pointee.r2tSN)
    header.statSN = connection.statSN
    connection.statSN &+= 1
    connection.mover.sendResponse(header, advertised: command.pointee.advertised)
    touch(connection)
    let isGood = status == .good || status == .conditionMet
    if !isGood { events.add(.status(status)) }
    count(index, connection, isGood: isGood)
    free(index)
  }

  /// The data of a command finds no buffer, and cannot wait for one.
  func refuseForMemory(_ index: Int) {
    events.add(.noBuffer(.refused))
    finish(index, .taskSetFull)
  }

  /// Ends a command with CHECK CONDITION.
  func fail(_ index: Int, _ sense: Sense) {
    let command = commands[index]
    guard let connection = connections[Int(command.pointee.connection)] else { return }
    let bytes = sense.encode(
      descriptorFormat: configuration.deviceServer.usesDescriptorSense(
        lun: command.pointee.lun, map: connection.units))
    // SenseLength in front of the sense data (RFC 7143 §11.4.7.2).
    let data = [UInt8(bytes.count >> 8), UInt8(bytes.count & 0xFF)] + bytes
    var header = BasicHeaderSegment.scsiResponse(
      initiatorTaskTag: command.pointee.initiatorTaskTag, status: Status.checkCondition.rawValue,
      residual: Residual(
        expected: UInt64(command.pointee.expected),
        actual: min(command.pointee.completed, UInt64(command.pointee.expected))),
      expDataSN: command.pointee.dataSN &+ command.pointee.r2tSN)
    header.statSN = connection.statSN
    connection.statSN &+= 1
    connection.mover.sendResponse(header, data: data, advertised: command.pointee.advertised)
    touch(connection)
    events.add(.checkCondition(sense.key, sense.code))
    count(index, connection, isGood: false)
    free(index)
  }

  @inline(__always)
  private func count(_ index: Int, _ connection: Connection, isGood: Bool) {
    if let port = commands[index].pointee.unitPort {
      port._withUnsafeGuaranteedRef { count(index, connection, $0, isGood: isGood) }
    } else {
      count(index, connection, nil, isGood: isGood)
    }
  }

  @inline(__always)
  private func count(_ index: Int, _ connection: Connection, _ port: UnitPort?, isGood: Bool) {
    let command = commands[index]
    let direction: LatencyDirection
    if !isGood {
      connection.failedCommands &+= 1
      port?.failedCommands &+= 1
    }
    if command.pointee.plan == .streamOut {
      connection.writeCommands &+= 1
      connection.writtenBytes &+= command.pointee.completed
      port?.writeCommands &+= 1
      port?.writtenBytes &+= command.pointee.completed
      direction = .write
    } else if command.pointee.plan == .streamIn {
      connection.readCommands &+= 1
      connection.readBytes &+= command.pointee.completed
      port?.readCommands &+= 1
      port?.readBytes &+= command.pointee.completed
      direction = .read
    } else {
      connection.otherCommands &+= 1
      port?.otherCommands &+= 1
      direction = .other
    }
    if let port {
      recordLatency(port, connection, direction, since: command.pointee.startedAt)
    } else {
      recordUntied(index, connection, direction)
    }
  }

  /// The latency of what the device server answers by itself: it is tied to no port, and counts for that of the unit it names.
  /// Apart, so that nobody owns a port in the warm path.
  @inline(never)
  private func recordUntied(_ index: Int, _ connection: Connection, _ direction: LatencyDirection) {
    guard let number = LogicalUnitMap.number(of: commands[index].pointee.lun), Int(number) < portOfLUN.count,
      portOfLUN[Int(number)] >= 0, let port = ports[Int(portOfLUN[Int(number)])]
    else { return }
    recordLatency(port, connection, direction, since: commands[index].pointee.startedAt)
  }

  /// The end of a read whose status went with its data.
  @inline(__always)
  func finishRead(_ index: Int, _ connection: Connection, _ port: UnitPort) {
    count(index, connection, port, isGood: true)
    free(index)
  }

  // MARK: The table

  @inline(__always)
  private func link(_ index: Int, _ connection: Connection) {
    commands[index].pointee.next = connection.firstCommand
    if connection.firstCommand >= 0 { commands[Int(connection.firstCommand)].pointee.previous = Int32(index) }
    connection.firstCommand = Int32(index)
    connection.commandCount += 1
    if configuration.ioDeadlineNs > 0 { scheduleTick(at: now + configuration.ioDeadlineNs) }
  }

  func unlink(_ index: Int, _ connection: Connection) {
    let command = commands[index]
    if command.pointee.previous >= 0 {
      commands[Int(command.pointee.previous)].pointee.next = command.pointee.next
    } else {
      connection.firstCommand = command.pointee.next
    }
    if command.pointee.next >= 0 {
      commands[Int(command.pointee.next)].pointee.previous = command.pointee.previous
    }
    command.pointee.previous = -1
    command.pointee.next = -1
    connection.commandCount -= 1
  }

  /// Takes a command out of the table. Its pieces go with it; none may be in the disk's hands.
  func free(_ index: Int) {
    let command = commands[index]
    precondition(command.pointee.diskCount == 0, "a command freed under a disk request")
    if command.pointee.firstPiece >= 0 { freePieces(index) }
    command.pointee.owner?._withUnsafeGuaranteedRef { connection in
      if command.pointee.holdsWindow { connection.window.release() }
      unlink(index, connection)
    }
    if command.pointee.hold != 0 { releaseHold(index) }
    if command.pointee.plan == .simple || command.pointee.plan == .collect { forgetCold(index) }
    command.pointee.generation &+= 1
    command.pointee.connection = -1
    command.pointee.owner = nil
    commands.give(index)
    guard let unitPort = command.pointee.unitPort else { return }
    command.pointee.unitPort = nil
    let isRemoved = unitPort._withUnsafeGuaranteedRef { port in
      port.commands -= 1
      if command.pointee.isQuarantined { port.quarantined -= 1 }
      return port.isRemoved
    }
    if isRemoved { disposeIfUnused(Int(command.pointee.port)) }
  }

  private func forgetCold(_ index: Int) {
    guard let state = cold.removeValue(forKey: index) else { return }
    switch state {
    case .reservation(let change):
      guard let port = ports[Int(commands[index].pointee.port)] else { return }
      port.export.endReservationRecord(isWritten: false)
      port.export.unit.abandon(change)
    case .copy(let run): run.nexus.updateCopies { $0.abandon(run.order.token) }
    case .parameters, .unmap, .sanitize: break
    }
  }

  func releaseHold(_ index: Int) {
    guard let port = ports[Int(commands[index].pointee.port)] else { return }
    port.export.holds.remove(commands[index].pointee.hold)
    commands[index].pointee.hold = 0
    mayUnpark = true
    for other in context.handles where other !== handle {
      other.post(.perform { $0.mayUnpark = true })
    }
  }

  /// The unit that a command is for, whether or not it has a port yet.
  func unit(of index: Int) -> LogicalUnit? {
    let command = commands[index]
    // A copy is tied to whom it reads or writes, and is a command of the unit that it was sent to.
    let isCopy = command.pointee.operation.kind == .copyIn || command.pointee.operation.kind == .copyOut
    if command.pointee.port >= 0, !isCopy { return ports[Int(command.pointee.port)]?.export.unit }
    guard let number = LogicalUnitMap.number(of: command.pointee.lun) else { return nil }
    return map.units[number]
  }
}

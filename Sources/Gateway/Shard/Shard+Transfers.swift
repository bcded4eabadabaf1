import Datamover
import Glibc
import ISCSI
import Reactor
import SCSI
import Storage
import Wire

/// Data between initiators and disks, in pieces: a piece's buffer is filled by one side and emptied by the other, never
/// copied.
extension Shard {
  /// Pieces of one read that may be under way at once.
  static let readPiecesMax = 4

  /// Starts a medium operation. `immediate` holds the command's immediate data.
  @inline(__always)
  func start(_ operation: MediumOperation, _ index: Int, _ port: UnitPort, _ immediate: Buffer?) {
    let command = commands[index]
    command.pointee.operation = operation
    switch operation.kind {
    case .read:
      if let immediate { pool.give(immediate) }
      let bytes = operation.blocks << port.blockShift
      command.pointee.plan = .streamIn
      command.pointee.transferBytes = bytes
      command.pointee.limit = command.pointee.isRead ? min(bytes, UInt64(command.pointee.expected)) : 0
      if command.pointee.limit == 0 { return finish(index, .good, actual: bytes) }
      advanceRead(index, port)
    case .write, .writeAndVerify, .compare, .orWrite:
      let bytes = operation.dataOutBlocks << port.blockShift
      let expected = command.pointee.isWrite ? UInt64(command.pointee.expected) : 0
      command.pointee.plan = .streamOut
      command.pointee.transferBytes = bytes
      // Only whole blocks can be written: what is left of a short expectation is dropped.
      command.pointee.limit = (min(bytes, expected) >> port.blockShift) << port.blockShift
      if operation.kind == .write, let received, let memory = port.queue.memory, port.export.holds.isEmpty,
        command.pointee.limit == bytes, command.pointee.unsolicited == UInt32(bytes)
      {
        (memory + Int(diskOffset(index))).copyMemory(from: received, byteCount: Int(bytes))
        command.pointee.completed = bytes
        return finish(index, .good, actual: bytes)
      }
      startWrite(index, immediate)
    case .compareRepeated, .compareAndWrite, .writeAtomic, .writeSame:
      collect(index, byteCount: Int(operation.dataOutBlocks << port.blockShift), immediate)
    case .verify, .writeZeroes, .prefetch, .flush, .copyIn, .copyOut, .sanitize, .lbaStatus:
      if let immediate { pool.give(immediate) }
      startSimple(index, operation)
    }
  }

  // MARK: Pieces

  /// A new piece at the end of the command's list; nil when the table is full.
  private func appendPiece(_ index: Int, offset: UInt64, length: Int) -> Int? {
    guard let number = pieces.take() else { return nil }
    let piece = pieces[number]
    let generation = piece.pointee.generation &+ 1
    piece.pointee = Piece()
    piece.pointee.generation = generation
    piece.pointee.command = Int32(index)
    piece.pointee.offset = offset
    piece.pointee.length = UInt32(length)
    let command = commands[index]
    if command.pointee.lastPiece >= 0 {
      pieces[Int(command.pointee.lastPiece)].pointee.next = Int32(number)
    } else {
      command.pointee.firstPiece = Int32(number)
    }
    command.pointee.lastPiece = Int32(number)
    command.pointee.pieceCount += 1
    return number
  }

  /// The piece that carries a command's one buffer and its disk requests, for plans that have a single one.
  func carrier(_ index: Int, length: Int) -> Int? { appendPiece(index, offset: 0, length: length) }

  /// Releases a piece: unlinked, its buffers back in the pool.
  func freePiece(_ number: Int) {
    let piece = pieces[number]
    let command = commands[Int(piece.pointee.command)]
    var previous: Int32 = -1
    var current = command.pointee.firstPiece
    while current >= 0, current != Int32(number) {
      previous = current
      current = pieces[Int(current)].pointee.next
    }
    if previous >= 0 {
      pieces[Int(previous)].pointee.next = piece.pointee.next
    } else {
      command.pointee.firstPiece = piece.pointee.next
    }
    if command.pointee.lastPiece == Int32(number) { command.pointee.lastPiece = previous }
    command.pointee.pieceCount -= 1
    releasePiece(number)
  }

  private func releasePiece(_ number: Int) {
    let piece = pieces[number]
    if let buffer = piece.pointee.buffer { pool.give(buffer) }
    if let second = piece.pointee.second { pool.give(second) }
    piece.pointee.buffer = nil
    piece.pointee.second = nil
    piece.pointee.state = .free
    piece.pointee.generation &+= 1
    pieces.give(number)
  }

  /// Releases all pieces of a command.
  func freePieces(_ index: Int) {
    var current = commands[index].pointee.firstPiece
    while current >= 0 {
      let next = pieces[Int(current)].pointee.next
      releasePiece(Int(current))
      current = next
    }
    commands[index].pointee.firstPiece = -1
    commands[index].pointee.lastPiece = -1
    commands[index].pointee.pieceCount = 0
  }

  func bufferBytes(_ number: Int) -> Int {
    max(Int(pieces[number].pointee.length), Int(pieces[number].pointee.diskLength))
  }

  func resumePiece(_ number: Int, _ index: Int) {
    switch commands[index].pointee.plan {
    case .streamIn: readPiece(number, index)
    case .streamOut, .collect:
      pieces[number].pointee.state = .collecting
      advanceWrite(index)
    case .simple, .none: resumeSimple(index)
    }
  }

  // MARK: Medium to initiator

  /// Starts as many pieces as may be under way.
  private func advanceRead(_ index: Int, _ port: UnitPort) {
    let command = commands[index]
    let mask = UInt64(1) << port.blockShift - 1
    // Nothing behind a piece that waits for its buffer: it would hold one that cannot be sent before.
    while command.pointee.issued < command.pointee.limit, command.pointee.pieceCount < Int32(Self.readPiecesMax),
      command.pointee.lastPiece < 0 || pieces[Int(command.pointee.lastPiece)].pointee.state != .waiting
    {
      let length = min(UInt64(BufferPool.pieceBytes), command.pointee.limit - command.pointee.issued)
      guard let number = appendPiece(index, offset: command.pointee.issued, length: Int(length)) else {
        // The table is full: with pieces under way the next one's end continues, else the command must end.
        if command.pointee.pieceCount == 0 { fail(index, Sense(.abortedCommand, 0x5500)) }
        return
      }
      command.pointee.issued += length
      pieces[number].pointee.diskLength = UInt32((length + mask) & ~mask)
      if equip(number, bytes: bufferBytes(number)) { readPiece(number, index) } else { return }
    }
  }

  @inline(__always)
  private func readPiece(_ number: Int, _ index: Int) {
    let piece = pieces[number]
    submit(
      number, .read, offset: diskOffset(index) + piece.pointee.offset, count: Int(piece.pointee.diskLength),
      buffer: piece.pointee.buffer!)
  }

  /// Byte offset on the disk of a command's first block.
  @inline(__always)
  func diskOffset(_ index: Int) -> UInt64 {
    let command = commands[index]
    return command.pointee.operation.lba << UInt64(command.pointee.blockShift)
  }

  /// Sends what is read, in order; the last run carries the status.
  private func sendReady(_ index: Int, _ connection: Connection, _ port: UnitPort) {
    let command = commands[index]
    var current = command.pointee.firstPiece
    while current >= 0, pieces[Int(current)].pointee.state == .sending { current = pieces[Int(current)].pointee.next }
    while current >= 0, pieces[Int(current)].pointee.state == .ready {
      let number = Int(current)
      let piece = pieces[number]
      current = piece.pointee.next
      let length = Int(piece.pointee.length)
      let isLast = piece.pointee.offset + UInt64(length) == command.pointee.limit
      // A command of several pieces hears of each, to go on with the next and to end with the last.
      let isOnly = isLast && piece.pointee.offset == 0
      var header = BasicHeaderSegment.dataIn(initiatorTaskTag: command.pointee.initiatorTaskTag)
      if isLast {
        addStatus(
          &header, connection,
          Residual(expected: UInt64(command.pointee.expected), actual: command.pointee.transferBytes))
      }
      command.pointee.dataSN = connection.mover.putData(
        header, payload: UnsafeRawPointer(piece.pointee.buffer!.base), count: length,
        offset: UInt32(truncatingIfNeeded: piece.pointee.offset), dataSN: command.pointee.dataSN, isLast: isLast,
        buffer: piece.pointee.buffer, notice: isOnly ? 0 : UInt32(number + 1),
        advertised: command.pointee.advertised)
      // The buffer is the datamover's now.
      piece.pointee.buffer = nil
      piece.pointee.state = .sending
      command.pointee.completed += UInt64(length)
      touch(connection)
      if isOnly { return finishRead(index, connection, port) }
    }
  }

  /// A piece of a larger read has gone out.
  func sentPiece(_ number: Int) {
    let piece = pieces[number]
    guard piece.pointee.state == .sending else { return }
    let index = Int(piece.pointee.command)
    freePiece(number)
    let command = commands[index]
    if command.pointee.isAborted { return finishAborted(index) }
    if command.pointee.hasFailed { return failIfQuiet(index) }
    guard let port = ports[Int(command.pointee.port)], command.pointee.connection >= 0,
      let connection = connections[Int(command.pointee.connection)]
    else {
      if command.pointee.pieceCount == 0 { free(index) }
      return
    }
    if command.pointee.completed == command.pointee.limit {
      guard command.pointee.pieceCount == 0 else { return }
      return finishRead(index, connection, port)
    }
    // What is read already goes out first: starting more may end the command.
    sendReady(index, connection, port)
    advanceRead(index, port)
  }

  // MARK: Initiator to medium

  private func startWrite(_ index: Int, _ immediate: Buffer?) {
    let command = commands[index]
    guard command.pointee.limit > 0 else {
      if let immediate { pool.give(immediate) }
      return finish(index, .good, actual: command.pointee.transferBytes)
    }
    let length = Int(min(command.pointee.limit, UInt64(BufferPool.pieceBytes)))
    var immediate = immediate
    let isReceived = received != nil
    if let received {
      immediate = take(length, for: index)
      immediate?.base.copyMemory(from: received, byteCount: min(Int(command.pointee.immediateBytes), length))
      self.received = nil
    }
    if let immediate { precondition(immediate.capacity >= length, "immediate data in a buffer smaller than its piece") }
    // What came with the command cannot wait, and what is tied to no unit has no share to wait for.
    let isTied = command.pointee.unitPort != nil
    let mayWait = immediate == nil && isTied
    // Nor is a long buffer let in with the few bytes of a list.
    let bytes = isTied ? length : immediate?.capacity ?? length
    guard immediate != nil || !isReceived, mayWait || isReceived || mayHold(bytes, for: index),
      let number = appendPiece(index, offset: 0, length: length)
    else {
      if let immediate { pool.give(immediate) }
      return refuseForMemory(index)
    }
    command.pointee.issued = UInt64(length)
    let piece = pieces[number]
    piece.pointee.state = .collecting
    // What else came unsolicited before there was a piece was dropped, and will be asked for.
    piece.pointee.received = min(command.pointee.immediateBytes, UInt32(length))
    piece.pointee.solicitedEnd = piece.pointee.received
    if var immediate {
      if !isReceived { charge(&immediate, to: index) }
      piece.pointee.buffer = immediate
    } else if !equip(number, bytes: length) {
      return
    }
    advanceWrite(index)
  }

  /// Collects `byteCount` bytes (at most a piece) from the initiator, then calls `collected`.
  func collect(_ index: Int, byteCount: Int, _ immediate: Buffer?) {
    let command = commands[index]
    command.pointee.plan = .collect
    command.pointee.transferBytes = UInt64(byteCount)
    let expected = command.pointee.isWrite ? Int(command.pointee.expected) : 0
    guard byteCount <= BufferPool.pieceBytes, expected >= byteCount else {
      if let immediate { pool.give(immediate) }
      // The initiator means to send less than the CDB speaks of: there is nothing whole to act on.
      return fail(index, Sense(.illegalRequest, 0x2400))
    }
    command.pointee.limit = UInt64(byteCount)
    startWrite(index, immediate)
  }

  /// Takes what is complete to the disk, and asks for more data.
  func advanceWrite(_ index: Int) {
    let command = commands[index]
    // Data-Out may be said to belong to any command: only these two plans take any.
    guard !command.pointee.isAborted, !command.pointee.hasFailed,
      command.pointee.plan == .streamOut || command.pointee.plan == .collect, let owner = command.pointee.owner
    else { return }
    owner._withUnsafeGuaranteedRef { advanceWrite(index, $0) }
  }

  private func advanceWrite(_ index: Int, _ connection: Connection) {
    let command = commands[index]
    let generation = command.pointee.generation
    var current = command.pointee.firstPiece
    while current >= 0 {
      let number = Int(current)
      let piece = pieces[number]
      current = piece.pointee.next
      guard piece.pointee.state == .collecting else { continue }
      if piece.pointee.received == piece.pointee.length {
        // May end the command: nothing of it is touched after.
        if command.pointee.plan == .collect { return collected(index, number) }
        let isShared = !command.pointee.isExclusive
        writePiece(number, index)
        // ORWRITE waits for its range, or has gone on by itself; a comparison without a buffer has ended its command.
        if isShared, command.pointee.operation.kind == .orWrite { return }
        guard command.pointee.generation == generation, !command.pointee.hasFailed else { return }
        continue
      }
      if command.pointee.expectsUnsolicited { return }
      if piece.pointee.received == piece.pointee.solicitedEnd { solicit(number, index, connection) }
    }
    while command.pointee.issued < command.pointee.limit, !command.pointee.expectsUnsolicited,
      Int(command.pointee.outstandingR2T) < connection.parameters.maxOutstandingR2T,
      command.pointee.pieceCount < Int32(Self.readPiecesMax), isSolicitedInFull(command.pointee.lastPiece)
    {
      let length = Int(min(UInt64(BufferPool.pieceBytes), command.pointee.limit - command.pointee.issued))
      guard let number = appendPiece(index, offset: command.pointee.issued, length: length) else {
        // With pieces under way the next one's end continues, else nothing would.
        if command.pointee.pieceCount == 0 { fail(index, Sense(.abortedCommand, 0x5500)) }
        return
      }
      command.pointee.issued += UInt64(length)
      pieces[number].pointee.state = .collecting
      guard equip(number, bytes: length) else { return }
      solicit(number, index, connection)
    }
  }

  /// Whether all of a piece has been asked for (-1: there is none): R2Ts go out in the order of their offsets
  /// (DataSequenceInOrder, RFC 7143 §13.19), and nothing is asked for behind a piece that waits for its buffer.
  @inline(__always)
  private func isSolicitedInFull(_ number: Int32) -> Bool {
    number < 0 || pieces[Int(number)].pointee.solicitedEnd == pieces[Int(number)].pointee.length
  }

  /// Sends an R2T for the next part of a piece.
  private func solicit(_ number: Int, _ index: Int, _ connection: Connection) {
    let command = commands[index]
    let piece = pieces[number]
    guard Int(command.pointee.outstandingR2T) < connection.parameters.maxOutstandingR2T else { return }
    let length = min(piece.pointee.length - piece.pointee.received, UInt32(connection.parameters.maxBurstLength))
    piece.pointee.solicitedEnd = piece.pointee.received + length
    piece.pointee.expectedDataSN = 0
    command.pointee.outstandingR2T += 1
    var header = BasicHeaderSegment.readyToTransfer(
      lun: command.pointee.lun, initiatorTaskTag: command.pointee.initiatorTaskTag,
      targetTransferTag: piece.pointee.transferTag(index: number), r2tSN: command.pointee.r2tSN,
      bufferOffset: UInt32(piece.pointee.offset) + piece.pointee.received, desiredLength: length)
    header.statSN = connection.statSN  // not advanced (RFC 7143 §11.8.3)
    command.pointee.r2tSN &+= 1
    piece.pointee.isReceiving = connection.mover.getData(
      header, into: piece.pointee.buffer!.base + Int(piece.pointee.received), buffer: piece.pointee.buffer!,
      advertised: command.pointee.advertised, unsolicitedBytes: command.pointee.unsolicited)
    touch(connection)
  }

  /// Data_Completion_Notify of a Get_Data: all that an R2T asked for is in its piece.
  func dataArrived(_ transferTag: UInt32) {
    guard let number = endArrival(transferTag) else { return }
    let piece = pieces[number]
    let index = Int(piece.pointee.command)
    commands[index].pointee.progressedAt = now
    commands[index].pointee.outstandingR2T -= 1
    piece.pointee.received = piece.pointee.solicitedEnd
    if commands[index].pointee.hasFailed { failIfQuiet(index) } else { advanceWrite(index) }
  }

  /// The datamover no longer writes to a piece's buffer. Returns the piece, unless its command was aborted meanwhile: then
  /// that has come to its end.
  @discardableResult
  func endArrival(_ transferTag: UInt32) -> Int? {
    // It cannot have been freed: nothing is while it is received into.
    let number = Int(transferTag & 0xFFFF)
    let piece = pieces[number]
    precondition(piece.pointee.isReceiving && piece.pointee.transferTag(index: number) == transferTag)
    piece.pointee.isReceiving = false
    let index = Int(piece.pointee.command)
    guard commands[index].pointee.isAborted else { return number }
    finishAborted(index)
    return nil
  }

  @inline(__always)
  private func writePiece(_ number: Int, _ index: Int) {
    let piece = pieces[number]
    let operation = commands[index].pointee.operation
    let offset = diskOffset(index) + piece.pointee.offset
    let count = Int(piece.pointee.length)
    switch operation.kind {
    case .compare:
      readForComparison(number, index)
    case .orWrite:
      // The pieces stay as they are, full, until the range is this command's alone.
      if commands[index].pointee.isExclusive { readForComparison(number, index) } else { acquireRange(index) }
    default:
      let through = operation.forceUnitAccess || operation.kind == .writeAndVerify
      submit(number, through ? .writeThrough : .write, offset: offset, count: count, buffer: piece.pointee.buffer!)
    }
  }

  private func readForComparison(_ number: Int, _ index: Int) {
    let piece = pieces[number]
    guard let second = take(Int(piece.pointee.length), for: index) else {
      return fail(number, index, Sense(.abortedCommand, 0x5500))  // SYSTEM RESOURCE FAILURE: try again
    }
    piece.pointee.second = second
    piece.pointee.step = 1
    submit(
      number, .read, offset: diskOffset(index) + piece.pointee.offset, count: Int(piece.pointee.length), buffer: second)
  }

  private func fail(_ number: Int, _ index: Int, _ sense: Sense) {
    freePiece(number)
    note(index, sense)
    failIfQuiet(index)
  }

  // MARK: Data-Out

  /// The place of a Data-Out's data, if it belongs to anything (RFC 7143 §11.7).
  func placeDataOut(_ connection: Connection, _ header: BasicHeaderSegment) -> UnsafeMutableRawPointer? {
    connection.placement = .dropped
    guard let (number, start) = pieceFor(connection, header) else { return nil }
    let piece = pieces[number]
    connection.placement = .piece(index: number, generation: piece.pointee.generation)
    piece.pointee.isReceiving = true
    return piece.pointee.buffer!.base + Int(start)
  }

  /// The piece that a Data-Out fills, and where; nil if it is to be dropped. A violation ends the command.
  private func pieceFor(_ connection: Connection, _ header: BasicHeaderSegment) -> (Int, UInt32)? {
    header.targetTransferTag == BasicHeaderSegment.reservedTag
      ? unsolicitedPiece(connection, header) : solicitedPiece(connection, header)
  }

  private func solicitedPiece(_ connection: Connection, _ header: BasicHeaderSegment) -> (Int, UInt32)? {
    let number = Int(header.targetTransferTag & 0xFFFF)
    guard pieces.holds(number) else { return nil }
    let piece = pieces[number]
    guard piece.pointee.state == .collecting, piece.pointee.transferTag(index: number) == header.targetTransferTag
    else { return nil }
    let command = commands[Int(piece.pointee.command)]
    // A late Data-Out of an aborted command finds another generation; one of another's is not for us to judge.
    guard command.pointee.connection == Int32(connection.index), !command.pointee.isAborted,
      command.pointee.initiatorTaskTag == header.initiatorTaskTag, piece.pointee.buffer != nil
    else { return nil }
    let offset = UInt32(piece.pointee.offset) + piece.pointee.received
    guard header.dataSN == piece.pointee.expectedDataSN, header.bufferOffset == offset,
      header.dataSegmentLength <= Int(piece.pointee.solicitedEnd - piece.pointee.received)
    else {
      violation(connection, Int(piece.pointee.command), "Data-Out out of sequence")
      return nil
    }
    return (number, piece.pointee.received)
  }

  private func unsolicitedPiece(_ connection: Connection, _ header: BasicHeaderSegment) -> (Int, UInt32)? {
    guard let index = command(of: connection, tag: header.initiatorTaskTag) else { return nil }
    let command = commands[index]
    guard !command.pointee.isAborted, command.pointee.firstPiece >= 0 else { return nil }
    let number = Int(command.pointee.firstPiece)
    let piece = pieces[number]
    let end = Int(command.pointee.unsolicited) + header.dataSegmentLength
    guard command.pointee.expectsUnsolicited, header.dataSN == command.pointee.unsolicitedDataSN,
      header.bufferOffset == command.pointee.unsolicited, end <= connection.parameters.firstBurstLength,
      end <= Int(command.pointee.expected)
    else {
      violation(connection, index, "unsolicited data out of sequence")
      return nil
    }
    // Past what the command takes it is read and dropped; so it is while the piece still waits for its buffer.
    guard piece.pointee.state == .collecting, piece.pointee.buffer != nil, end <= Int(piece.pointee.length),
      piece.pointee.received == command.pointee.unsolicited
    else { return nil }
    return (number, command.pointee.unsolicited)
  }

  /// A Data-Out that breaks its sequence ends its command (RFC 7143 §7.9 at ErrorRecoveryLevel 0): nothing of what comes
  /// for it afterwards is written.
  private func violation(_ connection: Connection, _ index: Int, _ reason: String) {
    // What comes on is not looked at any more.
    commands[index].pointee.expectsUnsolicited = false
    Log.ofPeers(.notice, "\(connection.name): \(reason)")
    note(connection, .dataSequence)
    note(index, Sense(.abortedCommand, 0x4B00))  // DATA PHASE ERROR
    failIfQuiet(index)
  }

  /// The command of this connection with an initiator task tag.
  func command(of connection: Connection, tag: UInt32) -> Int? {
    var current = connection.firstCommand
    while current >= 0 {
      if commands[Int(current)].pointee.initiatorTaskTag == tag { return Int(current) }
      current = commands[Int(current)].pointee.next
    }
    return nil
  }

  /// A Data-Out is complete.
  func dataOut(_ connection: Connection, _ header: BasicHeaderSegment) {
    let placement = connection.placement
    connection.placement = .none
    if case .piece(let number, _) = placement {
      // It cannot have been freed: nothing is while it is received into.
      pieces[number].pointee.isReceiving = false
      let index = Int(pieces[number].pointee.command)
      // Aborted while its data came in: now it can go.
      if commands[index].pointee.isAborted { return finishAborted(index) }
      commands[index].pointee.progressedAt = now
    }
    if header.targetTransferTag == BasicHeaderSegment.reservedTag {
      if case .piece = placement { return unsolicitedDataOut(connection, header, isPlaced: true) }
      return unsolicitedDataOut(connection, header, isPlaced: false)
    }
    guard case .piece(let number, let generation) = placement else {
      // A PDU without data still has its F bit, but an R2T is only ended by its last byte.
      return
    }
    let piece = pieces[number]
    guard piece.pointee.generation == generation else { return }
    let index = Int(piece.pointee.command)
    piece.pointee.received += UInt32(header.dataSegmentLength)
    piece.pointee.expectedDataSN &+= 1
    let isComplete = piece.pointee.received == piece.pointee.solicitedEnd
    guard header.isFinal == isComplete else { return violation(connection, index, "F bit where the R2T does not end") }
    guard isComplete else {
      if commands[index].pointee.hasFailed { failIfQuiet(index) }
      return
    }
    commands[index].pointee.outstandingR2T -= 1
    if commands[index].pointee.hasFailed { failIfQuiet(index) } else { advanceWrite(index) }
  }

  /// - Parameter isPlaced: the data went to the command's first piece; else it was dropped, and what the command needs of
  ///   it will be solicited.
  private func unsolicitedDataOut(_ connection: Connection, _ header: BasicHeaderSegment, isPlaced: Bool) {
    guard connection.isOpen, !connection.closesAfterSend,
      let index = command(of: connection, tag: header.initiatorTaskTag)
    else { return }
    let command = commands[index]
    guard command.pointee.expectsUnsolicited else { return }
    let total = UInt64(command.pointee.unsolicited) + UInt64(header.dataSegmentLength)
    // Of a command without a piece nothing was looked at yet.
    guard total <= connection.parameters.firstBurstLength else {
      return violation(connection, index, "more unsolicited data than FirstBurstLength")
    }
    command.pointee.unsolicited = UInt32(total)
    command.pointee.unsolicitedDataSN &+= 1
    if isPlaced, command.pointee.firstPiece >= 0 {
      let piece = pieces[Int(command.pointee.firstPiece)]
      piece.pointee.received += UInt32(header.dataSegmentLength)
      piece.pointee.solicitedEnd = piece.pointee.received
    }
    if header.isFinal { command.pointee.expectsUnsolicited = false }
    if command.pointee.hasFailed { failIfQuiet(index) } else { advanceWrite(index) }
  }

  // MARK: The disk

  /// Gives a piece to the disk, unless its range is held: then it waits.
  @inline(__always)
  func submit(_ number: Int, _ operation: DiskOperation, offset: UInt64, count: Int, buffer: Buffer?) {
    commands[Int(pieces[number].pointee.command)].pointee.unitPort!._withUnsafeGuaranteedRef {
      submit(number, operation, offset: offset, count: count, buffer: buffer, $0)
    }
  }

  @inline(__always)
  private func submit(
    _ number: Int, _ operation: DiskOperation, offset: UInt64, count: Int, buffer: Buffer?, _ port: UnitPort
  ) {
    let index = Int(pieces[number].pointee.command)
    pieces[number].pointee.state = .disk
    pieces[number].pointee.promise =
      operation == .flush ? .flushed : operation == .writeThrough ? .written : .none
    pieces[number].pointee.isWrite = operation != .read
    if commands[index].pointee.diskCount == 0 { commands[index].pointee.progressedAt = now }
    commands[index].pointee.diskCount += 1
    if !port.export.holds.isEmpty, operation != .flush,
      port.export.holds.conflicts(offset..<offset + UInt64(max(count, 1)), except: commands[index].pointee.hold)
    {
      return park(
        ParkedRequest(
          piece: number, generation: pieces[number].pointee.generation, operation: operation, offset: offset,
          count: count, buffer: buffer))
    }
    port.queue.submit(
      operation, offset: offset, count: count, base: buffer?.base, buffer: buffer?.registered,
      token: Token(OperationCode.disk, index: UInt32(number), generation: pieces[number].pointee.generation))
  }

  func diskCompleted(_ token: Token, _ result: Int32) {
    let number = Int(token.index)
    let piece = pieces[number]
    guard piece.pointee.generation & 0xFF_FFFF == token.generation, piece.pointee.state == .disk else { return }
    let index = Int(piece.pointee.command)
    let command = commands[index]
    command.pointee.diskCount -= 1
    command.pointee.progressedAt = now
    var result = result
    if piece.pointee.promise != .none {
      // Also of a command that is aborted: the kernel tells of a failed flush once.
      result = ports[Int(command.pointee.port)]!.queue.stableResult(
        result, isFlush: piece.pointee.promise == .flushed)
    }
    if command.pointee.isAborted {
      if case .reservation? = cold[index] { recordWrittenUnasked(index, number, result) }
      freePiece(number)
      return finishAborted(index)
    }
    if result == -EBADE, meetsConflict(number, index) { return }
    switch command.pointee.plan {
    case .streamIn:
      guard result == Int32(piece.pointee.diskLength) else { return diskFailed(number, index, result) }
      piece.pointee.state = .ready
      if command.pointee.hasFailed { return failIfQuiet(index) }
      guard let owner = command.pointee.owner, let port = command.pointee.unitPort else { return }
      owner._withUnsafeGuaranteedRef { connection in
        port._withUnsafeGuaranteedRef { sendReady(index, connection, $0) }
      }
    case .streamOut:
      guard result == Int32(piece.pointee.length) else { return diskFailed(number, index, result) }
      wrotePiece(number, index)
    case .collect, .simple, .none:
      piece.pointee.state = .ready
      simpleCompleted(index, number, result)
    }
  }

  private func wrotePiece(_ number: Int, _ index: Int) {
    let command = commands[index]
    let piece = pieces[number]
    if let second = piece.pointee.second, command.pointee.operation.kind == .orWrite {
      guard piece.pointee.step == 2 else { return mergePiece(number, index, second) }
    } else if let second = piece.pointee.second {
      if command.pointee.operation.kind == .compare || command.pointee.operation.bytewise,
        let difference = firstDifference(piece.pointee.buffer!.base, second.base, Int(piece.pointee.length))
      {
        let failure = MediumFailure.miscompare(offset: piece.pointee.offset + UInt64(difference))
        return fail(number, index, configuration.deviceServer.sense(for: failure))
      }
    } else if command.pointee.operation.kind == .writeAndVerify {
      return readForComparison(number, index)
    }
    command.pointee.completed += UInt64(piece.pointee.length)
    freePiece(number)
    if command.pointee.hasFailed { return failIfQuiet(index) }
    if command.pointee.completed == command.pointee.limit {
      return finish(index, .good, actual: command.pointee.transferBytes)
    }
    advanceWrite(index)
  }

  /// ORWRITE: what the disk has goes into what the initiator sent, which is then written.
  private func mergePiece(_ number: Int, _ index: Int, _ second: Buffer) {
    let piece = pieces[number]
    let sent = piece.pointee.buffer!.base
    for offset in stride(from: 0, to: Int(piece.pointee.length), by: 8) {
      let merged =
        sent.load(fromByteOffset: offset, as: UInt64.self) | second.base.load(fromByteOffset: offset, as: UInt64.self)
      sent.storeBytes(of: merged, toByteOffset: offset, as: UInt64.self)
    }
    piece.pointee.step = 2
    submit(
      number, commands[index].pointee.operation.forceUnitAccess ? .writeThrough : .write,
      offset: diskOffset(index) + piece.pointee.offset, count: Int(piece.pointee.length), buffer: piece.pointee.buffer!)
  }

  /// A request to the disk failed, or moved less than it should.
  private func diskFailed(_ number: Int, _ index: Int, _ result: Int32) {
    let piece = pieces[number]
    let command = commands[index]
    let port = ports[Int(command.pointee.port)]!
    // Less than asked for without an error: the disk ends here.
    let lba = command.pointee.operation.lba + piece.pointee.offset >> port.blockShift
    let failure = result < 0 ? Disk.failure(code: result, lba: lba) : .medium(lba: lba)
    fail(number, index, configuration.deviceServer.sense(for: failure, isWrite: piece.pointee.isWrite))
  }

  /// Remembers a failure of a command, of several that are alike that of the lowest place, or else the first; no new pieces
  /// are started.
  func note(_ index: Int, _ sense: Sense) {
    if commands[index].pointee.hasFailed {
      let first = commands[index].pointee.failure
      guard (sense.key, sense.code) == (first.key, first.code), let place = sense.information,
        let firstPlace = first.information, place < firstPlace
      else { return }
    }
    commands[index].pointee.hasFailed = true
    commands[index].pointee.failure = sense
  }

  /// Answers a failed command once the disk and the datamover have nothing of it.
  func failIfQuiet(_ index: Int) {
    let command = commands[index]
    guard command.pointee.diskCount == 0 else { return }
    guard !isMoving(index) else { return }
    // What has landed of a write may lie behind what has not: none of it is vouched for.
    if command.pointee.plan == .streamOut { command.pointee.completed = 0 }
    fail(index, command.pointee.failure)
  }

  /// Whether the datamover has a piece of this command in hand.
  func isMoving(_ index: Int) -> Bool { hasPiece(index) { $0.state == .sending || $0.isReceiving } }

  /// Whether data is coming into a buffer of this command.
  func isReceiving(_ index: Int) -> Bool { hasPiece(index) { $0.isReceiving } }

  @inline(__always)
  func hasPiece(_ index: Int, _ isWanted: (Piece) -> Bool) -> Bool {
    var current = commands[index].pointee.firstPiece
    while current >= 0 {
      if isWanted(pieces[Int(current)].pointee) { return true }
      current = pieces[Int(current)].pointee.next
    }
    return false
  }
}

/// Offset of the first byte in which two runs of `count` bytes differ; nil: none.
func firstDifference(_ a: UnsafeMutableRawPointer, _ b: UnsafeMutableRawPointer, _ count: Int) -> Int? {
  guard memcmp(a, b, count) != 0 else { return nil }
  return (0..<count).first { a.load(fromByteOffset: $0, as: UInt8.self) != b.load(fromByteOffset: $0, as: UInt8.self) }
}

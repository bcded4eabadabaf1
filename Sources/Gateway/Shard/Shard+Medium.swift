import Glibc
import Reactor
import SCSI
import Storage

/// A disk request that waits until its range is no longer held.
struct ParkedRequest {
  var piece: Int
  var generation: UInt32
  var operation: DiskOperation
  var offset: UInt64
  var count: Int
  var buffer: Buffer?
}

/// Somebody waits until no disk request of this shard touches a range.
struct QuietWaiter {
  var export: Export
  var range: Range<UInt64>
  var exceptCommand: Int
  /// When those are ended who do not take what is sent from the disk's memory.
  var deadline: UInt64
  var done: () -> Void
}

/// Everything that the medium does but plain reads and writes. Each such command has one piece, its carrier, and one disk
/// request at a time.
extension Shard {
  // MARK: Without data from the initiator

  func startSimple(_ index: Int, _ operation: MediumOperation) {
    let command = commands[index]
    command.pointee.plan = .simple
    command.pointee.operation = operation
    switch operation.kind {
    case .lbaStatus:
      return answerMapping(index)
    case .prefetch:
      // Direct I/O has no cache of ours to fill.
      return finish(index, .good)
    case .flush where operation.immediate:
      // IMMED: the status goes first; the flush itself is started all the same, by nobody waited for.
      break
    default: break
    }
    guard let number = carrier(index, length: 0) else {
      return refuseForMemory(index)
    }
    if operation.kind == .verify || operation.kind == .compareRepeated {
      let blockBytes = 1 << Int(ports[Int(command.pointee.port)]!.blockShift)
      pieces[number].pointee.diskLength = UInt32(
        min(Int(clamping: operation.blocks) * blockBytes, BufferPool.pieceBytes))
      guard equip(number, bytes: Int(pieces[number].pointee.diskLength)) else { return }
    }
    resumeSimple(index)
  }

  /// Starts the next disk request of a command, or ends it.
  func resumeSimple(_ index: Int) {
    let command = commands[index]
    let number = Int(command.pointee.firstPiece)
    let port = ports[Int(command.pointee.port)]!
    let operation = command.pointee.operation
    // Of UNMAP the cursor counts in an extent, which is longer than the operation.
    let left = operation.blocks > command.pointee.cursor ? operation.blocks - command.pointee.cursor : 0
    let offset = (operation.lba + command.pointee.cursor) << port.blockShift
    switch operation.kind {
    case .flush:
      submit(number, .flush, offset: 0, count: 0, buffer: nil)
    case .verify:
      let buffer = pieces[number].pointee.buffer!
      let count = min(Int(clamping: left << port.blockShift), buffer.capacity)
      pieces[number].pointee.diskLength = UInt32(count)
      submit(number, .read, offset: offset, count: count, buffer: buffer)
    case .writeZeroes:
      if case .unmap(let extents, let done)? = cold[index] { return resumeUnmap(index, number, extents, done) }
      let kind: DiskOperation =
        operation.mayUnmap && port.export.unit.traits.isThin ? .deallocate : .zero
      submitRange(number, kind, offset: offset, bytes: left << port.blockShift)
    case .copyIn, .copyOut: copyNext(index)
    case .sanitize: sanitizeNext(index)
    case .read, .write, .writeAndVerify, .orWrite, .writeAtomic, .compare, .compareRepeated, .compareAndWrite,
      .writeSame, .prefetch, .lbaStatus:
      break
    }
  }

  /// A request over a range that no buffer limits; in parts that fit an Int32 result and bound the disk's work.
  private func submitRange(_ number: Int, _ operation: DiskOperation, offset: UInt64, bytes: UInt64) {
    let count = min(bytes, 1 << 30)
    pieces[number].pointee.diskLength = UInt32(count)
    submit(number, operation, offset: offset, count: Int(count), buffer: nil)
  }

  private func resumeUnmap(_ index: Int, _ number: Int, _ extents: [Extent], _ done: Int) {
    guard done < extents.count else { return finish(index, .good) }
    let port = ports[Int(commands[index].pointee.port)]!
    let shift = port.blockShift
    let extent = extents[done]
    let cursor = commands[index].pointee.cursor
    // What must read as zeroes afterwards the kernel refuses to discard where the device does not promise it.
    let kind: DiskOperation = port.export.unit.traits.readsZeroes ? .deallocate : .discard
    submitRange(number, kind, offset: (extent.lba + cursor) << shift, bytes: (extent.blocks - cursor) << shift)
  }

  /// A request of a `simple` or `collect` command is done.
  func simpleCompleted(_ index: Int, _ number: Int, _ result: Int32) {
    let command = commands[index]
    let port = ports[Int(command.pointee.port)]!
    if case .reservation? = cold[index] { return recordWritten(index, result) }
    switch command.pointee.operation.kind {
    case .flush:
      guard result >= 0 else { return failMedium(index, result) }
      finish(index, .good)
    case .verify:
      guard result == Int32(pieces[number].pointee.diskLength) else { return failMedium(index, result) }
      advanceCursor(index, UInt64(result) >> port.blockShift)
    case .writeZeroes:
      if case .unmap(let extents, let done)? = cold[index] {
        return unmapped(index, number, result, extents, done)
      }
      if result == -EOPNOTSUPP || result == -EINVAL { return fillWithZeroes(index, number) }
      guard result >= 0 else { return failMedium(index, result) }
      advanceCursor(index, UInt64(pieces[number].pointee.diskLength) >> port.blockShift)
    case .writeSame: wroteSame(index, number, result)
    case .compareRepeated: comparedRepeatedly(index, number, result)
    case .compareAndWrite: compareAndWriteCompleted(index, number, result)
    case .writeAtomic:
      guard result == Int32(pieces[number].pointee.length) else { return failMedium(index, result) }
      finish(index, .good, actual: command.pointee.transferBytes)
    case .copyIn, .copyOut: copyCompleted(index, number, result)
    case .sanitize: sanitizeCompleted(index, number, result)
    case .read, .write, .writeAndVerify, .orWrite, .compare, .prefetch, .lbaStatus: break
    }
  }

  /// Moves on by `blocks`; ends the command when all are done.
  private func advanceCursor(_ index: Int, _ blocks: UInt64) {
    let command = commands[index]
    command.pointee.cursor += blocks
    guard command.pointee.cursor >= command.pointee.operation.blocks else { return resumeSimple(index) }
    finish(index, .good, actual: command.pointee.transferBytes)
  }

  private func failMedium(_ index: Int, _ result: Int32, lba: UInt64? = nil) {
    let command = commands[index]
    let block = lba ?? command.pointee.operation.lba + command.pointee.cursor
    let failure: MediumFailure = result < 0 ? Disk.failure(code: result, lba: block) : .medium(lba: block)
    let isWrite = pieces[Int(command.pointee.firstPiece)].pointee.isWrite
    fail(index, configuration.deviceServer.sense(for: failure, isWrite: isWrite))
  }

  private func unmapped(_ index: Int, _ number: Int, _ result: Int32, _ extents: [Extent], _ done: Int) {
    // Deallocation is a wish: a disk that cannot keeps the data mapped and unchanged (SBC-4 §4.7.3.4).
    guard result >= 0 || result == -EOPNOTSUPP || result == -EINVAL else {
      return failMedium(index, result, lba: extents[done].lba)
    }
    let shift = ports[Int(commands[index].pointee.port)]!.blockShift
    let command = commands[index]
    command.pointee.cursor += UInt64(pieces[number].pointee.diskLength) >> shift
    if command.pointee.cursor >= extents[done].blocks {
      command.pointee.cursor = 0
      cold[index] = .unmap(extents, done: done + 1)
    }
    resumeSimple(index)
  }

  /// The disk cannot zero by itself: zeroes are written, as WRITE SAME writes its block.
  private func fillWithZeroes(_ index: Int, _ number: Int) {
    let command = commands[index]
    let piece = pieces[number]
    guard let buffer = take(BufferPool.pieceBytes, for: index) else {
      return fail(index, Sense(.abortedCommand, 0x5500))
    }
    memset(buffer.base, 0, buffer.capacity)
    if let old = piece.pointee.buffer { pool.give(old) }
    piece.pointee.buffer = buffer
    command.pointee.operation.kind = .writeSame
    command.pointee.operation.mayUnmap = false
    writeSameNext(index, number)
  }

  private func answerMapping(_ index: Int) {
    let port = ports[Int(commands[index].pointee.port)]!
    let operation = commands[index].pointee.operation
    let (export, shift) = (port.export, port.blockShift)
    ask(index, export) {
      Self.mapping(of: export, from: operation.lba, shift)
    } then: { shard, extents in
      let server = shard.configuration.deviceServer
      shard.answer(index, server.lbaStatus(of: extents, allocationLength: operation.allocationLength))
    }
  }

  private static func mapping(of export: Export, from lba: UInt64, _ shift: UInt64) -> [(Extent, mapped: Bool)] {
    let end = export.unit.blocks
    var extents: [(Extent, mapped: Bool)] = []
    var lba = lba
    // A few extents answer any allocation length that initiators use; the rest they ask for again.
    while lba < end, extents.count < 16 {
      let found = export.disk.mapping(at: lba << shift, limit: end << shift)
      // A block partly in a hole counts as mapped.
      var blocks = found.byteCount >> shift
      var isMapped = found.isMapped
      if blocks == 0 { (blocks, isMapped) = (1, true) }
      if let last = extents.last, last.mapped == isMapped {
        extents[extents.count - 1].0.blocks += blocks
      } else {
        extents.append((Extent(lba: lba, blocks: blocks), isMapped))
      }
      lba += blocks
    }
    return extents
  }

  // MARK: Reservations

  /// Writes a record to the label area, through to stable storage.
  func writeRecord(_ index: Int, _ bytes: [UInt8], offset: UInt64) {
    commands[index].pointee.plan = .simple
    guard let number = carrier(index, length: 0) else { return recordWritten(index, -ENOMEM) }
    guard bytes.count <= BufferPool.pieceBytes, let buffer = pool.take(bytes.count) else {
      return recordWritten(index, -ENOMEM)
    }
    bytes.withUnsafeBytes { buffer.base.copyMemory(from: $0.baseAddress!, byteCount: $0.count) }
    pieces[number].pointee.buffer = buffer
    pieces[number].pointee.diskLength = UInt32(bytes.count)
    submit(number, .writeThrough, offset: offset, count: bytes.count, buffer: buffer)
  }

  private func recordWritten(_ index: Int, _ result: Int32) {
    let first = commands[index].pointee.firstPiece
    guard first >= 0, result == Int32(pieces[Int(first)].pointee.diskLength), case .reservation? = cold[index] else {
      // `free` tells the unit that nothing has changed.
      let failure = Disk.failure(code: min(result, -1), lba: 0)
      return fail(index, configuration.deviceServer.sense(for: failure, isWrite: true))
    }
    ports[Int(commands[index].pointee.port)]?.export.endReservationRecord(isWritten: true)
    commitReservation(index)
  }

  /// The same of a command that was aborted meanwhile. What is on the disk is what the next owner goes by, so it is in force;
  /// an aborted command may have been carried out.
  func recordWrittenUnasked(_ index: Int, _ number: Int, _ result: Int32) {
    guard result == Int32(pieces[number].pointee.diskLength),
      case .reservation(let change)? = cold.removeValue(forKey: index),
      let export = ports[Int(commands[index].pointee.port)]?.export
    else { return }
    export.endReservationRecord(isWritten: true)
    let outcome = export.unit.commit(change)
    guard !outcome.aborts.isEmpty else { return }
    context.abortCommands(of: outcome.aborts, to: export.unit, origin: handle.index) { _ in }
  }

  // MARK: With all its data first

  /// The data of a `collect` command is complete in its carrier.
  func collected(_ index: Int, _ number: Int) {
    let command = commands[index]
    let piece = pieces[number]
    if case .parameters? = cold[index] {
      cold[index] = nil
      let data = Array(
        UnsafeRawBufferPointer(start: piece.pointee.buffer!.base, count: Int(piece.pointee.length)))
      freePiece(number)
      guard let connection = connections[Int(command.pointee.connection)], let nexus = connection.nexus else { return }
      command.pointee.completed = UInt64(data.count)
      let disposition = configuration.deviceServer.resume(
        request(index), nexus: nexus, map: connection.units,
        parameters: data)
      if case .wait = disposition { return hold(index, nil, parameters: data) }
      return act(on: disposition, index, nil)
    }
    command.pointee.completed = command.pointee.limit
    switch command.pointee.operation.kind {
    case .writeSame: startWriteSame(index, number)
    case .compareRepeated: startCompareRepeated(index, number)
    case .compareAndWrite, .writeAtomic: acquireRange(index)
    default: break
    }
  }

  // MARK: WRITE SAME

  private func startWriteSame(_ index: Int, _ number: Int) {
    let command = commands[index]
    let piece = pieces[number]
    let block = piece.pointee.buffer!
    let length = Int(piece.pointee.length)
    if command.pointee.operation.mayUnmap, isZero(block.base, length) {
      command.pointee.operation.kind = .writeZeroes
      return resumeSimple(index)
    }
    // The block is repeated over a whole buffer, so that the disk gets large writes.
    guard let buffer = take(BufferPool.pieceBytes, for: index) else {
      return fail(index, Sense(.abortedCommand, 0x5500))
    }
    var filled = 0
    while filled < buffer.capacity {
      memcpy(buffer.base + filled, block.base, length)
      filled += length
    }
    pool.give(block)
    piece.pointee.buffer = buffer
    writeSameNext(index, number)
  }

  private func writeSameNext(_ index: Int, _ number: Int) {
    let command = commands[index]
    let shift = ports[Int(command.pointee.port)]!.blockShift
    let operation = command.pointee.operation
    let buffer = pieces[number].pointee.buffer!
    let count = min(UInt64(buffer.capacity), (operation.blocks - command.pointee.cursor) << shift)
    pieces[number].pointee.diskLength = UInt32(count)
    submit(
      number, operation.forceUnitAccess ? .writeThrough : .write,
      offset: (operation.lba + command.pointee.cursor) << shift, count: Int(count), buffer: buffer)
  }

  private func wroteSame(_ index: Int, _ number: Int, _ result: Int32) {
    guard result == Int32(pieces[number].pointee.diskLength) else { return failMedium(index, result) }
    let command = commands[index]
    let shift = ports[Int(command.pointee.port)]!.blockShift
    command.pointee.cursor += UInt64(result) >> shift
    guard command.pointee.cursor >= command.pointee.operation.blocks else { return writeSameNext(index, number) }
    finish(index, .good, actual: command.pointee.transferBytes)
  }

  private func isZero(_ memory: UnsafeMutableRawPointer, _ count: Int) -> Bool {
    memory.load(as: UInt8.self) == 0 && memcmp(memory, memory + 1, count - 1) == 0
  }

  // MARK: VERIFY with one block

  private func startCompareRepeated(_ index: Int, _ number: Int) {
    let command = commands[index]
    let shift = ports[Int(command.pointee.port)]!.blockShift
    let bytes = min(Int(clamping: command.pointee.operation.blocks << shift), BufferPool.pieceBytes)
    guard let second = take(bytes, for: index) else { return fail(index, Sense(.abortedCommand, 0x5500)) }
    pieces[number].pointee.second = second
    compareRepeatedNext(index, number)
  }

  private func compareRepeatedNext(_ index: Int, _ number: Int) {
    let command = commands[index]
    let shift = ports[Int(command.pointee.port)]!.blockShift
    let second = pieces[number].pointee.second!
    let count = min(UInt64(second.capacity), (command.pointee.operation.blocks - command.pointee.cursor) << shift)
    pieces[number].pointee.diskLength = UInt32(count)
    submit(
      number, .read, offset: (command.pointee.operation.lba + command.pointee.cursor) << shift, count: Int(count),
      buffer: second)
  }

  private func comparedRepeatedly(_ index: Int, _ number: Int, _ result: Int32) {
    let piece = pieces[number]
    guard result == Int32(piece.pointee.diskLength) else { return failMedium(index, result) }
    let command = commands[index]
    let blockBytes = Int(piece.pointee.length)
    for start in stride(from: 0, to: Int(result), by: blockBytes) {
      if let difference = firstDifference(piece.pointee.buffer!.base, piece.pointee.second!.base + start, blockBytes) {
        return fail(
          index, configuration.deviceServer.sense(for: MediumFailure.miscompare(offset: UInt64(difference))))
      }
    }
    command.pointee.cursor += UInt64(Int(result) / blockBytes)
    guard command.pointee.cursor >= command.pointee.operation.blocks else { return compareRepeatedNext(index, number) }
    finish(index, .good, actual: command.pointee.transferBytes)
  }

  // MARK: COMPARE AND WRITE

  /// Holds the range of a COMPARE AND WRITE or ORWRITE against everybody and waits until what was under way has landed, on
  /// every shard (SBC-4 §5.2, §5.8).
  func acquireRange(_ index: Int) {
    let command = commands[index]
    // One that is aborted stays while a PDU of it comes in, and nobody would give its blocks back.
    guard command.pointee.hold == 0, !command.pointee.isAborted else { return }
    let port = ports[Int(command.pointee.port)]!
    let range = diskRange(index)
    let hold = port.export.holds.addExclusive(range)
    if !command.pointee.awaitsRange {
      command.pointee.awaitsRange = true
      command.pointee.progressedAt = now
    }
    guard hold != 0 else {
      parkedCommands.append((index, command.pointee.generation))
      return scheduleTick(at: now + 20_000_000)
    }
    command.pointee.hold = hold
    let generation = command.pointee.generation
    let export = port.export
    if context.handles.count == 1 {
      whenQuiet(export, range, except: index) { [unowned self] in rangeAcquired(index, generation) }
      return
    }
    let home = handle.index
    context.onEveryShard(origin: home) { shard, done in
      shard.whenQuiet(export, range, except: shard.handle.index == home ? index : -1, done)
    } then: { shard in
      shard.rangeAcquired(index, generation)
    }
  }

  private func rangeAcquired(_ index: Int, _ generation: UInt32) {
    let command = commands[index]
    guard command.pointee.generation == generation, !command.pointee.isAborted else { return }
    command.pointee.isExclusive = true
    command.pointee.exclusiveSince = now
    command.pointee.awaitsRange = false
    switch command.pointee.operation.kind {
    case .orWrite: advanceWrite(index)
    case .writeAtomic: writeAtomically(index)
    case .sanitize: sanitizeNext(index)
    default: readForCompareAndWrite(index)
    }
  }

  /// One request: neither the gateway nor, up to what the disk tells of itself, the kernel divides it.
  private func writeAtomically(_ index: Int) {
    let number = Int(commands[index].pointee.firstPiece)
    let piece = pieces[number]
    submit(
      number, commands[index].pointee.operation.forceUnitAccess ? .writeThrough : .write, offset: diskOffset(index),
      count: Int(piece.pointee.length), buffer: piece.pointee.buffer!)
  }

  private func readForCompareAndWrite(_ index: Int) {
    let command = commands[index]
    let number = Int(command.pointee.firstPiece)
    let half = Int(pieces[number].pointee.length) / 2
    guard let second = take(half, for: index) else { return fail(index, Sense(.abortedCommand, 0x5500)) }
    pieces[number].pointee.second = second
    pieces[number].pointee.step = 1
    submit(number, .read, offset: diskOffset(index), count: half, buffer: second)
  }

  private func compareAndWriteCompleted(_ index: Int, _ number: Int, _ result: Int32) {
    let piece = pieces[number]
    let command = commands[index]
    let half = Int(piece.pointee.length) / 2
    guard result == Int32(half) else { return failMedium(index, result) }
    if piece.pointee.step == 2 { return finish(index, .good, actual: command.pointee.transferBytes) }
    if let difference = firstDifference(piece.pointee.buffer!.base, piece.pointee.second!.base, half) {
      return fail(index, configuration.deviceServer.sense(for: MediumFailure.miscompare(offset: UInt64(difference))))
    }
    // The new data goes to the second buffer, whose start is aligned as direct I/O wants it.
    memcpy(piece.pointee.second!.base, piece.pointee.buffer!.base + half, half)
    piece.pointee.step = 2
    submit(
      number, command.pointee.operation.forceUnitAccess ? .writeThrough : .write, offset: diskOffset(index),
      count: half, buffer: piece.pointee.second!)
  }

  // MARK: Held ranges

  func park(_ request: ParkedRequest) {
    parked.append(request)
    pieces[request.piece].pointee.isParked = true
    scheduleTick(at: now + 20_000_000)
  }

  /// A hold was released somewhere: those who waited try again, in order.
  func unpark() {
    mayUnpark = false
    let waiting = parked
    parked = []
    for request in waiting {
      guard pieces[request.piece].pointee.generation == request.generation else { continue }
      pieces[request.piece].pointee.isParked = false
      let index = Int(pieces[request.piece].pointee.command)
      let waitsSince = commands[index].pointee.progressedAt
      commands[index].pointee.diskCount -= 1
      if commands[index].pointee.isAborted {
        freePiece(request.piece)
        finishAborted(index)
        continue
      }
      submit(
        request.piece, request.operation, offset: request.offset, count: request.count, buffer: request.buffer)
      // To wait on is no progress: else it would never come to its deadline. What has reached the disk has all its time.
      commands[index].pointee.progressedAt = pieces[request.piece].pointee.isParked ? waitsSince : now
    }
    let commandsWaiting = parkedCommands
    parkedCommands = []
    for (index, generation) in commandsWaiting where commands[index].pointee.generation == generation {
      acquireRange(index)
    }
  }

  /// Calls `done` once no disk request of this shard touches the range, but those of one command.
  func whenQuiet(_ export: Export, _ range: Range<UInt64>, except command: Int, _ done: @escaping () -> Void) {
    let waiter = QuietWaiter(
      export: export, range: range, exceptCommand: command, deadline: now + Self.loanNs, done: done)
    // The others are asked between turns: what ends a connection must not do so in the midst of its command.
    guard touches(waiter) else { return done() }
    quietWaiters.append(waiter)
    if isLending(export) { scheduleTick(at: waiter.deadline) }
  }

  func checkQuiet() {
    let waiters = quietWaiters
    quietWaiters = []
    for waiter in waiters {
      if waiter.deadline <= now, isLending(waiter.export) {
        // The one who waited may have gone, and then there is lent again.
        let isLate = waiter.deadline + 3 * Self.loanNs <= now && !waiter.export.holds.isEmpty
        recallLoans(waiter.export, all: isLate)
        scheduleTick(at: now + Self.loanNs)
      }
      if touches(waiter) { quietWaiters.append(waiter) } else { waiter.done() }
    }
  }

  private func touches(_ waiter: QuietWaiter) -> Bool {
    if isLending(waiter.export) { return true }
    for number in 0..<pieces.used where pieces[number].pointee.state == .disk {
      let index = Int(pieces[number].pointee.command)
      guard index != waiter.exceptCommand, commands[index].pointee.port >= 0,
        ports[Int(commands[index].pointee.port)]?.export === waiter.export
      else { continue }
      // A parked request has not reached the disk: it will wait for the hold.
      if pieces[number].pointee.isParked { continue }
      if diskRange(index).overlaps(waiter.range) { return true }
    }
    return false
  }

  /// How long somebody may be kept waiting by an initiator that does not take what it read.
  private static let loanNs: UInt64 = 2_000_000_000

  /// Whether something is sent from the memory of this disk: it is being read there still.
  private func isLending(_ export: Export) -> Bool {
    ports.contains { port in port?.export === export && port!.lent > 0 }
  }

  /// Ends the connections that do not take what is sent from the memory of this disk; with `all` also those that take it message
  /// by message. Nothing new is lent meanwhile.
  private func recallLoans(_ export: Export, all: Bool) {
    for case let port? in ports where port.export === export && port.lent > 0 {
      for case let connection? in connections where connection.isOpen && connection.mover.borrows(from: port) {
        if all || now - connection.messageSince >= Self.loanNs {
          close(connection, .stalled, "it does not take its answers, and others wait for the disk")
        } else {
          scheduleTick(at: connection.messageSince + Self.loanNs)
        }
      }
    }
  }

  /// All that a command may touch on its disk; of several extents, what the disk has in hand.
  func diskRange(_ index: Int) -> Range<UInt64> {
    let operation = commands[index].pointee.operation
    if case .unmap(let extents, let done)? = cold[index], done < extents.count {
      let start = (extents[done].lba + commands[index].pointee.cursor) << UInt64(commands[index].pointee.blockShift)
      let piece = Int(commands[index].pointee.firstPiece)
      return start..<start + UInt64(piece < 0 ? 1 : max(pieces[piece].pointee.diskLength, 1))
    }
    let start = diskOffset(index)
    return start..<start + max(operation.blocks << UInt64(commands[index].pointee.blockShift), 1)
  }
}

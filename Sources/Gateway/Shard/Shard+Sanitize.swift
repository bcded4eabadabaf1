import Glibc
import Reactor
import SCSI
import Storage

/// A sanitize operation under way.
final class SanitizeRun {
  enum Phase {
    /// That it begins is being written to the label area.
    case recording
    /// Everything is being overwritten or deallocated.
    case erasing
    case flushing
    /// That it is done is being written.
    case clearing
  }

  let order: SanitizeOrder
  let unit: LogicalUnit
  /// The command that asked for it, until it is answered.
  var waiter: (index: Int, generation: UInt32)?
  var phase = Phase.recording
  /// Passes that are done, and how the disk is asked: a disk that cannot deallocate or zero is written to.
  var passes: UInt8 = 0
  var operation: DiskOperation
  var pattern: [UInt8] = [0]
  var passCount: UInt8 = 1
  var inverts = false
  /// The pass whose block is in the buffer.
  var filledFor: UInt8?

  init(order: SanitizeOrder, unit: LogicalUnit, waiter: (index: Int, generation: UInt32)) {
    self.order = order
    self.unit = unit
    self.waiter = waiter
    operation = .deallocate
    if case .overwrite(let pattern, let passes, let inverts) = order.method {
      operation = .write
      (self.pattern, passCount, self.inverts) = (pattern, passes, inverts)
    }
  }

  /// The bytes of a block in the pass at hand: the last is never inverted (SBC-4 §5.31.3).
  func block(of count: Int) -> [UInt8] {
    let isInverted = inverts && (passCount - passes - 1) % 2 == 1
    return (0..<count).map { isInverted ? ~pattern[$0 % pattern.count] : pattern[$0 % pattern.count] }
  }
}

/// SANITIZE. The operation is a command of nobody's: it goes on whatever becomes of the one that asked for it, of its session
/// and of the resets that come. It holds the whole of the LUN, never more: the label area behind it stays. That it runs is
/// written to the label area first; where it is found there later, the gateway went while it ran, and the unit stays in the
/// state of failure until another SANITIZE is done.
extension Shard {
  func startSanitize(_ index: Int, _ order: SanitizeOrder, _ unit: LogicalUnit) {
    guard attach(index, unit) != nil else {
      unit.endSanitize(.notBegun)
      return fail(index, .logicalUnitNotSupported)
    }
    guard let own = commands.take() else {
      unit.endSanitize(.notBegun)
      return finish(index, .busy, actual: commands[index].pointee.completed)
    }
    let command = commands[own]
    let generation = command.pointee.generation &+ 1
    command.pointee = Command()
    command.pointee.generation = generation
    command.pointee.plan = .simple
    command.pointee.progressedAt = now
    command.pointee.operation = MediumOperation(.sanitize, lba: 0, blocks: unit.blocks)
    let run = SanitizeRun(order: order, unit: unit, waiter: (index, commands[index].pointee.generation))
    cold[own] = .sanitize(run)
    guard let port = attach(own, unit), carrier(own, length: 0) != nil else { return endSanitize(own, run, .notBegun) }
    Log.notice("LUN \(unit.number): SANITIZE begins")
    writeSanitizeRecord(own, run, port, isRunning: order.method != .exitFailureMode)
  }

  /// Writes to the label area whether the operation runs; where there is none, that is done.
  private func writeSanitizeRecord(_ index: Int, _ run: SanitizeRun, _ port: UnitPort, isRunning: Bool) {
    let number = Int(commands[index].pointee.firstPiece)
    giveBuffer(number)
    let record = SanitizeRecord(isRunning: isRunning, mayExit: run.order.mayExit)
    switch port.export.beginSanitizeRecord(record.encode()) {
    case .none: sanitizeRecorded(index, run)
    case .moving: endSanitize(index, run, isRunning ? .notBegun : .failed)
    case .write(let bytes, let offset):
      guard let buffer = pool.take(bytes.count) else {
        port.export.endSanitizeRecord(isWritten: false)
        return endSanitize(index, run, isRunning ? .notBegun : .failed)
      }
      bytes.withUnsafeBytes { buffer.base.copyMemory(from: $0.baseAddress!, byteCount: $0.count) }
      pieces[number].pointee.buffer = buffer
      pieces[number].pointee.diskLength = UInt32(bytes.count)
      submit(number, .writeThrough, offset: offset, count: bytes.count, buffer: buffer)
    }
  }

  private func giveBuffer(_ number: Int) {
    guard let buffer = pieces[number].pointee.buffer else { return }
    pool.give(buffer)
    pieces[number].pointee.buffer = nil
  }

  private func sanitizeRecorded(_ index: Int, _ run: SanitizeRun) {
    giveBuffer(Int(commands[index].pointee.firstPiece))
    if run.phase == .clearing || run.order.method == .exitFailureMode { return endSanitize(index, run, .completed) }
    if run.order.isImmediate { answerSanitize(run, .completed) }
    run.phase = .erasing
    acquireRange(index)
  }

  /// The range is this operation's, or a buffer has come.
  func sanitizeNext(_ index: Int) {
    guard case .sanitize(let run)? = cold[index], let port = commands[index].pointee.unitPort?.takeUnretainedValue()
    else { return }
    // Another node is about to have the disk, or nobody: it ends where it is.
    guard !port.isRemoved, run.unit.isServed else { return endSanitize(index, run, .failed) }
    let command = commands[index]
    let number = Int(command.pointee.firstPiece)
    let shift = port.blockShift
    if command.pointee.cursor >= command.pointee.operation.blocks {
      run.passes += 1
      guard run.passes < run.passCount else {
        run.phase = .flushing
        return submit(number, .flush, offset: 0, count: 0, buffer: nil)
      }
      command.pointee.cursor = 0
    }
    let left = (command.pointee.operation.blocks - command.pointee.cursor) << shift
    let offset = command.pointee.cursor << shift
    guard run.operation == .write else {
      let count = min(left, 64 << 20)
      pieces[number].pointee.diskLength = UInt32(count)
      return submit(number, run.operation, offset: offset, count: Int(count), buffer: nil)
    }
    guard let buffer = pieces[number].pointee.buffer else {
      pieces[number].pointee.diskLength = UInt32(BufferPool.pieceBytes)
      if equip(number, bytes: BufferPool.pieceBytes) { sanitizeNext(index) }
      return
    }
    // Not at the beginning of the pass: a disk may stop zeroing in the midst of it.
    if run.filledFor != run.passes {
      fill(buffer, run.block(of: 1 << Int(shift)))
      run.filledFor = run.passes
    }
    let count = min(left, UInt64(BufferPool.pieceBytes))
    pieces[number].pointee.diskLength = UInt32(count)
    submit(number, .write, offset: offset, count: Int(count), buffer: buffer)
  }

  private func fill(_ buffer: Buffer, _ block: [UInt8]) {
    block.withUnsafeBytes { block in
      for offset in stride(from: 0, to: BufferPool.pieceBytes, by: block.count) {
        memcpy(buffer.base + offset, block.baseAddress!, block.count)
      }
    }
  }

  func sanitizeCompleted(_ index: Int, _ number: Int, _ result: Int32) {
    guard case .sanitize(let run)? = cold[index], let port = commands[index].pointee.unitPort?.takeUnretainedValue()
    else { return }
    let wanted = pieces[number].pointee.diskLength
    switch run.phase {
    case .recording, .clearing:
      let isWritten = result == Int32(wanted)
      port.export.endSanitizeRecord(isWritten: isWritten)
      guard isWritten else { return endSanitize(index, run, run.phase == .recording ? .notBegun : .failed) }
      sanitizeRecorded(index, run)
    case .flushing:
      guard result >= 0 else { return endSanitize(index, run, .failed) }
      run.phase = .clearing
      writeSanitizeRecord(index, run, port, isRunning: false)
    case .erasing:
      if run.operation != .write, result == -EOPNOTSUPP || result == -EINVAL {
        // What it cannot deallocate it may zero, and what it cannot zero is overwritten.
        run.operation = run.operation == .deallocate ? .zero : .write
        return sanitizeNext(index)
      }
      guard run.operation == .write ? result == Int32(wanted) : result >= 0 else {
        return endSanitize(index, run, .failed)
      }
      let command = commands[index]
      command.pointee.cursor += UInt64(wanted) >> port.blockShift
      let total = Double(command.pointee.operation.blocks) * Double(run.passCount)
      let done = Double(command.pointee.operation.blocks) * Double(run.passes) + Double(command.pointee.cursor)
      run.unit.setSanitizeProgress(UInt16(min(65535, done / total * 65536)))
      sanitizeNext(index)
    }
  }

  private func endSanitize(_ index: Int, _ run: SanitizeRun, _ outcome: SanitizeOutcome) {
    run.unit.endSanitize(outcome)
    switch outcome {
    case .completed: Log.notice("LUN \(run.unit.number): SANITIZE is done")
    case .failed: Log.error("LUN \(run.unit.number): SANITIZE has failed; the LUN is of no use until one succeeds")
    case .notBegun: Log.warning("LUN \(run.unit.number): SANITIZE could not begin")
    }
    cold[index] = nil
    free(index)
    answerSanitize(run, outcome)
  }

  /// Answers the command that asked for it, if it is there still.
  private func answerSanitize(_ run: SanitizeRun, _ outcome: SanitizeOutcome) {
    guard let (index, generation) = run.waiter else { return }
    run.waiter = nil
    let command = commands[index]
    guard command.pointee.generation == generation, !command.pointee.isAborted, command.pointee.connection >= 0 else {
      return
    }
    switch outcome {
    case .completed: finish(index, .good, actual: command.pointee.completed)
    case .failed: fail(index, .sanitizeCommandFailed)
    case .notBegun: finish(index, .busy, actual: command.pointee.completed)
    }
  }
}

/// What the label area says of a sanitize operation: one byte for whether it runs, one for AUSE.
struct SanitizeRecord: Equatable {
  var isRunning: Bool
  var mayExit: Bool

  init(isRunning: Bool, mayExit: Bool) {
    self.isRunning = isRunning
    self.mayExit = mayExit
  }

  /// Reads the payload of a record; one that is not understood is one of an operation that was begun.
  init(decoding payload: [UInt8]) {
    isRunning = payload != [0, 0]
    mayExit = payload == [1, 1]
  }

  func encode() -> [UInt8] { isRunning ? [1, mayExit ? 1 : 0] : [0, 0] }

  /// To who finds it there.
  var sanitation: Sanitation { isRunning ? .failed(mayExit: mayExit) : .none }
}

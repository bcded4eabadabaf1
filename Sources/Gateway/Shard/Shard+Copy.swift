import Reactor
import SCSI
import Storage

/// An EXTENDED COPY under way.
final class CopyRun {
  let order: CopyOrder
  let nexus: Nexus
  /// Index of the segment at hand, and how much of it is done.
  var segment = 0
  var done: UInt64 = 0
  var totalBytes: UInt64 = 0

  init(order: CopyOrder, nexus: Nexus) {
    self.order = order
    self.nexus = nexus
  }
}

/// EXTENDED COPY: piece after piece through one buffer, read from one unit and written to the other. The command is attached
/// to the unit that has the request in hand, so all that is true of commands is true of it: it waits for held ranges, is
/// aborted, quarantined and given up like any other, and its buffer is on a unit's account.
extension Shard {
  func startCopy(_ index: Int, _ order: CopyOrder, _ unit: LogicalUnit) {
    let command = commands[index]
    guard let nexus = connections[Int(command.pointee.connection)]?.nexus else { return }
    cold[index] = .copy(CopyRun(order: order, nexus: nexus))
    command.pointee.plan = .simple
    command.pointee.operation = MediumOperation(.copyIn, lba: 0, blocks: 0)
    guard attach(index, unit) != nil else { return fail(index, .logicalUnitNotSupported) }
    guard let number = carrier(index, length: 0) else {
      return finish(index, .taskSetFull, actual: command.pointee.completed)
    }
    pieces[number].pointee.diskLength = UInt32(BufferPool.pieceBytes)
    guard equip(number, bytes: BufferPool.pieceBytes) else { return }
    copyNext(index)
  }

  /// Starts the next piece, or ends the command.
  func copyNext(_ index: Int) {
    guard case .copy(let run)? = cold[index] else { return }
    while run.segment < run.order.segments.count {
      let segment: CopySegment
      switch run.order.segments[run.segment] {
      case .success(let next): segment = next
      case .failure(let failure): return failCopy(index, run, failure)
      }
      if let failure = configuration.deviceServer.refusal(of: segment, nexus: run.nexus) {
        return failCopy(index, run, failure)
      }
      let count = min(UInt64(BufferPool.pieceBytes), segment.byteCount - run.done)
      if count > 0 {
        return copyPiece(index, segment, .copyIn, offset: run.done, count: count)
      }
      run.segment += 1
      run.done = 0
    }
    run.nexus.updateCopies {
      $0.progress(run.order.token, byteCount: run.totalBytes, segments: UInt16(run.segment))
      $0.end(run.order.token)
    }
    finish(index, .good, actual: commands[index].pointee.completed)
  }

  private func copyPiece(
    _ index: Int, _ segment: CopySegment, _ kind: MediumOperation.Kind, offset: UInt64, count: UInt64
  ) {
    guard case .copy(let run)? = cold[index] else { return }
    let isReading = kind == .copyIn
    let unit = isReading ? segment.source : segment.destination
    if let lost = port(of: unit), lost.quarantined > 0, !mayTakeOn(index, lost) {
      let cause = configuration.deviceServer.sense(for: .hardware)
      return failCopy(index, run, .device(segment: segment.number, cause: cause))
    }
    guard let port = attach(index, movingTo: unit) else {
      return failCopy(index, run, .device(segment: segment.number, cause: .logicalUnitNotSupported))
    }
    let lba = (isReading ? segment.sourceLBA : segment.destinationLBA) + offset >> port.blockShift
    commands[index].pointee.operation = MediumOperation(kind, lba: lba, blocks: count >> port.blockShift)
    let number = Int(commands[index].pointee.firstPiece)
    pieces[number].pointee.diskLength = UInt32(count)
    submit(
      number, isReading ? .read : .write, offset: lba << port.blockShift, count: Int(count),
      buffer: pieces[number].pointee.buffer!)
  }

  /// Whether a copy may go on at a unit whose disk keeps what it was given: as for any other command, it must not take the
  /// memory of all.
  private func mayTakeOn(_ index: Int, _ port: UnitPort) -> Bool {
    commands[index].pointee.unitPort?.toOpaque() == Unmanaged.passUnretained(port).toOpaque()
      || port.quarantined < UnitPort.quarantinedMax && Self.mayHold(BufferPool.pieceBytes, port, free: pool.bytesFree)
  }

  func copyCompleted(_ index: Int, _ number: Int, _ result: Int32) {
    guard case .copy(let run)? = cold[index], case .success(let segment) = run.order.segments[run.segment] else {
      return
    }
    let count = pieces[number].pointee.diskLength
    let operation = commands[index].pointee.operation
    guard result == Int32(count) else {
      let failure: MediumFailure =
        result < 0 ? Disk.failure(code: result, lba: operation.lba) : .medium(lba: operation.lba)
      let cause = configuration.deviceServer.sense(for: failure, isWrite: operation.kind == .copyOut)
      return failCopy(index, run, .device(segment: segment.number, cause: cause))
    }
    if operation.kind == .copyIn {
      // What was read is written only if that may still be.
      if let failure = configuration.deviceServer.refusal(of: segment, nexus: run.nexus) {
        return failCopy(index, run, failure)
      }
      return copyPiece(index, segment, .copyOut, offset: run.done, count: UInt64(count))
    }
    run.done += UInt64(count)
    run.totalBytes += UInt64(count)
    run.nexus.updateCopies {
      $0.progress(run.order.token, byteCount: run.totalBytes, segments: UInt16(run.segment))
    }
    copyNext(index)
  }

  private func failCopy(_ index: Int, _ run: CopyRun, _ failure: CopyFailure) {
    run.nexus.updateCopies {
      $0.progress(run.order.token, byteCount: run.totalBytes, segments: UInt16(run.segment))
      $0.end(run.order.token, failure)
    }
    fail(index, failure.sense)
  }
}

import Datamover
import ISCSI
import Reactor

/// An iSER connection from its first receive to its end: byte 0 chooses the limits of the queue pair, the rest what happens.
/// Whatever it is, nothing traps, the queue pair is never asked for more than it holds, each buffer comes back, and each
/// notice and each fetch is told of once.
@Sendable func fuzzMover(_ data: UnsafeRawBufferPointer) {
  var input = Input(data)
  guard let run = MoverRun(choice: input.byte()) else { preconditionFailure("no memory for a mover") }
  while !input.isAtEnd, !run.isOver { run.step(&input) }
  run.end()
}

/// What one input drives; the arena is that of all of them.
private final class MoverRun {
  nonisolated(unsafe) private static let pool: BufferPool = {
    guard let ring = try? Ring(entries: 8, completions: 16) else { fatalError("no io_uring here") }
    return BufferPool(ring: ring, bytes: 64 << 20)
  }()

  let pool = MoverRun.pool
  let queuePair: ScriptedQueuePair
  let mover: ISERMover
  var isOver = false
  private var advertised = AdvertisedBuffers()
  private var expected: UInt32 = 0
  private var unsolicited: UInt32 = 0
  private var next: UInt32 = 1
  private var sending: Set<UInt32> = []
  private var fetching: [UInt32: Buffer] = [:]
  private var inHand: [Int] = []

  init?(choice: UInt8) {
    let window = UInt32(choice & 7) + 1
    queuePair = ScriptedQueuePair(
      QueuePairLimits(
        sendsMax: 2 + Int(choice >> 3 & 7), receivesMax: Int(window) + 17, inlineBytesMax: choice & 0x40 == 0 ? 0 : 204,
        readsMax: 1 + Int(choice >> 6), mayInvalidate: choice & 0x80 != 0))
    guard
      let mover = ISERMover(
        queuePair: queuePair, keys: MemoryKeys(chunks: pool.chunksMax), connection: 1, generation: 1, window: window,
        pool: pool)
    else { return nil }
    self.mover = mover
    mover.postReceives()
    var parameters = NegotiatedParameters()
    parameters.targetMaxRecvDataSegmentLength = 8192
    precondition(mover.enable(parameters, window: window, pool: pool))
  }

  func step(_ input: inout Input) {
    switch input.byte() % 10 {
    case 0: put(pieces: Int(input.byte() % 4) + 1)
    case 1:
      mover.sendControl(
        BasicHeaderSegment(.nopIn, flags: 0x80, initiatorTaskTag: 1),
        data: [UInt8](repeating: 1, count: Int(input.byte() % 129)))
    case 2: get(count: UInt32(input.byte()))
    case 3: receive(input.bytes(Int(input.byte())))
    case 4: if let slot = inHand.popLast() { mover.recycle(slot: slot) }
    case 5: mover.flush(expCmdSN: 1, maxCmdSN: 2)
    case 6: complete(queuePair.completeSend())
    case 7: complete(queuePair.failSend(12))
    case 8: queuePair.refusal = -Int32(input.byte())
    default:
      mover.sendResponse(
        .scsiResponse(initiatorTaskTag: 1, status: 0, residual: .none, expDataSN: 0), data: [0, 1, 2],
        advertised: advertised)
    }
    if mover.failure != 0 { isOver = true }
  }

  /// As much as the command at hand expects, as the owner would.
  private func put(pieces: Int) {
    guard advertised.hasRead, expected > 0 else { return }
    for piece in 0..<pieces {
      let offset = min(UInt32(piece) * 4096, expected - 1)
      guard let buffer = pool.take(4096) else { return }
      var header = BasicHeaderSegment.dataIn(initiatorTaskTag: 1)
      if piece == pieces - 1 { header.addStatus(0, residual: .none) }
      next += 1
      sending.insert(next)
      _ = mover.putData(
        header, payload: UnsafeRawPointer(buffer.base), count: Int(min(4096, expected - offset)), offset: offset,
        dataSN: 0, isLast: piece == pieces - 1, buffer: buffer, notice: next, advertised: advertised)
    }
  }

  private func get(count: UInt32) {
    guard advertised.hasWrite, expected > unsolicited, let buffer = pool.take(4096) else { return }
    let length = min(count, expected - unsolicited)
    next += 1
    fetching[next] = buffer
    let request = BasicHeaderSegment.readyToTransfer(
      lun: 0, initiatorTaskTag: 1, targetTransferTag: next, r2tSN: 0, bufferOffset: expected - length,
      desiredLength: length)
    precondition(
      mover.getData(
        request, into: buffer.base, buffer: buffer, advertised: advertised, unsolicitedBytes: unsolicited))
  }

  private func receive(_ message: [UInt8]) {
    guard let completion = queuePair.deliver(message), completion.status == 0 else { return }
    let slot = completion.work.slot
    do throws(ISERFault) {
      switch try mover.accept(slot: slot, byteCount: Int(completion.byteCount)) {
      case .hello, .refusedHello: break
      case .pdu(let header, let buffers): take(header, buffers, slot)
      }
      inHand.append(slot)
    } catch {
      isOver = true
    }
  }

  private func take(_ header: BasicHeaderSegment, _ buffers: AdvertisedBuffers, _ slot: Int) {
    if header.dataSegmentLength > 0 {
      // All of it can be read.
      let data = UnsafeRawBufferPointer(start: mover.data(ofSlot: slot, header), count: header.dataSegmentLength)
      _ = data.reduce(0, &+)
      if header.isFinal, let buffer = mover.takeData(ofSlot: slot, pool: pool) { pool.give(buffer) }
    }
    guard header.opcode == .scsiCommand else { return }
    advertised = AdvertisedBuffers()
    expected = header.expectedDataTransferLength
    unsolicited = min(UInt32(header.dataSegmentLength), expected)
    // A direction that the command does not have is not used, nor one without anything to move.
    if header.flags & 0x40 != 0, expected > 0 {
      (advertised.hasRead, advertised.readSTag, advertised.readVA) = (true, buffers.readSTag, buffers.readVA)
    }
    if header.flags & 0x20 != 0, expected > unsolicited {
      (advertised.hasWrite, advertised.writeSTag, advertised.writeVA) = (true, buffers.writeSTag, buffers.writeVA)
    }
    // The initiator's memory is there, or the address is a lie.
    if header.flags & 1 == 0, expected <= 1 << 16 {
      let bytes = [UInt8](repeating: 0x55, count: Int(expected))
      queuePair.regions[buffers.readSTag] = ScriptedQueuePair.Region(base: buffers.readVA, bytes: bytes)
      if advertised.hasWrite {
        queuePair.regions[buffers.writeSTag] = ScriptedQueuePair.Region(base: buffers.writeVA, bytes: bytes)
      }
    }
  }

  private func complete(_ completion: WorkCompletion?) {
    guard let completion else { return }
    guard completion.status == 0 else { return isOver = true }
    do throws(ISERFault) {
      switch try mover.completed(slot: completion.work.slot, pool: pool) {
      case .sent(let notice): if notice != 0 { precondition(sending.remove(notice) != nil) }
      case .arrived(let tag): arrived(tag)
      }
    } catch {
      preconditionFailure("a completion of what was posted strays")
    }
  }

  private func arrived(_ tag: UInt32) {
    guard let buffer = fetching.removeValue(forKey: tag) else { preconditionFailure("told of twice") }
    pool.give(buffer)
  }

  func end() {
    mover.terminate()
    mover.discard(pool: pool)
    for notice in mover.takeNotices() { precondition(sending.remove(notice) != nil) }
    for tag in mover.takeUnfinished() { arrived(tag) }
    precondition(sending.isEmpty && fetching.isEmpty && mover.isIdle)
    mover.release(pool: pool)
    precondition(pool.bytesInUse == 0 && queuePair.offences.isEmpty)
  }
}

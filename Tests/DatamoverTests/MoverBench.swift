import Glibc
import ISCSI
import Reactor
import Testing

@testable import Datamover

/// A mover on a scripted queue pair, with the arena registered as a device would have it.
final class MoverBench {
  let ring: Ring
  let pool: BufferPool
  let keys: MemoryKeys
  let queuePair: ScriptedQueuePair
  let mover: ISERMover
  private static func key(_ chunk: UInt16) -> UInt32 { 0x4000 + UInt32(chunk) }

  static func limits(
    sends: Int = 64, receives: Int = 64, inline: Int = 0, reads: Int = 4, invalidates: Bool = true
  ) -> QueuePairLimits {
    QueuePairLimits(
      sendsMax: sends, receivesMax: receives, inlineBytesMax: inline, readsMax: reads, mayInvalidate: invalidates)
  }

  init(_ limits: QueuePairLimits = MoverBench.limits(), window: UInt32 = 8, arena: Int = 16 << 20) throws {
    ring = try Ring(entries: 16, completions: 64)
    let pool = BufferPool(ring: ring, bytes: arena)
    self.pool = pool
    let keys = MemoryKeys(chunks: pool.chunksMax)
    self.keys = keys
    pool.chunkOpened = { chunk, _ in
      keys[chunk] = Self.key(chunk)
      return true
    }
    pool.chunkClosed = { keys[$0] = 0 }
    queuePair = ScriptedQueuePair(limits)
    queuePair.isRegistered = { address, count, key in
      !pool.forEachOpenChunk { chunk, base in
        let start = UInt64(UInt(bitPattern: base))
        let isInside = address >= start && address + UInt64(count) <= start + UInt64(BufferPool.chunkBytes)
        return !(isInside && key == Self.key(chunk))
      }
    }
    mover = try #require(
      ISERMover(queuePair: queuePair, keys: keys, connection: 3, generation: 9, window: window, pool: pool))
    mover.postReceives()
  }

  /// Through login: receives for the window are posted.
  func enable(window: UInt32 = 8, segment: Int = 8192) {
    var parameters = NegotiatedParameters()
    parameters.targetMaxRecvDataSegmentLength = segment
    #expect(mover.enable(parameters, window: window, pool: pool))
  }

  func flush() { mover.flush(expCmdSN: 70, maxCmdSN: 90) }

  /// The initiator sends a message; gives the slot, and what the mover makes of it.
  @discardableResult
  func receive(_ message: [UInt8]) throws -> (slot: Int, message: ISERMover.Message) {
    let completion = try #require(queuePair.deliver(message))
    try #require(completion.status == 0 && completion.work.isReceive)
    #expect(completion.work.connection == 3 && completion.work.generation == 9)
    let slot = completion.work.slot
    return (slot, try mover.accept(slot: slot, byteCount: Int(completion.byteCount)))
  }

  /// The fault of a message.
  func fault(_ message: [UInt8]) throws -> ISERFault? {
    do {
      try receive(message)
      return nil
    } catch let fault as ISERFault {
      return fault
    }
  }

  /// Completes one thing that was sent; nil: nothing is posted.
  func complete() throws -> ISERMover.Outcome? {
    guard let completion = queuePair.completeSend() else { return nil }
    try #require(completion.status == 0 && !completion.work.isReceive)
    return try mover.completed(slot: completion.work.slot, pool: pool)
  }

  /// Flushes and completes until there is nothing left.
  @discardableResult
  func drain() throws -> [ISERMover.Outcome] {
    var outcomes: [ISERMover.Outcome] = []
    while true {
      flush()
      guard let outcome = try complete() else { return outcomes }
      outcomes.append(outcome)
    }
  }

  /// The end; nothing of the arena is out afterwards.
  func end() {
    mover.terminate()
    mover.discard(pool: pool)
    mover.release(pool: pool)
    #expect(pool.bytesInUse == 0)
    #expect(queuePair.offences.isEmpty, "\(queuePair.offences)")
  }

  func put(
    _ buffer: Buffer, count: Int, offset: UInt32 = 0, tag: UInt32 = 1, status: Bool, notice: UInt32 = 0,
    read: (key: UInt32, address: UInt64)
  ) -> UInt32 {
    var header = BasicHeaderSegment.dataIn(initiatorTaskTag: tag)
    if status {
      header.addStatus(0, residual: .none)
      header.statSN = 500 + tag
    }
    var advertised = AdvertisedBuffers()
    advertised.hasRead = true
    advertised.readSTag = read.key
    advertised.readVA = read.address
    return mover.putData(
      header, payload: UnsafeRawPointer(buffer.base), count: count, offset: offset, dataSN: offset / 4096,
      isLast: status, buffer: buffer, notice: notice, advertised: advertised)
  }

  func get(
    _ buffer: Buffer, count: Int, tag: UInt32, offset: UInt32 = 0, unsolicited: UInt32 = 0,
    write: (key: UInt32, address: UInt64)
  ) {
    var advertised = AdvertisedBuffers()
    advertised.hasWrite = true
    advertised.writeSTag = write.key
    advertised.writeVA = write.address
    let request = BasicHeaderSegment.readyToTransfer(
      lun: 0, initiatorTaskTag: 1, targetTransferTag: tag, r2tSN: 0, bufferOffset: offset, desiredLength: UInt32(count))
    #expect(
      mover.getData(request, into: buffer.base, buffer: buffer, advertised: advertised, unsolicitedBytes: unsolicited))
  }
}

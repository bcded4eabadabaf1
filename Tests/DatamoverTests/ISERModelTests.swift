import Glibc
import ISCSI
import Reactor
import TestSupport
import Testing
import Wire

@testable import Datamover

/// A mover under random requests, with completions that come late and the two queues out of step, and what must be true of
/// it after each step.
private struct Model {
  let bench: MoverBench
  var random: SplitMix
  var nextTag: UInt32 = 1
  /// What the pool has given to the mover itself.
  let ownBytes: Int
  /// Buffers that were given to be sent, not yet told of, by notice; those of a Get_Data by its tag.
  var sending: Set<UInt32> = []
  var fetching: [UInt32: Buffer] = [:]
  /// Told of: none twice.
  var told: Set<UInt32> = []
  /// Tags of what was asked to be sent, in order.
  var asked: [UInt32] = []
  /// Completions that exist and were not yet handed over.
  var lateSends: [WorkCompletion] = []
  var lateReceives: [WorkCompletion] = []
  /// Receives in the owner's hands, and how many messages the initiator has had.
  var inHand: [Int] = []
  var received = 0
  static let regionBytes = 1 << 16

  init(seed: UInt64) throws {
    random = SplitMix(seed: seed)
    let sends = Int.random(in: 2...24, using: &random)
    let window = UInt32.random(in: 1...12, using: &random)
    bench = try MoverBench(
      MoverBench.limits(
        sends: sends, receives: Int(window) + 17 + Int.random(in: 0...5, using: &random),
        inline: [0, 100, 204].randomElement(using: &random)!, reads: Int.random(in: 1...4, using: &random),
        invalidates: Bool.random(using: &random)), window: window)
    bench.enable(window: window)
    ownBytes = bench.pool.bytesInUse
  }

  private mutating func takeTag() -> UInt32 {
    nextTag += 1
    bench.queuePair.regions[nextTag] = ScriptedQueuePair.Region(
      base: UInt64(nextTag) << 20,
      bytes: [UInt8](repeating: UInt8(truncatingIfNeeded: nextTag), count: Self.regionBytes))
    return nextTag
  }

  private func place(_ tag: UInt32) -> (key: UInt32, address: UInt64) { (tag, UInt64(tag) << 20) }

  mutating func step() throws {
    switch Int.random(in: 0..<12, using: &random) {
    case 0...1: try put(pieces: Int.random(in: 1...4, using: &random))
    case 2:
      let tag = takeTag()
      asked.append(tag)
      bench.mover.sendControl(
        BasicHeaderSegment(.nopIn, flags: 0x80, initiatorTaskTag: tag),
        data: [UInt8](repeating: UInt8(truncatingIfNeeded: tag), count: Int.random(in: 0...128, using: &random)))
    case 3:
      let tag = takeTag()
      asked.append(tag)
      var advertised = AdvertisedBuffers()
      advertised.hasWrite = true
      advertised.writeSTag = tag
      bench.mover.sendResponse(
        .scsiResponse(initiatorTaskTag: tag, status: 0, residual: .none, expDataSN: 0), advertised: advertised)
    case 4:
      let tag = takeTag()
      let buffer = try #require(bench.pool.take(4096))
      fetching[tag] = buffer
      bench.get(buffer, count: Int.random(in: 1...4096, using: &random), tag: tag, write: place(tag))
    case 5:
      let tag = takeTag()
      if let completion = bench.queuePair.deliver(controlMessage(command(tag))) { lateReceives.append(completion) }
    case 6: try acceptOne()
    case 7:
      if let slot = inHand.popLast() { bench.mover.recycle(slot: slot) }
    case 8...9: bench.flush()
    case 10:
      for _ in 0..<Int.random(in: 1...6, using: &random) {
        if let completion = bench.queuePair.completeSend() { lateSends.append(completion) }
      }
    default:
      for _ in 0..<Int.random(in: 1...4, using: &random) { try handOver() }
    }
  }

  private mutating func put(pieces: Int) throws {
    let tag = takeTag()
    for piece in 0..<pieces {
      let buffer = try #require(bench.pool.take(4096))
      memset(buffer.base, Int32(piece + 1), 4096)
      let notice = tag << 3 | UInt32(piece)
      sending.insert(notice)
      _ = bench.put(
        buffer, count: 4096, offset: UInt32(piece * 4096), tag: tag, status: piece == pieces - 1, notice: notice,
        read: place(tag))
    }
    asked.append(tag)
  }

  private mutating func acceptOne() throws {
    guard !lateReceives.isEmpty else { return }
    let completion = lateReceives.removeFirst()
    let slot = completion.work.slot
    _ = try bench.mover.accept(slot: slot, byteCount: Int(completion.byteCount))
    if Bool.random(using: &random), let buffer = bench.mover.takeData(ofSlot: slot, pool: bench.pool) {
      bench.pool.give(buffer)
    }
    inHand.append(slot)
  }

  private mutating func handOver() throws {
    guard !lateSends.isEmpty else { return }
    let completion = lateSends.removeFirst()
    try #require(completion.status == 0)
    switch try bench.mover.completed(slot: completion.work.slot, pool: bench.pool) {
    case .sent(let notice): if notice != 0 { try tell(notice) }
    case .arrived(let tag):
      let found = fetching.removeValue(forKey: tag)
      let buffer = try #require(found)
      #expect(buffer.base.load(as: UInt8.self) == UInt8(truncatingIfNeeded: tag))
      bench.pool.give(buffer)
      let isNew = told.insert(tag).inserted
      #expect(isNew)
    }
  }

  private mutating func tell(_ notice: UInt32) throws {
    let found = sending.remove(notice)
    try #require(found != nil, "notice \(notice)")
  }

  /// The invariants of the type.
  func check(_ note: Comment) {
    let mover = bench.mover
    let limits = bench.queuePair.limits
    let works = mover.flights.reduce(0) { $0 + Int($1.workCount) }
    #expect(mover.sendsFree + works == limits.sendsMax && mover.sendsFree >= 0, note)
    #expect(works >= bench.queuePair.sendsHeld, note)
    #expect(mover.readsUnderWay == mover.flights.count { $0.isRead } && mover.readsUnderWay <= mover.readsMax, note)
    #expect(mover.flightCount == mover.flights.count { $0.workCount > 0 }, note)
    let posted = mover.slots.indices.filter { mover.slots[$0].isPosted }
    #expect(posted.count == bench.queuePair.receives.count + lateReceives.count, note)
    // Each receive is in one place.
    #expect((posted + mover.unposted + inHand).sorted() == Array(mover.slots.indices), note)
    let out = sending.count + fetching.count
    #expect(bench.pool.bytesInUse == ownBytes + 4096 * out, note)
    #expect(bench.queuePair.offences.isEmpty, "\(bench.queuePair.offences)")
    let tags = bench.queuePair.messages.map(\.header.initiatorTaskTag)
    #expect(tags == Array(asked.prefix(tags.count)), note)
  }

  /// Nothing more is asked: everything comes to its end.
  mutating func finish() throws {
    for slot in inHand { bench.mover.recycle(slot: slot) }
    inHand = []
    while true {
      bench.flush()
      while let completion = bench.queuePair.completeSend() { lateSends.append(completion) }
      if lateSends.isEmpty { break }
      while !lateSends.isEmpty { try handOver() }
    }
    #expect(bench.mover.isIdle && sending.isEmpty && fetching.isEmpty)
    #expect(bench.queuePair.messages.map(\.header.initiatorTaskTag) == asked)
  }

  /// The end at any moment, with or without what the device flushes.
  mutating func kill(_ note: Comment) throws {
    if Bool.random(using: &random) { _ = bench.queuePair.flushAll() }
    bench.mover.terminate()
    bench.mover.discard(pool: bench.pool)
    for notice in bench.mover.takeNotices() { try tell(notice) }
    for tag in bench.mover.takeUnfinished() {
      let found = fetching.removeValue(forKey: tag)
      let buffer = try #require(found)
      bench.pool.give(buffer)
      let isNew = told.insert(tag).inserted
      #expect(isNew, note)
    }
    #expect(sending.isEmpty && fetching.isEmpty && bench.mover.isIdle, note)
    bench.mover.release(pool: bench.pool)
    #expect(bench.pool.bytesInUse == 0, note)
  }
}

@Suite("The datamover of iSER under random load")
struct ISERModelTests {
  @Test(
    "Its invariants hold after each step, and all that was asked for comes to its end",
    arguments: 0..<40 as Range<UInt64>)
  func toTheEnd(seed: UInt64) throws {
    var model = try Model(seed: seed)
    for step in 0..<400 {
      try model.step()
      model.check("seed \(seed), step \(step)")
    }
    try model.finish()
    model.check("seed \(seed), at the end")
    try model.kill("seed \(seed)")
  }

  @Test("Killed at any moment it gives everything back, each once", arguments: 0..<200 as Range<UInt64>)
  func killed(seed: UInt64) throws {
    var model = try Model(seed: seed &+ 1000)
    for step in 0..<Int(seed * 7 % 300) {
      try model.step()
      if step % 16 == 0 { model.check("seed \(seed), step \(step)") }
    }
    try model.kill("seed \(seed)")
  }
}

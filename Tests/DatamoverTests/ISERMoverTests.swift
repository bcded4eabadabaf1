import Glibc
import ISCSI
import Reactor
import Testing
import Wire

@testable import Datamover

@Suite("The datamover of iSER (RFC 7145, RFC 5047)")
struct ISERMoverTests {
  private static func pattern(_ count: Int, _ seed: UInt8 = 1) -> [UInt8] {
    (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 8) &+ seed }
  }

  private static func buffer(_ bench: MoverBench, _ bytes: [UInt8]) throws -> Buffer {
    let buffer = try #require(bench.pool.take(bytes.count))
    bytes.withUnsafeBytes { buffer.base.copyMemory(from: $0.baseAddress!, byteCount: $0.count) }
    return buffer
  }

  // MARK: Receives

  @Test("Before login one receive is posted, of 76 and 8192 bytes, and a request and a response of 8192 bytes pass")
  func login() throws {
    let bench = try MoverBench()
    #expect(bench.queuePair.receives.count == 1)
    let receive = try #require(bench.queuePair.receives.first)
    #expect(receive.headerBytes == 76 && receive.dataBytes == 8192)
    let text = Self.pattern(8192)
    let header = BasicHeaderSegment(.loginRequest, flags: 0x87, initiatorTaskTag: 5)
    let (slot, message) = try bench.receive(controlMessage(header, data: text))
    guard case .pdu(let found, _) = message else { return #expect(Bool(false), "not a PDU") }
    #expect(found.initiatorTaskTag == 5 && found.dataSegmentLength == 8192)
    let data = bench.mover.data(ofSlot: slot, found)
    #expect(Array(UnsafeRawBufferPointer(start: data, count: 8192)) == text)
    bench.mover.sendControl(BasicHeaderSegment(.loginResponse, flags: 0x87, initiatorTaskTag: 5), data: text)
    bench.mover.recycle(slot: slot)
    // The receive that the answer makes room for is posted before the answer.
    bench.flush()
    #expect(bench.queuePair.order == ["receive", "receive", "send"])
    #expect(try bench.drain() == [.sent(notice: 0)])
    let answer = try #require(bench.queuePair.messages.first)
    #expect(Array(answer.bytes.prefix(28)) == [0x10] + [UInt8](repeating: 0, count: 27))
    #expect(answer.header.opcode == .loginResponse && answer.header.dataSegmentLength == 8192 && answer.data == text)
    #expect(answer.header.expCmdSN == 70 && answer.header.maxCmdSN == 90 && answer.invalidatedKey == nil)
    bench.end()
  }

  @Test("A request longer than the receive ends the connection by its completion's status")
  func loginTooLong() throws {
    let bench = try MoverBench()
    let header = BasicHeaderSegment(.loginRequest, flags: 0x87, initiatorTaskTag: 5)
    let completion = try #require(bench.queuePair.deliver(controlMessage(header, data: Self.pattern(8193))))
    #expect(completion.status == ScriptedQueuePair.localLength)
    bench.end()
  }

  @Test("Long responses of the login go out one after another, through the login's one piece of staging")
  func longResponses() throws {
    let bench = try MoverBench()
    for tag in 0..<3 as Range<UInt32> {
      bench.mover.sendControl(
        BasicHeaderSegment(.loginResponse, flags: 0, initiatorTaskTag: tag), data: Self.pattern(4000, UInt8(tag)))
    }
    bench.flush()
    #expect(bench.queuePair.posted.count == 1 && bench.mover.hasWaiting && bench.mover.isInFlight)
    #expect(try bench.drain().count == 3)
    #expect(bench.queuePair.messages.map(\.header.initiatorTaskTag) == [0, 1, 2])
    #expect((0..<3).allSatisfy { bench.queuePair.messages[$0].data == Self.pattern(4000, UInt8($0)) })
    #expect(bench.mover.isIdle)
    bench.end()
  }

  @Test("Receives for the window and for immediate requests are posted before the final Login Response")
  func window() throws {
    let bench = try MoverBench(window: 8)
    #expect(bench.mover.commandsMax == 8)
    bench.enable(window: 8)
    bench.mover.sendControl(BasicHeaderSegment(.loginResponse, flags: 0x87, initiatorTaskTag: 1))
    bench.flush()
    #expect(bench.queuePair.order == [String](repeating: "receive", count: 8 + 16 + 1) + ["send"])
    bench.end()
  }

  @Test("The window is no larger than the device's receive queue lets it be")
  func windowOfDevice() throws {
    let bench = try MoverBench(MoverBench.limits(receives: 20), window: 128)
    #expect(bench.mover.commandsMax == 3)
    bench.enable(window: 128)
    #expect(bench.queuePair.receives.count == 20)
    bench.end()
  }

  @Test("Without memory for the window the login is refused, and its answer still goes out")
  func noMemory() throws {
    let bench = try MoverBench(window: 8, arena: 4 << 20)
    var held: [Buffer] = []
    for bytes in [262_144, 65536, 16384, 8192] { while let buffer = bench.pool.take(bytes) { held.append(buffer) } }
    #expect(!bench.mover.enable(NegotiatedParameters(), window: 8, pool: bench.pool))
    bench.mover.sendControl(BasicHeaderSegment(.loginResponse, flags: 0, initiatorTaskTag: 1), data: [1, 2, 3])
    #expect(try bench.drain().count == 1)
    #expect(bench.queuePair.messages.count == 1)
    // Half of the memory is no memory either.
    for buffer in held.suffix(12) { bench.pool.give(buffer) }
    held.removeLast(12)
    #expect(!bench.mover.enable(NegotiatedParameters(), window: 8, pool: bench.pool))
    bench.mover.sendControl(BasicHeaderSegment(.loginResponse, flags: 0, initiatorTaskTag: 2), data: [1, 2, 3])
    #expect(try bench.drain().count == 1)
    for buffer in held { bench.pool.give(buffer) }
    bench.end()
  }

  @Test("A mover for which there is no memory is not made, and takes none")
  func noMover() throws {
    let bench = try MoverBench(arena: 4 << 20)
    var held: [Buffer] = []
    for bytes in [262_144, 65536, 16384, 8192, 4096] {
      while let buffer = bench.pool.take(bytes) { held.append(buffer) }
    }
    var isMade = false
    // Whichever of its three buffers is missing.
    while !isMade, let buffer = held.popLast() {
      let before = bench.pool.bytesInUse
      let mover = ISERMover(
        queuePair: bench.queuePair, keys: bench.keys, connection: 1, generation: 1, window: 8, pool: bench.pool)
      if let mover {
        isMade = true
        mover.discardAndRelease(bench.pool)
      }
      #expect(bench.pool.bytesInUse == before)
      bench.pool.give(buffer)
    }
    #expect(isMade)
    for buffer in held { bench.pool.give(buffer) }
    bench.mover.discardAndRelease(bench.pool)
    #expect(bench.pool.bytesInUse == 0)
  }

  @Test("Data that lies in a receive changes its owner against a fresh buffer; without one it stays")
  func takeData() throws {
    let bench = try MoverBench(arena: 4 << 20)
    bench.enable()
    let text = Self.pattern(512)
    let (slot, _) = try bench.receive(controlMessage(command(1, flags: 0xA0, expected: 512), data: text))
    let taken = try #require(bench.mover.takeData(ofSlot: slot, pool: bench.pool))
    bench.mover.recycle(slot: slot)
    bench.flush()
    #expect(Array(UnsafeRawBufferPointer(start: taken.base, count: 512)) == text)
    #expect(bench.queuePair.receives.count == 25)
    #expect(bench.queuePair.receives.last?.dataAddress != UInt64(UInt(bitPattern: taken.base)))
    let (other, message) = try bench.receive(controlMessage(command(2, flags: 0xA0, expected: 512), data: text))
    var held: [Buffer] = []
    while let buffer = bench.pool.take(8192) { held.append(buffer) }
    #expect(bench.mover.takeData(ofSlot: other, pool: bench.pool) == nil)
    guard case .pdu(let header, _) = message else { return #expect(Bool(false), "not a PDU") }
    let place = bench.mover.data(ofSlot: other, header)
    #expect(Array(UnsafeRawBufferPointer(start: place, count: 512)) == text)
    for buffer in held + [taken] { bench.pool.give(buffer) }
    bench.end()
  }

  @Test("A data segment behind additional headers is found behind them")
  func additionalHeaders() throws {
    let bench = try MoverBench()
    bench.enable()
    var header = BasicHeaderSegment(.nopOut, flags: 0x80, initiatorTaskTag: 1)
    header.word1 = 3 << 24
    let (slot, message) = try bench.receive(controlMessage(header, data: [1, 2, 3]) + Self.pattern(12))
    guard case .pdu(let found, _) = message else { return #expect(Bool(false), "not a PDU") }
    let data = bench.mover.data(ofSlot: slot, found)
    #expect(Array(UnsafeRawBufferPointer(start: data, count: 3)) == Array(Self.pattern(12).suffix(3)))
    bench.end()
  }

  @Test("While too much waits to be sent no receive is posted; when it has gone out they are")
  func holdBack() throws {
    let bench = try MoverBench(MoverBench.limits(sends: 8))
    bench.enable()
    let (slot, _) = try bench.receive(controlMessage(command(1)))
    for tag in 0..<5000 as Range<UInt32> {
      bench.mover.sendControl(BasicHeaderSegment(.nopIn, flags: 0x80, initiatorTaskTag: tag))
    }
    #expect(!bench.mover.mayQueue)
    bench.mover.recycle(slot: slot)
    bench.flush()
    #expect(bench.queuePair.receives.count == 24)
    while !bench.mover.mayQueue {
      #expect(bench.queuePair.receives.count == 24)
      _ = try bench.complete()
      bench.flush()
    }
    #expect(bench.queuePair.receives.count == 25)
    try bench.drain()
    #expect(bench.queuePair.messages.map(\.header.initiatorTaskTag) == Array(0..<5000))
    bench.end()
  }

  @Test("A completion of a receive that is not posted, or of more than it holds, is the end")
  func strayReceive() throws {
    let bench = try MoverBench()
    for (slot, count) in [(1, 76), (0, 76 + 8193), (65535, 76)] {
      #expect(throws: ISERFault.strayCompletion) { try bench.mover.accept(slot: slot, byteCount: count) }
    }
    _ = try bench.receive(controlMessage(BasicHeaderSegment(.loginRequest, flags: 0x87, initiatorTaskTag: 5)))
    #expect(throws: ISERFault.strayCompletion) { try bench.mover.accept(slot: 0, byteCount: 76) }
    bench.end()
  }

  @Test("In the full-feature phase a data segment is bounded by what was negotiated")
  func negotiatedSegment() throws {
    let bench = try MoverBench()
    bench.enable(segment: 1024)
    let ping = BasicHeaderSegment(.nopOut, flags: 0x80, initiatorTaskTag: 5)
    #expect(try bench.fault(controlMessage(ping, data: Self.pattern(1024))) == nil)
    #expect(try bench.fault(controlMessage(ping, data: Self.pattern(1025))) == .dataSegmentTooLong(1025))
    bench.end()
  }

  // MARK: Hello

  @Test("A Hello is answered with versions and iSER-ORD, and no more READs are under way than it allows (§5.1.3)")
  func hello() throws {
    let bench = try MoverBench(MoverBench.limits(reads: 4))
    bench.enable()
    #expect(try bench.receive(helloMessage(reads: 2)).message == .hello)
    try bench.drain()
    #expect(bench.queuePair.messages.map(\.bytes) == [[0x30, 0x11, 0, 2] + [UInt8](repeating: 0, count: 24)])
    let buffer = try #require(bench.pool.take(65536))
    bench.queuePair.regions[9] = ScriptedQueuePair.Region(base: 0, bytes: Self.pattern(65536))
    for tag in 0..<5 as Range<UInt32> { bench.get(buffer, count: 512, tag: tag, write: (9, 0)) }
    bench.flush()
    #expect(bench.queuePair.readsPosted == 2)
    #expect(try bench.drain().count == 5)
    bench.pool.give(buffer)
    bench.end()
  }

  @Test("iSER-ORD is never above what the device and the connection allow")
  func helloGenerous() throws {
    let bench = try MoverBench(MoverBench.limits(reads: 4))
    bench.enable()
    #expect(try bench.receive(helloMessage(max: 7, min: 0, reads: 60000)).message == .hello)
    try bench.drain()
    #expect(bench.queuePair.messages.first?.bytes.prefix(4) == [0x30, 0x11, 0, 4])
    bench.end()
  }

  @Test("A Hello without our version is answered with REJ (§9.4), and the owner is told")
  func helloVersion() throws {
    let bench = try MoverBench()
    bench.enable()
    #expect(try bench.receive(helloMessage(max: 3, min: 2, reads: 0)).message == .refusedHello)
    try bench.drain()
    #expect(bench.queuePair.messages.first?.bytes.prefix(2) == [0x31, 0x11])
    bench.end()
  }

  @Test("A Hello before the login has ended, after another message, twice, or without any READ, is the end")
  func helloMisplaced() throws {
    let early = try MoverBench()
    #expect(try early.fault(helloMessage()) == .lateHello)
    early.end()
    let late = try MoverBench()
    late.enable()
    _ = try late.receive(controlMessage(command(1)))
    #expect(try late.fault(helloMessage()) == .lateHello)
    late.end()
    let twice = try MoverBench()
    twice.enable()
    _ = try twice.receive(helloMessage())
    #expect(try twice.fault(helloMessage()) == .lateHello)
    twice.end()
    let none = try MoverBench()
    none.enable()
    #expect(try none.fault(helloMessage(reads: 0)) == .noReads)
    none.end()
  }

  // MARK: Put_Data

  @Test("Put_Data with status is an RDMA WRITE and a SCSI Response in one chain, one completion for both (§7.3.5)")
  func putData() throws {
    let bench = try MoverBench()
    bench.enable()
    let bytes = Self.pattern(4096)
    let region = ScriptedQueuePair.Region(base: 0x7000_0000_1000, bytes: [UInt8](repeating: 0, count: 8192))
    bench.queuePair.regions[77] = region
    let buffer = try Self.buffer(bench, bytes)
    let free = bench.pool.bytesInUse - buffer.capacity
    #expect(bench.put(buffer, count: 4096, tag: 6, status: true, notice: 3, read: (77, 0x7000_0000_1800)) == 1)
    #expect(bench.pool.bytesInUse == free + buffer.capacity)
    bench.flush()
    #expect(bench.queuePair.chains == [2])
    #expect(bench.queuePair.history.map(\.operation) == [.write, .sendInvalidating])
    #expect(bench.queuePair.history.map(\.isSignalled) == [false, true])
    #expect(try bench.complete() == .sent(notice: 3))
    #expect(bench.pool.bytesInUse == free && bench.mover.isIdle)
    #expect(Array(region.bytes[0x800..<0x1800]) == bytes && region.bytes[..<0x800].allSatisfy { $0 == 0 })
    let response = try #require(bench.queuePair.messages.first?.header)
    #expect(response.opcode == .scsiResponse && response.flags == 0x80 && response.byte2 == 0 && response.byte3 == 0)
    #expect(response.initiatorTaskTag == 6 && response.statSN == 506 && response.word9 == 1, "ExpDataSN")
    #expect(response.dataSegmentLength == 0 && response.expCmdSN == 70 && response.maxCmdSN == 90)
    bench.end()
  }

  @Test(
    "Status and residual of the last Data-In become those of the SCSI Response (RFC 7143 §11.4, §11.7.3)",
    arguments: [Residual.none, .underflow(100), .overflow(7)])
  func residuals(residual: Residual) throws {
    let bench = try MoverBench(MoverBench.limits(invalidates: false))
    bench.enable()
    bench.queuePair.regions[7] = ScriptedQueuePair.Region(base: 0, bytes: [UInt8](repeating: 0, count: 512))
    var header = BasicHeaderSegment.dataIn(initiatorTaskTag: 2)
    header.addStatus(0x18, residual: residual)
    header.statSN = 44
    var advertised = AdvertisedBuffers()
    advertised.hasRead = true
    advertised.readSTag = 7
    let buffer = try Self.buffer(bench, Self.pattern(512))
    let next = bench.mover.putData(
      header, payload: UnsafeRawPointer(buffer.base), count: 512, offset: 0, dataSN: 5, isLast: true, buffer: buffer,
      notice: 0, advertised: advertised)
    try bench.drain()
    let response = try #require(bench.queuePair.messages.first?.header)
    #expect(next == 6 && response.word9 == 6 && response.statSN == 44)
    #expect(response.flags == 0x80 | residual.flags && response.word11 == residual.count && response.byte3 == 0x18)
    bench.end()
  }

  @Test("A read of several pieces: each WRITE has its own completion and notice, the last its status")
  func pieces() throws {
    let bench = try MoverBench()
    bench.enable()
    let region = ScriptedQueuePair.Region(base: 0x1000, bytes: [UInt8](repeating: 0, count: 12288))
    bench.queuePair.regions[77] = region
    for piece in 0..<3 {
      let buffer = try Self.buffer(bench, Self.pattern(4096, UInt8(piece)))
      let next = bench.put(
        buffer, count: 4096, offset: UInt32(piece * 4096), status: piece == 2, notice: UInt32(piece + 10),
        read: (77, 0x1000))
      #expect(next == UInt32(piece + 1))
    }
    let held = bench.pool.bytesInUse
    bench.flush()
    #expect(bench.queuePair.chains == [4])
    #expect(bench.queuePair.history.map(\.isSignalled) == [true, true, false, true])
    for piece in 0..<3 {
      #expect(try bench.complete() == .sent(notice: UInt32(piece + 10)))
      #expect(bench.pool.bytesInUse == held - (piece + 1) * 4096)
    }
    #expect(region.bytes == Self.pattern(4096, 0) + Self.pattern(4096, 1) + Self.pattern(4096, 2))
    #expect(bench.queuePair.messages.count == 1 && bench.queuePair.messages[0].header.word9 == 3)
    bench.end()
  }

  @Test("A key or a range that the initiator did not give ends the queue pair, and everything comes back once")
  func remoteAccess() throws {
    for (key, address) in [(78, 0x1000), (77, 0x1001), (77, 0xFFF)] as [(UInt32, UInt64)] {
      let bench = try MoverBench()
      bench.enable()
      bench.queuePair.regions[77] = ScriptedQueuePair.Region(base: 0x1000, bytes: [UInt8](repeating: 0, count: 4096))
      for tag in 1...3 as ClosedRange<UInt32> {
        let buffer = try Self.buffer(bench, Self.pattern(4096))
        _ = bench.put(buffer, count: 4096, tag: tag, status: true, notice: tag, read: (key, address))
      }
      bench.flush()
      let completion = try #require(bench.queuePair.completeSend())
      #expect(completion.status == ScriptedQueuePair.remoteAccess && completion.work.slot < 64)
      #expect(bench.queuePair.flushAll().allSatisfy { $0.status == ScriptedQueuePair.flushed })
      bench.mover.terminate()
      bench.mover.discard(pool: bench.pool)
      #expect(bench.mover.takeNotices().sorted() == [1, 2, 3] && bench.mover.takeNotices().isEmpty)
      bench.mover.release(pool: bench.pool)
      #expect(bench.pool.bytesInUse == 0 && bench.queuePair.messages.isEmpty)
    }
  }

  // MARK: Get_Data

  @Test("The advertised address is that of the first byte that did not come with the command")
  func getData() throws {
    let bench = try MoverBench()
    bench.enable()
    let bytes = Self.pattern(16384)
    // 1000 bytes came with the command: byte 1000 lies at the address.
    bench.queuePair.regions[5] = ScriptedQueuePair.Region(base: 0x5000, bytes: Array(bytes[1000...]))
    let buffer = try Self.buffer(bench, Array(bytes[..<1000]))
    let big = try #require(bench.pool.take(16384))
    bench.get(big, count: 3096, tag: 1, offset: 1000, unsolicited: 1000, write: (5, 0x5000))
    bench.flush()
    let read = try #require(bench.queuePair.posted.first)
    #expect(read.operation == .read && read.remoteAddress == 0x5000 && read.byteCount == 3096 && read.remoteKey == 5)
    #expect(try bench.complete() == .arrived(transferTag: 1))
    #expect(Array(UnsafeRawBufferPointer(start: big.base, count: 3096)) == Array(bytes[1000..<4096]))
    bench.get(big, count: 4096, tag: 2, offset: 8192, unsolicited: 1000, write: (5, 0x5000))
    #expect(try bench.drain() == [.arrived(transferTag: 2)])
    #expect(Array(UnsafeRawBufferPointer(start: big.base, count: 4096)) == Array(bytes[8192..<12288]))
    // Without unsolicited data it is offset 0's.
    bench.get(big, count: 100, tag: 3, offset: 0, unsolicited: 0, write: (5, 0x5000))
    #expect(try bench.drain() == [.arrived(transferTag: 3)])
    #expect(Array(UnsafeRawBufferPointer(start: big.base, count: 100)) == Array(bytes[1000..<1100]))
    bench.pool.give(buffer)
    bench.pool.give(big)
    bench.end()
  }

  @Test("No more READs are under way than the initiator answers; the rest waits, in order", arguments: [1, 2, 4])
  func readsMax(reads: Int) throws {
    let bench = try MoverBench(MoverBench.limits(reads: reads))
    bench.enable()
    bench.queuePair.regions[5] = ScriptedQueuePair.Region(base: 0, bytes: Self.pattern(65536))
    let buffer = try #require(bench.pool.take(65536))
    for tag in 0..<20 as Range<UInt32> { bench.get(buffer, count: 512, tag: tag, offset: tag * 512, write: (5, 0)) }
    bench.flush()
    #expect(bench.queuePair.readsPosted == reads && bench.mover.hasWaiting)
    // An answer to somebody else does not wait for them.
    bench.mover.sendControl(BasicHeaderSegment(.nopIn, flags: 0x80, initiatorTaskTag: 1))
    bench.flush()
    #expect(bench.queuePair.posted.last?.operation == .send)
    let outcomes = try bench.drain().filter { $0 != .sent(notice: 0) }
    #expect(outcomes == (0..<20).map { .arrived(transferTag: $0) })
    bench.pool.give(buffer)
    bench.end()
  }

  @Test("What waits to be read does not grow while there is always some")
  func fetchQueue() throws {
    let bench = try MoverBench(MoverBench.limits(reads: 1))
    bench.enable()
    bench.queuePair.regions[5] = ScriptedQueuePair.Region(base: 0, bytes: Self.pattern(4096))
    let buffer = try #require(bench.pool.take(4096))
    var expected: UInt32 = 0
    for tag in 0..<20_000 as Range<UInt32> {
      bench.get(buffer, count: 8, tag: tag, write: (5, 0))
      if tag < 4 { continue }
      bench.flush()
      guard try bench.complete() == .arrived(transferTag: expected) else {
        return #expect(Bool(false), "out of order at \(tag)")
      }
      expected += 1
    }
    #expect(bench.mover.fetches.count < 2100)
    try bench.drain()
    #expect(bench.mover.isIdle && bench.mover.fetches.isEmpty)
    bench.pool.give(buffer)
    bench.end()
  }

  @Test("A Get_Data that is flushed is told of as unfinished, once, like those that were never posted")
  func unfinished() throws {
    let bench = try MoverBench(MoverBench.limits(reads: 2))
    bench.enable()
    bench.queuePair.regions[5] = ScriptedQueuePair.Region(base: 0, bytes: Self.pattern(4096))
    let buffer = try #require(bench.pool.take(4096))
    for tag in 0..<6 as Range<UInt32> { bench.get(buffer, count: 8, tag: tag, write: (5, 0)) }
    bench.flush()
    #expect(try bench.complete() == .arrived(transferTag: 0))
    bench.mover.terminate()
    bench.mover.discard(pool: bench.pool)
    #expect(bench.mover.takeUnfinished().sorted() == [1, 2, 3, 4, 5] && bench.mover.takeUnfinished().isEmpty)
    bench.mover.discard(pool: bench.pool)
    #expect(bench.mover.takeUnfinished().isEmpty)
    bench.pool.give(buffer)
    bench.mover.release(pool: bench.pool)
    #expect(bench.pool.bytesInUse == 0)
  }

  // MARK: The send queue

  @Test(
    "With the send queue full what is asked for waits; nothing is lost, and the order is kept", arguments: [2, 3, 5])
  func sendQueueFull(sends: Int) throws {
    let bench = try MoverBench(MoverBench.limits(sends: sends, reads: 1))
    bench.enable()
    let region = ScriptedQueuePair.Region(base: 0, bytes: [UInt8](repeating: 0, count: 65536))
    var expected: [UInt32] = []
    for tag in 0..<60 as Range<UInt32> {
      if tag % 3 == 0 {
        bench.queuePair.regions[tag] = region
        let buffer = try Self.buffer(bench, Self.pattern(512, UInt8(tag)))
        _ = bench.put(buffer, count: 512, tag: tag, status: true, read: (tag, UInt64(tag) * 512))
      } else {
        bench.mover.sendControl(BasicHeaderSegment(.nopIn, flags: 0x80, initiatorTaskTag: tag), data: Self.pattern(50))
      }
      expected.append(tag)
      if tag % 7 == 0 { bench.flush() }
    }
    try bench.drain()
    #expect(bench.queuePair.messages.map(\.header.initiatorTaskTag) == expected)
    for tag in stride(from: 0, to: 60, by: 3) {
      #expect(Array(region.bytes[tag * 512..<tag * 512 + 512]) == Self.pattern(512, UInt8(tag)))
    }
    #expect(bench.mover.isIdle)
    bench.end()
  }

  @Test("With staging used up messages wait for a completion, in order")
  func stagingExhausted() throws {
    // Window 2: 19 places of staging for 64 entries of the send queue.
    let bench = try MoverBench(MoverBench.limits(sends: 64), window: 2)
    bench.enable(window: 2)
    for tag in 0..<50 as Range<UInt32> {
      bench.mover.sendControl(BasicHeaderSegment(.nopIn, flags: 0x80, initiatorTaskTag: tag), data: [UInt8(tag)])
    }
    bench.flush()
    #expect(bench.queuePair.posted.count == 19 && bench.mover.hasWaiting)
    try bench.drain()
    #expect(bench.queuePair.messages.map(\.header.initiatorTaskTag) == Array(0..<50))
    #expect(bench.queuePair.messages.map(\.data) == (0..<50).map { [UInt8($0)] })
    bench.end()
  }

  @Test("A refused post ends the connection with its errno, and gives everything back")
  func refusedPost() throws {
    let bench = try MoverBench()
    bench.enable()
    let buffer = try Self.buffer(bench, Self.pattern(4096))
    _ = bench.put(buffer, count: 4096, status: true, notice: 8, read: (1, 0))
    bench.get(buffer, count: 8, tag: 4, write: (5, 0))
    bench.queuePair.refusal = -ENOMEM
    bench.flush()
    #expect(bench.mover.failure == -ENOMEM)
    bench.queuePair.refusal = 0
    bench.flush()
    #expect(bench.queuePair.history.isEmpty, "nothing follows")
    bench.mover.terminate()
    bench.mover.discard(pool: bench.pool)
    #expect(bench.mover.takeNotices() == [8] && bench.mover.takeUnfinished() == [4])
    bench.mover.release(pool: bench.pool)
    #expect(bench.pool.bytesInUse == 0)
  }

  @Test("A refused receive does too")
  func refusedReceive() throws {
    let bench = try MoverBench()
    bench.queuePair.refusal = -EINVAL
    #expect(!bench.mover.enable(NegotiatedParameters(), window: 8, pool: bench.pool))
    #expect(bench.mover.failure == -EINVAL)
    bench.end()
  }

  @Test("A stray completion of something sent is the end")
  func straySend() throws {
    let bench = try MoverBench()
    for slot in [0, 63, 64, 65535] {
      #expect(throws: ISERFault.strayCompletion) { try bench.mover.completed(slot: slot, pool: bench.pool) }
    }
    bench.mover.sendControl(BasicHeaderSegment(.nopIn, flags: 0x80, initiatorTaskTag: 0))
    bench.flush()
    let completion = try #require(bench.queuePair.completeSend())
    #expect(try bench.mover.completed(slot: completion.work.slot, pool: bench.pool) == .sent(notice: 0))
    #expect(throws: ISERFault.strayCompletion) {
      try bench.mover.completed(slot: completion.work.slot, pool: bench.pool)
    }
    bench.end()
  }

  // MARK: Invalidation and inline

  @Test("A response invalidates exactly one key, that of the read where there are two (§7.3.2), and none without any")
  func invalidation() throws {
    for isAllowed in [true, false] {
      let bench = try MoverBench(MoverBench.limits(invalidates: isAllowed))
      bench.enable()
      for key in 1...8 as ClosedRange<UInt32> {
        bench.queuePair.regions[key] = ScriptedQueuePair.Region(base: 0, bytes: Self.pattern(512))
      }
      func answer(read: UInt32?, write: UInt32?) {
        var advertised = AdvertisedBuffers()
        (advertised.hasRead, advertised.readSTag) = (read != nil, read ?? 99)
        (advertised.hasWrite, advertised.writeSTag) = (write != nil, write ?? 99)
        bench.mover.sendResponse(
          .scsiResponse(initiatorTaskTag: 1, status: 2, residual: .none, expDataSN: 0), data: [0, 1, 2],
          advertised: advertised)
      }
      answer(read: 1, write: nil)
      answer(read: nil, write: 2)
      answer(read: 3, write: 4)
      answer(read: nil, write: nil)
      bench.mover.sendControl(BasicHeaderSegment(.nopIn, flags: 0x80, initiatorTaskTag: 1))
      let buffer = try Self.buffer(bench, Self.pattern(512))
      _ = bench.put(buffer, count: 512, status: false, read: (5, 0))
      let last = try Self.buffer(bench, Self.pattern(512))
      _ = bench.put(last, count: 512, status: true, read: (5, 0))
      try bench.drain()
      let expected: [UInt32?] = isAllowed ? [1, 2, 3, nil, nil, 5] : [nil, nil, nil, nil, nil, nil]
      #expect(bench.queuePair.messages.map(\.invalidatedKey) == expected)
      bench.end()
    }
  }

  @Test("Only what the device takes inline is sent so", arguments: [0, 75, 76, 100, 204])
  func inline(limit: Int) throws {
    let bench = try MoverBench(MoverBench.limits(inline: limit))
    bench.enable()
    for count in [0, 1, 24, 25, 128] {
      bench.mover.sendControl(
        BasicHeaderSegment(.nopIn, flags: 0x80, initiatorTaskTag: UInt32(count)), data: Self.pattern(count))
    }
    try bench.drain()
    #expect(bench.queuePair.history.map(\.isInline) == [76, 77, 100, 101, 204].map { $0 <= limit })
    #expect(bench.queuePair.messages.map(\.data.count) == [0, 1, 24, 25, 128])
    bench.end()
  }

  // MARK: The end

  @Test("After the end nothing is posted, and the end is told to the queue pair once")
  func afterEnd() throws {
    let bench = try MoverBench()
    bench.enable()
    let (slot, _) = try bench.receive(controlMessage(command(1)))
    bench.mover.sendControl(BasicHeaderSegment(.nopIn, flags: 0x80, initiatorTaskTag: 0))
    #expect(!bench.mover.isQuiet)
    bench.mover.terminate()
    bench.mover.terminate()
    #expect(bench.mover.isQuiet)
    bench.mover.recycle(slot: slot)
    bench.flush()
    bench.mover.postReceives()
    #expect(bench.queuePair.history.isEmpty)
    bench.mover.discard(pool: bench.pool)
    #expect(bench.mover.isIdle)
    bench.mover.release(pool: bench.pool)
    bench.mover.recycle(slot: slot)
    #expect(bench.pool.bytesInUse == 0 && bench.queuePair.offences.isEmpty)
  }
}

extension ISERMover {
  fileprivate func discardAndRelease(_ pool: BufferPool) {
    terminate()
    discard(pool: pool)
    release(pool: pool)
  }
}

import Glibc
import ISCSI
import Reactor
import Testing
import Wire

@testable import Datamover

/// A sender on one end of a socket pair, and what comes out at the other, cut into PDUs again.
final class SenderBench {
  let ring: Ring
  let pool: BufferPool
  let batches = SendBatches()
  let theirs: Int32
  private let ours: Int32
  var sender: TCPSender
  static let token = Token(1, index: 0, generation: 0)

  init() throws {
    var fds: [Int32] = [-1, -1]
    precondition(socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &fds) == 0)
    (ours, theirs) = (fds[0], fds[1])
    _ = fcntl(theirs, F_SETFL, O_NONBLOCK)
    ring = try Ring(entries: 16, completions: 64)
    pool = BufferPool(ring: ring, bytes: 4 << 20)
    sender = TCPSender(fd: ours, token: Self.token)
  }

  deinit {
    close(ours)
    close(theirs)
  }

  // `#expect` copies what it looks at, and a sender cannot be copied.
  var isIdle: Bool { sender.isIdle }
  var isInFlight: Bool { sender.isInFlight }
  var hasWaiting: Bool { sender.hasWaiting }
  func takeNotices() -> [UInt32] { sender.takeNotices() }
  func complete(_ result: Int32) -> Bool { sender.complete(result: result, pool: pool, batches: batches) }

  /// Flushes until all that waits is sent; gives the bytes that came and how many messages it took.
  func drain() -> (bytes: [UInt8], messages: Int) {
    var bytes: [UInt8] = []
    var messages = 0
    let part = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 8)
    let completion = UnsafeMutablePointer<Completion>.allocate(capacity: 1)
    defer {
      part.deallocate()
      completion.deallocate()
    }
    while !sender.isIdle {
      sender.flush(ring: ring, batches: batches, expCmdSN: 70, maxCmdSN: 90)
      ring.poll()
      while true {
        let count = read(theirs, part.baseAddress, part.count)
        guard count > 0 else { break }
        bytes += part[..<count]
      }
      if ring.takeCompletions(into: completion, limit: 1) == 1 {
        precondition(sender.complete(result: completion.pointee.result, pool: pool, batches: batches))
        messages += 1
      }
    }
    while true {
      let count = read(theirs, part.baseAddress, part.count)
      guard count > 0 else { break }
      bytes += part[..<count]
    }
    return (bytes, messages)
  }
}

@Suite("Sending (RFC 7143 §11.2, §11.7)")
struct TCPSenderTests {
  private static let status: UInt32 = 0x0001_0000
  private static let final: UInt32 = 0x0080_0000

  /// Sends a run of `count` bytes in runs of `runBytes` as the pieces of a transfer come, and gives the PDUs.
  private static func sendRun(
    _ count: Int, runBytes: Int, segment: Int, burst: Int, digests: (Bool, Bool) = (false, false), status: Bool = true
  ) throws -> (pdus: [TestPDU], dataSN: UInt32, data: [UInt8]) {
    let bench = try SenderBench()
    bench.sender.segmentBytesMax = segment
    bench.sender.burstBytesMax = burst
    bench.sender.headerDigest = digests.0
    bench.sender.dataDigest = digests.1
    let data = (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 13 &+ $0 >> 9) }
    return data.withUnsafeBytes { memory in
      var dataSN: UInt32 = 0
      var offset = 0
      while offset < count {
        let length = min(runBytes, count - offset)
        let isLast = offset + length == count
        var header = BasicHeaderSegment.dataIn(initiatorTaskTag: 77)
        header.lun = 5
        if isLast && status {
          header.word0 |= Self.status
          header.statSN = 4242
          header.word11 = 17
        }
        dataSN = bench.sender.enqueueRun(
          header, payload: memory.baseAddress! + offset, count: length, offset: UInt32(offset), dataSN: dataSN,
          isLast: isLast, buffer: nil, notice: 0)
        offset += length
      }
      let bytes = bench.drain().bytes
      let result = receive(bytes, pieces: [], headerDigest: digests.0, dataDigest: digests.1, limit: 1 << 20)
      #expect(result.fault == nil)
      return (result.pdus, dataSN, data)
    }
  }

  @Test(
    "A run is cut at what the initiator takes and at the end of each burst, and DataSN counts the PDUs (§11.7.5)",
    arguments: [512, 513, 514, 515, 1024, 8192, 65535], [512, 1000, 1023, 4096, 65536, 262_144])
  func cutting(segment: Int, burst: Int) throws {
    for (count, runBytes) in [
      (1, 4096), (511, 4096), (513, 4096), (514, 4096), (515, 4096), (5000, 4096), (5001, 1024), (20000, 16384),
    ] {
      let (pdus, dataSN, data) = try Self.sendRun(count, runBytes: runBytes, segment: segment, burst: burst)
      let note: Comment = "\(count) in runs of \(runBytes), segment \(segment), burst \(burst)"
      #expect(pdus.map(\.header.dataSN) == Array(0..<UInt32(pdus.count)), note)
      #expect(dataSN == UInt32(pdus.count), note)
      #expect(pdus.flatMap(\.data) == data, note)
      var offset = 0
      for (i, pdu) in pdus.enumerated() {
        let isLast = i == pdus.count - 1
        let bursts = burst & ~3
        #expect(pdu.header.bufferOffset == UInt32(offset), note)
        #expect(pdu.data.count <= segment && offset % bursts + pdu.data.count <= bursts, note)
        // All but the last PDU carry whole words, so that no padding lies between them.
        #expect(isLast || pdu.data.count % 4 == 0, note)
        offset += pdu.data.count
        #expect(pdu.header.isFinal == (isLast || offset % bursts == 0), note)
        #expect((pdu.header.word0 & Self.status != 0) == isLast, note)
        #expect(pdu.header.statSN == (isLast ? 4242 : 0) && pdu.header.word11 == (isLast ? 17 : 0), note)
        #expect(pdu.header.lun == 5 && pdu.header.initiatorTaskTag == 77, note)
        #expect(pdu.header.expCmdSN == 70 && pdu.header.maxCmdSN == 90, note)
      }
    }
  }

  @Test("A run without status has no StatSN, and F at its end all the same (§11.7.1, §11.7.4)")
  func noStatus() throws {
    let (pdus, _, _) = try Self.sendRun(3000, runBytes: 3000, segment: 1024, burst: 65536, status: false)
    #expect(pdus.map(\.header.isFinal) == [false, false, true])
    #expect(pdus.allSatisfy { $0.header.statSN == 0 && $0.header.word0 & Self.status == 0 })
  }

  @Test("Digests cover headers, and data with padding", arguments: [1, 2, 3, 4, 509, 4096])
  func digests(count: Int) throws {
    let (pdus, _, data) = try Self.sendRun(count, runBytes: 4096, segment: 512, burst: 65536, digests: (true, true))
    #expect(pdus.flatMap(\.data) == data)
  }

  @Test("A control PDU travels with its data, padded, and its DataSegmentLength is that of the data")
  func control() throws {
    let bench = try SenderBench()
    for count in [0, 1, 2, 3, 4, 100] {
      var header = BasicHeaderSegment(.nopIn, flags: 0x80, initiatorTaskTag: UInt32(count))
      header.statSN = 9
      bench.sender.enqueue(header, data: [UInt8](repeating: 0xAB, count: count))
    }
    let bytes = bench.drain().bytes
    let result = receive(bytes, pieces: [])
    #expect(result.fault == nil && result.pdus.map(\.data.count) == [0, 1, 2, 3, 4, 100])
    #expect(result.pdus.allSatisfy { $0.header.statSN == 9 && $0.header.expCmdSN == 70 })
  }

  @Test(
    "What is more than one message holds is sent in several, whole and in order",
    arguments: [(false, false), (true, true)])
  func manyBatches(digests: (Bool, Bool)) throws {
    let bench = try SenderBench()
    (bench.sender.headerDigest, bench.sender.dataDigest) = digests
    bench.sender.segmentBytesMax = 512
    var expected: [UInt8] = []
    var notices: [UInt32] = []
    for number in 0..<1200 as Range<UInt32> {
      if number % 3 == 0 {
        bench.sender.enqueue(
          BasicHeaderSegment(.nopIn, flags: 0x80, initiatorTaskTag: number), data: [UInt8](repeating: 1, count: 5))
        expected += [UInt8](repeating: 1, count: 5)
      } else {
        let buffer = try #require(bench.pool.take(2000))
        memset(buffer.base, Int32(number & 0x7F), 2000)
        _ = bench.sender.enqueueRun(
          .dataIn(initiatorTaskTag: number), payload: UnsafeRawPointer(buffer.base), count: 2000, offset: 0, dataSN: 0,
          isLast: true, buffer: buffer, notice: number)
        expected += [UInt8](repeating: UInt8(number & 0x7F), count: 2000)
        notices.append(number)
      }
      if number % 256 == 255 { break }
    }
    let (bytes, messages) = bench.drain()
    #expect(messages > 1 && bench.takeNotices() == notices && bench.takeNotices().isEmpty)
    #expect(bench.pool.bytesInUse == 0)
    let result = receive(bytes, pieces: [], headerDigest: digests.0, dataDigest: digests.1)
    #expect(result.fault == nil && result.pdus.flatMap(\.data) == expected)
  }

  @Test("One long run over several messages keeps counting where it was")
  func longRun() throws {
    let (pdus, dataSN, data) = try Self.sendRun(262_144, runBytes: 262_144, segment: 512, burst: 16384)
    #expect(pdus.count == 512 && dataSN == 512 && pdus.flatMap(\.data) == data)
    #expect(pdus.map(\.header.dataSN) == Array(0..<512))
    #expect(pdus.enumerated().allSatisfy { $1.header.isFinal == ($0 % 32 == 31) })
  }

  @Test("While a message is in flight nothing else is put into one; what is queued meanwhile follows")
  func inFlight() throws {
    let bench = try SenderBench()
    bench.sender.enqueue(BasicHeaderSegment(.nopIn, flags: 0x80, initiatorTaskTag: 1))
    bench.sender.flush(ring: bench.ring, batches: bench.batches, expCmdSN: 1, maxCmdSN: 2)
    #expect(bench.isInFlight && !bench.hasWaiting)
    bench.sender.enqueue(BasicHeaderSegment(.nopIn, flags: 0x80, initiatorTaskTag: 2))
    bench.sender.flush(ring: bench.ring, batches: bench.batches, expCmdSN: 3, maxCmdSN: 4)
    #expect(bench.hasWaiting)
    let result = receive(bench.drain().bytes, pieces: [])
    #expect(result.pdus.map(\.header.initiatorTaskTag) == [1, 2])
    // The window is that of the time at which the message is made.
    #expect(result.pdus.map(\.header.expCmdSN) == [1, 70])
  }

  @Test("A message that is sent in part is told, and its buffers come back")
  func partial() throws {
    let bench = try SenderBench()
    let buffer = try #require(bench.pool.take(4096))
    _ = bench.sender.enqueueRun(
      .dataIn(initiatorTaskTag: 1), payload: UnsafeRawPointer(buffer.base), count: 4096, offset: 0, dataSN: 0,
      isLast: true, buffer: buffer, notice: 6)
    bench.sender.flush(ring: bench.ring, batches: bench.batches, expCmdSN: 1, maxCmdSN: 2)
    bench.ring.poll()
    #expect(!bench.complete(100))
    #expect(bench.pool.bytesInUse == 0 && bench.takeNotices() == [6] && bench.isIdle)
    #expect(!bench.complete(100))
  }

  @Test("What is lent is sent from where it lies, however long it is, and is on loan until all of it is sent")
  func lent() throws {
    let bench = try SenderBench()
    bench.sender.segmentBytesMax = 65536
    let (first, second) = (Lender(), Lender())
    let bytes = (0..<3_000_000).map { UInt8(truncatingIfNeeded: $0 &* 7) }
    bytes.withUnsafeBytes { memory in
      for (lender, offset, count) in [(first, 0, 4096), (second, 512, 2_500_000), (first, 4096, 1)] {
        bench.sender.enqueueLent(
          .dataIn(initiatorTaskTag: 1), payload: memory.baseAddress! + offset, count: count, lender: lender)
      }
      #expect(first.lent == 2 && second.lent == 1 && bench.sender.borrows(from: first))
      bench.sender.flush(ring: bench.ring, batches: bench.batches, expCmdSN: 1, maxCmdSN: 2)
      #expect(first.lent == 2 && bench.sender.borrows(from: first) && bench.sender.borrows(from: second))
      let (stream, messages) = bench.drain()
      #expect(messages > 1 && first.lent == 0 && second.lent == 0 && !bench.sender.borrows(from: second))
      let result = receive(stream, pieces: [])
      let expected = bytes[..<4096] + bytes[512..<2_500_512] + bytes[4096..<4097]
      #expect(result.fault == nil && result.pdus.flatMap(\.data) == Array(expected))
      // Given back also when nothing comes of it.
      bench.sender.enqueueLent(
        .dataIn(initiatorTaskTag: 1), payload: memory.baseAddress!, count: 4096, lender: first)
      #expect(first.lent == 1)
      bench.sender.discard(pool: bench.pool)
      #expect(first.lent == 0 && !bench.sender.borrows(from: first))
    }
  }

  @Test("What is discarded gives its buffers back and tells its owners, also a run that was cut in part")
  func discard() throws {
    let bench = try SenderBench()
    bench.sender.segmentBytesMax = 512
    for number in 1...8 as ClosedRange<UInt32> {
      let buffer = try #require(bench.pool.take(262_144))
      _ = bench.sender.enqueueRun(
        .dataIn(initiatorTaskTag: number), payload: UnsafeRawPointer(buffer.base), count: 262_144, offset: 0, dataSN: 0,
        isLast: true, buffer: buffer, notice: number)
    }
    bench.sender.enqueue(BasicHeaderSegment(.nopIn, flags: 0x80, initiatorTaskTag: 1), data: [1, 2, 3])
    bench.sender.flush(ring: bench.ring, batches: bench.batches, expCmdSN: 1, maxCmdSN: 2)
    // The peer goes away; the message ends, whole or not.
    shutdown(bench.theirs, Int32(SHUT_RDWR))
    bench.ring.submitAndWait(until: nil)
    let completion = UnsafeMutablePointer<Completion>.allocate(capacity: 1)
    defer { completion.deallocate() }
    #expect(bench.ring.takeCompletions(into: completion, limit: 1) == 1)
    #expect(!bench.complete(completion.pointee.result))
    bench.sender.discard(pool: bench.pool)
    #expect(bench.pool.bytesInUse == 0 && bench.isIdle)
    #expect(bench.takeNotices().sorted() == Array(1...8))
  }
}

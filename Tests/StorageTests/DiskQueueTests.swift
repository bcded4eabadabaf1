import Glibc
import Reactor
import Storage
import TestSupport
import Testing

/// A thread's ring and local completions, with a queue to one disk.
final class QueueBench {
  let ring: Ring
  let local = LocalCompletions()
  let pool: BufferPool
  let queue: DiskQueue
  private var next: UInt32 = 0

  init(_ disk: Disk, slot: UInt32? = 0) throws {
    ring = try Ring(entries: 32, completions: 128)
    ring.makeTables(files: 4, buffers: 8)
    pool = BufferPool(ring: ring, bytes: 4 << 20)
    queue = DiskQueue(disk: disk, ring: ring, local: local, slot: slot)
  }

  func submit(_ operation: DiskOperation, at offset: UInt64, _ count: Int, _ buffer: Buffer?) -> Token {
    next += 1
    let token = Token(1, index: next, generation: 0)
    queue.submit(operation, offset: offset, count: count, base: buffer?.base, buffer: buffer?.registered, token: token)
    return token
  }

  /// The next completion, from wherever it comes; nil: none within `milliseconds`.
  func wait(milliseconds: UInt64 = 5000) -> Completion? {
    let place = UnsafeMutablePointer<Completion>.allocate(capacity: 1)
    defer { place.deallocate() }
    let deadline = Self.now() + milliseconds * 1_000_000
    while Self.now() < deadline {
      if local.take(into: place, limit: 1, now: Self.now()) == 1 { return place.pointee }
      ring.submitAndWait(until: Self.now() + 1_000_000)
      if ring.takeCompletions(into: place, limit: 1) == 1 { return place.pointee }
    }
    return nil
  }

  /// Runs one request to its end and gives its result.
  func run(_ operation: DiskOperation, at offset: UInt64, _ count: Int, _ buffer: Buffer? = nil) -> Int32? {
    let token = submit(operation, at: offset, count, buffer)
    let completion = wait()
    return completion?.token == token ? completion?.result : nil
  }

  static func now() -> UInt64 {
    var now = timespec()
    clock_gettime(CLOCK_MONOTONIC, &now)
    return UInt64(now.tv_sec) * 1_000_000_000 + UInt64(now.tv_nsec)
  }
}

@Suite("Requests to disks")
struct DiskQueueTests {
  private static func bytes(_ buffer: Buffer, _ count: Int) -> [UInt8] {
    Array(UnsafeRawBufferPointer(start: buffer.base, count: count))
  }

  /// Writes, reads back, deallocates, zeroes, at random, against a model in memory.
  private func model(_ bench: QueueBench, seed: UInt64) throws {
    var random = SplitMix(seed: seed)
    let size = 1 << 20
    var expected = [UInt8](repeating: 0, count: size)
    let buffer = try #require(bench.pool.take(65536))
    for _ in 0..<300 {
      let offset = Int(random.next() % UInt64(size / 512)) * 512
      let count = min((Int(random.next() % 128) + 1) * 512, size - offset)
      switch random.next() % 6 {
      case 0, 1:
        let operation: DiskOperation = random.next() % 4 == 0 ? .writeThrough : .write
        let value = UInt8(truncatingIfNeeded: random.next())
        for i in 0..<count { buffer.base.storeBytes(of: value &+ UInt8(i & 0x7F), toByteOffset: i, as: UInt8.self) }
        #expect(bench.run(operation, at: UInt64(offset), count, buffer) == Int32(count))
        expected.replaceSubrange(offset..<offset + count, with: Self.bytes(buffer, count))
      case 2:
        #expect(bench.run(.deallocate, at: UInt64(offset), count) == 0)
        expected.replaceSubrange(offset..<offset + count, with: repeatElement(0, count: count))
      case 3:
        #expect(bench.run(.zero, at: UInt64(offset), count) == 0)
        expected.replaceSubrange(offset..<offset + count, with: repeatElement(0, count: count))
      case 4: #expect(bench.run(.flush, at: 0, 0) == 0)
      default:
        memset(buffer.base, 0xEE, count)
        #expect(bench.run(.read, at: UInt64(offset), count, buffer) == Int32(count))
        #expect(Self.bytes(buffer, count).elementsEqual(expected[offset..<offset + count]))
      }
    }
    for offset in stride(from: 0, to: size, by: 65536) {
      #expect(bench.run(.read, at: UInt64(offset), 65536, buffer) == 65536)
      #expect(Self.bytes(buffer, 65536).elementsEqual(expected[offset..<offset + 65536]), "\(offset)")
    }
  }

  @Test("A disk in memory keeps what is written, at any block", arguments: 0..<3)
  func memory(seed: UInt64) throws {
    try model(try QueueBench(try Disk.memory(byteCount: 1 << 20, path: "memory")), seed: seed)
  }

  @Test("A file opened past the page cache keeps what is written, with and without a fixed slot", arguments: [0, nil])
  func file(slot: UInt32?) throws {
    let file = TemporaryFile(bytes: 1 << 20)
    let disk = try Disk.open(path: file.path)
    try model(try QueueBench(disk, slot: slot), seed: 9)
  }

  @Test("A null disk reads zeroes and forgets")
  func null() throws {
    let bench = try QueueBench(Disk.null(byteCount: 1 << 30, path: "null"))
    let buffer = try #require(bench.pool.take(4096))
    memset(buffer.base, 0xEE, 4096)
    #expect(bench.run(.write, at: 0, 4096, buffer) == 4096)
    #expect(bench.run(.read, at: 0, 4096, buffer) == 4096)
    #expect(Self.bytes(buffer, 4096).allSatisfy { $0 == 0 })
    #expect(bench.run(.flush, at: 0, 0) == 0 && bench.run(.deallocate, at: 0, 4096) == 0)
  }

  @Test("Deallocating makes a hole in a file; zeroing keeps the space (SBC-4 §4.7)")
  func holes() throws {
    let file = TemporaryFile(bytes: 1 << 20)
    file.write([UInt8](repeating: 1, count: 1 << 20), at: 0)
    fsync(file.fd)
    let disk = try Disk.open(path: file.path)
    let bench = try QueueBench(disk)
    #expect(bench.run(.deallocate, at: 256 << 10, 64 << 10) == 0)
    #expect(disk.mapping(at: 256 << 10, limit: 1 << 20) == (64 << 10, false))
    var before = stat()
    fstat(file.fd, &before)
    #expect(bench.run(.zero, at: 512 << 10, 64 << 10) == 0)
    var after = stat()
    fstat(file.fd, &after)
    #expect(before.st_blocks == after.st_blocks && after.st_size == 1 << 20)
    #expect(file.read(64 << 10, at: 512 << 10).allSatisfy { $0 == 0 })
  }

  @Test("A read over the end of a file tells how many bytes there were")
  func beyond() throws {
    let file = TemporaryFile(bytes: 1 << 20)
    let bench = try QueueBench(try Disk.open(path: file.path))
    let buffer = try #require(bench.pool.take(4096))
    #expect(bench.run(.read, at: 1 << 20, 4096, buffer) == 0)
    #expect(bench.run(.read, at: (1 << 20) - 512, 4096, buffer) == 512)
  }

  @Test("Rules fail the requests that touch their blocks, and let the others through")
  func faults() throws {
    let rules = try #require(FaultRules("medium=8+8,flush-error"))
    let bench = try QueueBench(try Disk.memory(byteCount: 1 << 20, path: "faulty", faults: rules))
    let buffer = try #require(bench.pool.take(4096))
    #expect(bench.run(.read, at: 4096, 4096, buffer) == -EIO)
    #expect(bench.run(.write, at: 7680, 512, buffer) == -EIO)
    #expect(bench.run(.read, at: 0, 4096, buffer) == 4096 && bench.run(.write, at: 8192, 4096, buffer) == 4096)
    #expect(bench.run(.flush, at: 0, 0) == -EIO)
    let few = try #require(FaultRules("short=0+8,flush-error=1"))
    let short = try QueueBench(try Disk.memory(byteCount: 1 << 20, path: "short", faults: few))
    #expect(short.run(.read, at: 0, 4096, buffer) == 2048 && short.run(.write, at: 512, 512, buffer) == 0)
    #expect(short.run(.flush, at: 0, 0) == -EIO && short.run(.flush, at: 0, 0) == 0)
    let gone = try QueueBench(try Disk.memory(byteCount: 1 << 20, path: "gone", faults: FaultRules("gone")))
    #expect(gone.run(.read, at: 0, 4096, buffer) == -ENODEV && gone.run(.flush, at: 0, 0) == -ENODEV)
  }

  @Test("A hanging request never completes, and keeps nobody waiting")
  func hang() throws {
    let bench = try QueueBench(try Disk.memory(byteCount: 1 << 20, path: "hang", faults: FaultRules("hang=0+1")))
    let buffer = try #require(bench.pool.take(4096))
    _ = bench.submit(.read, at: 0, 512, buffer)
    let other = bench.submit(.read, at: 512, 512, buffer)
    #expect(bench.wait()?.token == other)
    #expect(bench.wait(milliseconds: 30) == nil && bench.local.nextDeadline == .max)
  }

  @Test("A slow request completes when its time has come and not before; a quicker one overtakes it")
  func slow() throws {
    let rules = try #require(FaultRules("slow=0+1:60,slow=1+1:5"))
    let bench = try QueueBench(try Disk.memory(byteCount: 1 << 20, path: "slow", faults: rules))
    let buffer = try #require(bench.pool.take(4096))
    let begin = QueueBench.now()
    let late = bench.submit(.write, at: 0, 512, buffer)
    let early = bench.submit(.write, at: 512, 512, buffer)
    let direct = bench.submit(.write, at: 1024, 512, buffer)
    #expect(bench.wait()?.token == direct && bench.wait()?.token == early)
    #expect(QueueBench.now() - begin >= 5_000_000)
    #expect(bench.local.nextDeadline! >= begin + 60_000_000)
    let last = try #require(bench.wait())
    #expect(last.token == late && last.result == 512 && QueueBench.now() - begin >= 60_000_000)
  }

  @Test("More local completions than a table holds are all given, in order, in parts")
  func manyLocal() throws {
    let bench = try QueueBench(Disk.null(byteCount: 1 << 30, path: "null"))
    let tokens = (0..<3000).map { _ in bench.submit(.flush, at: 0, 0, nil) }
    let place = UnsafeMutablePointer<Completion>.allocate(capacity: 700)
    defer { place.deallocate() }
    var found: [Token] = []
    while !bench.local.isEmpty {
      let count = bench.local.take(into: place, limit: 700, now: 0)
      found += (0..<count).map { place[$0].token }
    }
    #expect(found == tokens)
  }

  @Test("After a failed flush no flush and no write-through claims success any more")
  func lostWrites() throws {
    let file = TemporaryFile(bytes: 1 << 20)
    let disk = try Disk.open(path: file.path)
    let bench = try QueueBench(disk)
    let other = try QueueBench(disk)
    let buffer = try #require(bench.pool.take(4096))
    #expect(bench.queue.stableResult(-ECANCELED, isFlush: true) == -ECANCELED)
    // A write that found no space was refused before anything was lost.
    #expect(bench.queue.stableResult(-ENOSPC, isFlush: false) == -ENOSPC)
    // Another node has the disk by then, and all that was written.
    #expect(bench.queue.stableResult(-EBADE, isFlush: true) == -EBADE)
    #expect(bench.run(.flush, at: 0, 0) == 0 && bench.queue.stableResult(0, isFlush: true) == 0)
    #expect(bench.queue.stableResult(-EIO, isFlush: true) == -EIO)
    // Those that were under way then: the kernel may have told one of them alone.
    #expect(other.queue.stableResult(0, isFlush: true) == -ENOTRECOVERABLE)
    #expect(other.queue.stableResult(4096, isFlush: false) == -ENOTRECOVERABLE)
    #expect(bench.run(.flush, at: 0, 0) == -ENOTRECOVERABLE)
    #expect(other.run(.flush, at: 0, 0) == -ENOTRECOVERABLE)
    #expect(bench.run(.writeThrough, at: 0, 4096, buffer) == -ENOTRECOVERABLE)
    // What claims nothing still works.
    #expect(bench.run(.write, at: 0, 4096, buffer) == 4096 && bench.run(.read, at: 0, 4096, buffer) == 4096)
  }
}

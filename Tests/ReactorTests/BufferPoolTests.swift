import Glibc
import TestSupport
import Testing

@testable import Reactor

@Suite("The buffer pool")
struct BufferPoolTests {
  private static let arenaBytes = 4 << 20

  @Test("A buffer is as large as the smallest class that fits, page-aligned, and inside its chunk")
  func classes() throws {
    let bench = try Bench()
    let pool = BufferPool(ring: bench.ring, bytes: Self.arenaBytes)
    for (bytes, capacity) in [
      (0, 4096), (1, 4096), (4096, 4096), (4097, 8192), (8192, 8192), (8193, 16384), (16384, 16384), (16385, 65536),
      (65536, 65536),
      (65537, 262_144), (262_144, 262_144),
    ] {
      let buffer = try #require(pool.take(bytes))
      #expect(buffer.capacity == capacity, "\(bytes)")
      #expect(UInt(bitPattern: buffer.base) % 4096 == 0)
      memset(buffer.base, 0xFF, buffer.capacity)
      pool.give(buffer)
    }
    #expect(pool.bytesInUse == 0)
  }

  @Test(
    "A full arena gives nothing, says that it is short, and gives again after one comes back",
    arguments: BufferPool.classes)
  func exhaustion(bytes: Int) throws {
    let bench = try Bench()
    let pool = BufferPool(ring: bench.ring, bytes: Self.arenaBytes)
    var buffers: [Buffer] = []
    while let buffer = pool.take(bytes) { buffers.append(buffer) }
    #expect(buffers.count == Self.arenaBytes / bytes && pool.isShort)
    #expect(pool.bytesInUse == Self.arenaBytes && pool.bytesPopulated == Self.arenaBytes)
    let addresses = Set(buffers.map { UInt(bitPattern: $0.base) })
    #expect(addresses.count == buffers.count)
    pool.isShort = false
    // Another class finds no chunk either.
    #expect(pool.take(bytes == 4096 ? 65536 : 4096) == nil)
    pool.give(buffers.removeLast())
    #expect(pool.take(bytes) != nil)
  }

  @Test("When all buffers of a class are back, its chunks are kept for a while, and other classes can have them")
  func release() throws {
    let bench = try Bench()
    let pool = BufferPool(ring: bench.ring, bytes: Self.arenaBytes)
    for bytes in BufferPool.classes {
      var buffers: [Buffer] = []
      for _ in 0..<(3 << 20) / bytes { buffers.append(try #require(pool.take(bytes))) }
      buffers.shuffle()
      buffers.forEach(pool.give)
      #expect(pool.bytesPopulated == 3 << 20 && pool.bytesInUse == 0 && pool.emptyChunks == 3, "\(bytes)")
      // They were needed since the last time; then they were not.
      pool.trim()
      #expect(pool.bytesPopulated == 3 << 20)
      pool.trim()
      #expect(pool.bytesPopulated == 0 && pool.emptyChunks == 0)
    }
  }

  @Test("What is needed now and then stays; what is needed no more goes")
  func trim() throws {
    let bench = try Bench()
    let pool = BufferPool(ring: bench.ring, bytes: Self.arenaBytes)
    for round in 0..<6 {
      // Twice two chunks, then one.
      let buffers = try (0..<(round < 2 ? 8 : 4)).map { _ in try #require(pool.take(262_144)) }
      buffers.forEach(pool.give)
      pool.trim()
      #expect(pool.bytesPopulated == (round < 2 ? 2 : 1) << 20, "\(round)")
    }
  }

  @Test("Shrinking keeps the chunks that hold a buffer")
  func shrink() throws {
    let bench = try Bench()
    let pool = BufferPool(ring: bench.ring, bytes: Self.arenaBytes)
    let kept = try #require(pool.take(4096))
    let other = try #require(pool.take(65536))
    memset(kept.base, 0x5A, 4096)
    pool.give(other)
    pool.shrink()
    #expect(pool.bytesPopulated == 1 << 20)
    #expect(kept.base.load(fromByteOffset: 4095, as: UInt8.self) == 0x5A)
    pool.give(kept)
    pool.shrink()
    #expect(pool.bytesPopulated == 0)
  }

  @Test("A buffer that was given back is used again before a new chunk is populated")
  func reuse() throws {
    let bench = try Bench()
    let pool = BufferPool(ring: bench.ring, bytes: Self.arenaBytes)
    let first = try #require(pool.take(16384))
    pool.give(first)
    for _ in 0..<1000 {
      let next = try #require(pool.take(16384))
      #expect(next.base == first.base)
      pool.give(next)
    }
    #expect(pool.bytesPopulated == 1 << 20)
  }

  @Test("A registered buffer reads and writes through its slot; without a table there is no slot")
  func registered() throws {
    let bench = try Bench()
    let pool = BufferPool(ring: bench.ring, bytes: Self.arenaBytes)
    let buffer = try #require(pool.take(4096))
    if bench.ring.bufferSlots > 0 {
      let slot = try #require(buffer.registered)
      let stream = try #require(tmpfile())
      defer { fclose(stream) }
      let file = fileno(stream)
      memset(buffer.base, 0x77, 4096)
      let token = Token(1, index: 0, generation: 0)
      bench.ring.writeFile(
        file, fixed: false, from: buffer.base, count: 4096, offset: 0, buffer: slot, writeFlags: 0, token: token)
      #expect(bench.wait(1).first?.result == 4096)
      memset(buffer.base, 0, 4096)
      bench.ring.readFile(file, fixed: false, into: buffer.base, count: 4096, offset: 0, buffer: slot, token: token)
      #expect(bench.wait(1).first?.result == 4096)
      #expect(buffer.base.load(fromByteOffset: 4095, as: UInt8.self) == 0x77)
    }
    let plain = try Ring(entries: 8, completions: 16)
    let other = BufferPool(ring: plain, bytes: Self.arenaBytes)
    #expect(other.take(4096)?.registered == nil)
  }

  @Test("An arena is four chunks at least, and whole chunks")
  func sizes() throws {
    let bench = try Bench()
    for (bytes, chunks) in [(0, 4), (5 << 20, 5), ((6 << 20) - 1, 5)] {
      let pool = BufferPool(ring: bench.ring, bytes: bytes)
      var count = 0
      while pool.take(262_144) != nil { count += 1 }
      #expect(count == chunks * 4, "\(bytes)")
    }
  }

  @Test("A chunk that one class keeps empty is another's when no other is left")
  func keptChunks() throws {
    let bench = try Bench()
    let pool = BufferPool(ring: bench.ring, bytes: Self.arenaBytes)
    for bytes in BufferPool.classes.dropLast() { pool.give(try #require(pool.take(bytes))) }
    #expect(pool.bytesPopulated == Self.arenaBytes)
    for _ in 0..<Self.arenaBytes / 262_144 { #expect(pool.take(262_144) != nil) }
  }

  @Test("Whoever registers chunks hears of each before a buffer comes out of it and when it goes, and may refuse it")
  func observers() throws {
    let bench = try Bench()
    let pool = BufferPool(ring: bench.ring, bytes: Self.arenaBytes)
    let early = try #require(pool.take(4096))
    var known: Set<UInt16> = []
    #expect(
      pool.forEachOpenChunk { chunk, base in
        known.insert(chunk)
        return base == early.base
      })
    var mayOpen = true
    pool.chunkOpened = { chunk, _ in
      if mayOpen { known.insert(chunk) }
      return mayOpen
    }
    pool.chunkClosed = { known.remove($0) }
    let other = try #require(pool.take(65536))
    #expect(known == [early.chunk, other.chunk])
    mayOpen = false
    #expect(pool.take(262_144) == nil && pool.isShort)
    mayOpen = true
    #expect(pool.take(262_144) != nil && known.count == 3)
    pool.give(other)
    pool.shrink()
    #expect(known.count == 2 && !known.contains(other.chunk))
  }

  @Test("After any sequence of takes and gives the counts are right, and no two buffers overlap", arguments: 0..<4)
  func model(seed: UInt64) throws {
    var random = SplitMix(seed: seed)
    let bench = try Bench()
    let pool = BufferPool(ring: bench.ring, bytes: 8 << 20)
    var out: [(buffer: Buffer, mark: UInt64)] = []
    for round in 0..<6000 {
      // Phases of growth and of return, so that chunks come and go.
      let isGrowing = round / 1000 % 2 == 0
      if out.isEmpty || random.next() % 10 < (isGrowing ? 7 : 3) {
        let bytes = BufferPool.classes.randomElement(using: &random)!
        if let buffer = pool.take(bytes - Int(random.next() % 100)) {
          let mark = random.next()
          buffer.base.storeBytes(of: mark, as: UInt64.self)
          buffer.base.storeBytes(of: mark, toByteOffset: buffer.capacity - 8, as: UInt64.self)
          out.append((buffer, mark))
        } else {
          #expect(pool.isShort)
        }
      } else {
        let (buffer, mark) = out.remove(at: Int(random.next() % UInt64(out.count)))
        #expect(buffer.base.load(as: UInt64.self) == mark)
        #expect(buffer.base.load(fromByteOffset: buffer.capacity - 8, as: UInt64.self) == mark)
        pool.give(buffer)
      }
      if random.next() % 200 == 0 { pool.shrink() }
      #expect(pool.bytesInUse == out.reduce(0) { $0 + $1.buffer.capacity })
      #expect(pool.bytesPopulated >= pool.bytesInUse && pool.bytesPopulated <= 8 << 20)
    }
    for (buffer, _) in out { pool.give(buffer) }
    pool.shrink()
    #expect(pool.bytesPopulated == 0 && pool.bytesInUse == 0)
  }
}

import Glibc
import TestSupport
import Testing

@testable import Reactor

@Suite("Receive buffers")
struct ReceiveBuffersTests {
  private static let token = Token(1, index: 0, generation: 0)

  @Test("A receive chooses a buffer, tells which, and fills it from its start")
  func one() throws {
    let bench = try Bench()
    let buffers = try ReceiveBuffers(ring: bench.ring, group: 3, count: 4, byteCount: 4096)
    let pair = SocketPair()
    bench.ring.receive(pair.ours, group: 3, token: Self.token)
    pair.send([1, 2, 3])
    let found = try #require(bench.wait(1).first)
    let index = try #require(found.providedBuffer)
    #expect(found.result == 3 && index < 4)
    #expect(Array(UnsafeRawBufferPointer(start: buffers.base(index), count: 3)) == [1, 2, 3])
    buffers.recycle(index)
  }

  @Test("With every buffer out a receive ends with ENOBUFS, and goes on when one is given back")
  func exhaustion() throws {
    let bench = try Bench()
    let buffers = try ReceiveBuffers(ring: bench.ring, group: 0, count: 2, byteCount: 4096)
    let pair = SocketPair()
    pair.send([UInt8](repeating: 9, count: 3 * 4096))
    var taken: [UInt16] = []
    for _ in 0..<2 {
      bench.ring.receive(pair.ours, group: 0, token: Self.token)
      taken.append(try #require(bench.wait(1).first?.providedBuffer))
    }
    #expect(Set(taken).count == 2)
    bench.ring.receive(pair.ours, group: 0, token: Self.token)
    #expect(bench.wait(1).first?.result == -ENOBUFS)
    buffers.recycle(taken[1])
    bench.ring.receive(pair.ours, group: 0, token: Self.token)
    let found = try #require(bench.wait(1).first)
    #expect(found.result == 4096 && found.providedBuffer == taken[1])
  }

  @Test("A stream of any lengths comes through in order, over many rounds of the buffers")
  func stream() throws {
    var random = SplitMix(seed: 1)
    let bench = try Bench()
    let buffers = try ReceiveBuffers(ring: bench.ring, group: 1, count: 8, byteCount: 4096)
    let pair = SocketPair()
    var sent: [UInt8] = []
    var received: [UInt8] = []
    for _ in 0..<400 {
      let part = (0..<Int(random.next() % 9000) + 1).map { _ in UInt8(truncatingIfNeeded: random.next()) }
      sent += part
      pair.send(part)
      while received.count < sent.count {
        bench.ring.receive(pair.ours, group: 1, token: Self.token)
        let found = try #require(bench.wait(1).first)
        let index = try #require(found.providedBuffer)
        received += UnsafeRawBufferPointer(start: buffers.base(index), count: Int(found.result))
        buffers.recycle(index)
      }
    }
    #expect(received == sent)
  }

  @Test("The end of the stream takes no buffer, or one that can be given back")
  func end() throws {
    let bench = try Bench()
    let buffers = try ReceiveBuffers(ring: bench.ring, group: 1, count: 2, byteCount: 4096)
    for _ in 0..<10 {
      let pair = SocketPair()
      shutdown(pair.theirs, Int32(SHUT_WR))
      bench.ring.receive(pair.ours, group: 1, token: Self.token)
      let found = try #require(bench.wait(1).first)
      #expect(found.result == 0)
      if let index = found.providedBuffer { buffers.recycle(index) }
    }
  }

  @Test("A group that is taken, or a count that is no power of two, is an error")
  func refused() throws {
    let bench = try Bench()
    let first = try ReceiveBuffers(ring: bench.ring, group: 1, count: 2, byteCount: 4096)
    #expect(throws: RingError.self) { _ = try ReceiveBuffers(ring: bench.ring, group: 1, count: 2, byteCount: 4096) }
    #expect(throws: RingError.self) { _ = try ReceiveBuffers(ring: bench.ring, group: 2, count: 3, byteCount: 4096) }
    #expect(first.group == 1)
  }
}

import CURing
import Glibc
import Testing

@testable import Reactor

@Suite("Rings")
struct RingTests {
  private let token = Token(7, index: 11, generation: 13)

  @Test("A ring without its tables refuses files and buffers, one with them takes them in their slots only")
  func tables() throws {
    let ring = try Ring(entries: 8, completions: 16)
    #expect(!ring.setFile(0, slot: 0) && !ring.setBuffer(nil, count: 0, slot: 0))
    ring.makeTables(files: 4, buffers: 4)
    #expect(ring.fileSlots == 4)
    #expect(ring.setFile(0, slot: 3) && !ring.setFile(0, slot: 4))
    #expect(ring.setFile(-1, slot: 3) && !ring.setFile(9999, slot: 1))
    #expect(!ring.setBuffer(nil, count: 0, slot: 4))
  }

  @Test("A ring of no entries, or with fewer completions than entries, is refused with a reason")
  func refused() {
    for (entries, completions) in [(0, 16), (64, 8)] as [(UInt32, UInt32)] {
      let error = #expect(throws: RingError.self) { _ = try Ring(entries: entries, completions: completions) }
      #expect(error?.code == EINVAL)
    }
    #expect(RingError(code: EPERM).description.contains("io_uring_disabled"))
    #expect(RingError(code: ENOMEM).description.contains("LimitMEMLOCK"))
  }

  @Test("More is queued than the ring has entries: nothing is lost")
  func overflow() throws {
    let bench = try Bench(entries: 8, completions: 128)
    var pipes: [Int32] = [-1, -1]
    #expect(pipe(&pipes) == 0)
    defer { pipes.forEach { close($0) } }
    _ = write(pipes[1], [1], 1)
    for index in 0..<100 as Range<UInt32> {
      bench.ring.pollReadable(pipes[0], token: Token(1, index: index, generation: 0))
    }
    let found = bench.wait(100)
    #expect(found.map(\.token.index).sorted() == Array(0..<100))
    #expect(found.allSatisfy { $0.result & Int32(POLLIN) != 0 })
  }

  @Test("Completions are taken in parts no larger than asked")
  func parts() throws {
    let bench = try Bench()
    let pair = SocketPair()
    pair.send([1])
    for index in 0..<5 as Range<UInt32> {
      bench.ring.pollReadable(pair.ours, token: Token(1, index: index, generation: 0))
    }
    bench.ring.submitAndWait(until: nil)
    let place = UnsafeMutablePointer<Completion>.allocate(capacity: 8)
    defer { place.deallocate() }
    var taken: [Int] = []
    while taken.reduce(0, +) < 5 {
      bench.ring.poll()
      taken.append(bench.ring.takeCompletions(into: place, limit: 2))
      #expect(taken.last! <= 2)
    }
    #expect(bench.ring.takeCompletions(into: place, limit: 8) == 0)
  }

  @Test("A wait with a deadline ends at it when nothing happens, and at once when it has passed")
  func deadline() throws {
    let bench = try Bench()
    let begin = monotonic()
    bench.ring.submitAndWait(until: begin + 20_000_000)
    #expect(monotonic() - begin >= 19_000_000)
    bench.ring.submitAndWait(until: 1)
    let pair = SocketPair()
    bench.ring.pollReadable(pair.ours, token: token)
    pair.send([1])
    bench.ring.submitAndWait(until: .max)
    #expect(bench.wait(1).map(\.token) == [token])
  }

  @Test("An operation that waits is cancelled by its token, and both tell")
  func cancel() throws {
    let bench = try Bench()
    let pair = SocketPair()
    bench.ring.pollReadable(pair.ours, token: token)
    bench.ring.cancel(token, token: Token(8, index: 0, generation: 0))
    let found = bench.wait(2)
    #expect(found.first { $0.token == token }?.result == -ECANCELED)
    #expect(found.first { $0.token.operation == 8 }?.result == 0)
    bench.ring.cancel(token, token: Token(9, index: 0, generation: 0))
    #expect(bench.wait(1).first?.result == -ENOENT)
  }

  @Test("A timeout completes with ETIME")
  func timeout() throws {
    let bench = try Bench()
    let time = UnsafeMutablePointer<__kernel_timespec>.allocate(capacity: 1)
    defer { time.deallocate() }
    time.initialize(to: __kernel_timespec(tv_sec: 0, tv_nsec: 1_000_000))
    bench.ring.timeout(time, token: token)
    #expect(bench.wait(1).first?.result == -ETIME)
  }

  @Test("A receive of a count waits for all of it, and tells less at the end of the stream")
  func receiveAll() throws {
    let bench = try Bench()
    let pair = SocketPair()
    let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: 100_000, alignment: 8)
    defer { memory.deallocate() }
    let bytes = (0..<60_000).map { UInt8(truncatingIfNeeded: $0 &* 7) }
    bench.ring.receive(pair.ours, into: memory.baseAddress!, count: 60_000, token: token)
    pair.send(Array(bytes[..<1000]))
    bench.ring.poll()
    pair.send(Array(bytes[1000...]))
    #expect(bench.wait(1).first?.result == 60_000)
    #expect(memory[..<60_000].elementsEqual(bytes))
    bench.ring.receive(pair.ours, into: memory.baseAddress!, count: 100, token: token)
    pair.send([1, 2, 3])
    shutdown(pair.theirs, Int32(SHUT_WR))
    #expect(bench.wait(1).first?.result == 3)
  }

  @Test("A message of many vectors is sent whole, also when the peer reads slowly")
  func send() throws {
    let bench = try Bench()
    let pair = SocketPair()
    let parts = 50
    let partBytes = 40_000
    let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: parts * partBytes, alignment: 8)
    for i in memory.indices { memory[i] = UInt8(truncatingIfNeeded: i &* 31 &+ i >> 8) }
    let vectors = UnsafeMutablePointer<iovec>.allocate(capacity: parts)
    let message = UnsafeMutablePointer<msghdr>.allocate(capacity: 1)
    defer {
      memory.deallocate()
      vectors.deallocate()
      message.deallocate()
    }
    for i in 0..<parts { vectors[i] = iovec(iov_base: memory.baseAddress! + i * partBytes, iov_len: partBytes) }
    message.initialize(to: msghdr())
    message.pointee.msg_iov = vectors
    message.pointee.msg_iovlen = parts
    bench.ring.send(pair.ours, message: message, token: token)
    bench.ring.poll()
    var received: [UInt8] = []
    while received.count < parts * partBytes {
      // Without waiting: what is left goes out only while the ring is entered.
      received += pair.receiveSome(100_000)
      bench.ring.poll()
    }
    #expect(received.elementsEqual(memory))
    #expect(bench.wait(1).first?.result == Int32(parts * partBytes))
  }

  @Test("A send to a peer that has gone is an error, not a signal")
  func sendToNobody() throws {
    let bench = try Bench()
    var fds: [Int32] = [-1, -1]
    #expect(socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &fds) == 0)
    close(fds[1])
    defer { close(fds[0]) }
    var byte: UInt8 = 1
    withUnsafeMutablePointer(to: &byte) { byte in
      var vector = iovec(iov_base: byte, iov_len: 1)
      withUnsafeMutablePointer(to: &vector) { vector in
        var message = msghdr()
        message.msg_iov = vector
        message.msg_iovlen = 1
        withUnsafePointer(to: &message) { message in
          bench.ring.send(fds[0], message: message, token: token)
          #expect(bench.wait(1).first?.result == -EPIPE)
        }
      }
    }
  }

  @Test("One accept gives every connection until it is cancelled")
  func accept() throws {
    let bench = try Bench()
    let listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    defer { close(listener) }
    #expect(listen(listener, 8) == 0)
    var address = sockaddr_storage()
    var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
    withUnsafeMutablePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { _ = getsockname(listener, $0, &length) }
    }
    bench.ring.acceptAll(listener, token: token)
    var clients: [Int32] = []
    for _ in 0..<3 {
      let client = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
      withUnsafePointer(to: &address) {
        $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { _ = connect(client, $0, length) }
      }
      clients.append(client)
    }
    let found = bench.wait(3)
    #expect(found.count == 3 && found.allSatisfy { $0.result >= 0 && $0.isContinued })
    bench.ring.cancel(token, token: Token(8, index: 0, generation: 0))
    #expect(bench.wait(2).first { $0.token == token }?.isContinued == false)
    (clients + found.map(\.result)).forEach { close($0) }
  }
}

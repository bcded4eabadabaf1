import Glibc
import Reactor
import Synchronization
import Testing

@Suite("Inboxes")
struct InboxTests {
  @Test("Messages come out in the order posted, and once")
  func order() {
    let inbox = Inbox<Int>()
    for i in 0..<5 { inbox.post(i) }
    #expect(inbox.take() == [0, 1, 2, 3, 4])
    #expect(inbox.take().isEmpty)
  }

  @Test("The descriptor is readable exactly while messages wait")
  func descriptor() {
    let inbox = Inbox<Int>()
    func isReadable() -> Bool {
      var entry = pollfd(fd: inbox.descriptor, events: Int16(POLLIN), revents: 0)
      return poll(&entry, 1, 0) == 1
    }
    #expect(!isReadable())
    inbox.post(1)
    inbox.post(2)
    #expect(isReadable())
    _ = inbox.take()
    #expect(!isReadable())
    inbox.post(3)
    #expect(isReadable())
  }

  @Test("Of many messages from many threads none is lost, doubled or overtaken by its own thread's later ones")
  func threads() throws {
    let inbox = Inbox<(thread: Int, number: Int)>()
    let threads = 4
    let each = 30_000
    for thread in 0..<threads {
      startThread(name: "poster") {
        for number in 0..<each { inbox.post((thread, number)) }
      }
    }
    let bench = try Bench()
    var next = [Int](repeating: 0, count: threads)
    let deadline = monotonic() + 60_000_000_000
    // The receiver as a shard is one: it sleeps on a poll of the descriptor and then takes all there is. A message without
    // a wake-up would leave it asleep.
    while next.reduce(0, +) < threads * each, monotonic() < deadline {
      bench.ring.pollReadable(inbox.descriptor, token: Token(1, index: 0, generation: 0))
      try #require(bench.wait(1).count == 1, "asleep at \(next)")
      for message in inbox.take() {
        #expect(message.number == next[message.thread])
        next[message.thread] += 1
      }
    }
    #expect(next == [Int](repeating: each, count: threads))
  }

  @Test("A thread runs its body under its name, cut to 15 bytes")
  func thread() {
    let shared = Shared()
    startThread(name: "a name of more than 15 bytes") {
      let fd = open("/proc/thread-self/comm", O_RDONLY)
      defer { close(fd) }
      var name = [UInt8](repeating: 0, count: 32)
      let count = read(fd, &name, 32)
      let text = String(decoding: name[..<max(count, 0)], as: UTF8.self)
      shared.value.withLock { $0 = text }
    }
    for _ in 0..<5000 where shared.value.withLock({ $0 }) == nil { usleep(1000) }
    #expect(shared.value.withLock { $0 } == "a name of more \n")
  }
}

/// A lock that threads share.
private final class Shared: Sendable {
  let value = Mutex<String?>(nil)
}

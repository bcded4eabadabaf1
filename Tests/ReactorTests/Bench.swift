import Glibc
import Testing

@testable import Reactor

/// A ring on the thread of the test, with what tests do to one.
final class Bench {
  let ring: Ring

  init(entries: UInt32 = 64, completions: UInt32 = 256, files: UInt32 = 8, buffers: UInt32 = 64) throws {
    ring = try Ring(entries: entries, completions: completions)
    ring.makeTables(files: files, buffers: buffers)
  }

  /// Waits for `count` completions; fewer only when they do not come within five seconds.
  func wait(_ count: Int) -> [Completion] {
    var found: [Completion] = []
    let deadline = monotonic() + 5_000_000_000
    withUnsafeTemporaryAllocation(of: Completion.self, capacity: 64) { place in
      while found.count < count, monotonic() < deadline {
        ring.submitAndWait(until: min(deadline, monotonic() + 100_000_000))
        let taken = ring.takeCompletions(into: place.baseAddress!, limit: min(64, count - found.count))
        found += place[..<taken]
      }
    }
    return found
  }
}

func monotonic() -> UInt64 {
  var now = timespec()
  clock_gettime(CLOCK_MONOTONIC, &now)
  return UInt64(now.tv_sec) * 1_000_000_000 + UInt64(now.tv_nsec)
}

/// Two connected stream sockets.
final class SocketPair {
  let ours: Int32
  let theirs: Int32

  init() {
    var fds: [Int32] = [-1, -1]
    precondition(socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &fds) == 0)
    (ours, theirs) = (fds[0], fds[1])
  }

  deinit {
    close(ours)
    close(theirs)
  }

  func send(_ bytes: [UInt8]) { precondition(write(theirs, bytes, bytes.count) == bytes.count) }

  /// What is there now, at most `count` bytes.
  func receiveSome(_ count: Int) -> [UInt8] {
    [UInt8](unsafeUninitializedCapacity: count) { buffer, initialized in
      initialized = max(recv(theirs, buffer.baseAddress, count, Int32(MSG_DONTWAIT)), 0)
    }
  }
}

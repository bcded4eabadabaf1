import Glibc
import Reactor
import Synchronization

/// One thing at a time for each disk, and no disk in another's way: a lane is a thread that a disk has while something is
/// done with it, however long the disk takes. A disk that hangs keeps its lane, and a new attempt waits behind it; of
/// several that wait only the last is made.
final class DiskLanes: Sendable {
  typealias Work = @Sendable () -> Void

  private struct Lane {
    /// What comes next.
    var next: Work?
  }

  /// By the disk's key; absent: nothing is done with it.
  private let lanes = Mutex<[String: Lane]>([:])

  /// Has `work` done on a thread of the disk's own, after what is done now.
  func run(_ key: String, _ work: @escaping Work) { enter(key, replacing: true, work) }

  /// The same, unless something waits already: what waits is newer, or will see what this would.
  /// - Returns: Whether it is done.
  @discardableResult
  func runUnlessMoreWaits(_ key: String, _ work: @escaping Work) -> Bool { enter(key, replacing: false, work) }

  @discardableResult
  private func enter(_ key: String, replacing: Bool, _ work: @escaping Work) -> Bool {
    let (isFree, isTaken) = lanes.withLock { lanes in
      guard let lane = lanes[key] else {
        lanes[key] = Lane()
        return (true, true)
      }
      guard replacing || lane.next == nil else { return (false, false) }
      lanes[key]?.next = work
      return (false, true)
    }
    if isFree { start(key, work) }
    return isTaken
  }

  /// Does `work` on the caller's thread once the lane is free; nil: it was not within `milliseconds`.
  func perform<Result>(_ key: String, within milliseconds: Int, _ work: () -> Result) -> Result? {
    var waited = 0
    while !take(key) {
      guard waited < milliseconds else { return nil }
      usleep(5000)
      waited += 5
    }
    defer { if let next = following(key) { start(key, next) } }
    return work()
  }

  private func take(_ key: String) -> Bool {
    lanes.withLock { lanes in
      guard lanes[key] == nil else { return false }
      lanes[key] = Lane()
      return true
    }
  }

  private func start(_ key: String, _ work: @escaping Work) {
    startThread(name: "disk \(key)") { [self] in
      var current: Work? = work
      while let work = current {
        work()
        current = following(key)
      }
    }
  }

  /// What waits; nil: the lane is free again.
  private func following(_ key: String) -> Work? {
    lanes.withLock { lanes in
      guard let next = lanes[key]?.next else {
        lanes[key] = nil
        return nil
      }
      lanes[key]?.next = nil
      return next
    }
  }
}

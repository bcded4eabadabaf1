import Glibc
import HA
import Reactor
import Synchronization

/// Carries out the engine's orders at the shared disks: in order for each disk, on a thread of the disk's own. An order that
/// takes too long is answered for the disk, which stays busy with it.
final class PairDisks: Sendable {
  typealias Perform = @Sendable (DiskID, DiskOrder) -> DiskAnswer

  private struct Pending {
    var disk: DiskID
    var deadline: Instant
  }

  private struct State {
    var lanes: [DiskID: WorkQueue] = [:]
    /// By the order's number.
    var pending: [UInt64: Pending] = [:]
  }

  /// How long the engine waits for a disk.
  static let boundNs: UInt64 = 500_000_000

  private let perform: Perform
  private let answer: @Sendable (DiskID, UInt64, DiskAnswer) -> Void
  private let state = Mutex(State())

  /// - Parameters:
  ///   - perform: may take as long as the disk does.
  ///   - answer: called once for each order, on any thread.
  init(perform: @escaping Perform, answer: @escaping @Sendable (DiskID, UInt64, DiskAnswer) -> Void) {
    self.perform = perform
    self.answer = answer
  }

  func run(_ disk: DiskID, order number: UInt64, _ order: DiskOrder, at now: Instant) {
    let lane = state.withLock { state in
      state.pending[number] = Pending(disk: disk, deadline: now + Self.boundNs)
      if let lane = state.lanes[disk] { return lane }
      let lane = WorkQueue(name: "pair disk")
      state.lanes[disk] = lane
      return lane
    }
    lane.run { [self] in
      // One that was given up before its turn is not begun: nobody waits for it any more.
      guard state.withLock({ $0.pending[number] != nil }) else { return }
      let result = perform(disk, order)
      if state.withLock({ $0.pending.removeValue(forKey: number) != nil }) { answer(disk, number, result) }
    }
  }

  /// Answers what is overdue. The next deadline; nil: nothing is under way.
  func expire(at now: Instant) -> Instant? {
    let (late, next) = state.withLock { state in
      let late = state.pending.filter { $0.value.deadline <= now }
      for number in late.keys { state.pending[number] = nil }
      return (late, state.pending.values.map(\.deadline).min())
    }
    for (number, pending) in late { answer(pending.disk, number, .timedOut) }
    return next
  }
}

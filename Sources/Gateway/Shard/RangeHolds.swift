import Synchronization

/// Byte ranges of one LUN that only one command may touch for now: COMPARE AND WRITE while it runs, and aborted writes
/// that the disk still has in hand, which must not land on top of what comes after them. Shared by all shards.
public final class RangeHolds: Sendable {
  private struct Hold: Sendable {
    var id: UInt64
    var range: Range<UInt64>
  }

  private let list = Mutex<(holds: [Hold], nextID: UInt64)>(([], 1))
  /// How many there are: the warm path looks at nothing else.
  private let count = Atomic<Int>(0)

  public var isEmpty: Bool { count.load(ordering: .acquiring) == 0 }

  /// Whether a hold other than `own` overlaps `range`.
  func conflicts(_ range: Range<UInt64>, except own: UInt64 = 0) -> Bool {
    list.withLock { list in list.holds.contains { $0.id != own && $0.range.overlaps(range) } }
  }

  /// Holds `range` whatever else holds it.
  func add(_ range: Range<UInt64>) -> UInt64 {
    list.withLock { list in
      let id = list.nextID
      list.nextID += 1
      list.holds.append(Hold(id: id, range: range))
      count.store(list.holds.count, ordering: .releasing)
      return id
    }
  }

  /// Holds `range` if nothing overlaps it; 0 if something does.
  func addExclusive(_ range: Range<UInt64>) -> UInt64 {
    list.withLock { list in
      guard !list.holds.contains(where: { $0.range.overlaps(range) }) else { return 0 }
      let id = list.nextID
      list.nextID += 1
      list.holds.append(Hold(id: id, range: range))
      count.store(list.holds.count, ordering: .releasing)
      return id
    }
  }

  func remove(_ id: UInt64) {
    list.withLock { list in
      list.holds.removeAll { $0.id == id }
      count.store(list.holds.count, ordering: .releasing)
    }
  }
}

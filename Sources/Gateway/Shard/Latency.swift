import CSystem

/// What a command does with data, for its latency.
enum LatencyDirection: Int, CaseIterable, Sendable {
  case read
  case write
  case other
}

/// How long commands took, in buckets whose width grows with the time: four to each power of two from 2^10 ns (all that is
/// shorter is in the first) to 2^36 ns (all that is longer, over a minute, is in the last). So a quantile is at most a quarter
/// too large.
enum LatencyBuckets {
  static let count = 104
  private static let firstExponent = 10

  /// - Parameter ns: nanoseconds.
  @inline(__always)
  static func index(_ ns: UInt64) -> Int {
    let ns = max(ns, 1 << 10)
    let exponent = 63 - ns.leadingZeroBitCount
    let index =
      (exponent - firstExponent) << 2 | Int(truncatingIfNeeded: ns >> UInt64(truncatingIfNeeded: exponent - 2)) & 3
    return min(index, count - 1)
  }

  /// The least time that is not in the bucket any more, in nanoseconds; of the last one there is none.
  static func end(_ index: Int) -> UInt64 {
    let exponent = UInt64(index / 4 + firstExponent)
    return (1 << exponent) + UInt64(index % 4 + 1) << (exponent - 2)
  }
}

/// The counters of a unit over one transport in one direction, as words in memory of its port: a bucket each, then the rest. The
/// port frees them; only its shard's thread touches them.
///
/// Invariant: a counter with commands pending is in the shard's list, and `settleLatencies` runs before its port can go.
typealias LatencyCounter = UnsafeMutablePointer<UInt64>

enum LatencyWord {
  /// Nanoseconds of all commands, and the most of one.
  static let sum = LatencyBuckets.count
  static let longest = sum + 1
  /// Commands that came and were answered in one turn of the loop, which have no time yet.
  static let pending = sum + 2
  /// The next counter with such commands, as an address; 0: none.
  static let next = sum + 3
  static let count = sum + 4
}

extension LatencyCounter {
  /// The counters of every direction, at zero.
  static func allocateAll() -> LatencyCounter {
    let words = LatencyWord.count * LatencyDirection.allCases.count
    let memory = LatencyCounter.allocate(capacity: words)
    memory.initialize(repeating: 0, count: words)
    return memory
  }

  @inline(__always)
  func of(_ direction: LatencyDirection) -> LatencyCounter { self + direction.rawValue * LatencyWord.count }

  /// `commands` commands took `ns` nanoseconds each.
  @inline(__always)
  func add(_ ns: UInt64, commands: UInt64) {
    self[LatencyBuckets.index(ns)] &+= commands
    self[LatencyWord.sum] &+= ns &* commands
    self[LatencyWord.longest] = Swift.max(self[LatencyWord.longest], ns)
  }
}

extension Shard {
  /// A command is answered. What came in this turn of the loop has taken the part of it that has passed when the answers
  /// go out: some microseconds, for which the clock is read at the end of one turn in sixteen and counts for all since. Others
  /// took from the turn in which they came to this one, both of which have read the clock anyway.
  /// - Parameter start: `now` of the turn in which the command came.
  @inline(__always)
  func recordLatency(_ port: UnitPort, _ connection: Connection, _ direction: LatencyDirection, since start: UInt64) {
    let counter = port.latency(overRDMA: connection.isOverRDMA).of(direction)
    guard start == now else { return counter.add(now &- start, commands: 1) }
    counter[LatencyWord.pending] &+= 1
    guard counter[LatencyWord.pending] == 1 else { return }
    counter[LatencyWord.next] = UInt64(UInt(bitPattern: pendingLatencies))
    pendingLatencies = counter
  }

  /// What came and was answered in one turn took as long as this one did until now.
  func settleLatencies() {
    let elapsed = system_monotonic_ns() - now
    while let counter = pendingLatencies {
      pendingLatencies = LatencyCounter(bitPattern: UInt(counter[LatencyWord.next]))
      let commands = counter[LatencyWord.pending]
      counter[LatencyWord.pending] = 0
      counter.add(elapsed, commands: commands)
    }
  }
}

/// What distinguishes one histogram from another.
struct LatencyKey: Hashable, Sendable, Comparable {
  var lun: UInt16
  var isOverRDMA: Bool
  var direction: LatencyDirection

  var transport: String { isOverRDMA ? "iser" : "tcp" }

  static func < (one: LatencyKey, other: LatencyKey) -> Bool {
    func order(_ key: LatencyKey) -> (Int, Int, Int) { (Int(key.lun), key.isOverRDMA ? 1 : 0, key.direction.rawValue) }
    return order(one) < order(other)
  }
}

/// A copy of the counters, to be added up over the shards.
struct LatencyHistogram: Sendable, Equatable {
  private(set) var buckets: [UInt64]
  private(set) var sumNs: UInt64 = 0
  private(set) var longestNs: UInt64 = 0

  init() { buckets = [UInt64](repeating: 0, count: LatencyBuckets.count) }

  init(_ counter: LatencyCounter) {
    buckets = (0..<LatencyBuckets.count).map { counter[$0] }
    sumNs = counter[LatencyWord.sum]
    longestNs = counter[LatencyWord.longest]
  }

  var count: UInt64 { buckets.reduce(0, +) }

  mutating func add(_ other: LatencyHistogram) {
    for index in buckets.indices { buckets[index] += other.buckets[index] }
    sumNs += other.sumNs
    longestNs = max(longestNs, other.longestNs)
  }

  mutating func add(_ ns: UInt64) {
    buckets[LatencyBuckets.index(ns)] += 1
    sumNs += ns
    longestNs = max(longestNs, ns)
  }

  /// The time within which this share of all commands was answered: the end of its bucket, and no more than the longest.
  func quantile(_ share: Double) -> UInt64 {
    let total = count
    guard total > 0 else { return 0 }
    let wanted = max(1, UInt64((Double(total) * share).rounded(.up)))
    var seen: UInt64 = 0
    for index in buckets.indices {
      seen += buckets[index]
      if seen >= wanted { return index == buckets.count - 1 ? longestNs : min(LatencyBuckets.end(index), longestNs) }
    }
    return longestNs
  }

  /// How many were answered within 2^`exponent` ns (11...35), for an exposition with wider buckets.
  func count(within exponent: Int) -> UInt64 { buckets[..<((exponent - 10) * 4)].reduce(0, +) }
}

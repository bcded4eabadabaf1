/// When to look again after events: once for a burst of them, not once for each. Pure: instants come in, in nanoseconds of
/// a clock that never goes back.
///
/// A look follows when nothing has happened for `quietNs`, and at the latest `limitNs` after the first event, so that
/// an interface that flaps does not hide the rest. One more follows after `againNs`: the kernel fills GID tables and sets
/// port states in work of its own after it has told of the device, and tells nobody when it is done. Then there is no
/// deadline until the next event.
struct EventCoalescer {
  var quietNs: UInt64 = 50_000_000
  var limitNs: UInt64 = 500_000_000
  var againNs: UInt64 = 1_000_000_000

  private var first: UInt64?
  private var last: UInt64 = 0
  private var again: UInt64?

  init() {}

  mutating func noteEvent(at now: UInt64) {
    first = first ?? now
    last = now
  }

  /// When the next look is due; nil: nothing is to be done.
  var deadline: UInt64? {
    guard let first else { return again }
    return min(last + quietNs, first + limitNs)
  }

  /// Whether a look is due now; if so, it is counted as taken.
  mutating func takeLook(at now: UInt64) -> Bool {
    guard let deadline, now >= deadline else { return false }
    again = first == nil ? nil : now + againNs
    first = nil
    return true
  }
}

import HA

/// What became of the pair since the start: the last transitions, and the takeovers of this node, counted.
struct PairHistory: Sendable {
  /// How many transitions are remembered.
  static let transitionsMax = 32

  struct Takeover: Sendable, Equatable {
    var cause: TakeoverCause
    var at: Instant
    /// From the first doubt about the active, or the order, to service.
    var nanoseconds: UInt64
  }

  /// The newest last.
  private(set) var transitions: [Transition] = []
  private(set) var takeovers: [TakeoverCause: UInt64] = [:]
  private(set) var lastTakeover: Takeover?
  /// How often this node lost the disks to the other, and how often it handed them over.
  private(set) var fenced: UInt64 = 0
  private(set) var handedOver: UInt64 = 0
  private var doubtSince: Instant?

  /// Takes the next transition.
  ///
  /// - Returns: What the log says of it: what changed and why, and how long the role before it lasted, or the takeover took.
  @discardableResult
  mutating func note(_ transition: Transition) -> String {
    let before = transitions.last { $0.to != $0.from }?.at
    transitions.append(transition)
    if transitions.count > Self.transitionsMax { transitions.removeFirst() }
    let (from, to) = (transition.from, transition.to)
    let text = "pair: \(from == to ? "\(to)" : "\(from) -> \(to)"), epoch \(transition.epoch): \(transition.reason)"
    guard from != to else { return text }
    count(transition)
    if to == .active, from == .recovering, let lastTakeover {
      return text + "; serves \(Self.text(lastTakeover.nanoseconds)) after the first doubt"
    }
    return text + (before.map { "; was \(from) for \(Self.text(transition.at - min($0, transition.at)))" } ?? "")
  }

  private mutating func count(_ transition: Transition) {
    switch transition.to {
    case .suspecting, .fencing: doubtSince = doubtSince ?? transition.at
    case .recovering: break
    // A race that was lost is run again; whoever only looks has no doubt.
    case .observing: if transition.from != .fencing { doubtSince = nil }
    case .active: if transition.from == .recovering { countTakeover(transition) }
    case .draining: break
    case .passive:
      if transition.from == .draining { handedOver += 1 }
      doubtSince = nil
    case .fenced:
      fenced += 1
      doubtSince = nil
    }
  }

  private mutating func countTakeover(_ transition: Transition) {
    defer { doubtSince = nil }
    guard let cause = transition.cause else { return }
    takeovers[cause, default: 0] += 1
    let since = min(doubtSince ?? transition.at, transition.at)
    lastTakeover = Takeover(cause: cause, at: transition.at, nanoseconds: transition.at - since)
  }

  /// `42 ms`, `3.1 s`, `12 min`.
  static func text(_ nanoseconds: UInt64) -> String {
    let milliseconds = nanoseconds / 1_000_000
    guard milliseconds >= 1000 else { return "\(milliseconds) ms" }
    let seconds = milliseconds / 1000
    return seconds < 120 ? "\(seconds).\(milliseconds % 1000 / 100) s" : Duration.text(seconds: seconds)
  }
}

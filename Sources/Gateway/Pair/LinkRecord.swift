import Discovery
import HA

/// What is known of one link, and what to send over it. No socket, no clock: times come in.
///
/// A link is up only if both ways work: the peer's beats come, and they say that ours came to it. Beats that come by
/// multicast count as heard, but not in the statistics: the same beat may come by unicast too.
struct LinkRecord: Sendable {
  /// Silence after which a way counts as broken: ten beats.
  static let patienceNs: Instant = 500_000_000

  /// The sockaddr that the peer's beats come from.
  private(set) var peer: [UInt8]?
  private var boot: UInt64 = 0
  /// The newest beat of `boot` that came, by whatever way, and when.
  private var heard: (sequence: UInt64, at: Instant)?
  /// A beat that is authentic and was not believed: named all the same, for only who is named can give a proof.
  private var unproven: (boot: UInt64, sequence: UInt64, at: Instant)?
  /// When the newest of our beats was sent of which the peer says that it came over this link.
  private var heardUsSince: Instant?
  private var lastMulticast: Instant?
  private let openedAt: Instant
  private(set) var arrivals = LinkArrivals()
  /// Datagrams and errors, for the report.
  var sent: UInt64 = 0
  var sendFailures: UInt64 = 0

  init(openedAt now: Instant) { openedAt = now }

  // MARK: What came

  /// Takes an authentic beat of the peer.
  ///
  /// - Parameters:
  ///   - sentAt: when our beat was sent that it says it heard; nil: none, or too long ago to know.
  /// - Returns: Whether it is news: not a copy, and not overtaken by a later one.
  mutating func take(
    _ beat: Heartbeat, from address: [UInt8], byMulticast: Bool, sentAt: Instant?, at now: Instant
  ) -> Bool {
    if beat.bootID != boot {
      self = LinkRecord(next: beat.bootID, after: self)
    }
    if !byMulticast { arrivals.take(beat.sequence, at: now) }
    if let heard, beat.sequence <= heard.sequence { return false }
    heard = (beat.sequence, now)
    peer = address
    if let sentAt {
      heardUsSince = max(heardUsSince ?? 0, sentAt)
      if !byMulticast { arrivals.takeEcho(now &- sentAt) }
    }
    return true
  }

  /// The peer's program was started anew: counts begin again, what we sent does not.
  private init(next boot: UInt64, after old: LinkRecord) {
    self = old
    self.boot = boot
    heard = nil
    heardUsSince = nil
    arrivals = LinkArrivals()
  }

  // MARK: How it is

  enum Condition: String, Sendable, Equatable {
    case up
    /// The peer is heard, and does not hear us.
    case oneWay = "one way"
    case silent
    case neverHeard = "never heard"
  }

  func condition(at now: Instant) -> Condition {
    guard let heard else { return .neverHeard }
    guard now &- heard.at < Self.patienceNs else { return .silent }
    guard let heardUsSince, now &- heardUsSince < Self.patienceNs else { return .oneWay }
    return .up
  }

  /// When the condition turns worse if nothing comes; nil: it is as bad as can be.
  func deadline(at now: Instant) -> Instant? {
    switch condition(at: now) {
    case .up: min(heard?.at ?? now, heardUsSince ?? now) &+ Self.patienceNs
    case .oneWay: (heard?.at ?? now) &+ Self.patienceNs
    case .silent, .neverHeard: nil
    }
  }

  func lastHeard(at now: Instant) -> UInt64? { heard.map { now &- $0.at } }

  /// What a beat that goes out now says of this link: the peer's beat heard last, unless it was silent since.
  func echo(at now: Instant) -> (boot: UInt64, sequence: UInt64) {
    if let heard, now &- heard.at < Self.patienceNs { return (boot, heard.sequence) }
    guard let unproven, now &- unproven.at < Self.patienceNs else { return (0, 0) }
    return (unproven.boot, unproven.sequence)
  }

  /// Remembers an authentic beat that is not believed. After a silence of both sides neither believes the other until one has
  /// named what the other sent.
  mutating func note(unproven beat: Heartbeat, at now: Instant) {
    if let unproven, unproven.boot == beat.bootID, now &- unproven.at < Self.patienceNs,
      unproven.sequence >= beat.sequence
    {
      return
    }
    unproven = (beat.bootID, beat.sequence, now)
  }

  // MARK: What goes out

  /// How long after the opening, or after the peer fell silent, it is looked for often.
  static let eagerNs: Instant = 5_000_000_000
  /// A peer that was silent for this long may have another address: it is not spoken to there any more.
  static let forgetNs: Instant = 60_000_000_000

  /// Where the beat goes that is sent now: to the peer where it was heard, and to the group while it is looked for; now
  /// and then also while it is there, for its address may change.
  mutating func destinations(at now: Instant) -> (peer: [UInt8]?, group: Bool) {
    let silence = heard.map { now &- $0.at }
    let interval: Instant =
      if let silence {
        silence < Self.patienceNs ? Self.eagerNs : silence < 30_000_000_000 ? 200_000_000 : 1_000_000_000
      } else {
        // A gateway may be alone for ever.
        now &- openedAt < Self.eagerNs ? 0 : 1_000_000_000
      }
    let isDue = lastMulticast.map { now &- $0 >= interval } ?? true
    if isDue { lastMulticast = now }
    let isKnown = silence.map { $0 < Self.forgetNs } ?? false
    return (isKnown ? peer : nil, isDue)
  }
}

/// Counts over the beats that came by unicast over one link, since the peer's start.
struct LinkArrivals: Sendable {
  private(set) var received: UInt64 = 0
  /// Sequence numbers that were left out and have not come since.
  private(set) var lost: UInt64 = 0
  private(set) var duplicates: UInt64 = 0
  /// Came after a later one.
  private(set) var late: UInt64 = 0
  /// Smoothed change of the time between beats (as RFC 3550 §6.4.1 has it).
  private(set) var jitterNs: UInt64 = 0
  /// Smoothed time from our beat to the peer's first that answers it: the way there and back, and up to one beat more.
  private(set) var answerNs: UInt64?
  private var highest: UInt64?
  /// Bit n: `highest` - n has come.
  private var window: UInt64 = 0
  private var arrivedAt: Instant = 0
  private var spacing: UInt64?
  private var gaps = (current: UInt64(0), before: UInt64(0), since: Instant(0))

  mutating func take(_ sequence: UInt64, at now: Instant) {
    received += 1
    guard let highest else { return begin(sequence, at: now) }
    guard sequence > highest else { return takeOld(highest - sequence) }
    let step = sequence - highest
    // A jump beyond any outage is not so many lost beats, but a peer that counts otherwise.
    lost += step <= 1 << 32 ? step - 1 : 0
    window = step < 64 ? window << step | 1 : 1
    self.highest = sequence
    note(gap: now &- arrivedAt, beats: step, at: now)
  }

  mutating func takeEcho(_ ns: UInt64) {
    answerNs = answerNs.map { $0 - $0 / 8 + ns / 8 } ?? ns
  }

  /// The longest time between two beats in the last minute, or two.
  func longestGap(at now: Instant) -> UInt64 {
    now &- gaps.since > 120_000_000_000 ? 0 : max(gaps.current, gaps.before)
  }

  private mutating func begin(_ sequence: UInt64, at now: Instant) {
    highest = sequence
    window = 1
    arrivedAt = now
    gaps.since = now
  }

  private mutating func takeOld(_ age: UInt64) {
    guard age < 64, window >> age & 1 == 0 else {
      duplicates += 1
      return
    }
    window |= 1 << age
    late += 1
    // What came before this program listened was not counted as lost.
    lost -= min(lost, 1)
  }

  private mutating func note(gap: UInt64, beats: UInt64, at now: Instant) {
    arrivedAt = now
    let spacingNow = gap / beats
    if let spacing {
      let change = spacingNow > spacing ? spacingNow - spacing : spacing - spacingNow
      jitterNs = jitterNs - jitterNs / 16 + change / 16
    }
    spacing = spacingNow
    if now &- gaps.since > 60_000_000_000 { gaps = (0, gaps.current, now) }
    gaps.current = max(gaps.current, gap)
  }
}

import Wire

/// What the engine knows of a shared disk, and what it has ordered there.
struct EngineDisk: Sendable {
  var shared: SharedDisk
  /// Under way; there is one at a time.
  var busy: Busy?
  /// What the last look found, kept up with what was done since; nil: a look is due.
  var survey: Survey?
  var surveyOrderedAt: Instant = 0
  /// When the last look that was answered was ordered; 0: another is due.
  var surveyedAt: Instant = 0
  /// When the first look was ordered.
  var askedAt: Instant = 0
  /// When a look was answered since which every one was, and found the same: what it found may be as new as that.
  var quietSince: Instant?
  /// When the last beat was ordered that the disk took. Beats only, no looks: a successor sees by them how long it may be
  /// that this node still answers.
  var provenAt: Instant = 0
  var state = State.idle
  /// Our key of this epoch may be registered.
  var mayHaveKey = false
  /// A key to take back, after a lost race.
  var strayKey: ReservationKey?
  /// Nothing is tried before.
  var notBefore: Instant = 0
  /// In this takeover, or since it was last secured.
  var hasFailed = false
  /// The target has it.
  var isServed = false
  var nextBeat: Instant = 0
  /// The last beat of another node that was seen, and when it was seen to move.
  var seenBeat: DiskBeat?
  var seenOwner: OwnerRecord?
  /// When the last look was ordered that these are from.
  var lookedAt: Instant = 0
  var movedAt: Instant?
  /// When that was found: it may be as new as that.
  var signAt: Instant = 0

  // Of a disk that cannot fence:
  /// This node's; nil: all that it ever wrote there is over, or was not seen yet.
  var lease: Lease?
  /// Other nodes'.
  var seenLeases: [SeenLease] = []
  /// Nothing of this node was under way when this was found, and it was not served since.
  var isQuiet = false
  /// When the label was first found to name another node: from then on the lease is renewed.
  var sharedSince: Instant?
  /// The unit was reset in this takeover.
  var wasReset = false
  /// This node entered itself into the label without having the disk; it may have been overwritten until then.
  var namedUntil: Instant = 0

  typealias State = PairStatus.Disk.State

  struct Busy: Sendable {
    var order: UInt64
    var what: DiskOrder
    var since: Instant
  }

  init(_ shared: SharedDisk) { self.shared = shared }

  var id: DiskID { shared.id }
  /// Of the label, as last seen.
  var nodes: [UUID] { survey?.nodes ?? shared.nodes }

  var isFencing: Bool { shared.fence == .reservations }

  /// - Parameter now: a lease is over by then, or not.
  func isHeld(with key: ReservationKey, _ now: Instant) -> Bool {
    if !isFencing { return lease.map { $0.record.epoch == key.epoch && isInForce($0, now) } ?? false }
    return survey?.holder == key.rawValue && survey?.isOurType == true
  }

  /// Nothing is to be expected of it in this takeover any more.
  func isSettled(_ now: Instant) -> Bool {
    switch state {
    case .secured, .foreign, .refused: true
    case .idle, .pending: hasFailed || isLate(now)
    }
  }

  /// Whether it has answered this node lately.
  func answers(_ now: Instant) -> Bool {
    let last = max(lookedAt, provenAt)
    return last != 0 && now < last + PairTimers.hungIO
  }

  /// Whether it was asked and has not answered for long: the kernel goes on showing a disk whose way is dead.
  func isDead(_ now: Instant) -> Bool {
    askedAt != 0 && now >= max(askedAt, lookedAt, provenAt) + PairTimers.hungIO
  }

  var isRegistering: Bool { if case .register? = busy?.what { true } else { false } }

  func isLate(_ now: Instant) -> Bool { busy.map { now >= $0.since + PairTimers.diskLimit } ?? false }

  /// Something new was found, written after the look before was ordered: no more is known of when.
  mutating func noteMove(_ now: Instant) {
    if lookedAt != 0 { (movedAt, signAt) = (lookedAt, now) }
  }

  /// Everything of an epoch is over.
  mutating func forgetEpoch() {
    survey = nil
    provenAt = 0
    state = .idle
    mayHaveKey = false
    hasFailed = false
    isServed = false
    notBefore = 0
    wasReset = false
  }
}

import Wire

/// What is known of the other node, out of its beats. A beat counts once: of each boot the sequence must grow, and a boot that
/// was replaced never comes back. A recorded beat of a boot that this node never knew is told from a new boot by what the
/// sender says that it heard: only a node that lives now can name our boot.
struct PeerView: Sendable {
  var beat: Heartbeat
  /// The sender has named our boot.
  var isProven: Bool
  var heardAt: Instant
  /// When this node sent the newest of its own beats that the other has named: what it says was said after that. When it was
  /// heard may be much later, if this node stood still.
  var datedAt: Instant = 0
  /// Of the same node, and over.
  var retiredBoots: [UInt64] = []
  var links: [Link] = []
  /// The longest gap between beats, in this window and in the last.
  var gapMax: UInt64 = 0
  var gapMaxBefore: UInt64 = 0
  var gapWindowEnd: Instant

  struct Link: Sendable {
    var id: LinkID
    var sequence: UInt64
    var heardAt: Instant
    var isBothWays: Bool
  }

  static let retiredMax = 16

  init(_ beat: Heartbeat, link: LinkID, ownBoot: UInt64, at now: Instant) {
    self.beat = beat
    isProven = beat.heardBoot == ownBoot
    heardAt = now
    gapWindowEnd = now + PairTimers.gapWindow
    note(link, beat, ownBoot, now)
  }

  /// Takes a beat of this node; false: it is old, and changes nothing.
  mutating func take(_ new: Heartbeat, link: LinkID, ownBoot: UInt64, at now: Instant) -> Bool {
    let proves = new.heardBoot == ownBoot
    if new.bootID != beat.bootID {
      guard !retiredBoots.contains(new.bootID), proves || !isProven else { return false }
      if proves {
        retiredBoots.append(beat.bootID)
        if retiredBoots.count > Self.retiredMax { retiredBoots.removeFirst() }
      }
      links = []
      (beat, isProven, heardAt) = (new, proves, now)
      note(link, new, ownBoot, now)
      return true
    }
    guard note(link, new, ownBoot, now) else { return false }
    guard new.sequence > beat.sequence else { return true }
    noteGap(now)
    (beat, isProven, heardAt) = (new, isProven || proves, now)
    return true
  }

  /// Whether the beat is the newest of its link.
  @discardableResult
  private mutating func note(_ link: LinkID, _ new: Heartbeat, _ ownBoot: UInt64, _ now: Instant) -> Bool {
    let entry = Link(id: link, sequence: new.sequence, heardAt: now, isBothWays: new.heardBoot == ownBoot)
    if let index = links.firstIndex(where: { $0.id == link }) {
      guard new.sequence > links[index].sequence else { return false }
      links[index] = entry
    } else {
      // Links that come and go under new names must not add up.
      if links.count >= 16 { links.removeFirst() }
      links.append(entry)
    }
    return true
  }

  private mutating func noteGap(_ now: Instant) {
    if now >= gapWindowEnd {
      gapMaxBefore = gapMax
      gapMax = 0
      gapWindowEnd = now + PairTimers.gapWindow
    }
    let gap = now - heardAt
    // A longer one was no jitter: the node was away.
    if gap < PairTimers.silenceMax { gapMax = max(gapMax, gap) }
  }

  /// How long it may be silent.
  var limit: UInt64 {
    min(PairTimers.silenceMax, max(PairTimers.silence, PairTimers.gapFactor * max(gapMax, gapMaxBefore)))
  }

  func isFresh(_ now: Instant) -> Bool { now < heardAt + PairTimers.suspicion }

  /// It takes the disks, or has them.
  var isServing: Bool {
    switch beat.role {
    case .fencing, .recovering, .active, .draining: true
    case .observing, .passive, .suspecting, .fenced: false
    }
  }

  /// It serves shared disks, or knows that some node has since it was started. Not by a recording: that is of a time before the
  /// power was lost.
  var hasSeenService: Bool {
    guard isProven else { return false }
    let serves = beat.epoch != .none && (beat.role == .active || beat.role == .draining)
    return serves || beat.flags.contains(.hasSeenService)
  }

  /// It has the disks, or a majority of the arbiters.
  func hasWon(over epoch: Epoch) -> Bool { isServing && beat.epoch > epoch }
}

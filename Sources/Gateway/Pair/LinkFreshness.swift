import HA
import Wire

/// When our own beats went out: what a peer says it heard is a proof that it speaks now only if it names one of these.
struct SentBeats {
  private static let count = 64
  private var entries = [(sequence: UInt64, at: Instant)](repeating: (0, 0), count: count)

  mutating func note(_ sequence: UInt64, at now: Instant) {
    entries[Int(sequence % UInt64(Self.count))] = (sequence, now)
  }

  /// nil: never sent, or more than 64 beats ago.
  func time(of sequence: UInt64) -> Instant? {
    let entry = entries[Int(sequence % UInt64(Self.count))]
    return entry.sequence == sequence && entry.at != 0 ? entry.at : nil
  }
}

/// Which boots of the peer are believed, so that recorded beats that are sent again change nothing.
///
/// A beat that names one of our latest beats was made after it: that proves its boot to be alive. Without proof a boot is
/// believed for a moment, because a peer that has just started has not heard us yet; but not beside a boot of the same node
/// that is proven, and no boot is believed after another of its node gave the later proof.
struct PeerBoots {
  /// How long a boot is believed without a proof, from its first beat or the last proof on.
  static let graceNs: Instant = 3_000_000_000
  private static let countMax = 16

  private struct Entry {
    var node: UUID
    var boot: UInt64
    var first: Instant
    /// When the latest of our beats was sent that it named, and when it did.
    var proof: (sentAt: Instant, at: Instant)?
  }
  private var entries: [Entry] = []

  /// Whether an authentic beat is to be believed.
  ///
  /// - Parameter sentAt: when our beat was sent that it names; nil: it names none that we know.
  mutating func admit(_ beat: Heartbeat, sentAt: Instant?, at now: Instant) -> Bool {
    let index = index(of: beat, at: now)
    let rival = entries.lazy.filter { $0.node == beat.node && $0.boot != beat.bootID }.compactMap(\.proof)
      .max { $0.sentAt < $1.sentAt }
    guard let sentAt else {
      if let rival, entries[index].proof == nil, now &- rival.at < 1_000_000_000 { return false }
      return now &- max(entries[index].first, entries[index].proof?.at ?? 0) < Self.graceNs
    }
    if let rival, rival.sentAt > sentAt { return false }
    entries[index].proof = (max(sentAt, entries[index].proof?.sentAt ?? 0), now)
    return true
  }

  private mutating func index(of beat: Heartbeat, at now: Instant) -> Int {
    if let index = entries.firstIndex(where: { $0.node == beat.node && $0.boot == beat.bootID }) { return index }
    if entries.count == Self.countMax {
      // The one that matters least: proven longest ago, or never.
      let least = entries.indices.min { (entries[$0].proof?.at ?? 0) < (entries[$1].proof?.at ?? 0) } ?? 0
      entries.remove(at: least)
    }
    entries.append(Entry(node: beat.node, boot: beat.bootID, first: now))
    return entries.count - 1
  }
}

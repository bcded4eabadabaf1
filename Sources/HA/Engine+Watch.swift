import Wire

/// Observing, passive and suspecting: who is active, and when it is this node's turn.
extension Engine {
  mutating func observe(_ reason: String, _ now: Instant) {
    epoch = .none
    key = nil
    takeover = nil
    activeAt = now
    turnAt = nil
    for index in disks.indices { disks[index].forgetEpoch() }
    become(.observing, reason, now)
  }

  /// The labels name nobody else: any other node would have entered itself before it served.
  var isAlone: Bool { !hasHeardActive && !disks.isEmpty && disks.allSatisfy { $0.nodes.allSatisfy { $0 == me.node } } }

  mutating func watch(_ now: Instant) {
    takeStrayKeysBack(now)
    guard !disks.isEmpty, !isEnding else { return }
    if now < asksUntil { wakeAt(asksUntil) }
    if isRefused {
      setTarget(.standby)
      lookAtArbiters(every: PairTimers.watch, now)
      return
    }
    let isHeard = peer?.isFresh(now) ?? false
    let peerIsServing = isHeard && peer!.isServing
    lookAtArbiters(
      every: peerIsServing && now < peer!.heardAt + PairTimers.uneasy
        ? PairTimers.watch : PairTimers.watchClosely, now)
    if peerIsServing {
      followActive(now)
    } else if role == .observing, isAlone, now >= raceAgainAt {
      attempt("no other node knows these disks", .alone, now)
    } else if isHeard, tellsNow(peer!, now) {
      awaitTurn(peer!, now)
    } else {
      awaitSilence(now)
    }
    if let peer { wakeAt(peer.heardAt + (isHeard ? PairTimers.suspicion : PairTimers.silence)) }
  }

  private mutating func attempt(_ reason: String, _ cause: Takeover.Cause, _ now: Instant) {
    guard leasesPermit else { return wakeAt(now + PairTimers.watchClosely) }
    beginTakeover(reason, cause, now)
  }

  // MARK: The other node is active and heard

  private mutating func followActive(_ now: Instant) {
    guard let peer else { return }
    activeAt = max(activeAt, peer.heardAt)
    turnAt = nil
    isReleased = false
    lostInARow = 0
    if role != .passive { become(.passive, "the other node is active", now) }
    if peer.beat.role == .active { setTarget(.standby) }
    guard let reason = impairment(of: peer, now) else {
      impairedSince = nil
      return
    }
    let since = impairedSince ?? now
    impairedSince = since
    if now >= since + PairTimers.impaired, !heldByOperator, !heldByRepetition {
      attempt(reason, .alive, now)
    } else {
      wakeAt(since + PairTimers.impaired)
    }
  }

  /// What is wrong with an active that is alive, and would be better here.
  private func impairment(of peer: PeerView, _ now: Instant) -> String? {
    guard peer.beat.role == .active, canReachArbiters(now) else { return nil }
    if peer.beat.oldestIO > PairTimers.hungIO { return "the other node's disks hang" }
    if !peer.beat.flags.contains(.reachable), isReachable { return "nobody can reach the other node" }
    return nil
  }

  /// Whether this node's own path to the disks works.
  private func canReachArbiters(_ now: Instant) -> Bool {
    let watched = disks.filter { isWatched($0.id) }
    return !watched.isEmpty && watched.allSatisfy { $0.survey != nil && !$0.isLate(now) }
  }

  // MARK: The other node is heard, and is not active

  private mutating func awaitTurn(_ peer: PeerView, _ now: Instant) {
    if role == .suspecting { become(.passive, "the other node is heard again", now) }
    setTarget(.hold)
    let isOffered = peer.beat.flags.contains(.released) && role == .passive && !isReleased
    let turn = isOffered ? now : turnAt ?? nextTurn(now)
    turnAt = turn
    guard now >= turn else { return wakeAt(turn) }
    guard !heldByOperator || isOffered else { return }
    guard hasLooked else { return wakeAt(now + PairTimers.watchClosely) }
    attempt(isOffered ? "the other node hands over" : "nobody is active", isOffered ? .offered : .nobody, now)
  }

  /// Two nodes must not begin at the same time, again and again.
  private mutating func nextTurn(_ now: Instant) -> Instant {
    let wait = (slot == .second ? PairTimers.bias : 0) + jitter.next(below: PairTimers.jitter)
    if isReleased { return releasedUntil + wait }
    return role == .observing ? activeAt + PairTimers.observe + wait : now + wait
  }

  // MARK: The other node is not heard

  private mutating func awaitSilence(_ now: Instant) {
    // Also one that was noticed too late to count as moving: the silence is no longer than since then.
    activeAt = max(activeAt, disks.compactMap(\.movedAt).max() ?? 0)
    if let moved = lastMove(now) {
      turnAt = nil
      if role != .passive { become(.passive, "the disks' beat moves: another node is active", now) }
      setTarget(.hold)
      wakeAt(moved + PairTimers.silence)
      if isOfferedByDisk, isReachable, !heldByOperator, now >= raceAgainAt {
        attempt("the disks' beat offers a handover", .alive, now)
      }
      return
    }
    setTarget(.hold)
    if role == .observing {
      let turn = max(turnAt ?? nextTurn(now), trustFrom)
      turnAt = turn
      guard now >= turn else { return wakeAt(turn) }
      guard knowsBeats(now) else { return wakeAt(now + PairTimers.watchClosely) }
      attempt("nobody is active", .nobody, now)
      return
    }
    let limit = silenceLimit
    let since = max(activeAt, trustFrom, isReleased ? releasedUntil : 0)
    if role == .passive, now >= since + PairTimers.suspicion { become(.suspecting, "the active is silent", now) }
    let due = max(since + limit, raceAgainAt)
    if now >= due, !heldByOperator {
      guard knowsBeats(now) else { return wakeAt(now + PairTimers.watchClosely) }
      attempt("the active is silent", .silent, now)
    } else {
      wakeAt(role == .passive ? since + PairTimers.suspicion : due)
    }
  }

  private var silenceLimit: UInt64 {
    // An active that does not know of this node relies on its listening for as long as at the start.
    if !disks.contains(where: { $0.nodes.contains(me.node) }) { return PairTimers.observe }
    return heldByRepetition ? PairTimers.silenceMax : peer?.limit ?? PairTimers.silence
  }

  // MARK: The disks' beat

  /// The arbiters of the newest owner record seen, else those there would be.
  var watched: [DiskID] {
    var newest: OwnerRecord?
    for disk in disks {
      if let record = disk.survey?.owner, record.epoch > newest?.epoch ?? .none { newest = record }
    }
    return newest?.arbiters ?? arbiters(of: disks)
  }

  func isWatched(_ id: DiskID) -> Bool { watched.contains(id) }

  /// Whether a majority of the arbiters was looked at for so long, and lately, that an active's beat would have been seen, and
  /// that whoever wrote the last one answers no more. Without that, silence on the links means nothing: this node's path may
  /// be there again for a moment only, or it may have stood still until a moment ago.
  private func knowsBeats(_ now: Instant) -> Bool {
    isMajority(of: watched) { disk in
      guard let since = disk.quietSince, disk.surveyedAt + PairTimers.silence >= now else { return false }
      let from = max(since, trustFrom)
      return from + 2 * PairTimers.diskBeat <= disk.surveyedAt && from + PairTimers.lease <= now
    }
  }

  mutating func lookAtArbiters(every period: UInt64, _ now: Instant) {
    let list = watched
    for index in disks.indices where disks[index].busy == nil {
      // The others only so that it is known whether they answer.
      let isPressing = list.contains(disks[index].id) || disks[index].survey == nil
      let due =
        disks[index].surveyOrderedAt == 0
        ? now : disks[index].surveyOrderedAt + (isPressing ? period : PairTimers.watchOthers)
      if now >= due, now >= disks[index].notBefore {
        orderSurvey(index, now)
      } else {
        wakeAt(max(due, disks[index].notBefore))
      }
    }
  }

  mutating func orderSurvey(_ index: Int, _ now: Instant) {
    disks[index].surveyOrderedAt = now
    if disks[index].askedAt == 0 { disks[index].askedAt = now }
    order(.survey, at: index, now)
  }

  /// The last instant at which a beat is known to have been still to come, if that is not long ago.
  private func lastMove(_ now: Instant) -> Instant? {
    let last = disks.compactMap(\.movedAt).max() ?? 0
    return last > trustFrom && now < last + PairTimers.silence ? last : nil
  }

  /// Whether what the other node says of itself is still so, as far as can be known: a beat may have waited while this node
  /// stood still, and what was found on the disks since may be newer.
  private func tellsNow(_ peer: PeerView, _ now: Instant) -> Bool {
    peer.isProven && now < peer.datedAt + PairTimers.silence
      && !disks.contains { $0.signAt > peer.datedAt && isWatched($0.id) }
  }

  /// Whether a majority of the arbiters was looked at once: only what differs from that tells of a new owner.
  private var hasLooked: Bool { isMajority(of: watched) { $0.lookedAt != 0 } }

  private var isOfferedByDisk: Bool {
    disks.contains { $0.seenBeat?.offersHandover == true && ($0.movedAt ?? 0) + PairTimers.silence > lastStep }
  }

  /// Looks whether another node left a sign since the look before: a beat, or its name as the owner.
  mutating func noteSigns(_ index: Int, _ found: Survey, _ now: Instant) {
    let beat = found.beat.flatMap { $0.node == me.node ? nil : $0 }
    let owner = found.owner.flatMap { $0.node == me.node ? nil : $0 }
    let hasMoved = beat != nil && beat != disks[index].seenBeat || owner != nil && owner != disks[index].seenOwner
    // Of a node whose role nobody knows, for it is not heard, or does not hear this one, so that it may be a recording: who
    // beats on has the disks for more than a moment.
    let unheardSince = peer.map { $0.isProven ? $0.heardAt + PairTimers.suspicion : 0 } ?? 0
    if beat != nil, beat != disks[index].seenBeat, disks[index].lookedAt > unheardSince { hasSeenService = true }
    if hasMoved {
      disks[index].noteMove(now)
      disks[index].quietSince = nil
    }
    (disks[index].seenBeat, disks[index].seenOwner) = (beat, owner)
  }

  // MARK: Keys of lost races

  private mutating func takeStrayKeysBack(_ now: Instant) {
    for index in disks.indices where disks[index].busy == nil {
      guard let key = disks[index].strayKey else { continue }
      disks[index].strayKey = nil
      order(.unregister(key), at: index, now)
    }
  }
}

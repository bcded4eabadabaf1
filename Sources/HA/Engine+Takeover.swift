import Wire

/// Fencing and recovering: one attempt to become active.
struct Takeover: Sendable {
  var reason: String
  var cause: Cause
  var startedAt: Instant
  /// What the active was silent since.
  var silentSince: Instant
  /// Keys are chosen; before, the disks are only looked at.
  var hasChosen = false
  var raceSince: Instant = 0
  /// A majority of the arbiters is held.
  var hasWon = false
  /// And its owner records are written: the disks are this node's, one after another.
  var committedAt: Instant?
  var isForced = false
  var isRecovered = false

  typealias Cause = TakeoverCause
}

extension Engine {
  mutating func beginTakeover(_ reason: String, _ cause: Takeover.Cause, forced: Bool = false, _ now: Instant) {
    takeover = Takeover(reason: reason, cause: cause, startedAt: now, silentSince: max(activeAt, trustFrom))
    takeover?.isForced = forced
    turnAt = nil
    impairedSince = nil
    epoch = .none
    key = nil
    quorums = []
    for index in disks.indices {
      disks[index].forgetEpoch()
      disks[index].state = .pending
    }
    become(.fencing, reason, now)
    setTarget(.hold)
    if policy.takesAddressesEarly { setAddresses(true) }
    advanceTakeover(now)
  }

  mutating func advanceTakeover(_ now: Instant) {
    guard let takeover, role == .fencing else { return }
    if !takeover.hasChosen { survey(takeover, now) }
    guard role == .fencing, self.takeover?.hasChosen == true else { return }
    advanceDisks(now)
    guard role == .fencing, let key else { return }
    if self.takeover?.hasWon == false, hasMajority({ $0.isHeld(with: key, now) }) {
      self.takeover?.hasWon = true
      nextBeat = now
      advanceDisks(now)
    }
    if self.takeover?.hasWon == true, self.takeover?.committedAt == nil, hasMajority({ $0.state == .secured }) {
      self.takeover?.committedAt = now
      advanceDisks(now)
    }
    guard role == .fencing else { return }
    conclude(now)
  }

  /// The first part: what is on the disks.
  private mutating func survey(_ takeover: Takeover, _ now: Instant) {
    for index in disks.indices where disks[index].busy == nil && disks[index].survey == nil {
      if now >= disks[index].notBefore { orderSurvey(index, now) } else { wakeAt(disks[index].notBefore) }
    }
    let read = disks.compactMap(\.survey)
    let newest = read.compactMap(\.owner).map(\.epoch).max()
    quorums = []
    for record in read.compactMap(\.owner) where record.epoch == newest && !record.arbiters.isEmpty {
      if !quorums.contains(record.arbiters) { quorums.append(record.arbiters) }
    }
    // The label of one that was not read may name both nodes by now.
    if quorums.isEmpty { quorums = [arbiters(of: disks) { hasOthers && $0.survey == nil && !$0.isDead(now) }] }
    let isComplete = read.count == disks.count
    if isComplete || (now >= takeover.startedAt + PairTimers.surveyGrace && hasMajority { $0.survey != nil }) {
      choose(takeover, read, now)
    } else if now >= takeover.startedAt + PairTimers.diskLimit {
      loseRace("too few of the deciding disks answer", now)
    } else {
      let grace = takeover.startedAt + PairTimers.surveyGrace
      wakeAt(now < grace ? grace : takeover.startedAt + PairTimers.diskLimit)
    }
  }

  private mutating func choose(_ takeover: Takeover, _ read: [Survey], _ now: Instant) {
    if isActiveAfterAll(takeover, now) {
      // The same sign must not end the next attempt.
      activeAt = max(activeAt, disks.compactMap(\.movedAt).max() ?? 0)
      epoch = .none
      self.takeover = nil
      return become(.passive, "the active lives", now)
    }
    if takeover.cause == .alone, !isAlone { return observe("the labels name another node", now) }
    if isRefused { return observe("the labels name two other nodes", now) }
    guard hasMajority({ $0.survey != nil }) else { return loseRace("too few of the deciding disks answer", now) }
    for found in read {
      highest = max(highest, found.owner?.epoch ?? .none)
      for case let lease? in found.leases { highest = max(highest, lease.epoch) }
      for raw in found.keys {
        if let key = ReservationKey(rawValue: raw), key.belongs(to: cluster!) { highest = max(highest, key.epoch) }
      }
    }
    guard let next = highest.next else { return loseRace("there are no more epochs", now) }
    epoch = next
    highest = next
    key = ReservationKey(cluster: cluster!, slot: slot, node: me.node, epoch: next)
    if takeover.isForced, !policy.keepsArbiters {
      decideBy(disks.filter { $0.survey != nil })
    } else {
      // The list stays what it was: whoever reads an older record must find this node in its majority.
      arbiters = quorums.count == 1 ? quorums[0] : arbiters(of: disks)
    }
    self.takeover?.hasChosen = true
    self.takeover?.raceSince = now
  }

  /// An operator vouches for what decided until now: from here on disks decide that are there, and the owner records say so.
  /// Those that this node cannot take would keep the majority from it.
  mutating func decideBy(_ answering: [EngineDisk]) {
    let free = answering.filter { disk in
      guard let survey = disk.survey, let cluster else { return false }
      if isForeign(survey, cluster) || isRefused(survey.nodes) { return false }
      return disk.isFencing || disk.lease != nil || obstacle(at: disk, isForced: true) == nil
    }
    arbiters = arbiters(of: free.isEmpty ? answering : free)
    quorums = [arbiters]
  }

  /// Whether the active gave a sign while this node looked at the disks.
  private func isActiveAfterAll(_ takeover: Takeover, _ now: Instant) -> Bool {
    guard takeover.cause == .silent || takeover.cause == .nobody else { return false }
    if let peer, peer.isFresh(now), peer.beat.role == .active { return true }
    return hasSign(during: takeover)
  }

  /// Whether somebody else wrote to a disk since this node heard nobody. Disks that do not decide are looked at seldom: what is
  /// found new there may be old.
  private func hasSign(during takeover: Takeover) -> Bool {
    disks.contains {
      ($0.movedAt ?? 0) > takeover.silentSince || $0.signAt > takeover.startedAt && isWatched($0.id)
    }
  }

  /// Whether it is time to serve, or to give up.
  private mutating func conclude(_ now: Instant) {
    guard let takeover else { return }
    if let committedAt = takeover.committedAt {
      if disks.allSatisfy({ $0.isSettled(now) }) || now >= committedAt + PairTimers.diskLimit {
        recover(now)
      } else {
        wakeAt(committedAt + PairTimers.diskLimit)
      }
      return
    }
    let isHopeless = disks.allSatisfy { !isArbiter($0.id) || $0.isSettled(now) }
    let limit = takeover.raceSince + PairTimers.diskLimit * UInt64(OwnerRecord.arbitersMax + 1)
    if isHopeless || now >= limit {
      loseRace("no majority of the deciding disks could be taken", now)
    } else {
      wakeAt(limit)
      for disk in disks { if let busy = disk.busy { wakeAt(busy.since + PairTimers.diskLimit) } }
    }
  }

  private mutating func recover(_ now: Instant) {
    for index in disks.indices where disks[index].state == .secured {
      (disks[index].isServed, disks[index].isQuiet) = (true, false)
    }
    sureAt = takeover?.raceSince ?? now
    confirmedAt = sureAt
    isUnsure = false
    become(.recovering, "has \(disks.count { $0.isServed }) of \(disks.count) disks", now)
    actions.append(.target(.recover(epoch, disks: disks.filter(\.isServed).map(\.id))))
    awaitRecovery(now)
  }

  mutating func awaitRecovery(_ now: Instant) {
    audit(now)
    forceArbiters(now)
    advanceDisks(now)
    guard role == .recovering else { return }
    beatOnDisks(now)
    verify(now)
    // Disks that lost their power meanwhile are taken again first: an active has one, at least.
    guard let takeover, takeover.isRecovered, !isUnsure, disks.contains(where: { $0.state == .secured }) else { return }
    // The predecessor may still answer what it read: the fence stops its writes only.
    // It was alive, too, if it beat on the disks up to the fence: they may be slow.
    let beats = takeover.cause != .offered && hasSign(during: takeover)
    if takeover.cause == .alive || beats, let committedAt = takeover.committedAt {
      let hasStopped = peer.map { $0.heardAt > committedAt && !$0.isServing } ?? false
      // What an operator forces may have decided nothing until now: an active looks at such disks more seldom.
      let until = committedAt + PairTimers.predecessor + (takeover.isForced ? PairTimers.audit : 0)
      if !hasStopped, now < until { return wakeAt(until) }
    }
    becomeActive(now)
  }

  private mutating func becomeActive(_ now: Instant) {
    let reason = takeover?.reason ?? ""
    if takeover?.cause != .alone, takeover?.cause != .offered { countTakeover(now) }
    become(.active, reason, now)
    takeover = nil
    isReleased = false
    lostInARow = 0
    serve()
    setAddresses(true)
    stayActive(now)
  }

  /// The race is lost, or cannot be won: the own keys are taken back, for with them this node could write.
  mutating func loseRace(_ reason: String, _ now: Instant) {
    for index in disks.indices where disks[index].mayHaveKey { disks[index].strayKey = key }
    let wait = PairTimers.backoff << UInt64(min(lostInARow, 4))
    lostInARow += 1
    raceAgainAt = now + wait + jitter.next(below: wait)
    setAddresses(false)
    observe(reason, now)
    // Somebody else may have won; if not, there is no need to listen for as long as at the start.
    turnAt = raceAgainAt + (slot == .second ? PairTimers.bias : 0)
    wakeAt(raceAgainAt)
  }
}

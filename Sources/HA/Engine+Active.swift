import Wire

/// Active and draining: keeps the disks, hands over, or loses them.
extension Engine {
  mutating func stayActive(_ now: Instant) {
    guard epoch != .none else {
      // Alone with disks of its own: the addresses wait as long as a node with shared disks would.
      let due = (disksSince ?? now) + PairTimers.observe
      if now >= due { setAddresses(true) } else { wakeAt(due) }
      return
    }
    if role == .active {
      audit(now)
      forceArbiters(now)
    }
    advanceDisks(now)
    guard role == .active || role == .draining else { return }
    beatOnDisks(now)
    verify(now)
    if role == .active {
      changeArbiters(now)
      releaseIfImpaired(now)
    }
    if role == .draining, let handover {
      if now >= handover.until + PairTimers.beat {
        drained(false, now)
      } else {
        wakeAt(handover.until + PairTimers.beat)
      }
    }
  }

  /// Looks at each disk now and then.
  mutating func audit(_ now: Instant) {
    for index in disks.indices where disks[index].busy == nil && disks[index].state == .secured {
      guard disks[index].survey != nil else { continue }
      let period = disks[index].isFencing || disks[index].isRenewed ? PairTimers.audit : PairTimers.auditAlone
      let due = disks[index].surveyedAt == 0 ? now : disks[index].surveyedAt + period
      if now >= due, now >= disks[index].notBefore {
        orderSurvey(index, now)
      } else {
        wakeAt(max(due, disks[index].notBefore))
      }
    }
  }

  mutating func beatOnDisks(_ now: Instant) {
    for index in disks.indices where isArbiter(disks[index].id) && disks[index].state == .secured {
      guard disks[index].isFencing || disks[index].isRenewed else { continue }
      guard now >= disks[index].nextBeat else {
        wakeAt(disks[index].nextBeat)
        continue
      }
      guard disks[index].busy == nil else { continue }
      disks[index].nextBeat = now + PairTimers.diskBeat
      writeBeat(index, offers: !isReachable, now)
      wakeAt(disks[index].nextBeat)
    }
  }

  private mutating func writeBeat(_ index: Int, offers: Bool, _ now: Instant) {
    diskBeatSequence += 1
    let beat = DiskBeat(
      epoch: epoch, node: me.node, bootID: me.bootID, sequence: diskBeatSequence, offersHandover: offers)
    order(.writeBeat(beat), at: index, now)
  }

  /// The lease: without a sign that this node is still active, nothing is answered.
  mutating func verify(_ now: Instant) {
    guard let key else { return }
    for disk in disks where isArbiter(disk.id) && disk.provenAt > confirmedAt {
      if hasMajority({ $0.isHeld(with: key, now) && $0.provenAt >= disk.provenAt }) { confirmedAt = disk.provenAt }
    }
    if hasMajority({ !$0.isFencing && !$0.isRenewed && $0.isHeld(with: key, now) }) { confirmedAt = now }
    if !others.isEmpty { hasOthers = true }
    if let gone = expelled, !others.contains(gone) { (hasOthers, expelled) = (!others.isEmpty, nil) }
    if policy.trustsStalls || isUnrivalled { confirmedAt = now }
    sureAt = max(sureAt, confirmedAt)
    // A node that no label names listens for as long as at the start before it takes anything.
    let lease = hasOthers ? PairTimers.lease : PairTimers.leaseAlone
    if now < sureAt + lease {
      wakeAt(sureAt + lease)
      // The other node says that it has not taken over; it may have begun to meanwhile, and taken keys before it gave up. So
      // the disks must have taken a beat, and then be found to be held still.
      guard isUnsure, now < confirmedAt + lease || vouchedSince.map({ confirmedAt >= $0 }) ?? false,
        hasMajority({ $0.isHeld(with: key, now) && (!$0.isFencing || $0.surveyedAt >= $0.provenAt) })
      else { return }
      isUnsure = false
      if role == .active { serve() }
    } else if !isUnsure {
      isUnsure = true
      vouchedSince = nil
      setTarget(.hold)
      for index in disks.indices where isArbiter(disks[index].id) {
        (disks[index].surveyedAt, disks[index].nextBeat) = (0, now)
      }
    }
  }

  /// The other node hears this one, and does not take over.
  mutating func vouch(_ sent: Instant, _ now: Instant) {
    sureAt = max(sureAt, sent)
    guard isUnsure, vouchedSince == nil else { return }
    vouchedSince = now
    for index in disks.indices where isArbiter(disks[index].id) { disks[index].nextBeat = now }
  }

  /// No disk can be fenced away, and no label names, or has named, another node: who would take one has to enter itself first,
  /// and finds it held. So a disk that is pulled out keeps no other waiting, whichever it is.
  private var isUnrivalled: Bool {
    isKnownAlone && !disks.isEmpty && disks.allSatisfy { !$0.isFencing && $0.sharedSince == nil }
  }

  /// No label names, or has named, another node, and none was heard. Disks that decided may then be pulled out, be they the
  /// majority: another node that is new to what is left enters itself there first, and takes nothing before this one has
  /// seen that. Who takes what is gone has other disks than this one, which keeps its keys on these.
  package var isKnownAlone: Bool { !hasOthers && others.isEmpty }

  /// What was secured while nothing was served is admitted with it.
  mutating func serve() {
    targetState = .serving
    actions.append(.target(.serve(epoch, disks: disks.filter(\.isServed).map(\.id))))
    for index in disks.indices where disks[index].state == .secured { admit(index) }
  }

  // MARK: Arbiters

  private mutating func changeArbiters(_ now: Instant) {
    // What an operator has said is lost is so until it answers.
    let secured = disks.filter { $0.state == .secured && $0.lookedAt >= decidedAt }
    if quorums.count > 1 {
      let isWritten = secured.allSatisfy { $0.survey?.owner?.arbiters == arbiters && $0.survey?.owner?.epoch == epoch }
      if isWritten, hasMajority({ $0.state == .secured && $0.survey?.owner?.arbiters == arbiters }) {
        quorums = [arbiters]
        become(role, "\(arbiters.count) disks decide", now)
      }
      return
    }
    let wanted = arbiters(of: secured)
    let isMajority = hasMajority { $0.state == .secured }
    guard !wanted.isEmpty, wanted != arbiters, isMajority || isKnownAlone else {
      arbitersWrongSince = nil
      return
    }
    let since = arbitersWrongSince ?? now
    arbitersWrongSince = since
    guard now >= since + PairTimers.arbiterChange else { return wakeAt(since + PairTimers.arbiterChange) }
    // Who has entered itself since is seen before the old arbiters are given up.
    guard isMajority || isUnrivalled || secured.allSatisfy({ $0.surveyedAt >= since }) else { return }
    arbitersWrongSince = nil
    quorums = isMajority && !isUnrivalled ? [arbiters, wanted] : [wanted]
    arbiters = wanted
    advanceDisks(now)
  }

  // MARK: Handover

  mutating func operate(_ command: OperatorCommand, _ now: Instant) {
    switch command {
    case .switchover:
      if role == .active { beginHandover("asked for", now) } else { asksUntil = now + PairTimers.releaseGrace }
    case .hold: heldByOperator = true
    case .resume:
      (heldByOperator, heldByRepetition) = (false, false)
      takeoversAt = []
    case .forget(let node):
      if role == .active, node != me.node {
        expelled = node
        if peer?.beat.node == node { peer = nil }
        become(role, "node \(node) is forgotten", now)
      }
    case .force:
      forcesUntil = now + PairTimers.force
      switch role {
      case .observing, .passive, .suspecting:
        if !isRefused { beginTakeover("forced", .alive, forced: true, now) }
      case .recovering, .active:
        guard isUnsure else { break }
        forcedAt = now
        for index in disks.indices where disks[index].state == .secured { disks[index].surveyedAt = 0 }
      case .fencing, .draining, .fenced: break
      }
    }
  }

  /// The disks that decided are lost, and with them all signs that this node still is the active: those decide that are looked
  /// at now and answer. The doubt ends as always, when these have taken a beat and are found to be held.
  mutating func forceArbiters(_ now: Instant) {
    guard let since = forcedAt else { return }
    guard isUnsure else { return forcedAt = nil }
    let secured = disks.filter { $0.state == .secured }
    let answering = secured.filter { $0.lookedAt >= since }
    let limit = since + PairTimers.retry + PairTimers.diskLimit
    guard now >= limit || answering.count == secured.count else { return wakeAt(limit) }
    forcedAt = nil
    guard !answering.isEmpty else { return }
    decideBy(answering)
    (decidedAt, arbitersWrongSince) = (since, nil)
    for index in disks.indices where isArbiter(disks[index].id) {
      (disks[index].surveyedAt, disks[index].nextBeat) = (0, now)
    }
    become(role, "forced: \(arbiters.count == 1 ? "one disk decides" : "\(arbiters.count) disks decide")", now)
  }

  mutating func beginHandover(_ reason: String, _ now: Instant) {
    guard role == .active, epoch != .none, let peer, peer.isFresh(now), peer.isProven, !peer.isServing,
      seesEnough(peer)
    else { return become(role, "no handover: the other node cannot take over", now) }
    guard !isUnsure || policy.servesInDoubt else {
      return become(role, "no handover: this node waits for a sign that it is still the active", now)
    }
    drain(reason, now)
  }

  private mutating func drain(_ reason: String, _ now: Instant) {
    handover = Handover(until: now + PairTimers.drain, reason: reason)
    become(.draining, reason, now)
    targetState = .hold
    actions.append(.target(.drain(until: now + PairTimers.drain)))
    wakeAt(now + PairTimers.drain)
  }

  /// Whether the other node has a path to a majority of the arbiters.
  private func seesEnough(_ peer: PeerView) -> Bool { hasMajority { peer.beat.disks.contains($0.id) } }

  mutating func drained(_ isEmpty: Bool, _ now: Instant) {
    guard role == .draining, let handover else { return }
    if isEmpty || isEnding { return release(handover.reason, isDrained: isEmpty, now) }
    self.handover = nil
    become(.active, "the handover is called off: commands are still under way", now)
    guard isUnsure, !policy.servesInDoubt else { return serve() }
    // The doubt goes on, which began while it drained.
    actions.append(.target(.hold))
  }

  /// Leaves the disks to the other, keys and all: the successor preempts them. With nothing under way sessions stay, and
  /// what waits is answered by the ports' new state: an initiator with another path goes there at once.
  private mutating func release(_ reason: String, isDrained: Bool = false, _ now: Instant) {
    handover = nil
    if !isDrained { actions.append(.target(.closeWithoutAnswer)) }
    setAddresses(false)
    for index in disks.indices
    where disks[index].busy == nil && disks[index].state == .secured && isArbiter(disks[index].id) {
      if policy.unregistersAtHandover, let key {
        order(.unregister(key), at: index, now)
      } else {
        writeBeat(index, offers: true, now)
      }
    }
    isUnsure = false
    isReleased = true
    releasedUntil = now + PairTimers.releaseGrace
    epoch = .none
    key = nil
    turnAt = nil
    activeAt = now
    for index in disks.indices { disks[index].forgetEpoch() }
    become(.passive, reason, now)
    // "In standby" sends initiators to the other node. Without one it is an error to whoever has this path alone: what they ask
    // waits until their connections end, and they ask again after the next start.
    if !isEnding || peer?.isFresh(now) == true { setTarget(.standby) }
  }

  mutating func shutDown(_ now: Instant) {
    isEnding = true
    switch role {
    case .active where epoch != .none: drain("the program ends", now)
    case .active:
      actions.append(.target(.closeWithoutAnswer))
      setAddresses(false)
      become(.passive, "the program ends", now)
    case .fencing: loseRace("the program ends", now)
    case .recovering: release("the program ends", now)
    case .draining, .observing, .passive, .suspecting, .fenced: break
    }
  }

  /// An active that has lost disks which the other node has leaves them to it. What hangs on them would not drain.
  private mutating func releaseIfImpaired(_ now: Instant) {
    guard let peer, peer.isFresh(now), peer.isProven, !peer.isServing, seesEnough(peer), !heldByOperator,
      !heldByRepetition, peer.beat.disks.contains(where: { id in !disks.contains { $0.id == id && !$0.isDead(now) } }),
      disks.allSatisfy({ $0.isDead(now) || peer.beat.disks.contains($0.id) }),
      // A key that is on its way would be there after the other has looked.
      !disks.contains(where: \.isRegistering)
    else {
      impairedSince = nil
      return
    }
    let since = impairedSince ?? now
    impairedSince = since
    if now >= since + PairTimers.impaired {
      release("the other node has disks that this one has lost", now)
    } else {
      wakeAt(since + PairTimers.impaired)
    }
  }

  // MARK: The end

  /// The disks are another's. What is under way is not answered: its initiator asks again, there.
  mutating func fence(_ reason: String, _ now: Instant) {
    actions.append(.target(.closeWithoutAnswer))
    setAddresses(false)
    become(.fenced, reason, now)
    targetState = .none
    setTarget(.standby)
    epoch = .none
    key = nil
    takeover = nil
    handover = nil
    isUnsure = false
    fencedAt = now
    for index in disks.indices { disks[index].forgetEpoch() }
    wakeAt(now + PairTimers.backoff)
  }
}

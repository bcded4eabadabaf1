import Wire

/// What a disk needs next to be this node's, by what the last look at it found; and what its answers mean.
///
/// Nothing is remembered of what was done: after each step that changes keys the disk is looked at again. So an answer that
/// was lost, a power cut or a rival's step need no cases of their own.
extension Engine {
  enum Need: Equatable {
    case order(DiskOrder)
    /// Something else comes first.
    case wait
    case nothing
    case foreign
    case refused
    /// Others have it, in an epoch that is not below this one.
    case lost
  }

  /// - Parameter s: found after the epoch was chosen, or just before.
  func need(of disk: EngineDisk, _ s: Survey) -> Need {
    guard let key, let cluster else { return .wait }
    if isForeign(s, cluster) { return .foreign }
    if isRefused(s.nodes) { return .refused }
    guard disk.isFencing else { return leaseNeed(of: disk, s) }
    if isLost(s, key) { return .lost }
    if !s.keys.contains(key.rawValue) { return mayRegister(disk) ? .order(.register(key)) : .wait }
    if s.holder != key.rawValue {
      guard mayAcquire(disk) else { return .wait }
      return .order(s.holder.map { .preempt(own: key, victim: $0) } ?? .reserve(key))
    }
    guard isUnlocked(disk) else { return .wait }
    if !policy.skipsReadBack, let rival = rival(in: s, key) { return .order(.preempt(own: key, victim: rival)) }
    return records(of: disk, s)
  }

  /// What is to be written to a disk that is held.
  func records(of disk: EngineDisk, _ s: Survey) -> Need {
    let record = OwnerRecord(epoch: epoch, node: me.node, bootID: me.bootID, arbiters: arbiters)
    if s.owner != record { return mayWrite(record, to: disk) ? .order(.writeOwner(record)) : .wait }
    if !s.nodes.contains(me.node) { return .order(.enroll(node: me.node, name: me.name)) }
    guard role == .active else { return .nothing }
    if let expelled, s.nodes.contains(expelled) { return .order(.expel(node: expelled)) }
    if let peer, peer.isProven, peer.isFresh(lastStep), peer.beat.node != expelled, s.nodes.count < 2,
      !s.nodes.contains(peer.beat.node)
    {
      return .order(.enroll(node: peer.beat.node, name: peer.beat.name))
    }
    return .nothing
  }

  func isForeign(_ s: Survey, _ cluster: UUID) -> Bool {
    let all = s.keys + (s.holder.map { [$0] } ?? [])
    if all.contains(where: { !(ReservationKey(rawValue: $0)?.belongs(to: cluster) ?? false) }) { return true }
    return s.holder == key?.rawValue && !s.isOurType
  }

  private func isLost(_ s: Survey, _ key: ReservationKey) -> Bool {
    if isOvertaken(s) { return true }
    guard let raw = s.holder, raw != key.rawValue, let holder = ReservationKey(rawValue: raw) else { return false }
    // A rival of the same epoch: once a majority is this node's, it has lost.
    return holder.epoch > epoch || (holder.epoch == epoch && !hasWon)
  }

  /// Another node has written its name in an epoch that is not below this one.
  func isOvertaken(_ s: Survey) -> Bool {
    s.owner.map { $0.epoch > epoch || ($0.epoch == epoch && $0.node != me.node) } ?? false
  }

  var hasWon: Bool { isHolding || takeover?.hasWon == true }

  /// Another gateway's key, which could write. Of an active, those of a race that goes on just now are left: it decides itself.
  private func rival(in s: Survey, _ key: ReservationKey) -> UInt64? {
    s.keys.first { raw in
      raw != key.rawValue && (role != .active || (ReservationKey(rawValue: raw)?.epoch ?? .none) <= epoch)
    }
  }

  // MARK: The order of a takeover

  /// First the arbiters, then the others.
  func mayRegister(_ disk: EngineDisk) -> Bool {
    isHolding || takeover?.committedAt != nil || isArbiter(disk.id)
  }

  /// The arbiters one after another, by WWID: of two that race, one meets the other where it has been first.
  func mayAcquire(_ disk: EngineDisk) -> Bool {
    guard let key, !isHolding, takeover?.committedAt == nil else { return true }
    if policy.ignoresArbiterOrder { return true }
    return disks.allSatisfy { other in
      other.shared.wwid >= disk.shared.wwid || !isArbiter(other.id) || other.isHeld(with: key, lastStep)
        || other.hasFailed
        || other.isSettled(lastStep)
    }
  }

  func isUnlocked(_ disk: EngineDisk) -> Bool {
    isHolding || takeover?.committedAt != nil || takeover?.hasWon == true
  }

  /// A changed list goes to a majority of the old one first.
  private func mayWrite(_ record: OwnerRecord, to disk: EngineDisk) -> Bool {
    guard quorums.count > 1, role == .active, let old = quorums.first, !old.contains(disk.id) else { return true }
    return isMajority(of: old) { $0.survey?.owner == record }
  }

  // MARK: Doing it

  mutating func advanceDisks(_ now: Instant) {
    for index in disks.indices {
      guard role == .fencing || isHolding else { return }
      advance(index, now)
    }
  }

  private mutating func advance(_ index: Int, _ now: Instant) {
    let disk = disks[index]
    guard disk.busy == nil, role != .draining else { return }
    guard now >= disk.notBefore else { return wakeAt(disk.notBefore) }
    guard let survey = disk.survey else {
      if disk.state == .idle { disks[index].state = .pending }
      return orderSurvey(index, now)
    }
    switch need(of: disk, survey) {
    case .order(let what):
      // Of a disk that is served, keys and reservation are gone: a step back. Records are kept up without one.
      if disk.state == .secured, what.changesKeys(of: key), disk.survey?.holder != key?.rawValue { unsecure(index) }
      order(what, at: index, now)
    case .wait: if !disk.isFencing { lookAgain(index, now) }
    case .nothing where disks[index].lease?.isVerified == false:
      disks[index].lease?.isVerified = true
      advance(index, now)
    case .nothing: secure(index, now)
    case .foreign: mark(index, .foreign, "others hold it", now)
    case .refused: mark(index, .refused, "its label is full", now)
    case .lost: lose("another node has a disk in an epoch not below \(epoch)", survey, now)
    }
  }

  private mutating func secure(_ index: Int, _ now: Instant) {
    guard disks[index].state != .secured else { return }
    disks[index].state = .secured
    disks[index].hasFailed = false
    disks[index].nextBeat = now
    // In doubt nothing is let go on, what was taken again neither.
    if role == .active, !isUnsure || policy.servesInDoubt { admit(index) }
  }

  mutating func admit(_ index: Int) {
    guard !disks[index].isServed else { return }
    disks[index].isServed = true
    disks[index].isQuiet = false
    actions.append(.target(.admit(epoch, disk: disks[index].id)))
  }

  /// The disk is not ours any more for now.
  mutating func unsecure(_ index: Int) {
    disks[index].state = .pending
    guard disks[index].isServed else { return }
    disks[index].isServed = false
    actions.append(.target(.suspend(disks[index].id)))
  }

  private mutating func mark(_ index: Int, _ state: EngineDisk.State, _ reason: String, _ now: Instant) {
    if disks[index].state != state {
      unsecure(index)
      disks[index].state = state
      become(role, "disk \(disks[index].id): \(reason)", now)
    }
    disks[index].survey = nil
    disks[index].notBefore = now + PairTimers.retry
  }

  private mutating func lose(_ reason: String, _ s: Survey, _ now: Instant) {
    highest = max(highest, s.owner?.epoch ?? .none)
    if let holder = s.holder.flatMap(ReservationKey.init(rawValue:)) { highest = max(highest, holder.epoch) }
    if role == .fencing { loseRace(reason, now) } else { fence(reason, now) }
  }

  /// A unit attention: registrations may be gone. Commands wait until that is known.
  mutating func disturb(_ index: Int) {
    if disks[index].state == .secured { unsecure(index) }
    disks[index].survey = nil
    disks[index].quietSince = nil
  }

  /// What keeps this node from a disk that cannot fence is told by its records only.
  private mutating func lookAgain(_ index: Int, _ now: Instant) {
    guard disks[index].busy == nil else { return }
    let obstacle = obstacle(at: disks[index], isForced: lastStep < forcesUntil)
    let isLasting = obstacle == .unguarded || obstacle == .unnamed
    let due = disks[index].surveyOrderedAt + (isLasting ? PairTimers.watch : PairTimers.watchClosely)
    if now >= due { orderSurvey(index, now) } else { wakeAt(due) }
  }

  // MARK: Answers

  mutating func take(_ answer: DiskAnswer, of number: UInt64, disk id: DiskID, _ now: Instant) {
    guard let index = disks.firstIndex(where: { $0.id == id }), let busy = disks[index].busy, busy.order == number
    else { return }
    disks[index].busy = nil
    switch answer {
    case .surveyed(let survey):
      noteSigns(index, survey, now)
      if disks[index].noteLeases(survey, me: me, orderedAt: busy.since, now) { disks[index].noteMove(now) }
      unsettled.remove(id)
      disks[index].lookedAt = busy.since
      disks[index].survey = survey
      disks[index].shared.nodes = survey.nodes
      disks[index].surveyedAt = busy.since
      disks[index].quietSince = disks[index].quietSince ?? now
    case .done:
      if case .writeBeat = busy.what, disks[index].state == .secured {
        disks[index].provenAt = busy.since
        // A disk that nobody holds takes beats, too.
        if isUnsure { disks[index].surveyedAt = 0 }
      }
      done(busy.what, index, busy.since, now)
    case .conflict: conflict(busy.what, index, now)
    case .disturbed: disturb(index)
    case .relabelled: relabelled(index, now)
    case .failed, .timedOut:
      if policy.skipsReadBack, answer == .timedOut { return done(busy.what, index, busy.since, now) }
      failed(busy.what, index, now)
    }
  }

  private mutating func done(_ what: DiskOrder, _ index: Int, _ orderedAt: Instant, _ now: Instant) {
    switch what {
    case .survey, .unregister, .writeBeat, .resetUnit: break
    case .settle:
      disks[index].isQuiet = true
      disks[index].lease?.nextSettle = 0
    case .writeLease(let record, _, _): didWriteLease(record, index, orderedAt: orderedAt, now)
    case .register(let own):
      disks[index].strayKey = nil
      if policy.skipsReadBack { disks[index].survey?.keys.append(own.rawValue) } else { disks[index].survey = nil }
    case .reserve(let own), .preempt(let own, _):
      if policy.skipsReadBack {
        disks[index].survey?.holder = own.rawValue
        disks[index].survey?.isOurType = true
      } else {
        disks[index].survey = nil
      }
    case .writeOwner(let record): disks[index].survey?.owner = record
    case .enroll(let node, _):
      disks[index].survey?.nodes.append(node)
      if disks[index].lease == nil { disks[index].namedUntil = now + PairTimers.naming }
    case .expel(let node): disks[index].survey?.nodes.removeAll { $0 == node }
    }
  }

  private mutating func conflict(_ what: DiskOrder, _ index: Int, _ now: Instant) {
    switch what {
    case .survey, .unregister: break
    case .register, .settle, .writeLease, .resetUnit: failed(what, index, now)
    case .reserve, .preempt:
      // Compare and swap: somebody else was first.
      if role == .fencing, takeover?.hasWon == false { return loseRace("another node was first at a disk", now) }
      disks[index].survey = nil
      disks[index].notBefore = now + PairTimers.beat
    case .writeBeat, .writeOwner, .enroll, .expel:
      if isHolding {
        fence("a disk refused a write: others have it", now)
      } else if role == .fencing {
        loseRace("a disk refused a write: others have it", now)
      }
    }
  }

  /// Nothing of the disk is this node's any more, a lease neither: a `released` would be written into what is another's.
  private mutating func relabelled(_ index: Int, _ now: Instant) {
    disks[index].quietSince = nil
    disks[index].hasFailed = true
    (disks[index].lease, disks[index].seenLeases) = (nil, [])
    if isHolding || role == .fencing { return mark(index, .foreign, "its label is gone, or another's", now) }
    disks[index].survey = nil
    disks[index].notBefore = now + PairTimers.watchClosely
  }

  private mutating func failed(_ what: DiskOrder, _ index: Int, _ now: Instant) {
    disks[index].quietSince = nil
    // A beat that was not written, or a look that failed, changes nothing by itself.
    switch what {
    case .writeBeat, .resetUnit: return
    case .settle, .writeLease: if disks[index].lease?.isEnding == true { return }
    case .survey, .register, .reserve, .preempt, .unregister, .writeOwner, .enroll, .expel: break
    }
    if disks[index].state != .secured {
      disks[index].hasFailed = true
      disks[index].survey = nil
    }
    disks[index].notBefore = now + (isHolding ? PairTimers.retry : PairTimers.watchClosely)
  }
}

extension DiskOrder {
  /// Whether it is for a disk that does not carry the key.
  fileprivate func changesKeys(of key: ReservationKey?) -> Bool {
    switch self {
    case .register, .reserve, .preempt: true
    case .survey, .unregister, .writeOwner, .writeBeat, .enroll, .expel, .settle, .writeLease, .resetUnit: false
    }
  }
}

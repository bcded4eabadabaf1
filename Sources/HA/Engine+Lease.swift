import Wire

/// Disks that cannot fence. Each node writes its claim to its own place on the disk and looks at the other's before it goes
/// on: of two that live, the later one sees the earlier (Dekker). One that died is waited for: its record stood still for so
/// long that its own watchdog has reset it (docs/HA.md).
extension EngineDisk {
  /// The lease is renewed, and over without that. Where nobody else is named nobody else may take it.
  var isRenewed: Bool { sharedSince != nil || lease?.mayBeGuarded == true }

  /// The lease is of an earlier life, and what that one wrote may be under way.
  var hasEarlierLease: Bool {
    !isQuiet && isRenewed && lease.map { $0.isEnding && $0.provenAt == 0 } ?? false
  }

  /// When the own lease ends by itself; nil: not.
  func expiry(of lease: Lease) -> Instant? {
    guard lease.provenAt != 0, isRenewed else { return nil }
    let start = lease.mayBeGuarded ? lease.provenAt : max(lease.provenAt, sharedSince ?? 0)
    return start + PairTimers.leaseLimit
  }

  func isInForce(_ lease: Lease, _ now: Instant) -> Bool {
    lease.isVerified && !lease.isEnding && lease.provenAt != 0 && now < expiry(of: lease) ?? .max
  }

  /// What stands in this node's way; nil: it may claim the disk, as far as the last look tells.
  /// - Parameter patience: how long another's lease must have stood still.
  func obstacle(for me: UUID, patience: UInt64, isForced: Bool) -> LeaseObstacle? {
    for seen in seenLeases where seen.record.phase != .released {
      guard seen.lookedAt >= seen.since + patience else { return .taken }
      // With both places taken by others' names, the record is one of a node that was forgotten.
      let isForgotten = nodes.count == 2 && !nodes.contains(seen.record.node)
      if seen.record.isGuarded || seen.record.phase == .wanted || isForgotten || isForced { continue }
      return nodes.contains(me) ? .unguarded : .unnamed
    }
    return nil
  }

  /// Keeps what a look found of the leases. Whether another node was seen to renew one.
  mutating func noteLeases(_ found: Survey, me: NodeIdentity, orderedAt: Instant, _ now: Instant) -> Bool {
    guard !isFencing else { return false }
    var isMoving = false
    var seen: [SeenLease] = []
    for (place, record) in found.leases.enumerated() {
      guard let record else { continue }
      if record.node == me.node {
        // Of an earlier life: what it wrote may still be under way.
        if lease == nil, record.phase != .released { lease = Lease(record, place: place, isEnding: true) }
      } else if let known = seenLeases.first(where: { $0.record == record }) {
        seen.append(SeenLease(record: record, since: known.since, lookedAt: orderedAt))
      } else {
        seen.append(SeenLease(record: record, since: now, lookedAt: orderedAt))
        isMoving = isMoving || record.phase == .held
      }
    }
    seenLeases = seen
    return isMoving
  }

  /// Where this node writes its records: where it has one, else where the label's order says, if that is free.
  func place(for me: UUID) -> Int {
    let leases = survey?.leases ?? []
    if let own = leases.firstIndex(where: { $0?.node == me }) { return own }
    let wanted = nodes.firstIndex(of: me) ?? (nodes.isEmpty ? 0 : 1)
    guard wanted < leases.count, let other = leases[wanted], nodes.contains(other.node) else { return min(wanted, 1) }
    return 1 - wanted
  }
}

extension Engine {
  // MARK: Claiming

  func leaseNeed(of disk: EngineDisk, _ s: Survey) -> Need {
    if isOvertaken(s) { return .lost }
    let isForced = takeover?.isForced == true || lastStep < forcesUntil
    let obstacle = obstacle(at: disk, isForced: isForced)
    guard let lease = disk.lease else {
      guard mayRegister(disk), obstacle == nil else { return .wait }
      if !s.nodes.contains(me.node), !isForced { return .order(.enroll(node: me.node, name: me.name)) }
      guard mayAcquire(disk), disk.surveyedAt >= disk.namedUntil else { return .wait }
      if !disk.isQuiet { return .order(.settle) }
      if !disk.wasReset, disk.seenLeases.contains(where: { $0.record.phase == .held }) { return .order(.resetUnit) }
      return write(.wanted, disk, place: disk.place(for: me.node))
    }
    guard !lease.isEnding, lease.record.epoch == epoch else { return .wait }
    if lease.provenAt == 0 { return write(.wanted, disk, place: lease.place) }
    if !lease.isVerified {
      guard disk.surveyedAt >= lease.claimedAt || policy.skipsLeaseCheck else { return .wait }
      if obstacle != nil, !policy.skipsLeaseCheck { return yields(to: disk, s) ? .lost : .wait }
      return .nothing
    }
    guard disk.isInForce(lease, lastStep), isUnlocked(disk) else { return .wait }
    if lease.provenPhase != .held { return write(.held, disk, place: lease.place) }
    return records(of: disk, s)
  }

  func obstacle(at disk: EngineDisk, isForced: Bool) -> LeaseObstacle? {
    let patience = policy.takesLeasesEarly ? 4 * PairTimers.leaseRenewal : PairTimers.leaseExpiry
    return disk.obstacle(for: me.node, patience: patience, isForced: isForced)
  }

  /// Of two that want a disk at the same time, the first of the label goes on.
  private func yields(to disk: EngineDisk, _ s: Survey) -> Bool {
    guard !hasWon else { return false }
    return s.nodes.first != me.node || disk.seenLeases.contains { $0.record.phase == .held }
  }

  private func write(_ phase: LeaseRecord.Phase, _ disk: EngineDisk, place: Int) -> Need {
    .order(leaseOrder(phase, disk, epoch, place: place))
  }

  private func leaseOrder(
    _ phase: LeaseRecord.Phase, _ disk: EngineDisk, _ epoch: Epoch, place: Int
  ) -> DiskOrder {
    let isGuarded = watchdog == .armed && disk.sharedSince != nil && phase != .released
    // The number of the order grows, also from one lease to the next.
    let record = LeaseRecord(
      epoch: epoch, node: me.node, bootID: me.bootID, sequence: orderCount + 1, phase: phase, isGuarded: isGuarded)
    let isSame = disk.lease?.provenPhase == phase && disk.lease?.mayBeGuarded == isGuarded
    return .writeLease(record, place: place, isDurable: !isSame)
  }

  /// Called for each order.
  mutating func noteLeaseOrder(_ what: DiskOrder, _ index: Int, _ now: Instant) {
    switch what {
    case .writeLease(let record, let place, _):
      var lease = disks[index].lease ?? Lease(record, place: place)
      lease.record = record
      lease.nextWrite = now + PairTimers.leaseRenewal
      if record.isGuarded { lease.mayBeGuarded = true }
      disks[index].lease = lease
    case .resetUnit: disks[index].wasReset = true
    case .survey, .register, .reserve, .preempt, .unregister, .writeOwner, .writeBeat, .enroll, .expel, .settle: break
    }
  }

  mutating func didWriteLease(_ record: LeaseRecord, _ index: Int, orderedAt: Instant, _ now: Instant) {
    guard var lease = disks[index].lease else { return }
    if record.phase == .released {
      disks[index].lease = nil
      return
    }
    lease.provenAt = orderedAt
    lease.provenPhase = record.phase
    if !record.isGuarded { lease.mayBeGuarded = false }
    if lease.claimedAt == 0 {
      lease.claimedAt = now
      disks[index].survey = nil
    }
    disks[index].lease = lease
  }

  // MARK: Keeping and giving up, in every role

  mutating func tendLeases(_ now: Instant) {
    for index in disks.indices where !disks[index].isFencing {
      let names = disks[index].nodes
      disks[index].sharedSince = names.contains { $0 != me.node } ? disks[index].sharedSince ?? now : nil
      guard let lease = disks[index].lease else { continue }
      let hasExpired = disks[index].expiry(of: lease).map { now >= $0 } ?? false
      if !lease.isEnding, hasExpired || key == nil || lease.record.epoch != epoch { end(index) }
      if lease.isEnding || disks[index].lease?.isEnding == true {
        giveUp(index, hasExpired, now)
      } else if disks[index].isRenewed, lease.provenAt != 0 {
        renew(index, now)
      }
      if let expiry = disks[index].expiry(of: lease) { wakeAt(expiry) }
    }
  }

  /// Nothing more is begun at the disk; it is released when what is under way has come back.
  private mutating func end(_ index: Int) {
    disks[index].lease?.isEnding = true
    disks[index].lease?.nextSettle = 0
    if disks[index].state == .secured || disks[index].isServed { unsecure(index) }
  }

  private mutating func renew(_ index: Int, _ now: Instant) {
    guard let lease = disks[index].lease else { return }
    guard now >= lease.nextWrite else { return wakeAt(lease.nextWrite) }
    guard disks[index].busy == nil else { return }
    order(
      leaseOrder(lease.provenPhase, disks[index], lease.record.epoch, place: lease.place), at: index, now)
    wakeAt(now + PairTimers.leaseRenewal)
  }

  private mutating func giveUp(_ index: Int, _ hasExpired: Bool, _ now: Instant) {
    guard let lease = disks[index].lease, disks[index].busy == nil else { return }
    let isKept = !disks[index].isQuiet && !hasExpired && lease.provenAt != 0 && disks[index].isRenewed
    // While old commands are under way the other must not have the disk.
    if isKept, now >= lease.nextWrite { return renew(index, now) }
    guard now >= lease.nextSettle else {
      return wakeAt(isKept ? min(lease.nextSettle, lease.nextWrite) : lease.nextSettle)
    }
    disks[index].lease?.nextSettle = now + PairTimers.watchClosely
    if disks[index].isQuiet {
      order(leaseOrder(.released, disks[index], lease.record.epoch, place: lease.place), at: index, now)
    } else {
      order(.settle, at: index, now)
    }
    wakeAt(now + PairTimers.watchClosely)
  }

  // MARK: The watchdog

  enum Watchdog: Sendable { case off, asked, armed, unavailable }

  mutating func tendWatchdog(_ now: Instant) {
    if watchdog == .off, !policy.forgetsEarlierLife, hasEarlierLife(now) { return }
    guard disks.contains(where: { $0.lease != nil }) else {
      if watchdog != .off { actions.append(.watchdog(.disarm)) }
      watchdog = .off
      return
    }
    if watchdog == .off {
      let isNeeded = disks.contains { disk in
        disk.lease.map { disk.isRenewed && (!$0.isEnding || disk.isQuiet) } ?? false
      }
      guard isNeeded else { return }
      watchdog = .asked
      nextKeepAlive = now + PairTimers.keepAlive
      if !policy.armsNoWatchdog { actions.append(.watchdog(.arm)) } else { watchdog = .armed }
    }
    guard watchdog == .armed, let until = aliveUntil(now), now < until else { return }
    if now >= nextKeepAlive {
      nextKeepAlive = now + PairTimers.keepAlive
      actions.append(.watchdog(.keepAlive(until: until)))
    }
    wakeAt(nextKeepAlive)
  }

  /// An earlier life of the program may have writes under way to a disk that the other node will take by time alone. That
  /// life's watchdog is to see to it: to arm it anew, or to stop it, would let them come after the other has the disk.
  private mutating func hasEarlierLife(_ now: Instant) -> Bool {
    if let since = disksSince, !unsettled.isEmpty {
      // It would have reset the machine by then: it does not run.
      let limit = since + PairTimers.leaseExpiry
      if now < limit {
        wakeAt(limit)
        return true
      }
      unsettled = []
    }
    return disks.contains(where: \.hasEarlierLease)
  }

  /// Before a record that says so goes to a disk.
  mutating func keepGuarded() {
    let guarded = disks.filter { $0.lease?.mayBeGuarded == true }.map(\.id)
    let kept = unsettled.union(guarded)
    guard kept != keptGuarded else { return }
    keptGuarded = kept
    actions.insert(.keepGuarded(kept), at: 0)
  }

  /// Until when every lease with which something may be written is in force; nil: one is of an earlier life.
  private func aliveUntil(_ now: Instant) -> Instant? {
    var until = now + PairTimers.leaseLimit
    for disk in disks {
      guard let lease = disk.lease, !disk.isQuiet else { continue }
      if disk.hasEarlierLease { return nil }
      if let expiry = disk.expiry(of: lease) { until = min(until, expiry) }
    }
    return until
  }

  // MARK: Who may race

  /// Whether a majority of the disks that decide can be taken, as far as their leases tell.
  var leasesPermit: Bool {
    let list = watched
    // An operator may ask before the lease has stood still for long enough.
    let isForced = lastStep < forcesUntil
    return list.isEmpty
      || isMajority(of: list) { $0.isFencing || $0.survey != nil && obstacle(at: $0, isForced: isForced) == nil }
  }
}

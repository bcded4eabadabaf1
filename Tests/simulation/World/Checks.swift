import HA
import Wire

/// The invariants; their numbers are those of docs/HA.md.
extension World {
  /// 1, 4: at most one node serves in an epoch, and every disk that it serves carries its key. Two that have no disk in
  /// common and do not hear each other, one of which knows nobody else, may come to the same epoch.
  func check(serving served: [Int], by node: SimNode, _ epoch: Epoch) {
    // An order that was decided before the node stood still is carried out late, and without effect until the next step.
    guard epoch != .none, node.hasPulse else { return }
    let known = servedBy[epoch.value, default: []]
    if let other = known.first(where: { $0 != node.index }), !isLeft(node), !isLeft(nodes[other]) {
      return fail("1: \(nodes[other].name) and \(node.name) both serve in epoch \(epoch)")
    }
    if known.isEmpty { statistics.takeovers += 1 }
    servedBy[epoch.value] = known.union([node.index])
    for index in served {
      checkCarried(index, node, epoch, "4: \(node.name) serves")
      if disks[index].servedEpoch < epoch {
        (disks[index].servedEpoch, disks[index].servedAt) = (epoch, now)
        servedFirst.append((index, now))
      }
    }
  }

  private func checkCarried(_ index: Int, _ node: SimNode, _ epoch: Epoch, _ what: String) {
    let disk = disks[index]
    if disk.shared.fence == .lease { return checkLease(disk, node, epoch, what) }
    // A node that stood still has not looked since.
    let since = node.wentOnAt > disk.loosenedAt ? node.wentOnAt : disk.loosenedAt
    let isLoose = now < since + 3_000_000_000 || !disk.hasPower
    guard let holder = disk.holder.flatMap(ReservationKey.init(rawValue:)) else {
      if !isLoose { fail("\(what) disk \(index) in epoch \(epoch), which nobody holds") }
      return
    }
    if holder.belongs(toNode: node.id) ? holder.epoch != epoch : holder.epoch < epoch {
      fail("\(what) disk \(index) in epoch \(epoch), held with \(shown(holder.rawValue))")
    }
    for raw in disk.table.registrants.map(\.key) {
      guard let key = ReservationKey(rawValue: raw), key.epoch < epoch, !isLoose else { continue }
      fail("\(what) disk \(index) in epoch \(epoch), where \(shown(raw)) is registered")
    }
  }

  /// What stands in for the key: the node's own record, and that nobody else serves.
  private func checkLease(_ disk: SimDisk, _ node: SimNode, _ epoch: Epoch, _ what: String) {
    let lease = disk.lease(of: node.id)
    if disk.hasPower, lease?.phase != .held || lease?.epoch != epoch {
      fail("\(what) disk \(disk.index) in epoch \(epoch), and its lease is \(lease.map { "\($0)" } ?? "-")")
    }
    for other in nodes where other !== node && other.isRunning && !other.isPaused && other.mode == .serving {
      if other.served[disk.index] { fail("\(what) disk \(disk.index), which \(other.name) serves") }
    }
  }

  /// 5: no service address before the fence is complete. A later epoch may have taken the disks since: the node hears of
  /// it from the disk (4 allows the same).
  func check(addressesOf node: SimNode) {
    guard node.engine.hasSharedDisks else { return }
    guard node.hasPulse else { return }
    let carried = disks.contains { disk in
      if disk.shared.fence == .lease { return disk.lease(of: node.id)?.epoch == node.servedEpoch }
      let holder = disk.holder.flatMap(ReservationKey.init(rawValue:))
      return holder.map { $0.belongs(toNode: node.id) ? $0.epoch == node.servedEpoch : $0.epoch > node.servedEpoch }
        ?? (now < disk.loosenedAt + 3_000_000_000)
    }
    guard node.mode == .serving, node.servedEpoch != .none, carried else {
      return fail("5: \(node.name) takes the service addresses, and serves nothing")
    }
  }

  /// 2: who writes holds the disk.
  func checkWriter(_ command: DiskCommand, _ disk: SimDisk) {
    guard let holder = disk.holder.flatMap(ReservationKey.init(rawValue:)) else { return }
    if !holder.belongs(toNode: nodes[command.node].id) {
      fail("2: disk \(disk.index) takes a write of \(nodes[command.node].name), held with \(shown(holder.rawValue))")
    }
  }

  /// 3, 6: no write of an earlier epoch lands, and none undoes what an initiator was told is written.
  func checkWrite(_ command: DiskCommand, _ disk: SimDisk, _ block: Int, _ value: UInt64) {
    if command.epoch < disk.servedEpoch {
      fail(
        "3: a write of \(nodes[command.node].name) in epoch \(command.epoch) lands on disk \(disk.index), "
          + "which is served in epoch \(disk.servedEpoch)")
    }
    if value < disk.acknowledged[block] {
      fail("6: \(value) is written over \(disk.acknowledged[block]), which was acknowledged, on disk \(disk.index)")
    }
  }

  // 7: an acknowledged reservation is in force for every later command.

  func didReserve(_ disk: Int, by initiator: Int) { reservedBy[disk] = (initiator, now) }
  func willRelease(_ disk: Int) { reservedBy[disk] = nil }

  func checkReservation(_ disk: Int, writer: Int, issued: UInt64) {
    guard let reservation = reservedBy[disk], reservation.initiator != writer, issued > reservation.at else { return }
    fail("7: initiator \(writer) writes to disk \(disk), which initiator \(reservation.initiator) has reserved")
  }

  /// What the engines say of themselves.
  func noticeNote(_ transition: Transition, of node: SimNode) {
    if transition.to == .fencing { takeoversBegunAt.append(now) }
    // 8: two nodes that both answer never both call themselves active.
    if transition.to == .active, transition.epoch != .none {
      for other in nodes where other !== node && other.isRunning && !other.isPaused {
        if other.mode == .serving, other.servedEpoch != .none, other.servedEpoch < transition.epoch,
          other.served.contains(true), !isLeft(other)
        {
          fail("8: \(node.name) is active in epoch \(transition.epoch), \(other.name) serves in \(other.servedEpoch)")
        }
      }
    }
    guard transition.from == .fencing, transition.reason.hasPrefix("another node") else { return }
    // Of two that race without any other trouble, one wins: that is what the arbiters' order is for.
    if let rival = lostRaces.last, rival.node != node.index, now < rival.at + 20_000_000,
      now > diskFaultAt + 3_000_000_000,
      pending.isEmpty, lostStatus == 0, !nodes.contains(where: \.isPaused),
      plan.faults.allSatisfy({ !$0.isAround(now) })
    {
      fail("11: \(node.name) and \(nodes[rival.node].name) race, and both lose")
    }
    lostRaces.append((node.index, now))
  }

  /// It knows of nobody else, lost the disks that decided, and goes on with others, which it holds as before.
  private func isLeft(_ node: SimNode) -> Bool {
    node.engine.isKnownAlone
      && disks.allSatisfy { disk in
        let holder = disk.holder.flatMap(ReservationKey.init(rawValue:))
        return !node.served[disk.index] || !disk.path[node.index]
          || holder.map { $0.belongs(toNode: node.id) && $0.epoch == node.servedEpoch } ?? false
      }
  }

  /// A key with which a node has served is the successor's to preempt: without it nothing stops what is still under way.
  func checkUnregister(_ raw: UInt64, node: Int) {
    guard let key = ReservationKey(rawValue: raw), servedBy[key.epoch.value, default: []].contains(node) else {
      return
    }
    fail("3: \(nodes[node].name) takes the key of epoch \(key.epoch) back, in which it served")
  }

  /// 10: a node that lost the disks completes nothing that it began after its successor had begun.
  func checkAnswer(_ operation: Operation, by node: SimNode) {
    let disk = disks[operation.disk]
    guard disk.servedEpoch > node.servedEpoch, operation.startedAt > disk.servedAt else { return }
    fail(
      "10: \(node.name), of epoch \(node.servedEpoch), answers for disk \(disk.index), served in epoch \(disk.servedEpoch)"
    )
  }

  /// 12: a node that an operator forces serves the disks that there are.
  func checkForced(_ index: Int, without lost: [Int]) {
    let node = nodes[index]
    log { "\(node.name): \(node.engine.role), \(node.mode), at \(node.local(self.now))\n\(node.engine.dump)" }
    for disk in disks where !lost.contains(disk.index) {
      guard node.isRunning, node.mode == .serving, node.served[disk.index] else {
        return fail("12: \(node.name) is forced, and does not serve disk \(disk.index)")
      }
    }
  }

  /// Ends the run once all is well, and some time after that.
  func watchLiveness(since end: UInt64) {
    at(max(end, now) + 500_000_000) {
      if self.isWell(since: end) {
        self.after(700_000_000) {
          if self.isWell(since: end) { self.settledAt = self.now } else { self.watchLiveness(since: end) }
        }
      } else {
        self.watchLiveness(since: end)
      }
    }
  }

  /// A node that is away has a lease, and had no watchdog: nobody may take over.
  private var isAwaited: Bool {
    nodes.contains { node in
      !node.hasPower
        && disks.contains { disk in
          disk.lease(of: node.id).map { $0.phase == .held && !$0.isGuarded } ?? false
        }
    }
  }

  private func isWell(since end: UInt64) -> Bool {
    let serving = nodes.filter { $0.isRunning && $0.mode == .serving }
    return serving.count == 1 && disks.allSatisfy { serving[0].served[$0.index] }
      && initiators.allSatisfy { $0.answeredSince > end }
  }

  /// 11: when faults stop, one node serves.
  func checkLiveness(since end: UInt64) {
    for node in nodes where node.isRunning {
      log {
        "\(node.name): \(node.engine.role), peer \(node.engine.shownPeer), \(node.mode), at \(node.local(self.now))\n\(node.engine.dump)"
      }
    }
    if isAwaited { return }
    let serving = nodes.filter { $0.isRunning && $0.mode == .serving }
    if serving.count != 1 {
      return fail("11: \(serving.count) nodes serve, \(settleTime / 1_000_000_000) s after the last fault")
    }
    for disk in disks where !serving[0].served[disk.index] {
      return fail("11: disk \(disk.index) is not served, \(settleTime / 1_000_000_000) s after the last fault")
    }
    for initiator in initiators where initiator.answeredSince < end {
      return fail("11: initiator \(initiator.index) had no answer since the last fault")
    }
  }
}

extension Plan.Fault {
  func isAround(_ time: UInt64) -> Bool { time + 1_000_000_000 > at && time < at + duration + 4_000_000_000 }
}

import Glibc
import HA
import ISCSI
import Reactor
import Storage
import Wire

/// The gateway as a node of a pair.
extension Gateway {
  /// From now on the pair follows the shared disks; it begins with the first.
  func watchSharedDisks(_ provisioner: Provisioner) {
    provisioner.pairHooks.withLock { hooks in
      hooks.sharedDisksChanged = { [weak self] in self?.sharedDisksChanged() }
      hooks.renamed = { [weak self] in self?.renamed() }
    }
    sharedDisksChanged()
  }

  private func sharedDisksChanged() {
    if let pairService { return pairService.disksChanged() }
    guard let (provisioner, context, settings) = partsOfPair, !provisioner.sharedDisks.isEmpty else { return }
    let service = PairService(
      provisioner: provisioner, context: context, addresses: settings.pair.addresses,
      watchdog: settings.pair.watchdog,
      gateway: PairService.Gateway(
        setPortGroups: { [weak self] body in self?.setPortGroups(body) },
        setTakesLogins: { [weak self] in self?.change { $0.takesLogins = true } },
        hasRDMA: { [weak self] in self?.hasRDMA ?? false },
        isReachable: isReachable,
        deviceServer: { [weak self] in self?.deviceServer }))
    setPortGroups { $0.isExplicit = settings.pair.hasExplicitALUA }
    // Two disks may come at a time.
    guard keep(service) else { return }
    context.switchover.withLock { switchover in
      switchover = { [weak self] answer in
        startThread(name: "switchover") { [weak self] in
          guard let self, let pair = self.pairService else { return answer(false) }
          do throws(ControlError) {
            try self.switchOver(pair)
            answer(true)
          } catch {
            Log.notice("an initiator wants another port group: \(error.message)")
            answer(false)
          }
        }
      }
    }
    service.start()
  }

  /// The cluster is that of a label that was found only now, and the target has another name.
  private func renamed() {
    guard let (provisioner, context, _) = partsOfPair, let name = ISCSIName(provisioner.targetName),
      requestedTargetName == nil
    else { return }
    Log.notice("the target's name is \(name): it comes with the disks")
    change { configuration in
      configuration.target.targetName = name
      configuration.deviceServer = configuration.deviceServer.renamed(name.text)
    }
    for handle in context.handles { handle.post(.perform { $0.closeAll("the target has another name") }) }
  }

  // MARK: The operator

  public func pair() -> PairReport {
    guard let pair = pairService else {
      var report = PairReport.off(
        isPairEnabled
          ? "no disk that another node could have is exported" : "the settings turn it off"
      )
      report.unfencedDisks = unfencedDisks
      return report
    }
    let status = pair.status
    let now = BootClock.now
    let history = pair.history
    let transitions = history.transitions
    var report = PairReport(
      isRunning: true, reason: "", role: "\(status.role)", epoch: status.epoch.value, node: "\(pair.node.node)",
      name: pair.node.name, hold: Self.text(of: status.hold), links: pair.links.report,
      droppedMessages: status.droppedMessages, disks: [], addresses: pair.addressReport.map(\.text),
      serviceAddresses: pair.addressReport, changes: [])
    report.holdReason = status.hold.map { $0 == .byOperator ? "operator" : "repetition" }
    report.unfencedDisks = unfencedDisks
    report.waitsForSign = status.isUnsure
    report.isRefused = status.isRefused
    report.stranger = status.stranger.map { PairReport.Stranger(node: "\($0.node)", name: $0.name) }
    report.takeovers = PairReport.Takeovers(history, at: now)
    report.peer = status.peer.map { peer in
      PairReport.Peer(
        node: "\(peer.node)", name: peer.name, role: "\(peer.role)", epoch: peer.epoch.value,
        heardMillisecondsAgo: (now - min(peer.heardAt, now)) / 1_000_000, linksBothWays: peer.bothWays.count,
        silenceLimitMilliseconds: peer.silenceLimit / 1_000_000)
    }
    report.disks = exports.filter(\.isShared).compactMap { export in
      guard let disk = export.label?.disk else { return nil }
      let shown = status.disks.first { $0.id == disk }
      let state = shown?.state
      return PairReport.Disk(
        disk: "\(disk)", lun: export.unit.number, path: export.disk.path, state: state.map { "\($0)" } ?? "unknown",
        isArbiter: status.arbiters.contains(disk), takeover: Self.text(of: shown?.lease),
        isUnguarded: shown?.lease?.isUnguarded ?? false, problem: pair.problems[disk] ?? "")
    }
    if status.disks.contains(where: { $0.lease?.isShared == true }) { report.watchdog = pair.watchdogReport }
    for (index, transition) in transitions.enumerated() {
      let before = index > 0 ? transitions[index - 1].at : nil
      report.changes.append(
        PairReport.Change(
          from: "\(transition.from)", to: "\(transition.to)", epoch: transition.epoch.value,
          reason: transition.reason, secondsAgo: Double(now - min(transition.at, now)) / 1e9,
          milliseconds: before.map { Double(transition.at - min($0, transition.at)) / 1e6 }))
    }
    return report
  }

  /// What is exported of this machine's alone.
  private var unfencedDisks: [PairReport.UnfencedDisk] {
    exports.filter { !$0.isShared && $0.disk.descriptor != nil }
      .map { PairReport.UnfencedDisk(lun: $0.unit.number, path: $0.disk.path) }
  }

  static func text(of lease: PairStatus.LeaseStatus?) -> String {
    guard let lease else { return "by reservations" }
    switch lease.obstacle {
    case .taken: return "another node has it"
    case .unguarded: return "NOT by itself: its node had no watchdog ('gatewayd pair force')"
    case .unnamed: return "HELD: its label names another node only ('gatewayd pair force')"
    case nil: break
    }
    if !lease.isOwn { return "free" }
    if !lease.isShared { return "no: its label names this node only" }
    return lease.isGuarded ? "by lease, after 10 s" : "NOT by itself: no watchdog"
  }

  private static func text(of hold: PairStatus.Hold?) -> String {
    switch hold {
    case nil: ""
    case .byOperator: "by an operator"
    case .byRepetition: "three takeovers within ten minutes"
    }
  }

  public func operate(_ operation: PairOperation) throws(ControlError) -> PairReport {
    guard let pair = pairService else {
      throw ControlError(.refused, "there is no pair here: 'gatewayd pair' says why")
    }
    Log.notice("pair: an operator asks: \(operation)")
    switch operation {
    case .hold: pair.operate(.hold)
    case .resume: pair.operate(.resume)
    case .force: pair.operate(.force)
    case .forget(let text):
      guard let node = UUID(text) else {
        throw ControlError(.badRequest, "'\(text)' is no node's UUID; 'gatewayd pair' shows them")
      }
      pair.operate(.forget(node: node))
    case .switchover: try switchOver(pair)
    }
    // The engine's next step has it.
    usleep(100_000)
    return self.pair()
  }

  private static let switchoverAttempts = 8

  private func switchOver(_ pair: PairService) throws(ControlError) {
    let before = pair.status
    guard before.role == .active || before.role == .passive else {
      throw ControlError(.busy, "this node is \(before.role); try again when the pair is at rest")
    }
    guard before.peer != nil else { throw ControlError(.refused, "there is no other node that could take over") }
    let goal: Role = before.role == .active ? .passive : .active
    let deadline = BootClock.now + 15_000_000_000
    // What is under way gets a tenth of a second, then all goes on as it was: under load it may take more than one attempt.
    for _ in 0..<Self.switchoverAttempts {
      let begun = BootClock.now
      pair.operate(.switchover)
      while BootClock.now < deadline {
        usleep(5000)
        let status = pair.status
        if status.role == goal, goal == .active || status.peer?.role == .active { return }
        let isCalledOff = status.role == before.role && status.peer?.role != .draining
        if isCalledOff, BootClock.now > begun + 1_500_000_000 { break }
      }
    }
    let reason = pair.history.transitions.last?.reason ?? "the other node did not answer"
    throw ControlError(.refused, "no switchover: \(reason)")
  }
}

extension PairReport.Takeovers {
  init(_ history: PairHistory, at now: UInt64) {
    self.init(
      counts: Dictionary(history.takeovers.map { ($0.key.rawValue, $0.value) }) { first, _ in first },
      last: history.lastTakeover.map { last in
        PairReport.Takeover(
          cause: last.cause.rawValue, secondsAgo: Double(now - min(last.at, now)) / 1e9,
          seconds: Double(last.nanoseconds) / 1e9)
      }, fenced: history.fenced, handedOver: history.handedOver)
  }
}

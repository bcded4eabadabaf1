import Wire

/// Decides what this node is to the pair (docs/HA.md). Pure: events in, actions out, no clock, no I/O and no randomness of its
/// own; the same events at the same instants give the same actions.
///
/// Nothing that it believes of the other node makes a write safe: that is the disks' doing, which take writes from the holder
/// of one key only. What it believes decides when it tries to become that holder, and what it does when it no longer is.
///
/// - `Engine+Watch`: observing, passive, suspecting: when to take over.
/// - `Engine+Takeover`: fencing and recovering.
/// - `Engine+Disk`: what a disk needs next, and what its answers mean.
/// - `Engine+Active`: polls, audits, handover, the end.
public struct Engine: Sendable {
  let me: NodeIdentity
  let policy: EnginePolicy
  var jitter: Jitter

  public internal(set) var role = Role.observing
  /// Of the own activity; none: not active.
  var epoch = Epoch.none
  /// The highest that was ever seen anywhere.
  var highest = Epoch.none
  /// Made for `epoch`.
  var key: ReservationKey?
  var cluster: UUID?
  /// By WWID, ascending.
  var disks: [EngineDisk] = []
  /// The list that the own owner record has.
  var arbiters: [DiskID] = []
  /// Lists of which a majority each is needed: one, or two while the list changes.
  var quorums: [[DiskID]] = []

  var peer: PeerView?
  var droppedMessages: UInt64 = 0
  /// A third node that was heard last.
  var stranger: PairStatus.Stranger?
  var links: [LinkID] = []
  var oldestIO: UInt64 = 0
  /// Taken for granted until the target says otherwise.
  var isReachable = true

  /// Nil until the first `.disks`.
  var disksSince: Instant?
  var lastStep: Instant = 0
  /// Silence before does not count: this node was not running.
  var trustFrom: Instant = 0
  /// Beats go out while there is a cluster.
  var nextBeat: Instant = 0
  var sequence: UInt64 = 0
  var diskBeatSequence: UInt64 = 0

  /// The last sign of an active other node.
  var activeAt: Instant = 0
  /// When it is this node's turn to take over, with nobody active.
  var turnAt: Instant?
  /// Since when something about the active is not as it should be.
  var impairedSince: Instant?
  var takeover: Takeover?
  /// Not before, after a race that was not won; later each time.
  var raceAgainAt: Instant = 0
  var lostInARow = 0
  /// When the other node was last seen to be active, in which epoch.
  var peerActiveEpoch = Epoch.none
  var takeoversAt: [Instant] = []
  var heldByOperator = false
  var heldByRepetition = false
  /// Asks the active to hand over until then.
  var asksUntil: Instant = 0
  /// The last beat of the other node asked.
  var wasAsked = false

  var handover: Handover?
  /// This node has released the disks and still leaves them to the other.
  var isReleased = false
  var releasedUntil: Instant = 0
  /// The program ends: nothing is taken any more.
  var isEnding = false
  /// The last instant at which this node was certainly active.
  var sureAt: Instant = 0
  /// The same by the disks alone.
  var confirmedAt: Instant = 0
  /// While it waits for a sign: since when the other node gives it.
  var vouchedSince: Instant?
  /// A label has named another node, be it on a disk that is not there now, or one was heard.
  var hasOthers = false
  /// Another node was heard that served: this one listens before it takes anything, whatever the labels say.
  var hasHeardActive = false
  /// A node of the pair has served shared disks while this program ran, or so says one that saw it: to initiators no power was
  /// lost. To take disks, or to have them, is not to serve: what a loss of power has ended is not taken back before that.
  public internal(set) var hasSeenService = false
  /// It waits for a sign that it still is.
  var isUnsure = false
  /// When the last beats were sent, by sequence.
  var sentAt = [Instant](repeating: 0, count: 32)
  var arbitersWrongSince: Instant?
  var expelled: UUID?
  var watchdog = Watchdog.off
  /// Disks that an earlier life had under its watchdog when it ended, and that were not looked at since: what it wrote there
  /// may be under way. The kernel leaves a disk to nobody before that is over, so it may be long until they are seen.
  var unsettled: Set<DiskID>
  /// What was told to be kept.
  var keptGuarded: Set<DiskID>
  var nextKeepAlive: Instant = 0
  /// An operator takes disks whose lease stands still.
  var forcesUntil: Instant = 0
  /// And disks that decide in place of others, out of those that answer from then on.
  var forcedAt: Instant?
  /// When that was last so: what has not answered since does not decide.
  var decidedAt: Instant = 0
  var fencedAt: Instant = 0
  var hasAddresses = false
  var targetState = TargetState.none

  var orderCount: UInt64 = 0
  var actions: [Action] = []
  var wake: Instant = .max
  /// The event may change more than the time at which the other node was heard last.
  var isNews = true

  enum TargetState: Sendable { case none, hold, standby, serving }

  struct Handover: Sendable {
    var until: Instant
    var reason: String
  }

  /// - Parameters:
  ///   - seed: random; decides the delays by which two nodes do not do the same thing at the same time.
  ///   - guarded: what an earlier life of the program on this machine had kept last (`Action.keepGuarded`).
  public init(identity: NodeIdentity, seed: UInt64, guarded: Set<DiskID> = []) {
    self.init(identity: identity, seed: seed, guarded: guarded, policy: EnginePolicy())
  }

  package init(identity: NodeIdentity, seed: UInt64, guarded: Set<DiskID> = [], policy: EnginePolicy) {
    me = identity
    self.policy = policy
    (unsettled, keptGuarded) = (guarded, guarded)
    jitter = Jitter(seed: seed)
  }

  /// Takes an event and says what is to be done, in this order. Instants never go back.
  public mutating func step(_ event: Event, at now: Instant) -> [Action] {
    actions.removeAll(keepingCapacity: true)
    let due = wake
    noticeStall(now)
    lastStep = now
    isNews = true
    handle(event, now)
    // Most steps are beats and figures that say nothing new: what was due before is due then still, or later.
    if isNews || now >= due {
      wake = .max
      evaluate(now)
      keepGuarded()
    }
    beatIfDue(now)
    return actions
  }

  /// When `.tick` is due at the latest; nil: not before another event.
  public var deadline: Instant? { wake == .max ? nil : wake }

  private mutating func handle(_ event: Event, _ now: Instant) {
    switch event {
    case .disks(let list): adopt(list, now)
    case .received(let beat, let link): receive(beat, link, now)
    case .links(let list): links = list
    case .answer(let disk, let order, let answer): take(answer, of: order, disk: disk, now)
    case .conflict(let id):
      if isHolding, disks.contains(where: { $0.id == id && $0.isServed }) {
        fence("a disk refused a write: others have it", now)
      }
    case .disturbed(let id):
      if isHolding, let index = disks.firstIndex(where: { $0.id == id }) { disturb(index) }
    case .health(let oldest, let reachable):
      isNews = reachable != isReachable
      (oldestIO, isReachable) = (oldest, reachable)
    case .recovered(let recovered):
      if role == .recovering, recovered == epoch { takeover?.isRecovered = true }
    case .drained(let isEmpty): drained(isEmpty, now)
    case .operate(let command): operate(command, now)
    case .watchdog(let isArmed): if watchdog != .off { watchdog = isArmed ? .armed : .unavailable }
    case .shutdown: shutDown(now)
    case .tick: break
    }
  }

  /// Every step, whatever the event was: what is due now, and when to be asked again.
  private mutating func evaluate(_ now: Instant) {
    guard disksSince != nil else { return }
    tendLeases(now)
    defer {
      // What this step has lost is given up in it.
      if key == nil { tendLeases(now) }
      tendWatchdog(now)
    }
    switch role {
    case .observing, .passive, .suspecting: watch(now)
    case .fencing: advanceTakeover(now)
    case .recovering: awaitRecovery(now)
    case .active, .draining: stayActive(now)
    case .fenced:
      if now >= fencedAt + PairTimers.backoff {
        observe("looks who is active", now)
        watch(now)
      } else {
        wakeAt(fencedAt + PairTimers.backoff)
      }
    }
  }

  // MARK: Small things that all parts use

  /// Takes the disks' writes, or is about to.
  var isHolding: Bool { role == .recovering || role == .active || role == .draining }

  package var hasSharedDisks: Bool { !disks.isEmpty }

  /// Asks for a step at that time; what is past already was seen in this one.
  mutating func wakeAt(_ instant: Instant) {
    if instant > lastStep { wake = min(wake, instant) }
  }

  mutating func become(_ next: Role, _ reason: String, _ now: Instant) {
    let shown = epoch == .none ? highest : epoch
    let cause = takeover.map { $0.isForced ? .forced : $0.cause }
    actions.append(.note(Transition(from: role, to: next, epoch: shown, reason: reason, at: now, cause: cause)))
    if next == .active, epoch != .none { hasSeenService = true }
    guard role != next else { return }
    role = next
    forcedAt = nil
    // The other node should not have to wait for it.
    nextBeat = now
  }

  mutating func order(_ what: DiskOrder, at index: Int, _ now: Instant) {
    orderCount += 1
    disks[index].busy = EngineDisk.Busy(order: orderCount, what: what, since: now)
    if case .register = what { disks[index].mayHaveKey = true }
    noteLeaseOrder(what, index, now)
    actions.append(.disk(disks[index].id, order: orderCount, what))
  }

  mutating func setTarget(_ state: TargetState) {
    guard targetState != state else { return }
    targetState = state
    switch state {
    case .none, .serving: break
    case .hold: actions.append(.target(.hold))
    case .standby: actions.append(.target(.standby))
    }
  }

  mutating func setAddresses(_ taken: Bool) {
    guard hasAddresses != taken else { return }
    hasAddresses = taken
    actions.append(.addresses(taken ? .take : .drop))
  }

  /// Nodes of the labels other than this one.
  var others: [UUID] {
    var found: [UUID] = []
    for disk in disks {
      for node in disk.nodes where node != me.node && !found.contains(node) { found.append(node) }
    }
    return found
  }

  /// Labels that have no room for this node.
  func isRefused(_ nodes: [UUID]) -> Bool { nodes.count >= 2 && !nodes.contains(me.node) }

  var isRefused: Bool { !disks.isEmpty && disks.allSatisfy { isRefused($0.nodes) } }

  var slot: NodeSlot {
    guard let nodes = disks.first?.nodes else { return .first }
    return nodes.firstIndex(of: me.node).map { $0 == 0 ? .first : .second } ?? (nodes.isEmpty ? .first : .second)
  }

  func hasMajority(_ isGood: (EngineDisk) -> Bool) -> Bool {
    // Until a forced takeover has chosen its disks; then a majority of these decides, as always.
    let isForced = takeover.map { $0.isForced && !$0.hasChosen } ?? false
    if policy.needsNoMajority || isForced { return disks.contains(where: isGood) }
    return !quorums.isEmpty
      && quorums.allSatisfy { isMajority(of: $0, isGood) }
  }

  /// Whether more than half of these disks are there and so.
  func isMajority(of list: [DiskID], _ isGood: (EngineDisk) -> Bool) -> Bool {
    let good = list.count { id in disks.contains { $0.id == id && isGood($0) } }
    return 2 * good > list.count
  }

  func isArbiter(_ id: DiskID) -> Bool { quorums.contains { $0.contains(id) } }

  /// The disks that should decide: the three lowest, or one where there are fewer.
  /// - Parameter mayBeShared: it counts as one that both nodes see, whatever is known of its label.
  func arbiters(of candidates: [EngineDisk], mayBeShared: (EngineDisk) -> Bool = { _ in false }) -> [DiskID] {
    // Those that can fence, else those that both nodes see.
    let fencing = candidates.filter(\.isFencing)
    let shared = fencing.isEmpty ? candidates.filter { $0.nodes.count > 1 || mayBeShared($0) } : fencing
    let best = shared.isEmpty ? candidates : shared
    return best.prefix(best.count >= 3 ? 3 : 1).map(\.id)
  }

  // MARK: Disks that come and go

  private mutating func adopt(_ list: [SharedDisk], _ now: Instant) {
    let isFirst = disksSince == nil
    if isFirst { disksSince = now }
    if cluster == nil { cluster = list.min { $0.wwid < $1.wwid }?.cluster }
    let hadDisks = !disks.isEmpty
    let own = list.filter { $0.cluster == cluster }
    disks = own.map { shared in
      guard var known = disks.first(where: { $0.id == shared.id }) else { return EngineDisk(shared) }
      known.shared = shared
      return known
    }
    disks.sort { $0.shared.wwid < $1.shared.wwid }
    if isFirst {
      actions.append(.addresses(.drop))
      if disks.isEmpty {
        become(.active, "there is no shared disk", now)
        targetState = .serving
        actions.append(.target(.serve(.none, disks: [])))
      } else {
        setTarget(.hold)
        observe("looks whether the other node is active", now)
      }
    } else if role == .active, epoch == .none, !hadDisks, !disks.isEmpty {
      meetFirstDisk(now)
    }
  }

  /// A node that was alone with its own disks sees a shared one.
  private mutating func meetFirstDisk(_ now: Instant) {
    if !isAlone {
      actions.append(.target(.closeWithoutAnswer))
      setAddresses(false)
      setTarget(.hold)
    }
    observe("a first shared disk came", now)
  }

  // MARK: Beats

  private mutating func receive(_ beat: Heartbeat, _ link: LinkID, _ now: Instant) {
    let before = peer?.beat
    let wasFresh = peer?.isFresh(now) ?? false
    let wasUnsure = isUnsure
    receiveAny(beat, link, now)
    guard let before, let after = peer?.beat else { return }
    isNews =
      !wasFresh || wasUnsure || before.role != after.role || before.epoch != after.epoch || before.flags != after.flags
      || before.bootID != after.bootID || before.disks.count != after.disks.count || after.oldestIO > PairTimers.hungIO
      || role == .suspecting
  }

  private mutating func receiveAny(_ beat: Heartbeat, _ link: LinkID, _ now: Instant) {
    guard beat.cluster == cluster, beat.node != me.node else {
      droppedMessages += 1
      return
    }
    let named = others
    let isKnown = named.isEmpty || named.contains(beat.node)
    if !isKnown { stranger = PairStatus.Stranger(node: beat.node, name: beat.name) }
    if var known = peer, known.beat.node == beat.node {
      guard isKnown, known.take(beat, link: link, ownBoot: me.bootID, at: now) else {
        droppedMessages += 1
        return
      }
      peer = known
    } else {
      let isFree = peer.map { now > $0.heardAt + PairTimers.silenceMax || !named.contains($0.beat.node) } ?? true
      guard isKnown, isFree else {
        droppedMessages += 1
        return
      }
      peer = PeerView(beat, link: link, ownBoot: me.bootID, at: now)
    }
    noticePeer(now)
  }

  private mutating func noticePeer(_ now: Instant) {
    guard let peer else { return }
    highest = max(highest, peer.beat.epoch)
    hasOthers = true
    if peer.isServing { hasHeardActive = true }
    if peer.hasSeenService { hasSeenService = true }
    if peer.isServing, peer.beat.epoch > peerActiveEpoch {
      peerActiveEpoch = peer.beat.epoch
      countTakeover(now)
    }
    if peer.hasWon(over: epoch), epoch != .none {
      if isHolding {
        fence("the other node is active in epoch \(peer.beat.epoch)", now)
      } else if role == .fencing {
        loseRace("the other node has won epoch \(peer.beat.epoch)", now)
      }
    }
    let heard = peer.beat.heardSequence
    if peer.beat.heardBoot == me.bootID, heard <= sequence, sequence - heard < 32 {
      let sent = sentAt[Int(heard % 32)]
      self.peer?.datedAt = max(peer.datedAt, sent)
      if isHolding, !peer.isServing { vouch(sent, now) }
    }
    let asks = peer.beat.flags.contains(.asksForHandover)
    // In doubt it is left for a later beat.
    if asks, isUnsure, !policy.servesInDoubt { return }
    if role == .active, asks, !wasAsked, peer.isProven { beginHandover("the other node asks for it", now) }
    wasAsked = asks
  }

  mutating func countTakeover(_ now: Instant) {
    takeoversAt.append(now)
    if takeoversAt.count > PairTimers.takeoversMax { takeoversAt.removeFirst() }
    if takeoversAt.count == PairTimers.takeoversMax, now < takeoversAt[0] + PairTimers.takeoverWindow {
      heldByRepetition = true
    }
  }

  private mutating func beatIfDue(_ now: Instant) {
    guard let cluster else { return }
    if now >= nextBeat {
      nextBeat = now + PairTimers.beat
      sequence += 1
      sentAt[Int(sequence % 32)] = now
      var flags: Heartbeat.Flags = []
      if isReleased { flags.insert(.released) }
      if isReachable { flags.insert(.reachable) }
      if heldByOperator { flags.insert(.held) }
      if now < asksUntil { flags.insert(.asksForHandover) }
      if hasSeenService { flags.insert(.hasSeenService) }
      let heard = peer.flatMap { now < $0.heardAt + PairTimers.silence ? $0.beat : nil }
      let hasWon = isHolding || takeover?.hasWon == true
      actions.append(
        .send(
          Heartbeat(
            cluster: cluster, node: me.node, bootID: me.bootID, sequence: sequence, role: role,
            epoch: hasWon ? epoch : .none, name: me.name, heardBoot: heard?.bootID ?? 0,
            heardSequence: heard?.sequence ?? 0, oldestIO: max(oldestIO, arbitersSilence(now)),
            flags: flags,
            disks: disks.filter { ($0.isFencing || $0.nodes.count > 1) && $0.answers(now) }.map(\.id))))
    }
    wakeAt(nextBeat)
  }

  /// For how long the arbiters have taken no beat: the kernel may give up on what is under way, so that nothing is any more,
  /// and still show the disks.
  private func arbitersSilence(_ now: Instant) -> UInt64 {
    role == .active && epoch != .none ? now - min(confirmedAt, now) : 0
  }

  // MARK: Time that this node did not have

  /// After a time without a step the other's silence means nothing.
  private mutating func noticeStall(_ now: Instant) {
    guard lastStep != 0, now > lastStep + PairTimers.stall else { return }
    trustFrom = now
    turnAt = turnAt.map { max($0, now + PairTimers.stall) }
  }
}

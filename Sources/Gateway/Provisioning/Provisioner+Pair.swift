import Discovery
import Glibc
import HA
import Reactor
import Storage
import Wire

/// What this node may do with disks that another may have too.
enum PairStanding: Equatable, Sendable {
  /// It is not known yet whether there is another node, or what it does.
  case undecided
  case active(Epoch, NodeSlot)
  case passive
}

/// What is known of a disk that is to be labelled.
enum KnownContent {
  case unknown
  /// It was looked at through this opening.
  case blank
  /// Only its ends are blank, and the rest is not wanted any more.
  case unwanted
}

/// Who is told what the provisioner finds of shared disks.
struct PairHooks: Sendable {
  var sharedDisksChanged: (@Sendable () -> Void)?
  /// The first label that was found has another cluster than this node had made for itself.
  var renamed: (@Sendable () -> Void)?
}

/// Block devices may be another node's too. Blank ones are labelled by the active node of a pair alone; where there is none
/// yet, by who reserves the disk first, or whose label stands, if it cannot be reserved.
extension Provisioner {
  /// Whether another node may have the disk, and what keeps it off; asked once, when it is opened. Any block device may be
  /// somebody else's too.
  /// - Throws: `waiting` while the disk does not answer: the two nodes must not judge it differently.
  func judgeSharing(_ opening: inout DiskOpening) throws(DiskOpening.Refusal) {
    guard options.settings.pair.isEnabled, opening.disk.descriptor != nil, !opening.disk.isRegularFile else { return }
    let support = FenceSupport.probe(opening.disk)
    opening.fence = try Self.fence(by: support, hasPart: FencePart.isInstalled)
    // Of the disk's own obstacles nobody is surprised; this one is of the setup.
    if support == .unable(.notPermitted) {
      Log.warning("\(opening.disk.path) has a lease instead of a reservation: \(FenceObstacle.notPermitted)")
    }
  }

  /// What keeps the other node off a disk that answered so. A lease only where the disk can certainly not fence: to a node that
  /// has a lease at a disk that the other has reserved it would be lost for good.
  static func fence(by support: FenceSupport, hasPart: Bool) throws(DiskOpening.Refusal) -> SharedDisk.Fence {
    guard case .unable(let obstacle) = support else { return .reservations }
    guard obstacle.isPassing(hasPart: hasPart) else { return .lease }
    throw .waiting("it is not known yet whether it has persistent reservations: \(obstacle)")
  }

  /// The shared disks that are exported, as the pair's engine knows them.
  var sharedDisks: [SharedDisk] {
    state.withLock { Array($0.entries.values) }.compactMap { entry in
      guard let export = entry.export, export.isShared, let label = export.label else { return nil }
      return SharedDisk(
        id: label.disk, wwid: entry.device?.wwid ?? Self.blockDevice(entry.path)?.wwid ?? entry.path,
        cluster: label.cluster, nodes: label.nodes.map(\.id), fence: export.fence)
    }
  }

  var sharedExports: [Export] { state.withLock { $0.map }.exports.filter(\.isShared) }
  /// What authenticates the pair's beats; empty: no labelled disk was seen yet.
  var pairKey: [UInt8] { state.withLock { $0.pairKey } }

  /// Which of a label's places this node has; nil: no label names it yet.
  var slot: NodeSlot? { slot(in: sharedExports.compactMap(\.label)) }

  private func slot(in labels: [Label]) -> NodeSlot? {
    for label in labels {
      if let place = label.nodes.firstIndex(where: { $0.id == node.node }) { return NodeSlot(rawValue: UInt8(place)) }
    }
    return nil
  }

  /// Which ports are this node's, and whether there are others.
  func tellSlot(_ state: inout PortGroupState) {
    let labels = sharedExports.compactMap(\.label)
    if let slot = slot(in: labels) { state.slot = slot }
    state.isPaired = labels.contains { $0.nodes.count == Label.nodeSlots }
  }

  /// The pair has changed: disks that wait for it are asked again.
  func set(_ standing: PairStanding) {
    let hasChanged = state.withLock { state in
      defer { state.standing = standing }
      return state.standing != standing
    }
    if hasChanged { reconsiderWaiting() }
  }

  /// Labels a blank disk and exports it. A disk that waits for the pair is not read: that takes long, and is tried each second.
  func labelBlank(
    _ opening: DiskOpening, key: String, serial: UInt64, content: KnownContent = .unknown
  ) throws(DiskOpening.Refusal) {
    let standing = state.withLock { $0.standing }
    if opening.isShared {
      if standing == .passive { throw .waiting("it is blank; the active node of the pair labels it") }
      if standing == .undecided, !sharedExports.isEmpty {
        throw .waiting("it is blank; it is labelled once it is known which node of the pair is active")
      }
    }
    // The disk is looked at again on the descriptor that is written to: it may have changed hands meanwhile.
    if content == .unknown { try opening.checkBlank(knownBytes: knownBytes) }
    if opening.isShared {
      try reserve(opening, standing)
      // Another node may have been quicker, and be done with it.
      if case .label = LabelStore.readLabel(fd: opening.disk.descriptor!, diskBytes: opening.disk.byteCount) {
        throw .waiting("another node has just labelled it")
      }
      // Without a fence the time between looking and writing must be short.
      if content != .unwanted, opening.fence == .reservations { try opening.checkBlank(knownBytes: knownBytes) }
    }
    try label(opening, key: key, serial: serial)
  }

  /// How long the label of a disk that cannot fence must stand before it is believed, in microseconds.
  private static let standsMicroseconds: UInt32 = 500_000

  /// Nothing keeps another node from labelling a disk that cannot fence at the same moment: the last one has it.
  func checkLabelStands(_ opening: DiskOpening) throws(DiskOpening.Refusal) {
    guard opening.fence == .lease, let fd = opening.disk.descriptor, let label = opening.label else { return }
    usleep(Self.standsMicroseconds)
    guard LabelStore.readLabel(fd: fd, diskBytes: opening.disk.byteCount) == .label(label) else {
      throw .waiting("another node has labelled it at the same time")
    }
  }

  /// Makes a blank disk this node's, or finds out that another has it.
  private func reserve(_ opening: DiskOpening, _ standing: PairStanding) throws(DiskOpening.Refusal) {
    guard opening.fence == .reservations, let fence = Fence(opening.disk) else { return }
    var (epoch, slot) = (Epoch.none, NodeSlot.first)
    if case .active(let now, let own) = standing { (epoch, slot) = (now, own) }
    let key = ReservationKey(cluster: cluster, slot: slot, node: node.node, epoch: epoch)
    do throws(FenceFailure) {
      if try isForeign(fence) { throw .failed(EEXIST) }
      try fence.register(key.rawValue)
      do throws(FenceFailure) { try fence.reserve(key.rawValue) } catch {
        if error == .conflict { try? fence.unregister(key.rawValue) }
        throw error
      }
    } catch {
      guard error != .failed(EEXIST) else {
        throw DiskOpening.Refusal(
          isHeld: true, reason: "it is blank, but another host has it registered (persistent reservations)",
          advice: "sg_persist --out --clear (if it is yours), then gatewayd disks adopt \(opening.disk.path) --wipe")
      }
      throw .waiting("it is blank, and another node is labelling it, or it cannot be reserved (\(error))")
    }
  }

  /// Whether a key is registered that is no gateway's.
  private func isForeign(_ fence: Fence) throws(FenceFailure) -> Bool {
    try fence.readState().keys.contains { ReservationKey(rawValue: $0) == nil }
  }

  // MARK: Waiting

  private static let retryMicroseconds: UInt32 = 1_000_000

  /// - Parameter isNews: it did not wait for the same before.
  func waitForPair(_ key: String, _ reason: String, isNews: Bool) {
    if isNews { Log.notice("/dev/\(key): \(reason)") }
    let isFirst = state.withLock { state in
      defer { state.hasWaiting = true }
      return !state.hasWaiting
    }
    guard isFirst else { return }
    startThread(name: "blank disks") { [self] in
      while state.withLock({ state in
        state.hasWaiting = !state.isStopped && state.entries.values.contains(where: \.waitsForPair)
        return state.hasWaiting
      }) {
        usleep(Self.retryMicroseconds)
        reconsiderWaiting()
      }
    }
  }

  private func reconsiderWaiting() {
    let waiting = state.withLock { $0.entries.values.filter(\.waitsForPair) }
    // Both nodes begin with the same disk: who gets that one labels the others as well.
    for entry in waiting.sorted(by: { ($0.device?.wwid ?? $0.path) < ($1.device?.wwid ?? $1.path) }) {
      lanes.runUnlessMoreWaits(entry.key) { [self] in
        // Another attempt may have been under way, and have exported it: it is open then, and would be found busy.
        guard state.withLock({ $0.entries[entry.key]?.waitsForPair == true }) else { return }
        let serial = begin(entry.key, path: entry.path, device: entry.device)
        take(entry.key, path: entry.path, device: entry.device, serial: serial)
      }
    }
  }
}

extension DiskOpening.Refusal {
  static func waiting(_ reason: String) -> DiskOpening.Refusal {
    DiskOpening.Refusal(isHeld: true, reason: reason, waitsForPair: true)
  }
}

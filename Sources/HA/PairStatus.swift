import Wire

/// What `gatewayd pair` shows, and what the answer to REPORT TARGET PORT GROUPS is made of.
public struct PairStatus: Equatable, Sendable {
  public var role: Role
  /// Of the own activity, or the highest that is known.
  public var epoch: Epoch
  public var cluster: UUID?
  public var arbiters: [DiskID]
  public var disks: [Disk]
  public var peer: Peer?
  /// Why there are no automatic takeovers.
  public var hold: Hold?
  /// Messages that were dropped: other clusters', replays, a third node's.
  public var droppedMessages: UInt64
  /// A node that the labels have no place for, and that was heard.
  public var stranger: Stranger?
  /// The labels have no place for this node itself.
  public var isRefused: Bool
  /// Active, and without a sign that it still is: nothing is answered.
  public var isUnsure: Bool

  public struct Stranger: Equatable, Sendable {
    public var node: UUID
    public var name: String
  }

  public struct Disk: Equatable, Sendable {
    public var id: DiskID
    public var state: State
    /// Of a disk that cannot fence.
    public var lease: LeaseStatus?

    public enum State: Equatable, Sendable {
      /// Not this node's.
      case idle
      /// Being taken, or taken again.
      case pending
      /// This node's, in its epoch.
      case secured
      /// Somebody who is no gateway of this cluster has a key or a reservation there.
      case foreign
      /// Its label names two other nodes.
      case refused
    }
  }

  public struct LeaseStatus: Equatable, Sendable {
    /// This node has the lease, or is giving it up.
    public var isOwn: Bool
    /// The record that this node wrote last says that its watchdog is armed: without that no other takes over by itself.
    public var isGuarded: Bool
    /// The label names another node.
    public var isShared: Bool
    /// What keeps this node from taking the disk.
    public var obstacle: LeaseObstacle?

    /// Nobody takes it over by itself from who has it: that node has no watchdog.
    public var isUnguarded: Bool { isOwn ? isShared && !isGuarded : obstacle == .unguarded }
  }

  public struct Peer: Equatable, Sendable {
    public var node: UUID
    public var bootID: UInt64
    public var name: String
    public var role: Role
    public var epoch: Epoch
    public var flags: Heartbeat.Flags
    public var heardAt: Instant
    /// Over which it was heard of late; those in `bothWays` it hears us on.
    public var links: [LinkID]
    public var bothWays: [LinkID]
    public var disks: [DiskID]
    /// How long it may be silent, in nanoseconds: more than usual if its beats came late.
    public var silenceLimit: UInt64
  }

  public enum Hold: Equatable, Sendable {
    case byOperator
    /// Three takeovers in ten minutes: none but for a silent active.
    case byRepetition
  }
}

extension PairStatus {
  /// Another node could take a disk of this one.
  public var mayLoseDisks: Bool { disks.contains { $0.lease?.isShared ?? true } }
  /// This node has leases, or has not given them up yet.
  public var hasLeases: Bool { disks.contains { $0.lease?.isOwn ?? false } }
}

extension Engine {
  public func status(at now: Instant) -> PairStatus {
    PairStatus(
      role: role, epoch: epoch == .none ? highest : epoch, cluster: cluster, arbiters: arbiters,
      disks: disks.map(shown), peer: peer.map { shown($0, now) },
      hold: heldByOperator ? .byOperator : heldByRepetition ? .byRepetition : nil, droppedMessages: droppedMessages,
      stranger: refusedStranger, isRefused: isRefused, isUnsure: isUnsure)
  }

  /// It may have been given a place since.
  private var refusedStranger: PairStatus.Stranger? {
    stranger.flatMap { $0.node == peer?.beat.node || others.contains($0.node) ? nil : $0 }
  }

  private func shown(_ disk: EngineDisk) -> PairStatus.Disk {
    var status = PairStatus.Disk(id: disk.id, state: disk.state)
    guard !disk.isFencing else { return status }
    status.lease = PairStatus.LeaseStatus(
      isOwn: disk.lease != nil, isGuarded: disk.lease?.record.isGuarded ?? false, isShared: disk.sharedSince != nil,
      obstacle: disk.lease == nil ? obstacle(at: disk, isForced: false) : nil)
    return status
  }

  private func shown(_ peer: PeerView, _ now: Instant) -> PairStatus.Peer {
    let heard = peer.links.filter { now < $0.heardAt + PairTimers.silence && links.contains($0.id) }
    return PairStatus.Peer(
      node: peer.beat.node, bootID: peer.beat.bootID, name: peer.beat.name, role: peer.beat.role,
      epoch: peer.beat.epoch, flags: peer.beat.flags, heardAt: peer.heardAt, links: heard.map(\.id),
      bothWays: heard.filter(\.isBothWays).map(\.id),
      disks: peer.beat.disks, silenceLimit: peer.limit)
  }
}

extension Engine {
  package var shownPeer: String { peer.map { "\($0.beat.role) \($0.isProven) at \($0.heardAt)" } ?? "-" }

  /// Everything of it in a few lines, for the simulator's transcripts.
  package var dump: String {
    disks.map { disk in
      "\(disk.shared.wwid) \(disk.state) served=\(disk.isServed) lease=\(disk.lease.map { "\($0)" } ?? "-") quiet=\(disk.isQuiet) "
        + "others=\(disk.seenLeases) failed=\(disk.hasFailed) notBefore=\(disk.notBefore) "
        + "busy=\(disk.busy.map { "\($0.what) since \($0.since)" } ?? "-") survey=\(disk.survey.map { "\($0)" } ?? "-")"
    }.joined(separator: "\n")
  }
}

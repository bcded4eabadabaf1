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

  public struct Disk: Equatable, Sendable {
    public var id: DiskID
    public var state: State

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

  public struct Peer: Equatable, Sendable {
    public var node: UUID
    public var name: String
    public var role: Role
    public var epoch: Epoch
    public var flags: Heartbeat.Flags
    public var heardAt: Instant
    /// Over which it was heard of late; those in `bothWays` it hears us on.
    public var links: [LinkID]
    public var bothWays: [LinkID]
    public var disks: [DiskID]
  }

  public enum Hold: Equatable, Sendable {
    case byOperator
    /// Three takeovers in ten minutes: none but for a silent active.
    case byRepetition
  }
}

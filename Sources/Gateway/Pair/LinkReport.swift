import HA

/// One link, for `gatewayd pair`. Durations in nanoseconds.
public struct LinkReport: Sendable, Equatable, Codable {
  /// `eth0/4`: interface and address family.
  public var name: String
  /// "up", "one way" (the peer is heard and does not hear us), "silent", "never heard".
  public var condition: String
  public var localAddress: String
  /// Where the peer was heard, with its port; nil: never.
  public var peerAddress: String?
  public var lastHeardNs: UInt64?
  /// Beats that went out, and that the kernel did not take.
  public var sent: UInt64
  public var sendFailures: UInt64
  /// Counts over what the peer sent by unicast since its start.
  public var received: UInt64
  public var lost: UInt64
  public var duplicates: UInt64
  public var late: UInt64
  public var jitterNs: UInt64
  /// The longest time between two beats in the last one or two minutes.
  public var longestGapNs: UInt64
  /// From a beat of ours to the peer's first that answers it: the way there and back, and up to one beat more.
  public var answerNs: UInt64?
}

/// Datagrams that were dropped since the start, by reason. None changes anything.
public struct LinkDrops: Sendable, Equatable, Codable {
  /// No heartbeat at all, or of a version that is not known.
  public var foreign: UInt64 = 0
  /// Made without the pair's key: another cluster's, or an attacker's.
  public var notAuthentic: UInt64 = 0
  /// Authentic, and yet not to be understood.
  public var malformed: UInt64 = 0
  /// The key is right and the cluster is not.
  public var otherCluster: UInt64 = 0
  /// Our own.
  public var own: UInt64 = 0
  /// Of another program with this node's identity: a copied machine.
  public var sameNode: UInt64 = 0
  /// Authentic, but not of now: sent again, or of a boot that is over.
  public var stale: UInt64 = 0
  /// The key was not known yet.
  public var noKey: UInt64 = 0

  public init() {}
}

/// Everything of the links, for `gatewayd pair`.
public struct LinksReport: Sendable, Equatable, Codable {
  public var links: [LinkReport]
  public var drops: LinkDrops
  /// The thread has real-time priority; nil, or why not.
  public var priorityProblem: String?
  /// Sockets that could not be opened, and the like.
  public var problems: [String]
}

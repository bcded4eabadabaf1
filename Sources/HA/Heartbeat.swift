import Wire

/// What a node tells its peer at each beat, over every link. On the wire it is followed by an authenticator made with the
/// pair's key (`HeartbeatCodec`).
public struct Heartbeat: Equatable, Sendable {
  public var cluster: UUID
  public var node: UUID
  public var bootID: UInt64
  /// Grows by one with each beat of a boot; on all links the same number.
  public var sequence: UInt64
  public var role: Role
  public var epoch: Epoch
  public var name: String
  /// The last beat heard from the peer on the link that this goes out on; `heardBoot` 0: none for a while. So each side
  /// knows whether a link works both ways.
  public var heardBoot: UInt64
  public var heardSequence: UInt64
  /// Nanoseconds that the oldest command has been under way; 0: none is.
  public var oldestIO: UInt64
  public var flags: Flags
  /// Shared disks that the node can use: they answered it lately.
  public var disks: [DiskID]

  public struct Flags: OptionSet, Sendable {
    public var rawValue: UInt8
    public init(rawValue: UInt8) { self.rawValue = rawValue }
    /// The active hands over: it is shutting down, or its disks are gone. It has stopped serving.
    public static let released = Flags(rawValue: 1 << 0)
    /// Initiators may be able to reach it.
    public static let reachable = Flags(rawValue: 1 << 1)
    /// Its ports over RDMA are there: the peer needs it for its answer to REPORT TARGET PORT GROUPS.
    public static let hasRDMA = Flags(rawValue: 1 << 2)
    /// An operator holds automatic takeovers.
    public static let held = Flags(rawValue: 1 << 3)
    /// The passive asks the active to hand over (a planned switchover, asked for at the passive node).
    public static let asksForHandover = Flags(rawValue: 1 << 4)
    /// It has seen service (`Engine.hasSeenService`): so a node that was started since knows that no power was lost.
    public static let hasSeenService = Flags(rawValue: 1 << 5)
  }

  public init(
    cluster: UUID, node: UUID, bootID: UInt64, sequence: UInt64, role: Role, epoch: Epoch, name: String,
    heardBoot: UInt64 = 0, heardSequence: UInt64 = 0, oldestIO: UInt64 = 0, flags: Flags = [], disks: [DiskID] = []
  ) {
    self.cluster = cluster
    self.node = node
    self.bootID = bootID
    self.sequence = sequence
    self.role = role
    self.epoch = epoch
    self.name = name
    self.heardBoot = heardBoot
    self.heardSequence = heardSequence
    self.oldestIO = oldestIO
    self.flags = flags
    self.disks = disks
  }
}

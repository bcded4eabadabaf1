/// The rules of a site, and what only the composition can know.
public struct DiscoveryPolicy: Sendable {
  /// The smallest disk that is of use: the label area (8 MiB) and as much again.
  public var bytesMin: UInt64 = 16 << 20
  /// Whether disks with removable media (USB sticks) are exported.
  public var admitsRemovable = true
  /// Partitions whose PARTLABEL starts so make their disk the gateway's own.
  public var ownPartitionLabelPrefix = "gatewayd-"
  /// The vendor name in our own INQUIRY data: a disk that says it is one of our LUNs come back to us.
  public var ownVendor = "GATEWAYD"
  /// Whether a disk is one of our LUNs by its identity (its `wwid` is one of our designators).
  public var isOwnUnit: @Sendable (BlockDevice) -> Bool
  /// How many places between head and tail are read in search of data.
  public var sampleCount = 64
  /// How often and how long to wait for a node that devtmpfs has not made yet.
  public var openAttempts = 10
  public var openRetryMilliseconds: UInt32 = 20
  /// How many bytes of events wait for the monitor before some are lost and everything is enumerated anew.
  public var receiveBufferBytes: Int32 = 4 << 20

  public init(isOwnUnit: @escaping @Sendable (BlockDevice) -> Bool = { _ in false }) { self.isOwnUnit = isOwnUnit }
}

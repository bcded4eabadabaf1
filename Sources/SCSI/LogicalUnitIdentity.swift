/// Who a logical unit is. It travels with the disk, in its label; equal on both nodes of a pair.
public struct LogicalUnitIdentity: Equatable, Sendable {
  /// 16 bytes, unique to the disk; NAA and EUI designators derive from it.
  public var uuid: [UInt8]
  /// Unit serial number (VPD page 80h), printable ASCII.
  public var serial: String
  public var vendor: String
  public var product: String
  public var revision: String

  public init(uuid: [UInt8], serial: String, vendor: String, product: String, revision: String) {
    self.uuid = uuid
    self.serial = serial
    self.vendor = vendor
    self.product = product
    self.revision = revision
  }
}

/// What the disk behind a logical unit is and can.
public struct LogicalUnitTraits: Equatable, Sendable {
  /// Logical block length in bytes, 512 or 4096.
  public var blockBytes: UInt32
  /// LOGICAL BLOCKS PER PHYSICAL BLOCK EXPONENT.
  public var physicalExponent: UInt8 = 0
  /// LOWEST ALIGNED LOGICAL BLOCK ADDRESS.
  public var lowestAlignedBlock: UInt16 = 0
  public var isReadOnly = false
  public var isRemovable = false
  /// Whether blocks can be deallocated (LBPME).
  public var isThin = false
  /// Whether what was deallocated reads as zeroes (LBPRZ).
  public var readsZeroes = true
  /// Whether GET LBA STATUS can tell mapped from deallocated.
  public var tellsMapping = false
  /// Whether the disk has a volatile write cache (WCE).
  public var hasWriteCache = false
  public var isRotational = false
  /// OPTIMAL UNMAP GRANULARITY in logical blocks; 0: not told.
  public var unmapGranularity: UInt32 = 0
  /// The most that WRITE ATOMIC may write, in bytes: what is on the medium all or not at all after a loss of power; 0: nothing
  /// is known to be.
  public var atomicBytesMax: UInt32 = 0
  /// What the beginning and the length of such a write are multiples of, in bytes; 0: of a block.
  public var atomicUnitBytes: UInt32 = 0
  /// Whether reservations survive power loss (PTPL_C): the LUN has a label area.
  public var persistsReservations = false

  public init(blockBytes: UInt32) { self.blockBytes = blockBytes }
}

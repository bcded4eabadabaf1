/// What the device server asks of the medium: the downward half of the waist between SCSI and disks. The device
/// server has already checked range, reservation and write protection; the executor moves the data and reports how it
/// went.
public struct MediumOperation: Equatable, Sendable {
  public enum Kind: UInt8, Sendable {
    /// Blocks from the medium to the initiator.
    case read
    /// Blocks from the initiator to the medium.
    case write
    /// WRITE AND VERIFY: write, then read back; with `bytewise` compare with what was sent.
    case writeAndVerify
    /// VERIFY with BYTCHK 00b: read, nothing sent either way.
    case verify
    /// VERIFY with BYTCHK 01b: the initiator sends `blocks` blocks, compare (MISCOMPARE with the offset).
    case compare
    /// VERIFY with BYTCHK 11b: the initiator sends one block, compare it with each of `blocks` blocks.
    case compareRepeated
    /// COMPARE AND WRITE: the initiator sends 2 x `blocks` blocks; atomic over all connections.
    case compareAndWrite
    /// ORWRITE: the initiator sends `blocks` blocks, OR-ed into those of the medium; atomic over all connections.
    case orWrite
    /// WRITE ATOMIC: the initiator sends `blocks` blocks, written by one request that no other command sees half done.
    case writeAtomic
    /// WRITE SAME: the initiator sends one block, written `blocks` times; with `mayUnmap` a block of zeroes
    /// deallocates.
    case writeSame
    /// `blocks` blocks of zeroes, nothing sent (WRITE SAME with NDOB); with `mayUnmap` by deallocating.
    case writeZeroes
    /// PRE-FETCH: bring into the cache, best effort.
    case prefetch
    /// SYNCHRONIZE CACHE: what was written before is on stable storage after.
    case flush
    /// A piece of an EXTENDED COPY: read from this unit, or written to it.
    case copyIn
    case copyOut
    /// SANITIZE: all of the medium.
    case sanitize
    /// GET LBA STATUS: the extents from `lba` on; answered with `DeviceServer.lbaStatus`.
    case lbaStatus
  }

  public var kind: Kind
  /// The first logical block.
  public var lba: UInt64
  /// The number of logical blocks; never 0 for kinds that move data.
  public var blocks: UInt64
  /// FUA: on stable storage before GOOD.
  public var forceUnitAccess = false
  /// WRITE SAME's UNMAP (or ANCHOR) bit: zeroes may be made by deallocation.
  public var mayUnmap = false
  /// BYTCHK of WRITE AND VERIFY: compare what was read back.
  public var bytewise = false
  /// IMMED of PRE-FETCH and SYNCHRONIZE CACHE: GOOD as soon as it has begun.
  public var immediate = false
  /// Allocation length of a command that answers with data of its own (GET LBA STATUS), in bytes.
  public var allocationLength: UInt32 = 0

  @inlinable
  public init(
    _ kind: Kind, lba: UInt64, blocks: UInt64, forceUnitAccess: Bool = false, mayUnmap: Bool = false,
    bytewise: Bool = false, immediate: Bool = false, allocationLength: UInt32 = 0
  ) {
    self.kind = kind
    self.lba = lba
    self.blocks = blocks
    self.forceUnitAccess = forceUnitAccess
    self.mayUnmap = mayUnmap
    self.bytewise = bytewise
    self.immediate = immediate
    self.allocationLength = allocationLength
  }

  /// The blocks that the initiator sends for this operation (0 where it sends none).
  @inlinable
  public var dataOutBlocks: UInt64 {
    switch kind {
    case .write, .writeAndVerify, .compare, .orWrite, .writeAtomic: blocks
    case .compareRepeated, .writeSame: 1
    case .compareAndWrite: 2 * blocks
    case .read, .verify, .writeZeroes, .prefetch, .flush, .copyIn, .copyOut, .sanitize, .lbaStatus: 0
    }
  }

  /// Whether it changes the medium.
  @inlinable
  public var isWriting: Bool {
    switch kind {
    case .write, .writeAndVerify, .compareAndWrite, .orWrite, .writeAtomic, .writeSame, .writeZeroes, .copyOut,
      .sanitize:
      true
    case .read, .verify, .compare, .compareRepeated, .prefetch, .flush, .copyIn, .lbaStatus: false
    }
  }
}

/// A run of blocks: one UNMAP block descriptor, or one extent of GET LBA STATUS.
public struct Extent: Equatable, Sendable {
  public var lba: UInt64
  public var blocks: UInt64

  @inlinable
  public init(lba: UInt64, blocks: UInt64) {
    self.lba = lba
    self.blocks = blocks
  }
}

/// The ways a disk can fail: the upward half of the waist (with success, all that a disk ever answers).
public enum MediumFailure: Error, Equatable, Sendable {
  /// The medium gave an error at this block (EILSEQ, ENODATA, EREMOTEIO): MEDIUM ERROR with INFORMATION = lba.
  case medium(lba: UInt64)
  /// The medium, or this node's way to it (EIO, which says no more): MEDIUM ERROR, or where another node has the disk too,
  /// as `unreachable`.
  case device(lba: UInt64)
  /// The way to the disk failed (ENOLINK, ETIMEDOUT): ABORTED COMMAND, LOGICAL UNIT COMMUNICATION FAILURE.
  case unreachable
  /// The disk is gone (ENODEV, ENXIO, or removed by discovery).
  case gone
  /// The disk refuses writes (EROFS, EPERM).
  case writeProtected
  /// No space is left in a thin pool (ENOSPC): SPACE ALLOCATION FAILED WRITE PROTECT.
  case noSpace
  /// Anything else, incl. a deadline that passed: HARDWARE ERROR, INTERNAL TARGET FAILURE.
  case hardware
  /// A comparison differed at this byte offset of the data sent: MISCOMPARE with INFORMATION = offset.
  case miscompare(offset: UInt64)
}

/// What one command may ask for at most, in logical blocks: checked against every CDB and told in VPD page B0h
/// (SBC-4 §6.6.4).
struct BlockLimits: Equatable, Sendable {
  static let transferBytesMax: UInt32 = 16 << 20
  static let compareAndWriteBytesMax: UInt32 = 64 << 10
  static let unmapDescriptorsMax: UInt32 = 256
  /// An atomic write is one request to the disk, from one buffer.
  static let atomicBytesMax: UInt32 = 256 << 10

  /// MAXIMUM TRANSFER LENGTH.
  let transfer: UInt32
  /// OPTIMAL TRANSFER LENGTH: 1 MiB.
  let optimalTransfer: UInt32
  /// OPTIMAL TRANSFER LENGTH GRANULARITY: a physical block.
  let granularity: UInt16
  /// MAXIMUM COMPARE AND WRITE LENGTH.
  let compareAndWrite: UInt8
  /// MAXIMUM UNMAP LBA COUNT and MAXIMUM UNMAP BLOCK DESCRIPTOR COUNT; 0 without UNMAP.
  let unmap: UInt32
  let unmapDescriptors: UInt32
  /// MAXIMUM WRITE SAME LENGTH: what the 10-byte form can say, 32 MiB or 256 MiB; a bound on how long one command
  /// takes.
  let writeSame: UInt64
  /// MAXIMUM ATOMIC TRANSFER LENGTH; 0 without WRITE ATOMIC.
  let atomic: UInt32
  /// ATOMIC ALIGNMENT and ATOMIC TRANSFER LENGTH GRANULARITY; 0: any block.
  let atomicUnit: UInt32

  init(_ traits: LogicalUnitTraits) {
    transfer = Self.transferBytesMax / traits.blockBytes
    optimalTransfer = (1 << 20) / traits.blockBytes
    granularity = traits.physicalExponent < 16 ? 1 << UInt16(traits.physicalExponent) : 0
    compareAndWrite = UInt8(min(255, Self.compareAndWriteBytesMax / traits.blockBytes))
    unmap = traits.isThin ? 1 << 20 : 0
    unmapDescriptors = traits.isThin ? Self.unmapDescriptorsMax : 0
    writeSame = UInt64(UInt16.max)
    atomic = min(traits.atomicBytesMax, Self.atomicBytesMax) / traits.blockBytes
    atomicUnit = traits.atomicUnitBytes > traits.blockBytes ? traits.atomicUnitBytes / traits.blockBytes : 0
  }
}

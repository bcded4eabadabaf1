/// A command descriptor block of up to 16 bytes (SPC-5 §4.2), kept in two registers so that reading a field never
/// touches memory that a peer can size.
public struct CDB: Equatable, Sendable {
  /// Bytes 0 to 7, byte 0 in the most significant octet.
  public var high: UInt64
  /// Bytes 8 to 15.
  public var low: UInt64

  @inlinable
  public init(high: UInt64, low: UInt64) {
    self.high = high
    self.low = low
  }

  /// A CDB of the given bytes, the rest zero. Bytes past the sixteenth are ignored.
  public init(_ bytes: [UInt8]) {
    self.init(high: 0, low: 0)
    for (i, byte) in bytes.prefix(16).enumerated() {
      if i < 8 { high |= UInt64(byte) << (56 - 8 * i) } else { low |= UInt64(byte) << (120 - 8 * i) }
    }
  }

  /// Byte `i`, 0 to 15.
  @inlinable
  public subscript(i: Int) -> UInt8 {
    precondition(i >= 0 && i < 16)
    return UInt8(truncatingIfNeeded: i < 8 ? high >> (56 - 8 * i) : low >> (120 - 8 * i))
  }

  @inlinable
  public var opcode: UInt8 { UInt8(truncatingIfNeeded: high >> 56) }

  /// The service action of opcodes 7Fh-less commands: the low five bits of byte 1 (SPC-5 §4.2.2).
  @inlinable
  public var serviceAction: UInt8 { self[1] & 0x1F }

  /// The 16-bit big-endian field at byte `i`.
  @inlinable
  public func be16(_ i: Int) -> UInt16 { UInt16(self[i]) << 8 | UInt16(self[i + 1]) }

  /// The 24-bit big-endian field at byte `i`.
  @inlinable
  public func be24(_ i: Int) -> UInt32 { UInt32(self[i]) << 16 | UInt32(be16(i + 1)) }

  /// The 32-bit big-endian field at byte `i`.
  @inlinable
  public func be32(_ i: Int) -> UInt32 { UInt32(be16(i)) << 16 | UInt32(be16(i + 2)) }

  /// The 64-bit big-endian field at byte `i`.
  @inlinable
  public func be64(_ i: Int) -> UInt64 { UInt64(be32(i)) << 32 | UInt64(be32(i + 4)) }
}

import CChecksum

/// CRC32C (Castagnoli), the digest of RFC 7143 §13.1 and the checksum of every record in the label area.
public enum CRC32C {
  /// The CRC of `count` bytes at `bytes`, continued from `crc` (0 at the start).
  @inlinable
  public static func of(_ bytes: UnsafeRawPointer, count: Int, continuing crc: UInt32 = 0) -> UInt32 {
    checksum_crc32c(crc, bytes, count)
  }

  /// The CRC of `count` bytes that are copied from `bytes` to `place` in the same pass.
  @inlinable
  public static func copy(_ bytes: UnsafeRawPointer, to place: UnsafeMutableRawPointer, count: Int) -> UInt32 {
    checksum_crc32c_copy(0, place, bytes, count)
  }

  /// The CRC of the bytes of `bytes`.
  @inlinable
  public static func of(_ bytes: [UInt8], continuing crc: UInt32 = 0) -> UInt32 {
    bytes.withUnsafeBytes { checksum_crc32c(crc, $0.baseAddress, $0.count) }
  }
}

/// Big-endian ("network order") loads and stores. The `RawSpan` forms check every offset and trap on a bug of ours, so a
/// parser compares lengths before it reads; the pointer forms are for the few files that own the memory they point at.

extension RawSpan {
  /// The 16-bit big-endian value at byte offset `offset`.
  @inlinable
  public func be16(_ offset: Int) -> UInt16 {
    UInt16(bigEndian: unsafeLoadUnaligned(checked: offset, as: UInt16.self))
  }

  /// The 24-bit big-endian value at byte offset `offset`.
  @inlinable
  public func be24(_ offset: Int) -> UInt32 {
    UInt32(byte(offset)) << 16 | UInt32(be16(offset + 1))
  }

  /// The 32-bit big-endian value at byte offset `offset`.
  @inlinable
  public func be32(_ offset: Int) -> UInt32 {
    UInt32(bigEndian: unsafeLoadUnaligned(checked: offset, as: UInt32.self))
  }

  /// The 64-bit big-endian value at byte offset `offset`.
  @inlinable
  public func be64(_ offset: Int) -> UInt64 {
    UInt64(bigEndian: unsafeLoadUnaligned(checked: offset, as: UInt64.self))
  }

  /// The byte at `offset`.
  @inlinable
  public func byte(_ offset: Int) -> UInt8 {
    unsafeLoadUnaligned(checked: offset, as: UInt8.self)
  }

  /// The standard library's unaligned load, which checks its bounds in every build.
  @inlinable
  func unsafeLoadUnaligned<T: BitwiseCopyable>(checked offset: Int, as type: T.Type) -> T {
    precondition(offset >= 0 && byteCount - offset >= MemoryLayout<T>.size, "load past the end")
    return unsafeLoadUnaligned(fromUncheckedByteOffset: offset, as: type)
  }
}

extension UnsafeRawPointer {
  @inlinable
  public func be16(_ offset: Int) -> UInt16 {
    UInt16(bigEndian: loadUnaligned(fromByteOffset: offset, as: UInt16.self))
  }

  @inlinable
  public func be32(_ offset: Int) -> UInt32 {
    UInt32(bigEndian: loadUnaligned(fromByteOffset: offset, as: UInt32.self))
  }

  @inlinable
  public func be64(_ offset: Int) -> UInt64 {
    UInt64(bigEndian: loadUnaligned(fromByteOffset: offset, as: UInt64.self))
  }
}

extension UnsafeMutableRawPointer {
  @inlinable
  public func store(be32 value: UInt32, at offset: Int) {
    storeBytes(of: value.bigEndian, toByteOffset: offset, as: UInt32.self)
  }

  @inlinable
  public func store(be64 value: UInt64, at offset: Int) {
    storeBytes(of: value.bigEndian, toByteOffset: offset, as: UInt64.self)
  }
}

extension Array where Element == UInt8 {
  /// Appends `value` in big-endian order.
  @inlinable
  public mutating func append<T: FixedWidthInteger & UnsignedInteger>(be value: T) {
    var shift = T.bitWidth
    while shift > 0 {
      shift -= 8
      append(UInt8(truncatingIfNeeded: value >> T(shift)))
    }
  }

  /// Stores `value` in big-endian order at `offset`, which with the value's size must lie inside the array.
  @inlinable
  public mutating func store<T: FixedWidthInteger & UnsignedInteger>(be value: T, at offset: Int) {
    for i in 0..<T.bitWidth / 8 {
      self[offset + i] = UInt8(truncatingIfNeeded: value >> T(T.bitWidth - 8 - 8 * i))
    }
  }

  /// Appends `text` in UTF-8, cut or padded with `padding` to exactly `count` bytes.
  @inlinable
  public mutating func append(text: String, paddedTo count: Int, with padding: UInt8 = 0x20) {
    let bytes = Array(text.utf8.prefix(count))
    append(contentsOf: bytes)
    append(contentsOf: repeatElement(padding, count: count - bytes.count))
  }
}

/// Cuts a fuzzer's bytes into values. Past the end everything is zero and empty, so that every input means something.
struct Input {
  private let bytes: UnsafeRawBufferPointer
  private(set) var position = 0

  init(_ bytes: UnsafeRawBufferPointer) { self.bytes = bytes }

  var isAtEnd: Bool { position >= bytes.count }

  mutating func byte() -> UInt8 {
    guard position < bytes.count else { return 0 }
    defer { position += 1 }
    return bytes[position]
  }

  mutating func integer<T: FixedWidthInteger>(_: T.Type = T.self) -> T {
    var value: T = 0
    for _ in 0..<(T.bitWidth / 8) { value = T(truncatingIfNeeded: UInt64(truncatingIfNeeded: value) << 8) | T(byte()) }
    return value
  }

  /// The next `count` bytes, or what is left.
  mutating func bytes(_ count: Int) -> [UInt8] {
    let end = min(bytes.count, position + max(0, count))
    defer { position = end }
    return [UInt8](bytes[position..<end])
  }

  mutating func rest() -> [UInt8] { bytes(bytes.count) }
}

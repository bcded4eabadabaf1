/// Serial-number arithmetic over 32 bits (RFC 1982), as CmdSN, StatSN, DataSN and R2TSN use it (RFC 7143 §4.2.2.1).
public struct SerialNumber: Hashable, Sendable {
  public var value: UInt32

  @inlinable
  public init(_ value: UInt32) { self.value = value }

  /// Whether `self` comes before `other`. Of two values exactly 2^31 apart neither comes before the other (RFC 1982 §3.2).
  @inlinable
  public func isBefore(_ other: SerialNumber) -> Bool {
    let distance = other.value &- value
    return distance != 0 && distance < 0x8000_0000
  }

  /// Whether `self` lies in `first...last` in serial order; an empty range (`last` = `first` - 1) holds nothing.
  @inlinable
  public func isWithin(_ first: SerialNumber, _ last: SerialNumber) -> Bool {
    !isBefore(first) && !last.isBefore(self) && !last.isBefore(first)
  }

  @inlinable
  public static func + (number: SerialNumber, count: UInt32) -> SerialNumber {
    SerialNumber(number.value &+ count)
  }
}

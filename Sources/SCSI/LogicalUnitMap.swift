/// The logical units behind a target: an immutable snapshot that each shard adopts between batches.
public final class LogicalUnitMap: Sendable {
  /// LUNs below this are found by index; those above, of which a gateway has none in practice, by hash.
  private static let indexed = 1024

  private let low: [LogicalUnit?]
  private let high: [UInt16: LogicalUnit]
  /// The logical unit numbers, ascending.
  public let numbers: [UInt16]

  /// A map of these logical units; of two with the same number the later stays.
  public init(_ units: [LogicalUnit]) {
    let last = units.map { Int($0.number) }.filter { $0 < Self.indexed }.max() ?? -1
    var low = [LogicalUnit?](repeating: nil, count: last + 1)
    var high: [UInt16: LogicalUnit] = [:]
    for unit in units {
      if unit.number < Self.indexed { low[Int(unit.number)] = unit } else { high[unit.number] = unit }
    }
    self.low = low
    self.high = high
    numbers = Set(units.map(\.number)).sorted()
  }

  @inline(__always)
  public subscript(number: UInt16) -> LogicalUnit? {
    if Int(number) < low.count { return low[Int(number)] }
    return number < Self.indexed ? nil : high[number]
  }

  /// Whether it has the same logical units under the same numbers.
  public func hasSame(as other: LogicalUnitMap) -> Bool {
    self === other || numbers == other.numbers && numbers.allSatisfy { self[$0] === other[$0] }
  }

  /// The logical unit that an eight-byte LUN field addresses (SAM-5 §4.7): peripheral device addressing on bus 0, or
  /// flat space addressing; nil for any other form. The number need not belong to a logical unit.
  @inline(__always)
  public static func number(of lun: UInt64) -> UInt16? {
    guard lun & 0x0000_FFFF_FFFF_FFFF == 0 else { return nil }
    let first = UInt16(truncatingIfNeeded: lun >> 48)
    switch first >> 14 {
    case 0b00: return first < 0x100 ? first : nil
    case 0b01: return first & 0x3FFF
    default: return nil
    }
  }

  /// The eight bytes by which REPORT LUNS names a logical unit: the shortest form that fits (SAM-5 §4.7.7).
  public static func field(of number: UInt16) -> UInt64 {
    UInt64(number < 0x100 ? number : 0x4000 | number) << 48
  }
}

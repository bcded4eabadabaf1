import Testing
import Wire

@Suite("Serial numbers (RFC 1982, as RFC 7143 §4.2.2.1 uses them)")
struct SerialNumberTests {
  /// Distances at which something changes.
  private static let distances: [UInt32] = [
    1, 2, 3, 255, 65536, 0x7FFF_FFFE, 0x7FFF_FFFF,
  ]
  private static let origins: [UInt32] = [0, 1, 2, 0x7FFF_FFFF, 0x8000_0000, 0x8000_0001, 0xFFFF_FFFE, 0xFFFF_FFFF]

  @Test("A number comes before those up to 2^31 - 1 after it, also across the wrap (RFC 1982 §3.2)", arguments: origins)
  func before(origin: UInt32) {
    for distance in Self.distances {
      let here = SerialNumber(origin)
      let there = here + distance
      #expect(here.isBefore(there), "\(origin) + \(distance)")
      #expect(!there.isBefore(here), "\(origin) + \(distance)")
    }
  }

  @Test("No number comes before itself", arguments: origins)
  func itself(origin: UInt32) {
    #expect(!SerialNumber(origin).isBefore(SerialNumber(origin)))
  }

  @Test("Of two numbers 2^31 apart neither comes before the other (RFC 1982 §3.2, undefined)", arguments: origins)
  func opposite(origin: UInt32) {
    let here = SerialNumber(origin)
    let there = here + 0x8000_0000
    #expect(!here.isBefore(there))
    #expect(!there.isBefore(here))
  }

  @Test("Addition wraps at 2^32 (RFC 1982 §3.1)")
  func addition() {
    #expect(SerialNumber(0xFFFF_FFFF) + 1 == SerialNumber(0))
    #expect(SerialNumber(0xFFFF_FFF0) + 0x20 == SerialNumber(0x10))
  }

  @Test("A range holds its ends and what lies between, across the wrap too")
  func range() {
    let first = SerialNumber(0xFFFF_FFFE)
    let last = SerialNumber(1)
    for value: UInt32 in [0xFFFF_FFFE, 0xFFFF_FFFF, 0, 1] { #expect(SerialNumber(value).isWithin(first, last)) }
    for value: UInt32 in [0xFFFF_FFFD, 2, 0x8000_0000, 0x7FFF_FFFF] {
      #expect(!SerialNumber(value).isWithin(first, last), "\(value)")
    }
  }

  @Test("An empty range, its last one before its first, holds nothing", arguments: origins)
  func emptyRange(origin: UInt32) {
    let first = SerialNumber(origin)
    let last = SerialNumber(origin &- 1)
    for distance in [0, 1, 2, 0x7FFF_FFFF, 0x8000_0000, 0x8000_0001, 0xFFFF_FFFF] as [UInt32] {
      #expect(!(first + distance).isWithin(first, last), "\(origin) + \(distance)")
    }
  }

  @Test("In a range of n numbers lie exactly n, wherever it begins")
  func rangeCounts() {
    for origin in Self.origins {
      for count: UInt32 in [1, 2, 7, 128] {
        let first = SerialNumber(origin)
        let last = first + (count - 1)
        let inside = (UInt32(0)..<400).filter { SerialNumber(origin &- 200 &+ $0).isWithin(first, last) }
        #expect(inside == Array(200..<200 + count), "\(origin), \(count)")
      }
    }
  }
}

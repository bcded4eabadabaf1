import Storage
import TestSupport
import Testing
import Wire

@Suite("Records of the label area")
struct RecordTests {
  private static let disk = UUID(random: Array(0..<16))

  private static func record(_ sequence: UInt64, _ kind: LabelArea.Kind = .label, bytes: Int = 200) -> Record {
    Record(
      kind: kind, sequence: sequence, disk: disk,
      payload: (0..<bytes).map { UInt8(truncatingIfNeeded: UInt64($0) &* 31 &+ sequence) })
  }

  private static func newest(_ slots: [[UInt8]], _ kind: LabelArea.Kind = .label) -> Result<UInt64, RecordError> {
    do throws(RecordError) {
      return .success(try Record.newest(slots, kind: kind, disk: disk).record.sequence)
    } catch {
      return .failure(error)
    }
  }

  @Test("A record that is written reads as the same, whatever its length", arguments: LabelArea.Kind.allCases)
  func roundTrip(kind: LabelArea.Kind) throws {
    let most = Int(kind.slotBytes) - Record.headerBytes
    for count in [0, 1, 47, 4047, 4048, 4049, most - 1, most] where count <= most {
      let record = Self.record(7, kind, bytes: count)
      let bytes = record.encode()
      #expect(bytes.count % Int(LabelArea.alignment) == 0 && bytes.count <= Int(kind.slotBytes))
      #expect(try Record.decode(bytes, kind: kind) == record)
    }
  }

  @Test("The header lies where the layout says, and its checksum covers it with its own field as zero")
  func layout() {
    let record = Self.record(0x0102_0304_0506_0708, .reservations, bytes: 3)
    let bytes = record.encode()
    #expect(Array(bytes[0..<8]) == Array("GATEWAYD".utf8))
    #expect(Array(bytes[8..<16]) == [0, 1, 0, 2, 0, 0, 0, 3])
    #expect(Array(bytes[16..<24]) == [1, 2, 3, 4, 5, 6, 7, 8])
    #expect(Array(bytes[24..<40]) == Self.disk.bytes && Array(bytes[44..<48]) == [0, 0, 0, 0])
    var covered = Array(bytes[0..<51])
    covered.replaceSubrange(40..<44, with: [0, 0, 0, 0])
    #expect(CRC32C.of(covered) == bytes.span.bytes.be32(40))
    #expect(bytes[51...].allSatisfy { $0 == 0 })
  }

  @Test("A sequence number that no gateway gets to is damage: the next one would not be a number")
  func lastNumbers() {
    for number in [1 << 63, .max] as [UInt64] {
      #expect(throws: RecordError.damaged) { try Record.decode(Self.record(number).encode(), kind: .label) }
    }
    #expect((try? Record.decode(Self.record((1 << 63) - 1).encode(), kind: .label)) != nil)
  }

  @Test("Every torn write of one slot leaves the older record or gives the newer, at every byte")
  func torn() {
    for (older, newer) in [(4, 5), (5, 4)] as [(UInt64, UInt64)] {
      // What the slot held before: an older record still, zeroes, noise.
      let before = [
        Self.record(min(older, newer) - 1, bytes: 5000).encode(), [UInt8](repeating: 0, count: 8192),
        [UInt8](repeating: 0xC3, count: 8192),
      ]
      let other = Self.record(older).encode()
      let written = Self.record(newer, bytes: 5000).encode()
      for old in before {
        for count in 0...written.count {
          let slot = Array(written[..<count]) + old[count...]
          let found = Self.newest([other, slot])
          let isWhole = count >= Record.headerBytes + 5000
          let expected = isWhole ? max(older, newer) : older
          if found != .success(expected), !isWhole || found != .success(older) {
            Issue.record("\(count) bytes of \(newer) over \(older): \(found)")
            return
          }
        }
      }
    }
  }

  @Test("Every flipped bit of one slot leaves the older record or changes nothing")
  func flips() {
    let older = Self.record(8).encode()
    var newer = Self.record(9).encode()
    let covered = (Record.headerBytes + 200) * 8
    for bit in 0..<newer.count * 8 {
      newer[bit / 8] ^= 1 << UInt8(bit % 8)
      let found = Self.newest([older, newer])
      #expect(found == .success(bit < covered ? 8 : 9), "bit \(bit)")
      newer[bit / 8] ^= 1 << UInt8(bit % 8)
    }
  }

  @Test(
    "A record that is alone and has a flipped bit is never read, and never looks like a blank disk unless its magic went"
  )
  func flipsAlone() {
    var bytes = Self.record(9).encode()
    let blank = [UInt8](repeating: 0, count: bytes.count)
    for bit in 0..<(Record.headerBytes + 200) * 8 {
      bytes[bit / 8] ^= 1 << UInt8(bit % 8)
      guard case .failure(let error) = Self.newest([blank, bytes]) else {
        Issue.record("bit \(bit) went unnoticed")
        return
      }
      #expect((error == .absent) == (bit < 64), "bit \(bit): \(error)")
      bytes[bit / 8] ^= 1 << UInt8(bit % 8)
    }
  }

  @Test("The higher sequence number wins in either slot, and the next write goes to the other")
  func sequence() throws {
    let last: UInt64 = (1 << 63) - 1
    for (first, second) in [(1, 2), (2, 1), (9, 1_000_000), (last, 1), (last - 1, last)] as [(UInt64, UInt64)] {
      let slots = [Self.record(first).encode(), Self.record(second).encode()]
      let found = try Record.newest(slots, kind: .label, disk: Self.disk)
      #expect(found.record.sequence == max(first, second))
      #expect(found.nextSlot == (first > second ? 1 : 0))
    }
  }

  @Test("With one slot valid the next write goes to the other one")
  func oneSlot() throws {
    let blank = [UInt8](repeating: 0, count: 4096)
    #expect(try Record.newest([Self.record(1).encode(), blank], kind: .label).nextSlot == 1)
    #expect(try Record.newest([blank, Self.record(1).encode()], kind: .label).nextSlot == 0)
  }

  @Test("A record of another disk, or of another kind, is misplaced and not read")
  func misplaced() {
    let blank = [UInt8](repeating: 0, count: 4096)
    let other = Record(kind: .label, sequence: 99, disk: UUID(random: Array(50..<66)), payload: [1])
    #expect(Self.newest([other.encode(), blank]) == .failure(.misplaced))
    #expect(Self.newest([Self.record(1, .reservations).encode(), blank]) == .failure(.misplaced))
    #expect(Self.newest([other.encode(), Self.record(3).encode()]) == .success(3))
  }

  @Test("A version that is not known is told, however valid the rest")
  func unknownVersion() {
    var bytes = Self.record(1).encode()
    bytes.store(be: UInt16(2), at: 8)
    #expect(Self.newest([bytes, []]) == .failure(.unknownVersion(2)))
  }

  @Test("A whole record of a newer version beside one of ours is refused, in either slot; a torn one leaves ours")
  func newerBesideOurs() {
    let ours = Self.record(7).encode()
    for sequence: UInt64 in [1, 8] {
      var newer = Self.record(sequence).encode()
      newer.store(be: UInt16(2), at: 8)
      newer.store(be: UInt32(0), at: 40)
      newer.store(be: CRC32C.of(Array(newer[..<(Record.headerBytes + 200)])), at: 40)
      #expect(Self.newest([ours, newer]) == .failure(.unknownVersion(2)))
      #expect(Self.newest([newer, ours]) == .failure(.unknownVersion(2)))
      newer[100] ^= 1
      #expect(Self.newest([ours, newer]) == .success(7))
    }
  }

  @Test("A length that leaves the slot, or the bytes at hand, is damage, not a read beyond the end")
  func lengths() {
    for length: UInt32 in [201, 4049, 16384, 65536, 0x7FFF_FFFF, 0xFFFF_FFFF] {
      var bytes = Self.record(1).encode()
      bytes.store(be: length, at: 12)
      #expect(Self.newest([bytes, []]) == .failure(.damaged), "\(length)")
    }
    #expect(Self.newest([[], []]) == .failure(.absent))
    #expect(Self.newest([Array(Self.record(1).encode()[..<47]), []]) == .failure(.absent))
    #expect(Self.newest([Array(Self.record(1).encode()[..<247]), []]) == .failure(.damaged))
    #expect(Self.newest([Array(Self.record(1).encode()[..<248]), []]) == .success(1))
  }

  @Test("Any bytes are read without a trap, also with a checksum that holds")
  func anything() {
    var random = SplitMix(seed: 5)
    for _ in 0..<3000 {
      var bytes = (0..<Int(random.next() % 300)).map { _ in UInt8(truncatingIfNeeded: random.next()) }
      if bytes.count >= 48, random.next() % 4 != 0 {
        bytes.store(be: Record.magic, at: 0)
        if random.next() % 4 != 0 { bytes.store(be: Record.version, at: 8) }
        if random.next() % 2 == 0 { bytes.store(be: UInt32(random.next() % 300), at: 12) }
      }
      _ = Self.newest([bytes, Array(bytes.reversed())])
    }
  }
}

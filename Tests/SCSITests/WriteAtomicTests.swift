import Testing
import Wire

@testable import SCSI

@Suite("WRITE ATOMIC(16)")
struct WriteAtomicTests {
  private static func cdb(lba: UInt64, blocks: UInt16, boundary: UInt16 = 0, flags: UInt8 = 0) -> [UInt8] {
    var cdb: [UInt8] = [0x9C, flags]
    cdb.append(be: lba)
    cdb.append(be: boundary)
    cdb.append(be: blocks)
    return cdb + [0, 0]
  }

  private static func bench(most: UInt32 = 32 << 10, unit: UInt32 = 4096) throws -> Bench {
    try Bench(blocks: 1000) {
      $0.atomicBytesMax = most
      $0.atomicUnitBytes = unit
    }
  }

  @Test("One request of all blocks, with FUA as asked (SBC-4 §5.47)")
  func write() throws {
    let bench = try Self.bench()
    #expect(
      bench.send(Self.cdb(lba: 8, blocks: 64)).answer == .medium(MediumOperation(.writeAtomic, lba: 8, blocks: 64)))
    #expect(
      bench.send(Self.cdb(lba: 0, blocks: 8, flags: 0x18)).answer
        == .medium(MediumOperation(.writeAtomic, lba: 0, blocks: 8, forceUnitAccess: true)))
  }

  @Test("Beyond the maximum, the alignment or the granularity it is INVALID FIELD IN CDB at the field (SBC-4 §6.6.4)")
  func limits() throws {
    let bench = try Self.bench()
    #expect(bench.send(Self.cdb(lba: 0, blocks: 72)).sense == .invalidFieldInCDB(byte: 12))
    #expect(bench.send(Self.cdb(lba: 4, blocks: 8)).sense == .invalidFieldInCDB(byte: 2))
    #expect(bench.send(Self.cdb(lba: 0, blocks: 4)).sense == .invalidFieldInCDB(byte: 12))
    #expect(bench.send(Self.cdb(lba: 0, blocks: 8, boundary: 1)).sense == .invalidFieldInCDB(byte: 11, bit: 0))
    #expect(bench.send(Self.cdb(lba: 0, blocks: 8), dataOut: 512).sense == .invalidFieldInCDB(byte: 12))
  }

  @Test("No blocks are GOOD within the medium; an LBA beyond it is out of range whatever the alignment")
  func range() throws {
    let bench = try Self.bench()
    #expect(bench.send(Self.cdb(lba: 1000, blocks: 0)).answer == .good)
    #expect(bench.send(Self.cdb(lba: 1001, blocks: 0)).answer == .outOfRange)
    #expect(bench.send(Self.cdb(lba: 993, blocks: 8)).answer == .outOfRange)
    #expect(bench.send(Self.cdb(lba: .max - 7, blocks: 65535)).answer == .outOfRange)
  }

  @Test("VPD page B0h tells the limits; a disk that tells nothing has no such command (SBC-4 §6.6.4)")
  func pages() throws {
    let page = try Self.bench().send([0x12, 1, 0xB0, 0, 64, 0]).data
    #expect(Array(page[44..<64]) == [0, 0, 0, 64, 0, 0, 0, 8, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0])
    let none = try Self.bench(most: 0)
    #expect(none.send(Self.cdb(lba: 0, blocks: 8)).answer == .sense(.illegalRequest, 0x2000))
    #expect(none.send([0xA3, 0x0C, 1, 0x9C, 0, 0, 0, 0, 0, 64, 0, 0]).data == [0, 1, 0, 0])
    // A disk without units larger than a block aligns nothing.
    let fine = try Self.bench(most: 1 << 20, unit: 512)
    let open = fine.send([0x12, 1, 0xB0, 0, 64, 0]).data
    #expect(Array(open[44..<56]) == [0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    #expect(fine.send(Self.cdb(lba: 3, blocks: 5)).answer == .medium(MediumOperation(.writeAtomic, lba: 3, blocks: 5)))
  }

  @Test("A reservation and write protection keep it out like any write")
  func refusals() throws {
    let bench = try Self.bench()
    #expect(bench.send([0x16, 0, 0, 0, 0, 0], from: bench.b).answer == .good)
    #expect(bench.send(Self.cdb(lba: 0, blocks: 8)).answer == .conflict)
    let readOnly = try Bench {
      $0.atomicBytesMax = 4096
      $0.isReadOnly = true
    }
    #expect(readOnly.send(Self.cdb(lba: 0, blocks: 8)).answer == .sense(.dataProtect, 0x2700))
  }
}

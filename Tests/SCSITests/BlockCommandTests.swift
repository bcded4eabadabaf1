import Testing
import Wire

@testable import SCSI

@Suite("Commands that name a run of blocks")
struct BlockCommandTests {
  private static let blocks: UInt64 = 1000

  /// The four forms of READ and WRITE.
  private static func transfer(_ form: Int, write: Bool, lba: UInt64, blocks: UInt32, flags: UInt8 = 0) -> [UInt8] {
    var cdb: [UInt8]
    switch form {
    case 6:
      cdb = [write ? 0x0A : 0x08, UInt8(lba >> 16 & 0x1F), UInt8(lba >> 8 & 0xFF), UInt8(lba & 0xFF)]
      return cdb + [UInt8(truncatingIfNeeded: blocks), 0]
    case 10:
      cdb = [write ? 0x2A : 0x28, flags]
      cdb.append(be: UInt32(truncatingIfNeeded: lba))
      cdb.append(0)
      cdb.append(be: UInt16(truncatingIfNeeded: blocks))
      return cdb + [0]
    case 12:
      cdb = [write ? 0xAA : 0xA8, flags]
      cdb.append(be: UInt32(truncatingIfNeeded: lba))
      cdb.append(be: blocks)
      return cdb + [0, 0]
    default:
      cdb = [write ? 0x8A : 0x88, flags]
      cdb.append(be: lba)
      cdb.append(be: blocks)
      return cdb + [0, 0]
    }
  }

  @Test(
    "READ and WRITE of every length become the medium operation with their LBA and blocks", arguments: [6, 10, 12, 16])
  func transfers(_ form: Int) throws {
    let bench = try Bench(blocks: Self.blocks)
    for write in [false, true] {
      let answer = bench.send(Self.transfer(form, write: write, lba: 990, blocks: 10)).answer
      #expect(answer == .medium(MediumOperation(write ? .write : .read, lba: 990, blocks: 10)))
      #expect(bench.send(Self.transfer(form, write: write, lba: 991, blocks: 10)).answer == .outOfRange)
    }
  }

  @Test("A length of 0 in the 6-byte forms is 256 blocks (SBC-4 §5.16)")
  func sixBytes() throws {
    let answer = try Bench(blocks: Self.blocks).send([0x08, 0, 0, 1, 0, 0]).answer
    #expect(answer == .medium(MediumOperation(.read, lba: 1, blocks: 256)))
  }

  @Test("A transfer length of 0 is GOOD up to the end of the medium and out of range beyond", arguments: [10, 12, 16])
  func zeroBlocks(_ form: Int) throws {
    let bench = try Bench(blocks: Self.blocks)
    #expect(bench.send(Self.transfer(form, write: false, lba: 0, blocks: 0)).answer == .good)
    #expect(bench.send(Self.transfer(form, write: false, lba: 1000, blocks: 0)).answer == .good)
    #expect(bench.send(Self.transfer(form, write: false, lba: 1001, blocks: 0)).answer == .outOfRange)
    #expect(bench.send(Self.transfer(form, write: true, lba: 0xFFFF_FFFF, blocks: 0)).answer == .outOfRange)
  }

  @Test("An LBA near 2^64 does not wrap around", arguments: [UInt64(1) << 63, .max, .max - 1])
  func overflow(_ lba: UInt64) throws {
    let bench = try Bench(blocks: Self.blocks)
    for blocks: UInt32 in [0, 1, 2, 256, 0xFFFF_FFFF] {
      #expect(bench.send(Self.transfer(16, write: true, lba: lba, blocks: blocks)).answer == .outOfRange)
    }
  }

  @Test("More than MAXIMUM TRANSFER LENGTH is INVALID FIELD IN CDB at the length (SBC-4 §6.6.4)")
  func transferLimit() throws {
    let bench = try Bench()
    #expect(bench.send(Self.transfer(16, write: false, lba: 0, blocks: 32768)).answer != .invalidField)
    let sense = try #require(bench.send(Self.transfer(16, write: false, lba: 0, blocks: 32769)).sense)
    #expect(sense == .invalidFieldInCDB(byte: 10))
  }

  @Test("RDPROTECT and WRPROTECT are refused, because there is no protection information (SBC-4 §5.16)")
  func protect() throws {
    let bench = try Bench()
    for form in [10, 12, 16] {
      for value: UInt8 in 1...7 {
        let sense = bench.send(Self.transfer(form, write: true, lba: 0, blocks: 1, flags: value << 5)).sense
        #expect(sense?.code == 0x2400)
        #expect(sense?.field?.byte == 1)
      }
    }
  }

  @Test("FUA forces unit access, DPO changes nothing, FUA_NV is refused (SBC-4 §5.16)")
  func forceUnitAccess() throws {
    let bench = try Bench()
    let forced = MediumOperation(.read, lba: 1, blocks: 2, forceUnitAccess: true)
    #expect(bench.send(Self.transfer(10, write: false, lba: 1, blocks: 2, flags: 0x18)).answer == .medium(forced))
    let plain = MediumOperation(.read, lba: 1, blocks: 2)
    #expect(bench.send(Self.transfer(10, write: false, lba: 1, blocks: 2, flags: 0x10)).answer == .medium(plain))
    #expect(bench.send(Self.transfer(10, write: false, lba: 1, blocks: 2, flags: 0x02)).answer == .invalidField)
    // In READ(6) the same bits are LBA.
    #expect(
      bench.send([0x08, 0x08, 0, 0, 1, 0]).answer == .medium(MediumOperation(.read, lba: 0x08_0000, blocks: 1)))
  }

  @Test("BYTCHK chooses what VERIFY compares; 10b is reserved (SBC-4 §5.37)")
  func verify() throws {
    let bench = try Bench()
    let kinds: [(UInt8, MediumOperation.Kind)] = [(0b00, .verify), (0b01, .compare), (0b11, .compareRepeated)]
    for (check, kind) in kinds {
      let answer = bench.send([0x2F, check << 1, 0, 0, 0, 8, 0, 0, 4, 0]).answer
      #expect(answer == .medium(MediumOperation(kind, lba: 8, blocks: 4)))
    }
    #expect(bench.send([0x2F, 0b10 << 1, 0, 0, 0, 8, 0, 0, 4, 0]).answer == .invalidField)
  }

  @Test("WRITE AND VERIFY takes BYTCHK 00b and 01b (SBC-4 §5.50)")
  func writeAndVerify() throws {
    let bench = try Bench()
    let plain = MediumOperation(.writeAndVerify, lba: 8, blocks: 4, forceUnitAccess: true)
    #expect(bench.send([0x2E, 0x00, 0, 0, 0, 8, 0, 0, 4, 0]).answer == .medium(plain))
    let bytewise = MediumOperation(.writeAndVerify, lba: 8, blocks: 4, forceUnitAccess: true, bytewise: true)
    #expect(bench.send([0x2E, 0x02, 0, 0, 0, 8, 0, 0, 4, 0]).answer == .medium(bytewise))
    #expect(bench.send([0x2E, 0x04, 0, 0, 0, 8, 0, 0, 4, 0]).answer == .invalidField)
  }

  @Test("WRITE SAME keeps to WSNZ, the limit, and one block of data (SBC-4 §5.52)")
  func writeSame() throws {
    let bench = try Bench()
    #expect(
      bench.send([0x41, 0x08, 0, 0, 0, 4, 0, 0, 2, 0]).answer
        == .medium(MediumOperation(.writeSame, lba: 4, blocks: 2, mayUnmap: true)))
    #expect(bench.send([0x41, 0, 0, 0, 0, 4, 0, 0, 0, 0]).answer == .invalidField)
    #expect(bench.send([0x41, 0, 0, 0x20, 0, 0, 0, 0, 0, 0]).answer == .outOfRange)
    #expect(bench.send([0x41, 0x10, 0, 0, 0, 4, 0, 0, 2, 0]).answer == .invalidField)  // ANCHOR
    let sixteen: [UInt8] = [0x93, 0x01, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 2, 0, 0]
    #expect(bench.send(sixteen).answer == .medium(MediumOperation(.writeZeroes, lba: 4, blocks: 2)))  // NDOB
    let many: [UInt8] = [0x93, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0, 0]
    #expect(bench.send(many).answer == .invalidField)
    #expect(bench.send([0x41, 0, 0, 0, 0, 4, 0, 0, 2, 0], dataOut: 256).answer == .invalidField)
    #expect(bench.send([0x41, 0, 0, 0, 0, 4, 0, 0, 2, 0], dataOut: 512).answer != .invalidField)
    let thick = try Bench { $0.isThin = false }
    #expect(thick.send([0x41, 0x08, 0, 0, 0, 4, 0, 0, 2, 0]).answer == .invalidField)
  }

  @Test("COMPARE AND WRITE keeps to its limit and to twice as many blocks of data (SBC-4 §5.2)")
  func compareAndWrite() throws {
    let bench = try Bench()
    func cdb(_ blocks: UInt8) -> [UInt8] { [0x89, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, blocks, 0, 0] }
    #expect(bench.send(cdb(128)).answer == .medium(MediumOperation(.compareAndWrite, lba: 9, blocks: 128)))
    #expect(bench.send(cdb(129)).answer == .invalidField)
    #expect(bench.send(cdb(0)).answer == .good)
    #expect(bench.send(cdb(0), dataOut: 512).answer == .invalidField)
    #expect(bench.send(cdb(1), dataOut: 1024).answer != .invalidField)
    #expect(bench.send(cdb(1), dataOut: 512).answer == .invalidField)
  }

  @Test("PRE-FETCH and SYNCHRONIZE CACHE of 0 blocks go up to the end (SBC-4 §5.10, §5.34)")
  func toTheEnd() throws {
    let bench = try Bench(blocks: Self.blocks)
    #expect(
      bench.send([0x34, 0x02, 0, 0, 0, 100, 0, 0, 0, 0]).answer
        == .medium(MediumOperation(.prefetch, lba: 100, blocks: 900, immediate: true)))
    #expect(
      bench.send([0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0]).answer == .medium(MediumOperation(.flush, lba: 0, blocks: 1000)))
    #expect(bench.send([0x35, 0, 0, 0, 3, 0xE9, 0, 0, 0, 0]).answer == .outOfRange)
  }

  @Test("A read-only disk refuses every command that changes the medium, and tells WP (SBC-4 §4.12)")
  func writeProtected() throws {
    let bench = try Bench { $0.isReadOnly = true }
    #expect(bench.send([0x2A, 0, 0, 0, 0, 0, 0, 0, 1, 0]).answer == .sense(.dataProtect, 0x2700))
    #expect(bench.send([0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0]).answer == .sense(.dataProtect, 0x2700))
    #expect(bench.send([0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0]).answer != .sense(.dataProtect, 0x2700))
    #expect(bench.send([0x1A, 0, 0x3F, 0, 255, 0]).data[2] & 0x80 != 0)
  }

  @Test("A disk that is gone answers as if the logical unit did not exist")
  func gone() throws {
    let bench = try Bench()
    bench.unit.markGone()
    #expect(bench.send([0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0]).answer == .sense(.illegalRequest, 0x2500))
    #expect(bench.send([0x12, 0, 0, 0, 96, 0]).data.first == 0x3F)
  }
}

import Testing
import Wire

@testable import SCSI

@Suite("LOG SENSE")
struct LogTests {
  private func sense(
    _ bench: Bench, page: UInt8, subpage: UInt8 = 0, control: UInt8 = 1, pointer: UInt16 = 0, length: UInt16 = 512
  ) -> Disposition {
    var cdb: [UInt8] = [0x4D, 0, control << 6 | page, subpage, 0]
    cdb.append(be: pointer)
    cdb.append(be: length)
    return bench.send(cdb + [0])
  }

  private func page(_ bench: Bench, _ code: UInt8, pointer: UInt16 = 0, length: UInt16 = 512, _ facts: LogFacts)
    -> [UInt8]
  {
    guard case .log(let query, let unit) = sense(bench, page: code, pointer: pointer, length: length) else { return [] }
    return bench.server.logPage(query, unit, facts)
  }

  @Test("The supported pages are listed ascending, with subpages if asked (SPC-5 §7.3.19)")
  func lists() throws {
    let bench = try Bench()
    #expect(sense(bench, page: 0).data == [0, 0, 0, 4, 0x00, 0x0C, 0x19, 0x2F])
    #expect(
      sense(bench, page: 0, subpage: 0xFF).data
        == [0x40, 0xFF, 0, 16, 0, 0, 0, 0xFF, 0x0C, 0, 0x0C, 0xFF, 0x19, 0, 0x19, 0xFF, 0x2F, 0, 0x2F, 0xFF])
    #expect(sense(bench, page: 0x19, subpage: 0xFF).data == [0x59, 0xFF, 0, 4, 0x19, 0, 0x19, 0xFF])
    // Of a disk that is no file nobody can tell how much is used.
    #expect(sense(try Bench { $0.tellsMapping = false }, page: 0).data == [0, 0, 0, 3, 0x00, 0x19, 0x2F])
    #expect(sense(try Bench { $0.isThin = false }, page: 0).data == [0, 0, 0, 3, 0x00, 0x19, 0x2F])
  }

  @Test("General Statistics and Performance counts commands and logical blocks (SPC-5 §7.3.10)")
  func statistics() throws {
    let bench = try Bench()
    var facts = LogFacts()
    facts.readCommands = 3
    facts.writeCommands = 2
    facts.receivedBytes = 1024
    facts.transmittedBytes = 512
    let data = page(bench, 0x19, facts)
    #expect(data.count == 72)
    #expect(Array(data[..<8]) == [0x19, 0, 0, 68, 0, 1, 0x03, 64])
    #expect(data.span.bytes.be64(8) == 3)
    #expect(data.span.bytes.be64(16) == 2)
    #expect(data.span.bytes.be64(24) == 2)
    #expect(data.span.bytes.be64(32) == 1)
    #expect(page(bench, 0x19, length: 10, facts) == Array(data[..<10]))
  }

  @Test("Logical Block Provisioning counts in threshold sets, whose size VPD page B2h tells (SBC-4 §6.4.4)")
  func provisioning() throws {
    let bench = try Bench()
    #expect(bench.send([0x12, 1, 0xB2, 0, 8, 0]).data == [0, 0xB2, 0, 4, 11, 0xE4, 2, 0])
    var facts = LogFacts()
    facts.usedBytes = 5 << 20
    facts.availableBytes = 7 << 20 | 1
    #expect(
      page(bench, 0x0C, facts)
        == [0x0C, 0, 0, 24, 0, 1, 3, 8, 0, 0, 0, 7, 2, 0, 0, 0, 0, 2, 3, 8, 0, 0, 0, 5, 1, 0, 0, 0])
    #expect(page(bench, 0x0C, pointer: 2, facts) == [0x0C, 0, 0, 12, 0, 2, 3, 8, 0, 0, 0, 5, 1, 0, 0, 0])
  }

  @Test("Informational Exceptions: nothing to tell, no temperature (SPC-5 §7.3.11)")
  func exceptions() throws {
    #expect(sense(try Bench(), page: 0x2F).data == [0x2F, 0, 0, 8, 0, 0, 3, 4, 0, 0, 0xFF, 0])
  }

  @Test("Unknown pages and subpages, SP, other page controls and a pointer behind the last parameter are refused")
  func refusals() throws {
    let bench = try Bench()
    #expect(sense(bench, page: 0x0D).sense == .invalidFieldInCDB(byte: 2, bit: 5))
    #expect(sense(bench, page: 0x19, subpage: 1).sense == .invalidFieldInCDB(byte: 3))
    #expect(sense(bench, page: 0x19, control: 0).sense == .invalidFieldInCDB(byte: 2, bit: 7))
    #expect(sense(bench, page: 0x19, pointer: 2).sense == .invalidFieldInCDB(byte: 5))
    #expect(sense(bench, page: 0, pointer: 1).sense == .invalidFieldInCDB(byte: 5))
    #expect(bench.send([0x4D, 1, 0x59, 0, 0, 0, 0, 0, 8, 0]).sense == .invalidFieldInCDB(byte: 1, bit: 0))
    #expect(bench.send([0x4C, 0, 0, 0, 0, 0, 0, 0, 0, 0]).answer == .sense(.illegalRequest, 0x2000))
    // Where blocks cannot be deallocated there is no page of that.
    #expect(sense(try Bench { $0.isThin = false }, page: 0x0C).sense == .invalidFieldInCDB(byte: 2, bit: 5))
  }
}

import Testing
import Wire

@testable import SCSI

@Suite("Mode parameters")
struct ModeTests {
  private func sense(_ bench: Bench, page: UInt8, subpage: UInt8 = 0, control: UInt8 = 0, flags: UInt8 = 8) -> [UInt8] {
    bench.send([0x1A, flags, control << 6 | page, subpage, 255, 0]).data
  }

  private func select(_ bench: Bench, _ page: [UInt8], from nexus: Nexus? = nil) -> Answer {
    let list = [0, 0, 0, 0] + page
    return bench.send([0x15, 0x10, 0, 0, UInt8(list.count), 0], list, from: nexus).answer
  }

  @Test("MODE SENSE returns all pages ascending, each with its length (SPC-5 §6.14)")
  func all() throws {
    let bench = try Bench()
    for subpage: UInt8 in [0x00, 0xFF] {
      let data = sense(bench, page: 0x3F, subpage: subpage)
      #expect(Int(data[0]) == data.count - 1)
      #expect(data[2] == 0x10)
      var codes: [UInt8] = []
      var offset = 4
      while offset < data.count {
        codes.append(data[offset])
        offset += 2 + Int(data[offset + 1])
      }
      #expect(offset == data.count)
      #expect(codes == [0x01, 0x08, 0x0A, 0x1C])
    }
  }

  @Test("The block descriptor is short or, with LLBAA, long; DBD leaves it out (SBC-4 §6.5.2)")
  func blockDescriptor() throws {
    let bench = try Bench(blocks: 0x1_0000_0000)
    let short = sense(bench, page: 0x08, flags: 0)
    #expect(Array(short[3..<12]) == [8, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 2, 0])
    let long = bench.send([0x5A, 0x10, 0x08, 0, 0, 0, 0, 0, 255, 0]).data
    #expect(Array(long[4..<8]) == [1, 0, 0, 16])
    #expect(Array(long[8..<24]) == [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0])
    #expect(Int(long[0]) << 8 | Int(long[1]) == long.count - 2)
    #expect(sense(bench, page: 0x08)[3] == 0)
  }

  @Test("WCE is as the disk has it; changeable values are masks; saved values are not kept (SPC-5 §6.14)")
  func pageControl() throws {
    let bench = try Bench()
    #expect(sense(bench, page: 0x08)[6] == 0x04)
    #expect(sense(try Bench { $0.hasWriteCache = false }, page: 0x08)[6] == 0x00)
    #expect(sense(bench, page: 0x08, control: 1)[6] == 0x00)
    #expect(Array(sense(bench, page: 0x0A, control: 1)[4..<9]) == [0x0A, 0x0A, 0x04, 0, 0x08])
    #expect(bench.send([0x1A, 0, 0xC8, 0, 255, 0]).answer == .sense(.illegalRequest, 0x3900))
    #expect(bench.send([0x1A, 0, 0x02, 0, 255, 0]).answer == .invalidField)
    #expect(bench.send([0x1A, 0, 0x0A, 1, 255, 0]).answer == .invalidField)
  }

  @Test("D_SENSE makes sense data descriptors, and the other nexuses learn of it (SPC-5 §7.5.9)")
  func descriptorSense() throws {
    let bench = try Bench()
    #expect(!bench.server.usesDescriptorSense(lun: 0, map: bench.map))
    var page = Array(sense(bench, page: 0x0A)[4...])
    page[2] |= 0x04
    #expect(select(bench, page) == .good)
    #expect(bench.server.usesDescriptorSense(lun: 0, map: bench.map))
    #expect(sense(bench, page: 0x0A)[6] & 0x04 != 0)
    #expect(sense(bench, page: 0x0A, control: 2)[6] & 0x04 == 0)
    #expect(bench.b.take(lun: 0) == .modeParametersChanged)
    #expect(bench.a.take(lun: 0) == nil)
    bench.unit.reset()
    #expect(!bench.unit.usesDescriptorSense)
  }

  @Test("SWP protects from writing and sets WP until it is cleared (SBC-4 §4.12)")
  func softwareWriteProtect() throws {
    let bench = try Bench()
    var page = Array(sense(bench, page: 0x0A)[4...])
    page[4] |= 0x08
    #expect(select(bench, page) == .good)
    #expect(bench.send([0x2A, 0, 0, 0, 0, 0, 0, 0, 1, 0]).answer == .sense(.dataProtect, 0x2702))
    #expect(sense(bench, page: 0x0A)[2] & 0x80 != 0)
    page[4] = 0
    #expect(select(bench, page) == .good)
    #expect(
      bench.send([0x2A, 0, 0, 0, 0, 0, 0, 0, 1, 0]).answer == .medium(MediumOperation(.write, lba: 0, blocks: 1)))
  }

  @Test("MODE SELECT refuses other changes, unknown pages, SP, and lists that are cut off (SPC-5 §6.12)")
  func refusals() throws {
    let bench = try Bench()
    let caching = Array(sense(bench, page: 0x08)[4...])
    #expect(select(bench, caching) == .good)
    var changed = caching
    changed[2] ^= 0x04
    #expect(select(bench, changed) == .invalidParameter)
    #expect(select(bench, [0x02, 0x00]) == .invalidParameter)
    #expect(select(bench, [0x08, 0x10]) == .invalidParameter)
    #expect(select(bench, Array(caching.dropLast())) == .sense(.illegalRequest, 0x1A00))
    #expect(select(bench, [0x08]) == .sense(.illegalRequest, 0x1A00))
    #expect(bench.send([0x15, 0x11, 0, 0, 4, 0]).answer == .invalidField)
    #expect(bench.send([0x15, 0x10, 0, 0, 2, 0], [0, 0]).answer == .sense(.illegalRequest, 0x1A00))
    #expect(bench.send([0x15, 0x10, 0, 0, 0, 0]).answer == .good)
    let descriptor: [UInt8] = [0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 16, 0]
    #expect(bench.send([0x15, 0x10, 0, 0, 12, 0], descriptor).answer == .invalidParameter)
    let same: [UInt8] = [0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 2, 0]
    #expect(bench.send([0x15, 0x10, 0, 0, 12, 0], same).answer == .good)
  }
}
